"""Pre-training an encoder: its config, tokenizer, masked language model, batches and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    DataCollatorForLanguageModeling,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    PreTrainedTokenizerFast,
)

from glinerko.common import LoadError, first_line
from glinerko.corpus.tokens import load_encoder_tokenizer, restore_tokenizer_class
from glinerko.hub import fetch, load_config, read_config
from glinerko.model.extractor import load_extractor

SPECIAL_TOKENS = {
    "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
# The 2,350 syllables of KS X 1001. A Korean vocabulary contains each of them, at the start of a word and inside one.
SYLLABLES = [bytes([lead, trail]).decode("euc-kr") for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF)]
ASCII = [chr(code) for code in range(33, 127)]


def encoder_config(hidden_size: int, layers: int, vocab_size: int, attention_dropout: float = 0.1) -> DebertaV2Config:
    """The settings of the DeBERTa-v3 family, at this size."""
    return DebertaV2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32 if hidden_size < 128 or hidden_size % 64 else hidden_size // 64,
        intermediate_size=hidden_size * 4,
        attention_probs_dropout_prob=attention_dropout,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        max_position_embeddings=512,
        max_relative_positions=-1,
        type_vocab_size=0,
        pad_token_id=0,
    )


def word_piece_tokenizer(
    texts: Sequence[str], common_pieces: int = 6000, min_count: int = 8, min_size: int = 0
) -> Tokenizer:
    """A WordPiece tokenizer of the most frequent beginnings and ends of words, and of single characters.

    Rare names are cut into characters, so that names never seen look like names that were. The trainers of the
    tokenizers library break ties at random; this gives the same vocabulary at every build.

    Args:
        common_pieces: The greatest number of pieces with more than one character.
        min_count: The number of times that such a piece must occur.
        min_size: The least number of tokens; unused ones are added.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    counts = Counter()
    for word, count in words.items():
        for cut in range(1, len(word)):
            counts[word[:cut]] += count
            counts[f"##{word[cut:]}"] += count
        counts[word] += count
    common = sorted((p for p, count in counts.items() if count >= min_count), key=lambda p: (-counts[p], p))
    seen = sorted({character for word in words for character in word})
    characters = list(dict.fromkeys([*SYLLABLES, *ASCII, *seen]))
    pieces = [*SPECIAL_TOKENS.values(), *common[:common_pieces], *characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    vocabulary |= {f"[unused{index}]": index for index in range(len(vocabulary), min_size)}
    tokenizer.model = models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


class MaskedLanguageModel(torch.nn.Module):
    """A DeBERTa-v2 whose language model head runs on the masked pieces only."""

    def __init__(self, model: DebertaV2ForMaskedLM):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All arguments are ``[texts, pieces]``; ``labels`` are -100 for pieces that are not masked.

        Returns:
            The sum of the cross-entropies in nats, the number of masked pieces predicted right, and of all masked ones.
        """
        states = self.model.deberta(input_ids, attention_mask=attention_mask).last_hidden_state
        masked = labels != -100
        if self.model.legacy:
            logits = self.model.cls(states[masked])
        else:
            logits = self.model.lm_predictions(states[masked], self.model.deberta.embeddings.word_embeddings)
        wanted = labels[masked]
        return (
            F.cross_entropy(logits.float(), wanted, reduction="sum"),
            (logits.argmax(-1) == wanted).sum(),
            masked.sum(),
        )


@dataclass
class WholeWordCollator:
    """Makes batches of :func:`cut_texts` with whole words masked, chosen by seed, epoch and rows only."""

    tokenizer: PreTrainedTokenizerFast
    mlm_probability: float = 0.15
    seed: int = 42
    epoch: int = 0

    def __post_init__(self):
        self._mask = DataCollatorForLanguageModeling(
            self.tokenizer,
            whole_word_mask=True,
            mlm_probability=self.mlm_probability,
            mask_replace_prob=1.0,
            random_replace_prob=0.0,  # the library supports no random replacement of whole words
        )

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, each ``[texts, pieces]``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, self.epoch, *(row["row"] for row in rows))) % 2**63)
            longest = max(len(row["input_ids"]) for row in rows)
            padded = [
                {
                    **{name: row[name] for name in ("input_ids", "attention_mask", "special_tokens_mask")},
                    "offset_mapping": [*row["offset_mapping"], *[[0, 0]] * (longest - len(row["input_ids"]))],
                }
                for row in rows
            ]
            return dict(self._mask(padded))


def cut_texts(texts: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Dataset:
    """Tokenize the column ``text`` into rows of at most ``max_length`` pieces, ``[CLS]`` and ``[SEP]`` included."""

    def cut(batch: dict[str, list]) -> dict[str, list]:
        encoded = tokenizer(
            batch["text"],
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        names = ("input_ids", "attention_mask", "special_tokens_mask", "offset_mapping")
        return {**{name: encoded[name] for name in names}, "length": [len(ids) for ids in encoded["input_ids"]]}

    rows = texts.map(cut, batched=True, remove_columns=texts.column_names, desc="Tokenizing")
    return rows.add_column("row", range(len(rows)))


def load_masked_language_model(name_or_path: str) -> tuple[DebertaV2ForMaskedLM, PreTrainedTokenizerFast, bool]:
    """A DeBERTa-v2, or the one in a GLiNER2; its tokenizer; and whether its language model head is new.

    Raises:
        LoadError: It is no DeBERTa-v2, or cannot be loaded.
    """
    directory = fetch(name_or_path)
    kind = read_config(directory).get("model_type")
    extractor = load_extractor(directory) if kind == "extractor" else None
    if extractor:
        kind = extractor.encoder.config.model_type
    if kind != "deberta-v2":
        raise LoadError(f"{name_or_path}: model_type {kind!r}; only a DeBERTa-v2 can be trained further here")
    if extractor:
        model, missing = DebertaV2ForMaskedLM(extractor.encoder.config), True
        model.deberta.load_state_dict(extractor.encoder.state_dict())
        tokenizer = extractor.processor.tokenizer
    else:
        model, missing = _load_weights(directory, name_or_path)
        tokenizer = load_encoder_tokenizer(directory)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": SPECIAL_TOKENS["mask_token"]})
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer, missing


def _load_weights(directory: Path, name: str) -> tuple[DebertaV2ForMaskedLM, bool]:
    config = load_config(directory)
    try:
        model, info = DebertaV2ForMaskedLM.from_pretrained(
            directory, config=config, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # damaged files raise whatever their reader raises
        raise LoadError(f"{name}: the weights cannot be loaded: {first_line(error)}") from error
    missing = [key for key in info["missing_keys"] if key.startswith("deberta.")]
    if missing:
        raise LoadError(f"{name}: {len(missing)} weights are missing, for example {min(missing)}")
    return model, bool(info["missing_keys"])


def save_encoder(model: DebertaV2ForMaskedLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write config, weights and tokenizer in the layout of a published encoder, for transformers 4 and 5."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    restore_tokenizer_class(directory)
