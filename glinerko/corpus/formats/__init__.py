"""The formats of annotation tools. One more is one more entry of :data:`FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from glinerko.common import DataError
from glinerko.corpus.formats import brat, columns, json_tools, label_studio, spacy_docs, tables
from glinerko.corpus.formats.documents import Document, FormatOptions
from glinerko.corpus.formats.sources import TELLING, Record, Source, look_into
from glinerko.corpus.formats.writing import DoccanoWriter, RowWriter, Writer


@dataclass(frozen=True)
class Format:
    """How a format is recognised, read and written.

    Args:
        suffixes: The ends of the names of its files in a directory.
        records: The records of a file, with their places.
        parse: A record as a document; raises ``ValueError`` or ``DataError`` if it is malformed, and ``LeftOut``.
        recognise: Whether a JSON object, or with ``by_line`` the first lines of a file, have this format.
        writer: What writes it; ``None`` if it is only read.
        one_label_set: Whether every document of a project is annotated for all labels that the project uses.
        note: What the user should know of all texts of this format.
    """

    suffixes: tuple[str, ...]
    records: Callable[[Source, FormatOptions], Iterator[Record]]
    parse: Callable[[Any, FormatOptions, Source], Document]
    recognise: Callable[[Any], bool] = lambda _: False
    by_line: bool = False
    writer: type[Writer] | None = None
    one_label_set: bool = True
    note: str = ""


_JSON = (".json", ".jsonl", ".ndjson")
_read = json_tools.read_records
FORMATS = {
    "gliner2": Format(_JSON, _read, json_tools.parse_gliner2, json_tools.is_row, writer=RowWriter, one_label_set=False),
    "predictions": Format(_JSON, _read, json_tools.parse_prediction, json_tools.is_prediction),
    "label_studio": Format(
        _JSON,
        label_studio.read_tasks,
        label_studio.parse_task,
        label_studio.is_label_studio,
        writer=label_studio.TaskWriter,
    ),
    "argilla": Format(_JSON, _read, json_tools.parse_argilla, json_tools.is_argilla),
    "gliner": Format(
        _JSON,
        _read,
        json_tools.parse_gliner,
        json_tools.is_gliner,
        one_label_set=False,
        note="texts are tokens joined by single spaces",
    ),
    "prodigy": Format(_JSON, _read, json_tools.parse_prodigy, json_tools.is_prodigy),
    "doccano": Format(_JSON, _read, json_tools.parse_doccano, json_tools.is_doccano, writer=DoccanoWriter),
    "brat": Format((".ann",), brat.read_pair, brat.parse_pair),
    "spacy": Format((".spacy",), spacy_docs.read_docs, spacy_docs.parse_doc, writer=spacy_docs.DocWriter),
    "klue": Format(
        (".tsv", ".txt"),
        columns.read_blocks,
        columns.parse_klue,
        columns.is_klue,
        by_line=True,
        writer=columns.KlueWriter,
    ),
    "conll": Format(
        (".conll", ".bio", ".iob", ".iob2", ".tsv", ".txt"),
        columns.read_sentences,
        columns.parse_sentence,
        columns.is_conll,
        by_line=True,
        writer=columns.ConllWriter,
        note="texts are words joined by single spaces, unless a column says SpaceAfter=No",
    ),
    "kbmc": Format(
        (".parquet", ".csv", ".tsv"),
        tables.read_rows,
        tables.parse_tag_row,
        tables.is_tag_table,
        by_line=True,
        note="texts are token strings as they are; lists of words are joined by single spaces",
    ),
    "table": Format(
        (".xlsx", ".csv", ".tsv"), tables.read_rows, tables.parse_label_columns, tables.is_table, by_line=True
    ),
}
"""All formats, by name; the first that recognises a file reads it."""
READABLE = tuple(FORMATS)
WRITABLE = tuple(name for name, each in FORMATS.items() if each.writer)


def recognise(source: Source) -> str | None:
    """The name of the format of a file; ``None`` if it has none of :data:`FORMATS`.

    Raises:
        DataError: The file cannot be read, or only after a change.
    """
    if tables.is_dataset(source.path):
        return "kbmc"
    suffix = source.path.suffix.lower()
    if suffix in TELLING:
        return next(name for name, each in FORMATS.items() if suffix in each.suffixes)
    lines, objects = look_into(source)
    for sample in [lines] if lines else objects:
        for name, each in FORMATS.items():
            may_be = name != "table" or suffix in each.suffixes  # any line with a comma could begin a table
            if may_be and each.by_line == bool(lines) and each.recognise(sample):
                return name
    if lines and tables.has_word_rows(lines):
        raise DataError(
            f"{source.path}: a table with one word in each row: write the word and its tag, separated by a tab, with "
            "an empty line after each sentence and without a header (CoNLL)"
        )
    return None
