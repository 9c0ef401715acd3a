"""How far a new encoder agrees with the one that the heads were trained on: its tokenizer, its states of each word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from glinerko.model.extractor import KoreanExtractor

MAX_TEXTS = 16
"""The number of texts whose words are compared."""
MAX_WORDS = 32
"""The number of words of each text that are compared."""


def describe_agreement(model: KoreanExtractor, base: KoreanExtractor, texts: Sequence[str]) -> str:
    """In a clause, how much of what ``base`` has learned can stay true in ``model``, which has its heads.

    Both encoders have the same width.
    """
    same = same_tokenizer(model.processor.tokenizer, base.processor.tokenizer, texts)
    tokenizer = "same tokenizer as the base's" if same else "another tokenizer than the base's"
    share, words = agreement_of_states(model, base, texts)
    if share is None:
        return f"{tokenizer}; too few words to compare states"
    states = f"with the base encoder's: R² {share:.2f} on {words} words"
    if share > 0:
        return f"{tokenizer}; states agree {states}"
    return f"{tokenizer}; states do not agree {states}; kept heads are a start, not knowledge"


def same_tokenizer(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, texts: Sequence[str]) -> bool:
    """Whether both have one vocabulary, whatever tokens were added to it later, and cut ``texts`` in the same way."""
    vocabularies = [each.backend_tokenizer.get_vocab(with_added_tokens=False) for each in (ours, theirs)]
    return vocabularies[0] == vocabularies[1] and all(ours.tokenize(text) == theirs.tokenize(text) for text in texts)


def agreement_of_states(
    model: KoreanExtractor, base: KoreanExtractor, texts: Sequence[str]
) -> tuple[float | None, int]:
    """R² of the states of ``model``'s encoder as a prediction of ``base``'s, and the number of words compared.

    Words are those between white space, so that tokenizers may differ. R² is 1 if all states are the same, and 0 if
    they are as far from the base's as the base's own mean is. It is ``None`` for fewer than two words.
    """
    states = [_states_of_words(extractor, texts) for extractor in (model, base)]
    words = sorted(states[0].keys() & states[1].keys())
    if len(words) < 2:
        return None, len(words)
    ours, theirs = (torch.stack([each[word] for word in words]) for each in states)
    error, spread = (ours - theirs).square().sum(), (theirs - theirs.mean(0)).square().sum()
    return 1 - (error / spread).item(), len(words)


@torch.inference_mode()
def _states_of_words(extractor: KoreanExtractor, texts: Sequence[str]) -> dict[tuple[int, int], torch.Tensor]:
    """The mean state ``[width]`` of the pieces of each word, by the position of its text and its own in the text."""
    states = {}
    for index, text in enumerate(texts[:MAX_TEXTS]):
        words = text.split()[:MAX_WORDS]
        batch = extractor.processor.tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=128, return_tensors="pt"
        )
        output = extractor.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        owners = batch.word_ids()
        for word in set(owners) - {None}:
            pieces = [piece for piece, owner in enumerate(owners) if owner == word]
            states[index, word] = output.last_hidden_state[0, pieces].mean(0)
    return states
