"""brat: a file of annotations (``.ann``) beside each text (``.txt``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from glinerko.corpus.formats.documents import Annotation, Document, FormatOptions
from glinerko.corpus.formats.sources import Record, Source

_ENTITY = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)", re.DOTALL)


def read_pair(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The one document of a pair of files: its text, and the lines of its annotations."""
    path = source.path.with_suffix(".txt")
    if not path.is_file():
        yield "the file", ValueError(f"there is no {path.name} beside it: brat needs the text")
        return
    yield "the file", (Source(path, source.name, source.encodings).read(), list(source.lines()))


def parse_pair(raw: tuple[str, list[tuple[int, str]]], options: FormatOptions, source: Source) -> Document:
    """A document of brat; relations, events, attributes and notes are counted.

    Raises:
        ValueError: A line is malformed, or a mention has several parts and this is not allowed.
    """
    text, lines = raw
    annotations, remarks = [], Counter()
    for number, line in lines:
        if not line.startswith("T"):
            remarks["line of brat that is no mention (relation, event, attribute, note)"] += bool(line.strip())
            continue
        match = _ENTITY.fullmatch(line)
        if not match:
            raise ValueError(f"line {number}: expected T1<TAB>label start end<TAB>text")
        label, offsets, surface = match.groups()
        parts = [tuple(map(int, part.split())) for part in offsets.split(";")]
        start, end = min(first for first, _ in parts), max(last for _, last in parts)
        if len(parts) > 1:
            if options.on_discontinuous == "raise":
                raise ValueError(
                    f"line {number}: a mention of {label!r} has {len(parts)} parts, which no model here can find: "
                    "--on_discontinuous join takes it from its start to its end, skip leaves it out"
                )
            done = {"join": "joined to one mention", "skip": "left out"}[options.on_discontinuous]
            remarks[f"mention of several parts: {done}"] += 1
            if options.on_discontinuous == "skip":
                continue
            surface = None  # the text that was between the parts is not in it
        annotations.append(Annotation(label, start, end, surface))
    return Document(text, annotations, source.name, _labels(source.path.parent), remarks=+remarks)


@lru_cache(maxsize=1024)
def _labels(directory: Path) -> tuple[str, ...]:
    """The entity types in ``annotation.conf`` of a directory or the one above it."""
    for path in (directory / "annotation.conf", directory.parent / "annotation.conf"):
        if path.is_file():
            lines = (line for _, line in Source(path, "").lines())
            break
    else:
        return ()
    section, labels = "", []
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        elif section == "[entities]" and line and line[0] not in "#!<-":
            labels.append(line.split()[0])
    return tuple(dict.fromkeys(labels))
