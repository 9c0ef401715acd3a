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
