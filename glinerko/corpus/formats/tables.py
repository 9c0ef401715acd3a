"""Tables: a document a row, with its mentions in a column for each label, or with a string of tags (KBMC)."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glinerko.common import DataError, first_line
from glinerko.corpus.formats.columns import BEGUN
from glinerko.corpus.formats.documents import Annotation, Document, FormatOptions, LeftOut
from glinerko.corpus.formats.sources import Record, Source
from glinerko.corpus.formats.tags import decode_tags, is_tag
from glinerko.corpus.matching import find_mention

_LONGEST_CELL = 2**31 - 1


def is_dataset(path: Path) -> bool:
    """Whether a directory was written by ``save_to_disk`` of the ``datasets`` library."""
    return path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_tag_table(raw: Sequence[Any]) -> bool:
    """Whether the first row of a CSV or TSV file has a cell that is a string of tags."""
    rows = list(_parse_csv(raw[:50]))
    return len(rows) > 1 and any(map(_are_tags, rows[1]))


def is_table(raw: Sequence[Any]) -> bool:
    """Whether the first line of a CSV or TSV file has at least two names."""
    rows = list(_parse_csv(raw[:1]))
    return bool(rows) and len(rows[0]) > 1 and all(cell.strip() for cell in rows[0])


def _parse_csv(lines: Sequence[Any]) -> Iterator[list[str]]:
    if not lines or not all(isinstance(line, str) for line in lines):
        return
    try:
        yield from csv.reader((f"{line}\n" for line in lines), delimiter=_delimiter(lines[0]))
    except csv.Error:
        return


def _delimiter(header: str) -> str:
    return max("\t,;", key=header.count)


def read_rows(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The rows of a CSV or TSV file, the first sheet of an XLSX file, a Parquet file or a saved data set."""
    if source.path.is_dir() or source.path.suffix.lower() == ".parquet":
        return _read_dataset(source)
    return _read_sheet(source) if source.path.suffix.lower() == ".xlsx" else _read_csv(source)


def _read_csv(source: Source) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_CELL)
    with source.open() as file:
        reader = csv.DictReader(file, delimiter=_delimiter(file.readline()), restkey="", restval=None, strict=True)
        file.seek(0)
        try:
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row.values() or "" in row:
                    yield place, ValueError("the row has not as many cells as the header")
                else:
                    yield place, row
        except csv.Error as error:
            raise DataError(f"{source.path}, line {reader.line_num}: malformed CSV ({first_line(error)})") from error


def _read_sheet(source: Source) -> Iterator[Record]:
    try:
        import pandas

        with pandas.ExcelFile(source.path) as book:
            table = pandas.read_excel(book, sheet_name=0, dtype=str, na_filter=False)
            others = book.sheet_names[1:]
    except ImportError as error:
        raise DataError(f"{source.path}: XLSX files need `pip install pandas openpyxl`") from error
    except Exception as error:  # each reader raises its own errors on damaged files
        raise DataError(f"{source.path}: cannot be read as XLSX ({first_line(error)})") from error
    for number, row in enumerate(table.to_dict("records"), 2):
        yield f"row {number}", {str(key): value for key, value in row.items()}
    for name in others:
        yield f"sheet {name}", LeftOut("sheet that is not the first")


def _read_dataset(source: Source) -> Iterator[Record]:
    from datasets import ClassLabel, DatasetDict, load_dataset, load_from_disk

    try:
        if source.path.is_dir():
            data = load_from_disk(str(source.path))
        else:
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
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{source.path}: cannot be read as a table ({first_line(error)})") from error
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
        ValueError: No column has tags, or they are not as many as the tokens.
    """
    tag_names = [name for name, cell in raw.items() if _are_tags(cell)]
    if not tag_names:
        raise ValueError(f"no column has tags (O, LABEL-B, B-LABEL); there are {', '.join(raw)}")
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
    """A row whose columns are labels, besides the text and the id; a cell holds mentions, which may occur repeatedly.

    They are parted by ``;`` or line ends, or a JSON list.

    Raises:
        ValueError: The text column cannot be told, or a mention is not in the text.
    """
    texts = (
        [name for name in raw if name.casefold() == "text"] if options.text_column is None else [options.text_column]
    )
    if not texts or texts[0] not in raw:
        raise ValueError(f"there is no column {options.text_column or 'text'!r}, but {', '.join(raw)}: --text_column")
    text, annotations = raw[texts[0]], []
    labels = [name for name in raw if name != texts[0] and name.casefold() != "id"]
    for label in labels:
        for number, mention in enumerate(_cell_mentions(label, raw[label]), 1):
            if not find_mention(text, mention):
                raise ValueError(f"column {label!r}: mention {number} is not in the text; is it a label column?")
            annotations.append(Annotation(label, None, None, mention))
    return Document(text, annotations, _id(raw), labels)


def _cell_mentions(label: str, cell: str) -> list[str]:
    try:
        mentions = json.loads(cell) if cell.lstrip().startswith("[") else None
    except json.JSONDecodeError:
        mentions = None  # a chemical name may begin so
    if mentions is None:
        mentions = re.split(r"[;\r\n]", cell)
    if not all(isinstance(mention, str) for mention in mentions):
        raise ValueError(f"column {label!r}: a list of objects; export JSON from the tool instead of a table")
    return list(dict.fromkeys(mention.strip() for mention in mentions if mention.strip()))


def _id(raw: Mapping[str, Any]) -> str | None:
    name = next((name for name in raw if name.casefold() == "id"), None)
    return str(raw[name]) if name is not None and raw[name] not in (None, "") else None
