"""Reading files of any format into rows, and writing rows, with an account of all that was changed or left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from glinerko.common import DataError
from glinerko.corpus.formats.documents import Document, FormatOptions, LeftOut, make_document_row
from glinerko.corpus.formats.repair import repair_offsets
from glinerko.corpus.formats.sources import Source
from glinerko.corpus.formats.tables import is_dataset
from glinerko.corpus.formats.writing import Writer


@dataclass(frozen=True)
class Entry:
    """A line of the report: what happened to a record.

    Args:
        what: ``repaired``, ``skipped``, ``left out``, ``noticed`` or ``not written``.
    """

    what: str
    kind: str
    file: str
    record: str
    mentions: int = 0


@dataclass
class Account:
    """What a conversion did."""

    documents: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    """By label; a label without any mention counts 0."""
    formats: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)

    def totals(self, what: str) -> Counter[str]:
        """How many mentions (or records, if none are concerned) each kind of ``what`` is about."""
        totals: Counter[str] = Counter()
        for each in self.entries:
            if each.what == what:
                totals[each.kind] += each.mentions or 1
        return totals

    def report(self) -> Iterator[dict[str, Any]]:
        """The lines of the report file."""
        return map(asdict, self.entries)


def find_sources(inputs: Sequence[str], suffixes: Collection[str], account: Account) -> Iterator[tuple[Source, bool]]:
    """The files to read, in order, each once, and whether the user named the file itself, or only its directory.

    The text files of brat are read with their annotations. In a directory, hidden files and files of other suffixes are
    left out.

    Raises:
        DataError: There is no such file or directory.
    """
    seen: set[Path] = set()
    for name in inputs:
        top = Path(name)
        if not top.exists():
            raise DataError(f"{name}: no such file or directory")
        for path in _expand(top, seen):
            if path.suffix.lower() == ".txt" and ".ann" in suffixes and path.with_suffix(".ann").is_file():
                if top.is_dir():
                    continue
                path = path.with_suffix(".ann")
            named = path == top or top.is_file()
            if path.resolve() in seen or (not named and path.suffix.lower() == ".conf"):
                continue
            seen.add(path.resolve())
            if not named and path.is_file() and path.suffix.lower() not in suffixes:
                account.entries.append(Entry("left out", "file of another format", str(path), "the file"))
                continue
            stem = path.stem if named else path.relative_to(top).with_suffix("").as_posix()
            yield Source(path, stem, account.encodings), named


def _expand(path: Path, seen: set[Path]) -> Iterator[Path]:
    """The files and data sets of a directory, or the file itself. Directories in ``seen`` are not entered again."""
    if path.is_file() or is_dataset(path):
        yield path
    elif path.is_dir() and path.resolve() not in seen:  # a link may lead back to a directory above it
        seen.add(path.resolve())
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from _expand(child, seen)


@dataclass
class Reading:
    """How a format is read: its functions, as in ``Format``, and the options of the user."""

    records: Callable[[Source, FormatOptions], Iterator[tuple[str, Any]]]
    parse: Callable[[Any, FormatOptions, Source], Document]
    options: FormatOptions
    labels: Sequence[str]
    skip_bad: bool

    def rows(self, source: Source, account: Account) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """The place and the row of each document, and whether a model annotated it.

        Raises:
            DataError: A record is malformed and bad ones are not skipped, or the rest of the file cannot be read.
        """
        file, number = str(source.path), 0
        for number, (place, raw) in enumerate(self.records(source, self.options), 1):
            try:
                if isinstance(raw, Exception):
                    raise raw
                document = self.parse(raw, self.options, source)
                document.annotations, kind = repair_offsets(document.text, document.annotations)
                row = make_document_row(document, f"{source.name}:{number}", self.labels)
            except LeftOut as reason:
                account.entries.append(Entry("left out", str(reason), file, place))
                continue
            except (ValueError, DataError) as error:
                if not self.skip_bad:
                    raise DataError(f"{file}, {place}: {error}; or leave it out with --on_bad_row skip") from error
                account.entries.append(Entry("skipped", str(error), file, place))
                continue
            if kind:
                account.entries.append(Entry("repaired", kind, file, row["id"], len(document.annotations)))
            for remark, count in document.remarks.items():
                account.entries.append(Entry("noticed", remark, file, row["id"], count))
            yield place, row, document.predicted
        if number == 0:
            account.entries.append(Entry("left out", "file without a record", file, "the file"))


def convert(
    rows: Iterable[tuple[str, str, dict[str, Any], bool, bool]],
    make_writer: Callable[[list[str]], Writer],
    account: Account,
    labels: Sequence[str],
    skip_bad: bool,
) -> Writer:
    """Write rows after all of them are read: only then is it known for which labels they were annotated.

    Args:
        rows: File, place and row of each document, whether a model annotated it, and whether it was annotated for all
            labels that documents like it have.
        make_writer: Gives the writer for these labels.
        labels: The labels of every row, if the user names them.

    Raises:
        DataError: There is no row, or the format cannot hold one.
    """
    with TemporaryFile("w+", encoding="utf-8") as spool:
        shared, every = _spool(rows, spool, account)
        if not account.documents:
            raise DataError(_why_nothing(account))
        writer = make_writer(list(labels or every))
        writer.start()
        spool.seek(0)
        account.documents = 0
        for line in spool:
            file, place, row, predicted, is_closed = json.loads(line)
            row["entities"] = dict.fromkeys(labels or (shared if is_closed else ()), ()) | row["entities"]
            row["entities"] = {label: list(mentions) for label, mentions in row["entities"].items()}
            try:
                lost = writer.add(row, predicted)
            except ValueError as error:
                if not skip_bad:
                    raise DataError(f"{file}, {place}: {error}; or leave it out with --on_bad_row skip") from error
                account.entries.append(Entry("skipped", str(error), file, place))
                continue
            for reason, count in lost.items():
                account.entries.append(Entry("not written", reason, file, row["id"], count))
            _count(row, account)
            writer.written += 1
        if not account.documents:
            raise DataError(_why_nothing(account))
        writer.finish()
        return writer


def _spool(rows: Iterable[tuple], spool: TextIO, account: Account) -> tuple[list[str], list[str]]:
    """Keep the rows in a file.

    Returns:
        The labels of the documents that are annotated for the same labels, and the labels of all documents.
    """
    shared: dict[str, None] = {}
    every: dict[str, None] = {}
    ids: set[str] = set()
    for file, place, row, predicted, is_closed in rows:
        if row["id"] in ids:
            account.entries.append(Entry("noticed", "document with the id of an earlier one", file, row["id"]))
        ids.add(row["id"])
        every.update(dict.fromkeys((*row.get("entity_descriptions", ()), *row["entities"])))
        if is_closed:
            shared.update(dict.fromkeys(row["entities"]))
        spool.write(json.dumps((file, place, row, predicted, is_closed)) + "\n")
        account.documents += 1
    return list(shared), list(every)


def _count(row: Mapping[str, Any], account: Account) -> None:
    account.documents += 1
    for label, mentions in row["entities"].items():
        account.mentions[label] += len(mentions)


def _why_nothing(account: Account) -> str:
    if not account.formats:
        return "no document to write: no file of a known format"
    first = next((entry for entry in account.entries if entry.what in ("skipped", "left out")), None)
    reason = f"; the first record is {first.what}: {first.file}, {first.record}: {first.kind}" if first else ""
    return f"no document to write{reason}"
