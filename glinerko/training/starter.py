"""The offline starter pair: a small base model and a small Korean encoder, for demos and tests without the Hub.

Both have exactly the file layouts of the real ones, traps included: the encoder has a WordPiece ``tokenizer.json``
that names the class ``DebertaV2Tokenizer``, its config has more rows than there are tokens, and the English
SentencePiece vocabulary of the base cuts Korean into syllables.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from gliner2.configuration import ExtractorConfig
from transformers import (
    DataCollatorForLanguageModeling,
    DebertaV2ForMaskedLM,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from glinerko.common import write_json
from glinerko.corpus.processor import KoreanSchemaTransformer
from glinerko.corpus.reading import label_schema
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.corpus.words import load_word_splitter
from glinerko.model.extractor import ARCHITECTURES
from glinerko.training.pretraining import encoder_config
from glinerko.training.texts import ASCII, SPECIAL_TOKENS, SYLLABLES, word_piece_tokenizer


@dataclass(frozen=True)
class StarterSize:
    """The size of both models, and the length of their pre-training in steps of 16 texts."""

    hidden_size: int = 128
    layers: int = 2
    encoder_steps: int = 600
    base_steps: int = 60
    tokens: int = 0
    """The least number of tokens of the encoder: as many as a published one has, for measurements of speed."""


HEADS = {
    "span": {"max_width": 8, "counting_layer": "count_lstm_v2"},
    "boundary": {"boundary_head": {"candidate_pool": "shared", "pool_size": 192, "pool_boundary_top_k": 32}},
}
"""What the configs of the published models say about their heads, by architecture."""
TINY = StarterSize(hidden_size=32, layers=1, encoder_steps=0, base_steps=0)


def build_starter_pair(
    rows: Dataset,
    directory: Path,
    size: StarterSize = StarterSize(),
    seed: int = 42,
    progress: Callable[[str, Iterator], Iterator] = lambda _, steps: steps,
    architecture: str = "span",
) -> tuple[Path, Path]:
    """Build both models from ``rows`` (see :func:`glinerko.corpus.reading.load_rows`) under ``directory``.

    Args:
        progress: Wraps the steps of a stage, given its name, to show progress.
        architecture: That of the base model, ``span`` or ``boundary``.

    Returns:
        The directories of the base model and of the Korean encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        descriptions = [entry["description"] for entries in rows["descriptions"] for entry in entries]
        encoder = _build_encoder([*rows["text"], *descriptions], directory / "korean-encoder", size, seed, progress)
        base = build_base(rows, directory / "base", size, seed, progress, architecture)
    return base, encoder


def _build_encoder(texts: list[str], directory: Path, size: StarterSize, seed: int, progress) -> Path:
    tokenizer = word_piece_tokenizer(texts, min_size=size.tokens)
    # As in the real one, about a hundred more rows than tokens.
    model = DebertaV2ForMaskedLM(encoder_config(size.hidden_size, size.layers, tokenizer.get_vocab_size() + 99))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)
    collator = DataCollatorForLanguageModeling(fast, seed=seed)

    def loss(batch: list[str]) -> torch.Tensor:
        encoded = [{"input_ids": fast(text, truncation=True, max_length=128)["input_ids"]} for text in batch]
        return model(**collator(encoded)).loss

    _fit(model, texts, loss, progress("Pre-training the encoder", range(size.encoder_steps)), seed)
    directory.mkdir(parents=True, exist_ok=True)
    _save(model, directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {**SPECIAL_TOKENS, "bos_token": "[CLS]", "eos_token": "[SEP]"}
    write_json(directory / "special_tokens_map.json", names)
    trap = {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, "model_max_length": 512}
    write_json(directory / "tokenizer_config.json", {**names, **trap})
    return directory


def build_base(
    rows: Dataset,
    directory: Path,
    size: StarterSize = StarterSize(),
    seed: int = 42,
    progress: Callable[[str, Iterator], Iterator] = lambda _, steps: steps,
    architecture: str = "span",
) -> Path:
    """Build only the base, whose English vocabulary cuts Korean into syllables; see :func:`build_starter_pair`."""
    # Each Hangul syllable is a word of its own here, so that no piece of the vocabulary contains two.
    apart = [re.sub(r"([가-힣])", r" \1 ", text) for text in rows["text"][:]]
    # Good enough as a Unigram vocabulary, and the same at every build, which a trained one is not.
    words = Counter(f"▁{word}" for text in apart for word in text.split())
    counts = Counter(dict.fromkeys([*SYLLABLES, *ASCII, "▁"], 1)) + Counter("".join(words.elements()))
    counts += Counter({word: count for word, count in words.items() if count >= 8})
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:6000]
    scores = ((piece, math.log(count / counts.total())) for piece, count in ranked)
    vocabulary = [*((token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")), *scores]
    tokenizer = DebertaV2Tokenizer(vocab=vocabulary, unk_id=3, split_by_punct=False)

    config = ExtractorConfig("starter/english-deberta", architecture, **HEADS[architecture])
    tokenizer.add_special_tokens({"additional_special_tokens": KoreanSchemaTransformer.SPECIAL_TOKENS})
    model = ARCHITECTURES[architecture](
        config, encoder_config=encoder_config(size.hidden_size, size.layers, len(tokenizer)), tokenizer=tokenizer
    )
    model.processor = KoreanSchemaTransformer(tokenizer, load_word_splitter("whitespace"), architecture=architecture)
    schema = label_schema(rows).entities_only()
    if size.base_steps:
        windows = [window_from_row(row) for row in training_windows(model.align(rows, schema), schema)]

        def loss(batch: list) -> torch.Tensor:
            outputs = model(model.processor.collate(batch, schema))
            return model.summed_losses(outputs, len(batch))[0] / len(batch)

        _fit(model, windows, loss, progress("Pre-training the base model", range(size.base_steps)), seed)
    directory.mkdir(parents=True, exist_ok=True)
    _save(model, directory)
    return directory


def _save(model: torch.nn.Module, directory: Path) -> None:
    """Save without a progress bar for each file."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.eval().save_pretrained(str(directory))
    if shown:
        logging.enable_progress_bar()


def _fit(model: torch.nn.Module, items: list, loss: Callable, steps: Iterator, seed: int) -> None:
    """Plain AdamW over batches of 16 items in seeded order."""
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    model.train()
    for _ in steps:
        optimizer.zero_grad()
        loss(draw.sample(items, min(16, len(items)))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
