"""Inspecting what may become the encoder, from its configuration and tokenizer files alone: no weights are fetched."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from glinerko.errors import DataError, GlinerkoError, LoadError, first_line
from glinerko.hub import fetch, read_config, read_licence
from glinerko.segmentation import MAX_SINGLE_SYLLABLE_SHARE, Segmentation, measure_segmentation
from glinerko.swap import check_compatibility
from glinerko.tokenization import load_encoder_tokenizer

_INSPECTED_FILES = ["*.json", "*.txt", "*.model", "README.md"]


class Kind(str, Enum):
    """What a repository holds."""

    ENCODER = "encoder"
    SENTENCE = "sentence-transformers model"
    GLINER_V1 = "GLiNER v1 model"
    GLINER2 = "GLiNER2 model"
    OTHER = "something else"


class Verdict(str, Enum):
    """Whether it can take the place of the base model's encoder."""

    SWAP = "swap, heads kept"
    NEW_HEADS = "swap with new heads only"
    COMPARE = "compare, do not swap"
    UNSUITABLE = "do not swap"
    SKIPPED = "not reached"


@dataclass
class Inspection:
    """What the files of a candidate say, and what follows from it."""

    name: str
    verdict: Verdict = Verdict.SKIPPED
    reason: str = ""
    kind: Kind | None = None
    config_class: str | None = None
    model_type: str | None = None
    hidden_size: int | None = None
    layers: int | None = None
    attention_heads: int | None = None
    positions: int | None = None
    parameters: int | None = None
    embedding_parameters: int | None = None
    embedding_rows: int | None = None
    tokens: int | None = None
    tokenizer: str | None = None
    licence: str | None = None
    segmentation: Segmentation | None = None
    domain: str | None = None
    """Of its pre-training text, as its publisher states it."""
    relative_time: float | None = None
    """Of a forward pass on this CPU, the base encoder's being 1."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_candidates(file: str | Path) -> list[dict[str, str]]:
    """The candidates of a YAML file: a list of ``{id, domain}``.

    Raises:
        DataError: with the file and the reason.
    """
    try:
        candidates = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)})") from error
    for number, candidate in enumerate(candidates if isinstance(candidates, list) else [None], 1):
        if not isinstance(candidate, dict) or not isinstance(candidate.get("id"), str):
            raise DataError(f"{file}, entry {number}: expected a list of {{id: ..., domain: ...}}")
    return candidates


def read_encoder_config(name_or_path: str | Path) -> PretrainedConfig:
    """The config of a GLiNER2's own encoder.

    Raises:
        LoadError: it is no GLiNER2, or cannot be reached.
    """
    directory = fetch(name_or_path, allow_patterns=["*.json"])
    kind = read_config(directory).get("model_type")
    if kind != "extractor":
        raise LoadError(f"{name_or_path}: not a GLiNER2 model (model_type {kind!r})")
    read_config(directory / "encoder_config")
    return AutoConfig.from_pretrained(directory / "encoder_config", trust_remote_code=False)


def inspect_encoder(
    name_or_path: str | Path,
    base: PretrainedConfig,
    texts: Sequence[str],
    terms: Sequence[str],
    domain: str | None = None,
) -> Inspection:
    """Judge a candidate for the place of the encoder with config ``base``.

    Args:
        texts: Korean texts to see how the tokenizer cuts them.
        terms: Korean terms, of which those cut worst are shown.
        domain: What the publisher states of the pre-training text.
    """
    found = Inspection(str(name_or_path), domain=domain)
    try:
        directory = fetch(name_or_path, allow_patterns=_INSPECTED_FILES)
    except LoadError as error:
        found.reason = str(error)
        return found
    try:
        found.kind, config = _read_kind(directory)
        found.licence = read_licence(directory)
        _describe(found, config)
        if found.kind in (Kind.ENCODER, Kind.SENTENCE):
            tokenizer = load_encoder_tokenizer(directory)
            found.tokens, found.tokenizer = len(tokenizer), type(tokenizer.backend_tokenizer.model).__name__
            found.segmentation = measure_segmentation(tokenizer, texts, terms)
        found.verdict, found.reason = _judge(found, config, base)
    except GlinerkoError as error:
        found.kind = found.kind or Kind.OTHER
        found.verdict, found.reason = Verdict.UNSUITABLE, str(error)
    return found


def _read_kind(directory: Path) -> tuple[Kind, PretrainedConfig | dict]:
    if not (directory / "config.json").is_file() and (directory / "gliner_config.json").is_file():
        return Kind.GLINER_V1, json.loads((directory / "gliner_config.json").read_text(encoding="utf-8"))
    raw = read_config(directory)
    if raw.get("model_type") == "extractor":
        return Kind.GLINER2, raw
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise LoadError(f"transformers knows no model of model_type {raw.get('model_type')!r}") from error
    if getattr(config, "is_encoder_decoder", False) or type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return Kind.OTHER, config
    return Kind.SENTENCE if (directory / "modules.json").is_file() else Kind.ENCODER, config


def _describe(found: Inspection, config: PretrainedConfig | dict) -> None:
    """Fill in what the config says; parameters are counted on the meta device."""
    if isinstance(config, dict):
        encoder = config.get("encoder_config") or {}
        found.hidden_size = encoder.get("hidden_size", config.get("hidden_size"))
        found.layers = encoder.get("num_hidden_layers")
        found.embedding_rows = encoder.get("vocab_size", config.get("vocab_size"))
        return
    found.config_class, found.model_type = type(config).__name__, config.model_type
    for name, key in (
        ("hidden_size", "hidden_size"),
        ("layers", "num_hidden_layers"),
        ("attention_heads", "num_attention_heads"),
        ("positions", "max_position_embeddings"),
        ("embedding_rows", "vocab_size"),
    ):
        setattr(found, name, getattr(config, key, None))
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    found.parameters = model.num_parameters()
    embeddings = getattr(model, "embeddings", model.get_input_embeddings())
    found.embedding_parameters = sum(parameter.numel() for parameter in embeddings.parameters())


def _judge(found: Inspection, config: PretrainedConfig | dict, base: PretrainedConfig) -> tuple[Verdict, str]:
    """The verdict and its reason in a sentence, from what was read and never from the name."""
    if found.kind is Kind.GLINER_V1:
        return Verdict.COMPARE, "a complete GLiNER v1 model, not an encoder: compare its scores instead"
    if found.kind is Kind.GLINER2:
        return Verdict.COMPARE, "a complete GLiNER2 model: compare it, or pass it as --base_model"
    if found.kind is Kind.OTHER:
        return Verdict.UNSUITABLE, f"not an encoder: {found.config_class} has no masked language model"
    if found.tokens > found.embedding_rows:
        return Verdict.UNSUITABLE, f"{found.tokens:,} tokens, but only {found.embedding_rows:,} embedding rows"
    if found.segmentation.single_syllable_share > MAX_SINGLE_SYLLABLE_SHARE:
        share = f"{found.segmentation.single_syllable_share:.0%}"
        return Verdict.UNSUITABLE, f"its tokenizer cuts Korean into syllables: {share} of the pieces are a single one"
    reasons = check_compatibility(base, config)
    verdict = Verdict.NEW_HEADS if reasons else Verdict.SWAP
    reasons = reasons or [f"{found.config_class} of width {found.hidden_size}, as the base model's encoder"]
    if found.kind is Kind.SENTENCE:
        reasons = ["a sentence model, whose token states can be used", *reasons]
    return verdict, "; ".join(reasons)


def measure_relative_time(inspections: Sequence[Inspection], base: PretrainedConfig, pieces: int = 32) -> None:
    """Time a forward pass of each candidate's architecture on this CPU, next to the base encoder's.

    No weights are loaded, since the time does not depend on them: all are zero.
    """

    def seconds(config: PretrainedConfig) -> float:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        model = model.to_empty(device="cpu").eval()
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.zero_()
        ids = torch.zeros(1, pieces, dtype=torch.long)
        times = []
        with torch.inference_mode():
            for _ in range(4):  # the first warms up
                begin = time.perf_counter()
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                times.append(time.perf_counter() - begin)
        return min(times)

    reference = seconds(base)
    for found in inspections:
        if found.parameters is not None and found.kind in (Kind.ENCODER, Kind.SENTENCE):
            config = AutoConfig.from_pretrained(fetch(found.name, allow_patterns=_INSPECTED_FILES))
            found.relative_time = seconds(config) / reference
