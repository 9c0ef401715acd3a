"""Files of any usual encoding: lines, JSON records, and a look at what a file holds."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from glinerko.common import DataError, unique_keys

Record = tuple[str, Any]
"""Where a record stands in its file, and what stands there: if it cannot be read, the error."""
BINARY = (".spacy", ".parquet", ".xlsx", ".ann")
"""Suffixes that say enough: these files are not looked into."""


@dataclass
class Source:
    """A file, or a directory that a library reads as one.

    Args:
        name: What the ids of its documents begin with, unless they have ids of their own.
        encodings: The encodings of all files of a conversion, counted here.
    """

    path: Path
    name: str
    encodings: Counter[str] = field(default_factory=Counter)

    @cached_property
    def encoding(self) -> str:
        """UTF-8 with or without a byte order mark, UTF-16, or CP949: the first in which the whole file can be read.

        Raises:
            DataError: None is.
        """
        with _reading(self.path), self.path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(codecs.BOM_UTF8):
            candidates = ["utf-8-sig"]
        elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            candidates = ["utf-16"]
        elif b"\0" in head:  # half of an ASCII character; no text has the character itself
            candidates = ["utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"]
        else:
            candidates = ["utf-8", "cp949"]
        encoding = next((each for each in candidates if self._can_be(each)), None)
        if encoding is None:
            raise DataError(f"{self.path}: neither UTF-8, UTF-16 nor CP949; save it as UTF-8")
        self.encodings[encoding] += 1
        return encoding

    def _can_be(self, encoding: str) -> bool:
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with _reading(self.path), self.path.open("rb") as file:
                while part := file.read(1 << 20):
                    decoder.decode(part)
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    def open(self) -> TextIO:
        """The file as text, with its line ends as they are."""
        encoding = self.encoding
        with _reading(self.path):
            return self.path.open(encoding=encoding, newline="")

    def read(self) -> str:
        with self.open() as file:
            return file.read()

    def lines(self) -> Iterator[tuple[int, str]]:
        """The number and the content of each line; a line ends with LF or CRLF, and nothing else."""
        encoding = self.encoding
        with _reading(self.path), self.path.open(encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns an error of the system into one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def json_records(source: Source) -> Iterator[Record]:
    """The objects of JSON lines, one after the other, or the items of one JSON array.

    Raises:
        DataError: The array is malformed: what follows is lost.
    """
    lines = ((number, line) for number, line in source.lines() if line.strip())
    first = next(lines, None)
    if first is None:
        raise DataError(f"{source.path}: the file is empty")
    if first[1].lstrip().startswith("["):
        yield from _items(source)
        return
    while first:
        number, line = first
        try:
            yield f"line {number}", _decode(_DECODER.decode, line)
        except ValueError as error:
            hint = "; write one object a line" if line.strip() == "{" else ""
            yield f"line {number}", ValueError(f"{error}{hint}")
        first = next(lines, None)


def _items(source: Source) -> Iterator[Record]:
    text = source.read()
    position, number, separated = text.index("[") + 1, 0, False
    skip = re.compile(r"\s*")
    while True:
        position = skip.match(text, position).end()
        if text[position : position + 1] == "]" and not separated:
            break
        try:
            item, position = _decode(lambda content, at=position: _DECODER.raw_decode(content, at), text)
        except ValueError as error:
            raise DataError(f"{source.path}, record {number + 1}: {error}") from error
        number += 1
        yield f"record {number}", item
        position = skip.match(text, position).end()
        separated = text[position : position + 1] == ","
        position += separated
        if not separated and text[position : position + 1] != "]":
            raise DataError(f"{source.path}, record {number}: malformed JSON: no comma or end of the list after it")
    if number == 0:
        raise DataError(f"{source.path}: the list is empty")
    if text[position + 1 :].strip():
        raise DataError(f"{source.path}: malformed JSON: more content after the end of the list")


def _decode(decode: Any, content: str) -> Any:
    try:
        return decode(content)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"malformed JSON: {error.msg} at {line}column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("malformed JSON: nested too deeply") from error


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def look_into(source: Source) -> list[Any]:
    """The first JSON objects of a file, or its first lines; nothing of a binary file or a directory.

    Raises:
        DataError: It begins like JSON, and no object can be read.
    """
    if source.path.is_dir() or source.path.suffix.lower() in BINARY:
        return []
    lines = [line for _, line in islice(source.lines(), 100)]
    first = next((line for line in lines if line.strip()), "")
    if not re.match(r'\s*(\{\s*("|$)|\[\s*(\{|$))', first):
        return lines
    records = list(islice(json_records(source), 100))
    objects = [raw for _, raw in records if isinstance(raw, dict)]
    if not objects:
        place, error = records[0]
        raise DataError(f"{source.path}, {place}: {error if isinstance(error, Exception) else 'no object'}")
    return objects
