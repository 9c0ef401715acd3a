"""What the files of a candidate encoder say: facts from its config and tokenizer, without its weights."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from glinerko.common import LoadError, read_yaml
from glinerko.corpus.report import Segmentation, measure_segmentation
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.hub import fetch, is_gliner_v1, load_config, read_config, read_licence, require_gliner2

INSPECTED_FILES = ["*.json", "*.txt", "*.model", "README.md"]
"""The files of a repository that are read: everything but the weights."""


class Kind(StrEnum):
    """What a repository holds."""

    ENCODER = "encoder"
    SENTENCE = "sentence-transformers model"
    GLINER_V1 = "GLiNER v1 model"
    GLINER2 = "GLiNER2 model"
    OTHER = "something else"


class Verdict(StrEnum):
    """Whether a candidate can replace the base model's encoder."""

    SWAP = "swap, heads kept"
    NEW_HEADS = "swap with new heads only"
    COMPARE = "compare, do not swap"
    UNSUITABLE = "do not swap"
    SKIPPED = "not reached"


@dataclass
class EncoderFiles:
    """The directory of a candidate, and what of an encoder could be loaded from it."""

    directory: Path
    config: PretrainedConfig | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    error: str = ""
    """Why one of them could not be loaded."""


@dataclass
class Inspection:
    """What the files of a candidate say, and the verdict of :func:`glinerko.verification.checks.judge_candidate`."""

    name: str
    verdict: Verdict = Verdict.SKIPPED
    reason: str = ""
    """Of the verdict."""
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
    """The domain of its pre-training text, as its publisher states it."""
    relative_time: float | None = None
    """The time of a forward pass on this CPU; that of the base encoder is 1."""
    files: EncoderFiles | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but ``files``, for a report."""
        return {name: value for name, value in asdict(replace(self, files=None)).items() if name != "files"}


def read_candidates(file: str | Path) -> list[tuple[str, str | None]]:
    """The id and the stated domain of each candidate in a YAML file.

    Raises:
        DataError: With the file and the reason.
    """
    form = "a list of {id: ..., domain: ...}"
    return read_yaml(file, form, lambda content: [(str(entry["id"]), entry.get("domain")) for entry in content])


def read_encoder_config(base_model: str | Path) -> PretrainedConfig:
    """The config of a GLiNER2 model's own encoder.

    Raises:
        LoadError: It is no GLiNER2 model, or cannot be reached.
    """
    directory = fetch(base_model, allow_patterns=["*.json"])
    require_gliner2(directory, base_model)
    return load_config(directory / "encoder_config")


def inspect_encoder(directory: Path, texts: Sequence[str], terms: Sequence[str]) -> Inspection:
    """Read the files of a candidate.

    Args:
        texts: Korean texts for its tokenizer to cut.
        terms: Korean terms; those that are cut worst are shown.
    """
    files = EncoderFiles(directory)
    encoder = Inspection(str(directory), licence=read_licence(directory), files=files)
    try:
        encoder.kind, config = _read_kind(directory)
        _describe(encoder, config)
        if encoder.kind in (Kind.ENCODER, Kind.SENTENCE):
            files.config = config
            files.tokenizer = load_encoder_tokenizer(directory)
            encoder.tokens = len(files.tokenizer)
            encoder.tokenizer = type(files.tokenizer.backend_tokenizer.model).__name__
            encoder.segmentation = measure_segmentation(files.tokenizer, texts, terms)
    except LoadError as error:
        encoder.kind, files.error = encoder.kind or Kind.OTHER, str(error)
    return encoder


def _read_kind(directory: Path) -> tuple[Kind, PretrainedConfig | dict[str, Any]]:
    if is_gliner_v1(directory):
        return Kind.GLINER_V1, read_config(directory, "gliner_config.json")
    raw = read_config(directory)
    if raw.get("model_type") == "extractor":
        return Kind.GLINER2, {**raw, "encoder_config": read_config(directory / "encoder_config")}
    config = load_config(directory)
    if getattr(config, "is_encoder_decoder", False) or type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return Kind.OTHER, config
    return Kind.SENTENCE if (directory / "modules.json").is_file() else Kind.ENCODER, config


def _describe(encoder: Inspection, config: PretrainedConfig | dict[str, Any]) -> None:
    """Fill in what the config says."""
    if isinstance(config, dict):
        own = config.get("encoder_config")
        own = own if isinstance(own, dict) else {}
        encoder.hidden_size = own.get("hidden_size", config.get("hidden_size"))
        encoder.layers = own.get("num_hidden_layers")
        encoder.embedding_rows = own.get("vocab_size", config.get("vocab_size"))
        return
    encoder.config_class, encoder.model_type = type(config).__name__, config.model_type
    for name, key in (
        ("hidden_size", "hidden_size"),
        ("layers", "num_hidden_layers"),
        ("attention_heads", "num_attention_heads"),
        ("positions", "max_position_embeddings"),
        ("embedding_rows", "vocab_size"),
    ):
        setattr(encoder, name, getattr(config, key, None))
    model = _empty_model(config)
    encoder.parameters = model.num_parameters()
    embeddings = getattr(model, "embeddings", model.get_input_embeddings())
    encoder.embedding_parameters = sum(parameter.numel() for parameter in embeddings.parameters())


def _empty_model(config: PretrainedConfig) -> torch.nn.Module:
    """A model without memory for its weights."""
    with torch.device("meta"):
        return AutoModel.from_config(config, trust_remote_code=False)


def measure_relative_time(inspections: Iterable[Inspection], base: PretrainedConfig, pieces: int = 32) -> None:
    """Time a forward pass of each candidate's architecture on this CPU, relative to the base encoder's.

    All weights are zero: the time does not depend on them.
    """

    def seconds(config: PretrainedConfig) -> float:
        model = _empty_model(config).to_empty(device="cpu").eval()
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.zero_()
        ids = torch.zeros(1, pieces, dtype=torch.long)
        times = []
        with torch.inference_mode():
            for _ in range(4):  # the first one warms up
                begin = time.perf_counter()
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                times.append(time.perf_counter() - begin)
        return min(times)

    reference = seconds(base)
    for encoder in inspections:
        if encoder.files is not None and encoder.files.config is not None:
            encoder.relative_time = seconds(encoder.files.config) / reference
