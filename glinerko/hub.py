"""Finding and loading models: a local directory is accepted wherever a Hub id is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from gliner2.configuration import ExtractorConfig
from gliner2.models.loading import reconcile_encoder_embeddings
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file
from transformers import AutoConfig

from glinerko.errors import LoadError, first_line
from glinerko.lora import adapter_base, merge_adapter
from glinerko.modeling import CONFIG_KEY, FORMAT, KoreanSchemaTransformer, KoreanSpanExtractor
from glinerko.tokenization import load_encoder_tokenizer
from glinerko.words import load_word_splitter

# Weights of other frameworks and exports, which nothing here reads.
_UNUSED_FILES = ["*.msgpack", "*.h5", "*.ot", "*.onnx", "onnx/*", "openvino/*", "*.gguf"]


def fetch(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    allow_patterns: list[str] | None = None,
) -> Path:
    """The local directory of a model: ``name_or_path`` itself, or a snapshot of that repository of the Hub.

    Args:
        allow_patterns: Fetch only files that match one of these.

    Raises:
        LoadError: no such directory or repository, no access, or a Hub that cannot be reached.
    """
    name = str(name_or_path)
    if os.path.isdir(name):
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LoadError(f"{name}: no such directory")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=allow_patterns,
                ignore_patterns=_UNUSED_FILES,
            )
        )
    except GatedRepoError as error:
        raise LoadError(f"{name}: access is gated; ask for it on its page, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"{name}: no such directory, nor a repository you may read; `hf auth login` if private"
        ) from error
    except RevisionNotFoundError as error:
        raise LoadError(f"{name}: no revision {revision!r}") from error
    except HFValidationError as error:
        raise LoadError(f"{name!r} is neither a directory nor the id of a repository") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise LoadError(
            f"{name} is not on this machine and the Hub cannot be reached: pass a local directory, "
            "or download it first where there is a network (`hf download " + name + "`)"
        ) from error


def read_config(directory: Path) -> dict:
    """``config.json`` of a directory.

    Raises:
        LoadError: it is missing or malformed, or asks for code of its own.
    """
    path = directory / "config.json"
    if not path.is_file():
        kind = "a GLiNER v1 model (gliner_config.json)" if (directory / "gliner_config.json").is_file() else "no model"
        raise LoadError(f"{directory}: no config.json; this is {kind}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path}: malformed JSON ({error})") from error
    if "auto_map" in config:
        raise LoadError(f"{path}: asks to run code of its own ('auto_map'), which is refused")
    return config


def read_licence(directory: Path) -> str | None:
    """The licence that the repository's own card states, where it states one."""
    card = directory / "README.md"
    try:
        return ModelCard.load(card).data.license if card.is_file() else None
    except Exception:  # a card is free text, and any part of it may be malformed
        return None


def public_name(name_or_path: str | Path) -> str:
    """A Hub id as it is; of a directory only its name, for what is published."""
    return Path(name_or_path).resolve().name if Path(name_or_path).exists() else str(name_or_path)


def load_extractor(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    map_location: str | torch.device | None = None,
) -> KoreanSpanExtractor:
    """Load a trained model with its splitter, width, labels, descriptions and threshold, from its directory alone.

    A plain GLiNER2 of the span architecture loads too, with the white-space splitter it was trained with.

    Raises:
        LoadError: what is missing or wrong, and what to do.
    """
    options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    directory = fetch(name_or_path, revision=revision, **options)
    config = read_config(directory)
    if "model_type" not in config or config["model_type"] != "extractor":
        raise LoadError(f"{directory}: not a GLiNER2 model (model_type {config.get('model_type')!r})")
    if config.get("architecture") not in (None, "span"):
        raise LoadError(
            f"{directory}: a GLiNER2 of the {config['architecture']!r} architecture; only 'span' is supported, "
            "for example fastino/gliner2-base-v1"
        )
    read_config(directory / "encoder_config")
    base = adapter_base(directory)
    weights = (fetch(base, **options) if base else directory) / "model.safetensors"
    if not weights.is_file():
        raise LoadError(f"{directory}: no model.safetensors (weights in another format are not read)")
    settings = config.get(CONFIG_KEY, {})
    if settings.get("format", FORMAT) != FORMAT:
        newer = settings["format"] > FORMAT
        raise LoadError(
            f"{directory}: saved in format {settings['format']} of glinerko, and this is format {FORMAT}: "
            + ("upgrade glinerko" if newer else "load it with the glinerko that saved it")
        )
    dictionary = directory / settings["user_dictionary"] if settings.get("user_dictionary") else None
    splitter = load_word_splitter(
        settings.get("word_splitter", "whitespace"), settings.get("lower_case", False), dictionary
    )
    tokenizer = load_encoder_tokenizer(directory)
    try:
        model = KoreanSpanExtractor(
            ExtractorConfig.from_dict(config),
            encoder_config=AutoConfig.from_pretrained(directory / "encoder_config", trust_remote_code=False),
            tokenizer=tokenizer,
        )
        state = load_file(weights)
        reconcile_encoder_embeddings(model, state)
        model.load_state_dict(state)
        if base:
            merge_adapter(model, directory)
    except Exception as error:  # safetensors, transformers and torch each raise their own on a damaged file
        raise LoadError(f"{directory}: the weights cannot be loaded: {first_line(error)}") from error
    model.processor = KoreanSchemaTransformer(
        tokenizer, splitter, model.config.token_pooling, settings.get("continuation_pieces", False)
    )
    return model.to(map_location or "cpu").eval()
