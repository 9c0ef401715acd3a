"""The Hugging Face Hub: fetching a repository, what its files say, and the Hub's errors in plain words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx2 import HTTPError, TransportError
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from glinerko.common import GlinerkoError, LoadError, first_line

# Weights of other frameworks, and exports: nothing here reads them.
_UNUSED_FILES = ["*.msgpack", "*.h5", "*.ot", "*.onnx", "onnx/*", "openvino/*", "*.gguf"]
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)


def fetch(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    allow_patterns: list[str] | None = None,
) -> Path:
    """The local directory of a model: ``name_or_path`` itself, or a snapshot of that Hub repository.

    Args:
        allow_patterns: Fetch only the files that match one of these.

    Raises:
        LoadError: There is no such directory or repository, no access, or the Hub cannot be reached.
    """
    name = str(name_or_path)
    if os.path.isdir(name):
        return Path(name)
    if os.path.isfile(name):
        raise LoadError(f"{name}: a file; pass its directory")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LoadError(f"{name}: no such directory")
    reasons = {
        GatedRepoError: "access is gated; ask for it on its page, then `hf auth login`",
        RepositoryNotFoundError: "no such directory, nor a repository you may read; `hf auth login` if private",
        RevisionNotFoundError: f"no revision {revision!r}",
        HFValidationError: "neither a directory nor the id of a repository",
        **dict.fromkeys(
            (LocalEntryNotFoundError, OfflineModeIsEnabled, TransportError),
            "not on this machine, and the Hub cannot be reached: pass a local directory, or download it first "
            f"where there is a network (`hf download {name}`)",
        ),
    }
    with hub_errors(name, LoadError, reasons):
        directory = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=allow_patterns,
            ignore_patterns=_UNUSED_FILES,
        )
    return Path(directory)


def is_gliner_v1(directory: Path) -> bool:
    """Whether the files are those of a GLiNER v1 model."""
    return (directory / "gliner_config.json").is_file()


def read_config(directory: Path, file: str = "config.json") -> dict[str, Any]:
    """The content of a config file in a directory.

    Raises:
        LoadError: It is missing or malformed, or asks to run code of its own.
    """
    path = directory / file
    if not path.is_file():
        kind = "a GLiNER v1 model (gliner_config.json)" if is_gliner_v1(directory) else "no model"
        near = _models_near(directory)
        hint = f"; pass {' or '.join(map(str, near))}" if near else ""
        raise LoadError(f"{directory}: no config.json; this is {kind}{hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path}: malformed JSON ({error})") from error
    if not isinstance(config, dict):
        raise LoadError(f"{path}: expected a JSON object")
    if "auto_map" in config:
        raise LoadError(f"{path}: asks to run code of its own ('auto_map'), which is refused")
    return config


def load_config(directory: Path) -> PretrainedConfig:
    """The config of a model of transformers.

    Raises:
        LoadError: It is missing, malformed or of an unknown kind, or asks to run code of its own.
    """
    kind = read_config(directory).get("model_type")
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # each config class checks its values with errors of its own
        if kind in CONFIG_MAPPING_NAMES:
            raise LoadError(f"{directory}: its config cannot be used: {first_line(error)}") from error
        raise LoadError(f"{directory}: transformers knows no model of model_type {kind!r}") from error


def _models_near(directory: Path) -> list[Path]:
    """The models of a run, whose directory or a checkpoint of which was taken for a model."""
    run = directory.resolve().parent if directory.resolve().name.startswith("checkpoint") else directory
    configured = (path.parent for path in sorted(run.glob("*/config.json")))
    return [model for model in configured if any(model.glob("*.safetensors"))]


def require_gliner2(directory: Path, name: str | Path) -> dict[str, Any]:
    """The config of a GLiNER2 model.

    Raises:
        LoadError: It is another kind of model, or the config of its encoder is missing or malformed.
    """
    config = read_config(directory)
    if config.get("model_type") != "extractor":
        raise LoadError(f"{name}: not a GLiNER2 model (model_type {config.get('model_type')!r})")
    read_config(directory / "encoder_config")
    return config


def read_licence(directory: Path) -> str | None:
    """The licence stated in the model card of a repository, if it states one."""
    card = directory / "README.md"
    try:
        return ModelCard.load(card).data.license if card.is_file() else None
    except Exception:  # a card is free text, and any part of it may be malformed
        return None


def public_name(name_or_path: str | Path) -> str:
    """The name to publish: a Hub id unchanged, only the last part of a directory."""
    return Path(name_or_path).resolve().name if Path(name_or_path).exists() else str(name_or_path)


@contextmanager
def hub_errors(
    name: str, error_class: type[GlinerkoError], reasons: Mapping[type[BaseException], str] | None = None
) -> Iterator[None]:
    """Turn errors of the Hub's client into one line that says what to do.

    Args:
        name: Of the repository, for the message.
        error_class: The error to raise.
        reasons: The message for a type of error, where it is not the usual one; the first that fits is used.
    """
    try:
        yield
    except (HTTPError, RuntimeError, OSError, HFValidationError) as raised:
        error = root_cause(raised)
        own = (text for kind, text in (reasons or {}).items() if isinstance(error, kind))
        reason = next(own, None) or _explain(error)
        if reason is None:
            raise
        raise error_class(f"{name}: {reason}") from raised


def _explain(error: BaseException) -> str | None:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "no valid token: `hf auth login`, or pass one"
    if isinstance(error, HFValidationError):
        return f"not the id of a repository ({first_line(error)})"
    if status == 403:
        return "this token has no permission to read or write there: make one that has"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or none that this token may see"
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on: unset HF_HUB_OFFLINE"
    if is_transient(error):
        return f"{what_happened(error)}; run it again later, and what was uploaded is not sent again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'its files'}: {error.strerror}"
    return None if status is None else f"the Hub refused it ({what_happened(error)})"


def root_cause(error: BaseException) -> BaseException:
    """The client's own error inside the error that an upload thread raised."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS
    return isinstance(error, HTTPError)


def what_happened(error: BaseException) -> str:
    """The Hub's answer, or that there was none."""
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or error.response.reason_phrase
        return f"the Hub answered {error.response.status_code}: {said}"
    return f"the connection to the Hub failed ({first_line(error)})"
