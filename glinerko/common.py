"""What every room uses: errors meant for the user, and reading and writing files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from huggingface_hub.utils.sha import sha_fileobj

__version__ = "0.1.0"
"""The version of this package; cached data depend on it."""

T = TypeVar("T")


class GlinerkoError(Exception):
    """An error that the user can fix. The message says what, where and what to do; scripts print it on one line."""


class DataError(GlinerkoError):
    """A row, a file or a data set that cannot be read as requested."""


class SwapError(GlinerkoError):
    """An encoder that cannot replace the encoder of the base model."""


class LoadError(GlinerkoError):
    """A model, encoder or tokenizer that cannot be loaded."""


class TrainingError(GlinerkoError):
    """A training run that cannot go on, or a step whose result is not reliable."""


class PublishError(GlinerkoError):
    """A model that must not be published, or a Hub that refuses it."""


class Stopped(Exception):
    """A run that stopped on request and can be resumed. The message says how."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, to be quoted in one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_text(file: str | Path) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: The file cannot be read or is not UTF-8.
    """
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def read_yaml(file: str | Path, expected: str, parse: Callable[[Any], T]) -> T:
    """The result of ``parse`` on the content of a YAML or JSON file.

    Args:
        expected: The form of the file, for the error message.
        parse: Turns the content into the result; any ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError``
            it raises means that the content has another form.

    Raises:
        DataError: The file cannot be read or has another form.
    """
    try:
        return parse(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: expected {expected} ({first_line(error)})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write UTF-8 JSON with indentation and readable Korean; missing directories are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]], *, append: bool = False) -> None:
    """Write one UTF-8 JSON object per line; missing directories are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return sha_fileobj(file).hex()
