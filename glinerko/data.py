"""Reading a corpus, and splitting it.

Character spans are the one currency: reading turns mention strings into offsets once, and everything after speaks
offsets into the original text. Rows live in a ``datasets.Dataset``, on disk and memory-mapped.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets.fingerprint import Hasher

from glinerko import __version__
from glinerko.errors import DataError, first_line
from glinerko.files import write_json_lines
from glinerko.rows import find_mention, parse_row


@dataclass(frozen=True, order=True)
class Span:
    """A labelled stretch of a text, ``[start, end)`` in characters; ``score`` is a probability where predicted."""

    start: int
    end: int
    label: str
    score: float | None = None

    @property
    def key(self) -> tuple[int, int, str]:
        return self.start, self.end, self.label


@dataclass(frozen=True)
class Mention:
    """A gold mention as it was annotated, and every place where it stands in the text (none: absent)."""

    label: str
    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Example:
    """One document with its gold. ``labels`` are those it was annotated for, with or without mentions."""

    id: str
    text: str
    labels: tuple[str, ...]
    mentions: tuple[Mention, ...]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        mentions = tuple(
            Mention(m["label"], m["text"], tuple((s["start"], s["end"]) for s in m["spans"])) for m in row["mentions"]
        )
        return cls(row["id"], row["text"], tuple(row["labels"]), mentions)

    @property
    def gold_spans(self) -> set[tuple[int, int, str]]:
        """Every occurrence of every mention, as ``(start, end, label)``."""
        return {(start, end, m.label) for m in self.mentions for start, end in m.spans}

    @property
    def gold_strings(self) -> set[tuple[str, str]]:
        """Every mention, present in the text or not, as ``(mention string, label)``."""
        return {(m.text, m.label) for m in self.mentions}


@dataclass(frozen=True)
class LabelSchema:
    """The labels of a corpus in a fixed order, and what each of them means where a row says so."""

    labels: tuple[str, ...]
    descriptions: dict[str, str]


_FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "labels": List(Value("string")),
        "descriptions": List({"label": Value("string"), "description": Value("string")}),
        "mentions": List(
            {
                "label": Value("string"),
                "text": Value("string"),
                "spans": List({"start": Value("int64"), "end": Value("int64")}),
            }
        ),
        "place": Value("string"),
        "error": Value("string"),
    }
)


def _parse_safely(raw: Any, place: str, default_id: str) -> dict[str, Any]:
    """``parse_row``, with what is wrong in the column ``error``, so that rows can be read all or counted."""
    try:
        return {**parse_row(raw, default_id), "place": place, "error": ""}
    except ValueError as error:
        return _empty_row(place, str(error))


def _empty_row(place: str = "", error: str = "") -> dict[str, Any]:
    return {"id": "", "text": "", "labels": [], "descriptions": [], "mentions": [], "place": place, "error": error}


def _generate(path: str, digest: str, version: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; ``digest`` and ``version`` only tell the cache when to read it again."""
    blank = True
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            place = f"line {number}"
            blank = blank and not line.strip()
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield _parse_safely(json.loads(text), place, f"{Path(path).stem}:{number}")
            except UnicodeDecodeError as error:
                yield _empty_row(place, f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
            except json.JSONDecodeError as error:
                hint = "; write one object a line" if number == 1 and text in ("[", "{") else ""
                yield _empty_row(place, f"malformed JSON: {error.msg} at column {error.colno}{hint}")
            except RecursionError:
                yield _empty_row(place, "malformed JSON: nested too deeply")
    if blank:
        yield _empty_row("line 1", "the file has only blank lines")


def load_rows(
    file: str | None = None,
    *,
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    split: str = "train",
    labels: Sequence[str] | None = None,
    on_bad_row: str = "raise",
    max_rows: int | None = None,
) -> tuple[Dataset, int]:
    """Read ``file`` (JSON lines) or a split of a ``datasets`` data set into checked rows.

    Args:
        labels: The labels in use. They become every row's label set; mentions of other labels are left out.
        on_bad_row: ``raise``, or ``skip`` to leave bad rows out and count them.

    Returns:
        The rows (see :class:`Example`), and how many bad ones were left out.

    Raises:
        DataError: with file, line and reason.
    """
    if file is not None:
        source, rows = file, _read_file(file)
    else:
        source = f"{dataset_name} ({split})"
        rows = _read_dataset(dataset_name, dataset_config_name, split)
    errors = rows["error"][:]
    bad = [index for index, error in enumerate(errors) if error]
    if bad and on_bad_row == "raise":
        more = f" ({len(bad)} bad rows in all)" if len(bad) > 1 else ""
        raise DataError(f"{source}, {rows['place'][bad[0]]}: {errors[bad[0]]}{more}; `--on_bad_row skip` leaves it out")
    if len(bad) == len(rows):
        reason = f": {rows['place'][bad[0]]}: {errors[bad[0]]}" if bad else ""
        raise DataError(f"{source}: no usable row{reason}")
    if bad:
        rows = rows.select([index for index, error in enumerate(errors) if not error])
    if max_rows is not None:
        rows = rows.select(range(min(max_rows, len(rows))))
    if labels:
        rows = rows.map(
            lambda row: {
                "labels": list(labels),
                "mentions": [mention for mention in row["mentions"] if mention["label"] in labels],
            },
            features=rows.features,
            desc="Selecting labels",
        )
    return rows, len(bad)


def read_texts(file: str | None) -> tuple[list[str], list[str]]:
    """Ids and texts, without gold: JSON lines (``*.jsonl``) with a ``text``, or plain text with one document a line.

    Args:
        file: ``None`` reads standard input, as plain text.

    Raises:
        DataError: with file, line and reason.
    """
    source = file or "standard input"
    try:
        content = Path(file).read_text(encoding="utf-8-sig") if file else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    ids, texts = [], []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        row = {"text": line.rstrip("\r")}
        if source.endswith((".jsonl", ".json")):
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                    raise ValueError('expected an object with a "text"')
            except ValueError as error:
                raise DataError(f"{source}, line {number}: {error}") from error
        ids.append(str(row.get("id", number)))
        texts.append(row["text"])
    if not texts:
        raise DataError(f"{source}: no text")
    return ids, texts


def read_gazetteer(argument: str) -> tuple[str, list[str]]:
    """The label and the names of ``label=file.json``, a JSON object that has the names under ``entries``.

    Raises:
        DataError: it is none, or of another form.
    """
    label, _, file = argument.partition("=")
    try:
        return label, list(json.loads(Path(file).read_text(encoding="utf-8"))["entries"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{argument}: expected label=file.json with "entries" ({first_line(error)})') from error


def rows_from_texts(texts: Sequence[str], ids: Sequence[str]) -> Dataset:
    """Rows of texts without gold, to be predicted."""
    rows = [{**_empty_row(), "id": identifier, "text": text} for identifier, text in zip(ids, texts, strict=True)]
    return Dataset.from_list(rows, features=_FEATURES)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write ``rows`` as JSON lines from which :func:`load_rows` gives the same documents."""
    write_json_lines(path, map(_unparse_row, rows))


def _unparse_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`glinerko.rows.parse_row` reads as ``row``."""
    example = Example.from_row(row)
    entities: dict[str, list] = {label: [] for label in example.labels}
    for mention in example.mentions:
        where = [{"text": mention.text, "start": start, "end": end} for start, end in mention.spans]
        everywhere = find_mention(example.text, mention.text) == list(mention.spans)
        entities[mention.label].extend([mention.text] if everywhere else where)
    descriptions = {entry["label"]: entry["description"] for entry in row["descriptions"]}
    return {"id": row["id"], "text": row["text"], "entities": entities, "entity_descriptions": descriptions}


def _read_file(file: str) -> Dataset:
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with path.open("rb") as content:
            digest = Hasher.hash_bytes(iter(partial(content.read, 1 << 20), b""))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if path.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    return Dataset.from_generator(
        _generate, features=_FEATURES, gen_kwargs={"path": str(path), "digest": digest, "version": __version__}
    )


def _read_dataset(name: str | None, config_name: str | None, split: str) -> Dataset:
    if name is None:
        raise DataError("no data: pass a file or the name of a data set")
    try:
        raw = load_dataset(name, config_name, split=split)
    except Exception as error:  # every builder raises its own
        raise DataError(f"data set {name!r}, split {split!r}: {first_line(error)}") from error
    if isinstance(raw, DatasetDict) or not isinstance(raw, Dataset):
        raise DataError(f"data set {name!r}: split {split!r} is no table of rows")
    return raw.map(
        lambda row, index: _parse_safely(row, f"row {index}", f"{split}:{index}"),
        with_indices=True,
        remove_columns=raw.column_names,
        features=_FEATURES,
        desc="Reading rows",
    )


def label_schema(rows: Dataset, labels: Sequence[str] | None = None) -> LabelSchema:
    """The labels of ``rows``, those that rows describe first, in the order in which they are met.

    The order is the corpus's and not the row's, so that a prompt never tells which labels occur.
    """
    described: dict[str, str] = {}
    seen: dict[str, None] = {}
    for row in rows.select_columns(["labels", "descriptions"]):
        for entry in row["descriptions"]:
            described.setdefault(entry["label"], entry["description"])
        seen.update(dict.fromkeys(row["labels"]))
    names = tuple(labels or dict.fromkeys((*described, *seen)))
    return LabelSchema(names, {label: described[label] for label in names if label in described})


def require_labels(rows: Dataset, schema: LabelSchema, source: str) -> None:
    """Stop if ``rows`` hold mentions of labels that are not in ``schema``.

    Raises:
        DataError: naming them.
    """
    unknown = {m["label"] for mentions in rows["mentions"] for m in mentions} - set(schema.labels)
    if unknown:
        raise DataError(
            f"{source}: mentions of labels that are not asked for: {', '.join(sorted(unknown))} "
            f"(known: {', '.join(schema.labels)}); `--labels` chooses the labels to use"
        )


def fold_rows(rows: Dataset, folds: int, seed: int) -> list[Dataset]:
    """Part ``rows`` by ``seed`` into ``folds`` of about the same size; rows with the same text stay together.

    Raises:
        DataError: there are fewer different texts than folds.
    """
    groups = _grouped(rows, seed)
    if not 1 < folds <= len(groups):
        raise DataError(f"{len(groups)} different texts cannot be parted into {folds} folds")
    parts: list[list[int]] = [[] for _ in range(folds)]
    for group in groups:
        min(parts, key=len).extend(group)
    return [rows.select(sorted(part)) for part in parts]


def split_rows(rows: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Draw ``fraction`` of ``rows`` by ``seed`` for validation; rows with the same text stay together.

    Raises:
        DataError: one side would be empty.
    """
    order = _grouped(rows, seed)
    held_out: list[int] = []
    while order and len(held_out) < round(fraction * len(rows)):
        held_out.extend(order.pop())
    if not order or not held_out:
        raise DataError(f"{len(rows)} rows cannot be split {1 - fraction:.0%} / {fraction:.0%}: pass --validation_file")
    kept = sorted(index for group in order for index in group)
    return rows.select(kept), rows.select(sorted(held_out))


def _grouped(rows: Dataset, seed: int) -> list[list[int]]:
    """The indices of the rows of each text, the texts in an order drawn by ``seed``."""
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows["text"]):
        groups.setdefault(text, []).append(index)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    return order


def shared_texts(first: Dataset, second: Dataset) -> list[str]:
    """The ids of the rows of ``second`` whose text also stands in ``first``."""
    texts = set(first["text"])
    return [row["id"] for row in second.select_columns(["id", "text"]) if row["text"] in texts]
