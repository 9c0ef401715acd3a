"""Tables: a document a row, with its mentions in a column for each label, or with a string of tags (KBMC)."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from glinerko.common import DataError, first_line, parse_json
from glinerko.corpus.formats.columns import BEGUN
from glinerko.corpus.formats.documents import Annotation, Document, FormatOptions, LeftOut, own_id
from glinerko.corpus.formats.sources import Record, Source
from glinerko.corpus.formats.tags import decode_tags, is_tag
from glinerko.corpus.matching import find_mention

_LONGEST_CELL = 2**31 - 1


def is_dataset(path: Path) -> bool:
    """Whether a directory was written by ``save_to_disk`` of the ``datasets`` library."""
    return path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_tag_table(lines: Sequence[str]) -> bool:
    """Whether the first row of a CSV or TSV file has a cell that is a string of tags, and documents are no words."""
    rows = list(_parse_csv(lines[:50]))
    return len(rows) > 1 and any(map(_are_tags, rows[1])) and not has_word_rows(lines)


def has_word_rows(lines: Sequence[str]) -> bool:
    """Whether each of the first rows of a CSV or TSV file, below a header, has the tag of one word."""
    rows = [row for row in _parse_csv(lines[:50]) if any(row)][1:]
    tags = [[cell for cell in row if _are_tags(cell)] for row in rows]
    return len(rows) > 1 and all(tags) and all(len(cell.split()) == 1 for row in tags for cell in row)


def is_table(lines: Sequence[str]) -> bool:
    """Whether the first line of a CSV or TSV file has at least two names; the first may be missing, of an index."""
    rows = list(_parse_csv(lines[:1]))
    named = bool(rows) and len(rows[0]) > 1 and all(cell.strip() for cell in rows[0][1:])
    return named and not has_word_rows(lines)


def _parse_csv(lines: Sequence[str]) -> Iterator[list[str]]:
    with suppress(csv.Error):
        yield from csv.reader((f"{line}\n" for line in lines), delimiter=_delimiter(lines[0]))


def _delimiter(header: str) -> str:
    return max("\t,;", key=header.count)


def read_rows(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The rows of a CSV or TSV file, of the first sheet of an XLSX file, of a Parquet file or of a saved data set."""
    if source.path.is_dir() or source.path.suffix.lower() == ".parquet":
        return _read_dataset(source)
    return _read_sheet(source) if source.path.suffix.lower() == ".xlsx" else _read_csv(source)


def _read_csv(source: Source) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_CELL)
    with source.open() as file:
        delimiter = _delimiter(next((line for line in file if line.strip()), ""))
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from _records(source, ((f"line {reader.line_num}", cells) for cells in reader if cells))
        except csv.Error as error:
            raise DataError(f"{source.path}, line {reader.line_num}: malformed CSV ({first_line(error)})") from error


def _read_sheet(source: Source) -> Iterator[Record]:
    try:
        import pandas

        with pandas.ExcelFile(source.path) as book:
            table = pandas.read_excel(book, sheet_name=0, header=None, dtype=str, na_filter=False)
            others = book.sheet_names[1:]
    except ImportError as error:
        raise DataError(f"{source.path}: XLSX files need `pip install pandas openpyxl`") from error
    except Exception as error:  # each reader raises its own errors on damaged files
        raise DataError(f"{source.path}: cannot be read as XLSX ({first_line(error)})") from error
    yield from _records(source, ((f"row {number}", row) for number, row in enumerate(table.values.tolist(), 1)))
    for name in others:
        yield f"sheet {name}", LeftOut("sheet that is not the first")


def _records(source: Source, rows: Iterator[tuple[str, list[str]]]) -> Iterator[Record]:
    """The rows of a table as records, by the names in its first row. A first column without a name is an index.

    Raises:
        DataError: Two columns have one name.
    """
    _, header = next(rows, ("", []))
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{source.path}: the table has two columns {twice!r}: give each its own name")
    for place, cells in rows:
        if len(cells) != len(header):
            yield place, ValueError(f"the row has {len(cells)} cells, and the header {len(header)}")
        else:
            record = dict(zip(header, cells, strict=True))
            yield place, record if header[0] else dict(list(record.items())[1:])


def _read_dataset(source: Source) -> Iterator[Record]:
    from datasets import ClassLabel, DatasetDict, load_dataset, load_from_disk
    from pyarrow.parquet import read_schema

    try:
        if source.path.is_dir():
            data = load_from_disk(str(source.path))
        else:
            read_schema(source.path)  # its error is ours; the one of load_dataset is logged besides
            data = load_dataset("parquet", data_files=str(source.path), split="train", streaming=True)
        splits = data if isinstance(data, DatasetDict) else {"": data}
        for split, rows in splits.items():
            tags = {
                name: each.feature
                for name, each in (rows.features or {}).items()
                if isinstance(getattr(each, "feature", None), ClassLabel)
            }
            for number, row in enumerate(rows, 1):
                named = {name: [names.int2str(tag) for tag in row[name] or ()] for name, names in tags.items()}
                yield f"{split} row {number}".strip(), {**row, **named}
    except Exception as error:  # of pyarrow, and of the builders of data sets
        raise DataError(f"{source.path}: cannot be read as a table ({first_line(error.__cause__ or error)})") from error


def _words(cell: Any) -> list[str]:
    return cell if isinstance(cell, list) else cell.split() if isinstance(cell, str) else []


def _are_tags(cell: Any) -> bool:
    words = _words(cell)
    return bool(words) and all(isinstance(word, str) and is_tag(word) for word in words)


def parse_tag_row(raw: Mapping[str, Any], options: FormatOptions, source: Source) -> Document:
    """A row of KBMC: a string (or list) of tokens and one of tags.

    The text is the string as it is, with its white space between the tokens. A list is joined by single spaces, or by
    nothing if it is of characters: one of them is white space, or all have length 1.

    Raises:
        ValueError: No column has tags, the text column does not exist, or a tag has no token.
    """
    if options.text_column not in (None, *raw):
        raise ValueError(_no_column(options.text_column, raw))
    tag_names = [name for name, cell in raw.items() if _are_tags(cell)]
    if not tag_names:
        raise ValueError(f"no column has tags (O, LABEL-B, B-LABEL); the columns are {', '.join(raw)}")
    tags = _words(raw[tag_names[-1]])
    others = [name for name in raw if name != tag_names[-1]]
    fitting = [name for name in others if len(_words(raw[name])) == len(tags)]
    name = options.text_column or next(iter(fitting), None)
    if name not in fitting:
        counts = ", ".join(f"{other} {len(_words(raw[other]))}" for other in others) or "no other column"
        raise ValueError(f"{len(tags)} tags in {tag_names[-1]!r}, but other numbers of tokens: {counts}")
    cell = raw[name]
    if isinstance(cell, str):
        text, spans = cell, [match.span() for match in re.finditer(r"\S+", cell)]
    else:
        if not all(isinstance(token, str) and token for token in cell):
            raise ValueError(f"the tokens in {name!r} must be strings that are not empty")
        characters = any(token.isspace() for token in cell) or all(len(token) == 1 for token in cell)
        space = "" if characters else " "
        text, spans = space.join(cell), []
        for token in cell:
            start = spans[-1][1] + len(space) if spans else 0
            spans.append((start, start + len(token)))
    runs, begun = decode_tags(tags)
    annotations = [Annotation(label, spans[first][0], spans[behind - 1][1]) for first, behind, label in runs]
    return Document(text, annotations, _id(raw), remarks=+Counter({BEGUN: begun}))


def parse_label_columns(raw: Mapping[str, Any], options: FormatOptions, source: Source) -> Document:
    """A row with a text, perhaps an id, and a column for each label. A cell holds mentions, each for all occurrences.

    The mentions are separated by ``;`` or line ends, or they are a JSON list.

    Raises:
        ValueError: There is no text column, or a mention is not in the text.
    """
    name = options.text_column or next((name for name in raw if name.casefold() == "text"), "text")
    if name not in raw:
        raise ValueError(_no_column(name, raw))
    text, annotations = raw[name], []
    labels = [each for each in raw if each != name and each.casefold() != "id"]
    for each in (name, *labels):
        if not isinstance(raw[each], str | None):
            raise ValueError(f"column {each!r} holds no texts; is it a label column?")
    for label in labels:
        for number, mention in enumerate(_cell_mentions(label, raw[label] or ""), 1):
            if not find_mention(text, mention):
                raise ValueError(f"column {label!r}: mention {number} is not in the text; is it a label column?")
            annotations.append(Annotation(label, None, None, mention))
    return Document(text, annotations, _id(raw), labels)


def _no_column(name: str, raw: Mapping[str, Any]) -> str:
    return f"there is no column {name!r}; the columns are {', '.join(raw)}: --text_column names that of the text"


def _cell_mentions(label: str, cell: str) -> list[str]:
    mentions = re.split(r"[;\r\n]", cell)
    if cell.lstrip().startswith("["):
        with suppress(ValueError):  # a chemical name may begin so
            mentions = parse_json(cell)
    if not all(isinstance(mention, str) for mention in mentions):
        raise ValueError(f"column {label!r}: a list of objects; export JSON from the tool instead of a table")
    return list(dict.fromkeys(mention.strip() for mention in mentions if mention.strip()))


def _id(raw: Mapping[str, Any]) -> str | None:
    return own_id({name.casefold(): cell for name, cell in raw.items()})
