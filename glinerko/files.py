"""Writing files the one way they are written here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.utils.sha import sha_fileobj


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return sha_fileobj(file).hex()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """UTF-8, indented, Korean as it is, with a final line break; the directory is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """UTF-8, one object a line, Korean as it is; the directory is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def trim_history(path: Path, epoch: int) -> None:
    """Leave only the epochs before ``epoch``, from which a run goes on."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    path.write_text("".join(line for line in lines if json.loads(line)["epoch"] < epoch), encoding="utf-8")
