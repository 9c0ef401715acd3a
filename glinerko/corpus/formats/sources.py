"""Files of any usual encoding: lines, JSON records, and a look at what a file holds."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from glinerko.common import JSON_BEGIN, JSON_DECODER, DataError, parse_json

Record = tuple[str, Any]
"""Where a record stands in its file, and what stands there: if it cannot be read, the error."""
TELLING = (".spacy", ".parquet", ".xlsx", ".ann")
"""Suffixes that tell the format: nobody has to look into these files."""


@dataclass
class Source:
    """A file, or a directory that a library reads as one.

    Args:
        name: The beginning of the ids that documents without an id get.
        encodings: The number of files in each encoding, of the whole conversion; this one is added when it is read.
    """

    path: Path
    name: str
    encodings: Counter[str] = field(default_factory=Counter)

    @cached_property
    def encoding(self) -> str:
        """UTF-8 with or without a byte order mark, UTF-16, or CP949: the first in which the whole file can be read.

        Raises:
            DataError: It can be read in none of them.
        """
        with _reading(self.path), self.path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(codecs.BOM_UTF8):
            candidates = ["utf-8-sig"]
        elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            candidates = ["utf-16"]
        elif b"\0" in head:  # half of an ASCII character in UTF-16; seldom a character of its own
            wide = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
            candidates = [wide, "utf-8"] if 3 * head.count(0) > len(head) else ["utf-8", wide]
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
        """The number and the content of each line. A line ends with LF or CRLF; with CR only if the file has no LF."""
        encoding = self.encoding
        with _reading(self.path), self.path.open(encoding=encoding, newline="\n") as file:
            first = file.readline()
            lines = chain([first], file) if first.endswith("\n") else first.removesuffix("\r").split("\r")
            for number, line in enumerate(lines, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a :class:`DataError` with the name of the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def json_records(source: Source) -> Iterator[Record]:
    """The values of JSON lines, or the items of one JSON array. A malformed line is given as its error.

    Raises:
        DataError: The file is empty, or the array is malformed: what follows cannot be read.
    """
    lines = ((number, line) for number, line in source.lines() if line.strip())
    first = next(lines, None)
    if first is None:
        raise DataError(f"{source.path}: the file is empty")
    if first[1].lstrip().startswith("["):
        yield from _items(source)
        return
    for number, line in chain([first], lines):
        try:
            yield f"line {number}", parse_json(line)
        except ValueError as error:
            yield f"line {number}", error


def _items(source: Source) -> Iterator[Record]:
    """The items of a JSON array, one after the other: a large one is never parsed as a whole."""
    text = source.read()
    position, number, separated = text.index("[") + 1, 0, False
    skip = re.compile(r"\s*")
    while True:
        position = skip.match(text, position).end()
        if text[position : position + 1] == "]" and not separated:
            break
        try:
            item, position = parse_json(text, lambda content, at=position: JSON_DECODER.raw_decode(content, at))
        except ValueError as error:
            raise DataError(f"{source.path}, record {number + 1}: {error}") from error
        number += 1
        yield f"record {number}", item
        position = skip.match(text, position).end()
        separated = text[position : position + 1] == ","
        position += separated
        if not separated and text[position : position + 1] != "]":
            raise DataError(f"{source.path}, record {number}: malformed JSON: no comma and no end of the list after it")
    if number == 0:
        raise DataError(f"{source.path}: the list is empty")
    if text[position + 1 :].strip():
        raise DataError(f"{source.path}: malformed JSON: more content after the end of the list")


def look_into(source: Source) -> tuple[list[str], list[dict[str, Any]]]:
    """The first lines of a text file and no objects, or no lines and the first objects of a JSON file.

    Raises:
        DataError: It begins like JSON, and no object can be read.
    """
    lines = [line for _, line in islice(source.lines(), 100)]
    first = next((line for line in lines if line.strip()), "")
    if not JSON_BEGIN.match(first):
        return lines, []
    records = list(islice(json_records(source), 100))
    objects = [raw for _, raw in records if isinstance(raw, dict)]
    if not objects:
        place, error = records[0]
        raise DataError(f"{source.path}, {place}: {error if isinstance(error, Exception) else 'no object'}")
    return [], objects
