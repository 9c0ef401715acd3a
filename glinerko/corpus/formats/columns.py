"""Columns: CoNLL with a word a line, and KLUE's TSV with a character a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from glinerko.corpus.formats.documents import Annotation, Document, FormatOptions
from glinerko.corpus.formats.sources import Record, Source
from glinerko.corpus.formats.tags import decode_tags, encode_tags, is_tag
from glinerko.corpus.formats.writing import Writer
from glinerko.corpus.words import load_word_splitter

BEGUN = "mention whose first tag is I (regular in IOB1, otherwise a mistake)"
_KLUE_HEADER = re.compile(r"## ([^ \t]+)\t")
_ESCAPES = {"\\": "\\\\", " ": "\\s", "\t": "\\t", "\r": "\\r", "\n": "\\n", "|": "\\p"}
"""How white space is written in a column of CoNLL-U (as UDPipe does)."""


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _unescape(text: str) -> str:
    back = {escaped: character for character, escaped in _ESCAPES.items()}
    return re.sub(r"\\.", lambda match: back.get(match.group(), match.group()), text)


def is_klue(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are those of KLUE-NER: a header, then a character and its tag a line."""
    body = (line for line in lines if line and not line.startswith("## "))
    return any(map(_KLUE_HEADER.match, lines)) and all(re.fullmatch(r"(?s).\t\S+.*", line) for line in body)


def is_conll(lines: Sequence[str]) -> bool:
    """Whether the first line of a file that is no comment is a word and a tag."""
    first = _split(next((line for line in lines if line.strip() and not _is_comment(line)), ""))
    return len(first) > 1 and is_tag(first[-1])


def _split(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _is_comment(line: str) -> bool:
    return line.startswith("#") and ("\t" not in line) and not (len(line.split()) > 1 and is_tag(line.split()[-1]))


def read_blocks(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The sentences: the numbered lines ``(number, line)`` between two blank lines."""
    for blank, block in groupby(source.lines(), key=lambda line: not line[1].strip()):
        if not blank:
            lines = list(block)
            yield f"sentence at line {lines[0][0]}", lines


def read_sentences(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The sentences of a CoNLL file without its comments, each with the id that ``-DOCSTART-`` gives, if it does."""
    identifier = None
    for place, block in read_blocks(source, options):
        lines = [(number, _split(line)) for number, line in block if not _is_comment(line)]
        for _, columns in lines:
            if columns[0] == "-DOCSTART-" and len(columns) == 3 and not columns[1].startswith("-"):
                identifier = _unescape(columns[1])
        lines = [(number, columns) for number, columns in lines if columns[0] != "-DOCSTART-"]
        if lines:
            yield place, (identifier, lines)
            identifier = None


def parse_sentence(
    raw: tuple[str | None, list[tuple[int, list[str]]]], options: FormatOptions, source: Source
) -> Document:
    """A sentence whose words are joined by single spaces, unless a column says otherwise as in CoNLL-U.

    Raises:
        ValueError: A line has no word or no tag in its last column, or the file is Label Studio's CONLL export.
    """
    identifier, lines = raw
    text, spans = "", []
    for number, columns in lines:
        if len(columns) < 2 or not columns[0] or not is_tag(columns[-1]):
            raise ValueError(f"line {number}: expected a word in the first column and a tag (O, B-LABEL) in the last")
        if len(columns) == 4 and columns[1:3] == ["-X-", "_"]:
            raise ValueError("Label Studio's CONLL export, which loses white space and mentions: export JSON instead")
        before, after = _spaces(columns[1] if len(columns) == 3 else "_")
        text += before
        spans.append((len(text), len(text) + len(columns[0])))
        text += columns[0] + (" " if after is None else after)
    if after is None:
        text = text.removesuffix(" ")
    runs, begun = decode_tags(columns[-1] for _, columns in lines)
    annotations = [Annotation(label, spans[first][0], spans[behind - 1][1]) for first, behind, label in runs]
    return Document(text, annotations, identifier, remarks=+Counter({BEGUN: begun}))


def _spaces(column: str) -> tuple[str, str | None]:
    """The white space before and after a word by its column of features; ``None`` if the column does not say."""
    features = dict(part.split("=", 1) for part in column.split("|") if "=" in part)
    after = "" if features.get("SpaceAfter") == "No" else features.get("SpacesAfter")
    return _unescape(features.get("SpacesBefore", "")), after if after is None else _unescape(after)


class ConllWriter(Writer):
    """Three columns: a word of a word splitter, the white space after it as in CoNLL-U, and a BIO tag."""

    def start(self) -> None:
        self.splitter = load_word_splitter(self.options.word_splitter)

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        text = row["text"]
        words = [(start, end) for start, end in self.splitter.split(text) if start < end]
        edges = [*words, (len(text), len(text))]
        gaps = [text[end:start] for (_, end), (start, _) in pairwise(edges)]
        if not words or any(gap.strip() for gap in (text[: words[0][0]], *gaps)):
            raise ValueError("the words leave out a part of the text: choose another --word_splitter")
        runs, lost = self.flat(row, words)
        columns = [_space_column(gap, is_last=number == len(words)) for number, gap in enumerate(gaps, 1)]
        if words[0][0]:
            columns[0] = f"SpacesBefore={_escape(text[: words[0][0]])}|{columns[0]}"
        lines = [f"-DOCSTART-\t{_escape(row['id'])}\tO\n\n"]
        for (start, end), column, tag in zip(words, columns, encode_tags(len(words), runs), strict=True):
            lines.append(f"{text[start:end]}\t{column}\t{tag}\n")
        self.file.write("".join(lines) + "\n")
        return lost


def _space_column(gap: str, is_last: bool) -> str:
    if not gap:
        return "SpaceAfter=No"
    return "_" if gap == " " and not is_last else f"SpacesAfter={_escape(gap)}"


def parse_klue(raw: list[tuple[int, str]], options: FormatOptions, source: Source) -> Document:
    """A sentence of KLUE-NER. Its text is its characters; the header gives its id.

    Raises:
        ValueError: A line is not a character and a tag.
    """
    headers = [_KLUE_HEADER.match(line) for _, line in raw if line.startswith("## ")]
    identifier = next((_unescape(match[1]) for match in reversed(headers) if match), None)
    characters, tags = [], []
    for number, line in raw:
        if line.startswith("## "):
            continue
        character, _, tag = line.rpartition("\t")
        if not character or not is_tag(tag):
            raise ValueError(f"line {number}: expected CHARACTER<TAB>TAG")
        characters.append(character)
        tags.append(tag)
    starts = [0, *accumulate(map(len, characters))]
    runs, begun = decode_tags(tags)
    annotations = [Annotation(label, starts[first], starts[behind]) for first, behind, label in runs]
    return Document("".join(characters), annotations, identifier, remarks=+Counter({BEGUN: begun}))


class KlueWriter(Writer):
    """A header with the id and the marked sentence, then a line with a character and its tag."""

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        text = row["text"]
        if "\n" in text:
            raise ValueError("KLUE's TSV has a character a line and cannot hold a line break: cut the text into lines")
        runs, lost = self.flat(row, [(at, at + 1) for at in range(len(text))])
        marked, done = "", 0
        for start, end, label in runs:
            marked += f"{text[done:start]}<{text[start:end]}:{label}>"
            done = end
        self.file.write(f"## {_escape(row['id'])}\t{marked}{text[done:]}\n")
        tags = encode_tags(len(text), runs)
        self.file.write("".join(f"{c}\t{tag}\n" for c, tag in zip(text, tags, strict=True)) + "\n")
        return lost
