"""The offline starter pair: a small GLiNER2 and a small Korean encoder, for demos and tests without a Hub.

Both are built in exactly the layouts of the real ones, traps included: the encoder ships a WordPiece
``tokenizer.json`` that calls itself a ``DebertaV2Tokenizer``, its config has more rows than there are tokens, and the
base's English SentencePiece vocabulary cuts Korean into syllables.
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

from glinerko.data import label_schema
from glinerko.files import write_json
from glinerko.modeling import KoreanSchemaTransformer, KoreanSpanExtractor
from glinerko.pretraining import ASCII, SPECIAL_TOKENS, SYLLABLES, encoder_config, word_piece_tokenizer
from glinerko.targets import annotate, training_windows, window_from_row
from glinerko.words import load_word_splitter


@dataclass(frozen=True)
class StarterSize:
    """How large the pair is, and how long each half is pre-trained, in steps of 16 texts."""

    hidden_size: int = 128
    layers: int = 2
    encoder_steps: int = 600
    base_steps: int = 60


TINY = StarterSize(hidden_size=32, layers=1, encoder_steps=0, base_steps=0)


def build_starter_pair(
    rows: Dataset,
    directory: Path,
    size: StarterSize = StarterSize(),
    seed: int = 42,
    progress: Callable[[str, Iterator], Iterator] = lambda _, steps: steps,
) -> tuple[Path, Path]:
    """Build both models from ``rows`` (see :func:`glinerko.data.load_rows`) under ``directory``.

    Args:
        progress: Wraps the steps of a stage, given its name, to show how far it is.

    Returns:
        The directories of the base model and of the Korean encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        descriptions = [entry["description"] for entries in rows["descriptions"] for entry in entries]
        encoder = _build_encoder([*rows["text"], *descriptions], directory / "korean-encoder", size, seed, progress)
        base = build_base(rows, directory / "base", size, seed, progress)
    return base, encoder


def _build_encoder(texts: list[str], directory: Path, size: StarterSize, seed: int, progress) -> Path:
    tokenizer = word_piece_tokenizer(texts)
    # As in the real one, about a hundred rows more than there are tokens.
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
) -> Path:
    """The GLiNER2 alone, with an English vocabulary that cuts Korean into syllables; see :func:`build_starter_pair`."""
    # Hangul syllables stand alone in what the vocabulary is trained on, so that no piece holds two of them.
    apart = [re.sub(r"([가-힣])", r" \1 ", text) for text in rows["text"][:]]
    # As good as a trained Unigram vocabulary for this, and the same at every build.
    words = Counter(f"▁{word}" for text in apart for word in text.split())
    counts = Counter(dict.fromkeys([*SYLLABLES, *ASCII, "▁"], 1)) + Counter("".join(words.elements()))
    counts += Counter({word: count for word, count in words.items() if count >= 8})
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:6000]
    scores = ((piece, math.log(count / counts.total())) for piece, count in ranked)
    vocabulary = [*((token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")), *scores]
    tokenizer = DebertaV2Tokenizer(vocab=vocabulary, unk_id=3, split_by_punct=False)

    config = ExtractorConfig(model_name="starter/english-deberta", max_width=8, counting_layer="count_lstm_v2")
    tokenizer.add_special_tokens({"additional_special_tokens": KoreanSchemaTransformer.SPECIAL_TOKENS})
    model = KoreanSpanExtractor(
        config, encoder_config=encoder_config(size.hidden_size, size.layers, len(tokenizer)), tokenizer=tokenizer
    )
    model.processor = KoreanSchemaTransformer(tokenizer, load_word_splitter("whitespace"))
    schema = label_schema(rows)
    if size.base_steps:
        annotated = annotate(rows, model.processor, schema, max_width=8, max_length=512, window_overlap=64)
        windows = [window_from_row(row) for row in training_windows(annotated, schema)]

        def loss(batch: list) -> torch.Tensor:
            return model(model.processor.collate(batch, schema))["total_loss"] / len(batch)

        _fit(model, windows, loss, progress("Pre-training the base model", range(size.base_steps)), seed)
    directory.mkdir(parents=True, exist_ok=True)
    _save(model, directory)
    return directory


def _save(model: torch.nn.Module, directory: Path) -> None:
    """Save without a bar of its own for each file."""
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
