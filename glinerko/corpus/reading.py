"""Reading a corpus and splitting it. Rows are stored in a ``datasets.Dataset``, on disk and memory-mapped."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from datasets.fingerprint import Hasher

from glinerko.common import DataError, __version__, first_line, read_text, write_json_lines
from glinerko.corpus.rows import ROW_FEATURES, LabelSchema, make_row, parse_row, unparse_row


def load_rows(
    file: str | None = None,
    *,
    dataset_name: str | None = None,
    split: str = "train",
    labels: Sequence[str] | None = None,
    on_bad_row: str = "raise",
    max_rows: int | None = None,
) -> tuple[Dataset, int]:
    """Read ``file`` (JSON lines) or a split of a ``datasets`` data set into checked rows.

    Args:
        labels: The labels to use. They become the label set of every row; mentions of other labels are left out.
        on_bad_row: ``raise``, or ``skip`` to leave bad rows out and count them.

    Returns:
        The rows (see :class:`glinerko.corpus.rows.Example`), and the number of bad rows left out.

    Raises:
        DataError: With file, line and reason.
    """
    if file is not None:
        source, rows = file, _read_file(file)
    else:
        source, rows = f"{dataset_name} ({split})", _read_dataset(dataset_name, split)
    rows, bad = _drop_bad_rows(rows, source, on_bad_row)
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
    return rows, bad


def _drop_bad_rows(rows: Dataset, source: str, on_bad_row: str) -> tuple[Dataset, int]:
    errors = rows["error"][:]
    bad = [index for index, error in enumerate(errors) if error]
    if bad and on_bad_row == "raise":
        more = f" ({len(bad)} bad rows in all)" if len(bad) > 1 else ""
        raise DataError(f"{source}, {rows['place'][bad[0]]}: {errors[bad[0]]}{more}; `--on_bad_row skip` leaves it out")
    if len(bad) == len(rows):
        reason = f": {rows['place'][bad[0]]}: {errors[bad[0]]}" if bad else ""
        raise DataError(f"{source}: no usable row{reason}")
    kept = rows.select([index for index, error in enumerate(errors) if not error]) if bad else rows
    return kept, len(bad)


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
        _generate, features=ROW_FEATURES, gen_kwargs={"path": str(path), "digest": digest, "version": __version__}
    )


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
                reason = f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8"
                yield make_row(place=place, error=reason)
            except json.JSONDecodeError as error:
                hint = "; write one object a line" if number == 1 and text in ("[", "{") else ""
                yield make_row(place=place, error=f"malformed JSON: {error.msg} at column {error.colno}{hint}")
            except RecursionError:
                yield make_row(place=place, error="malformed JSON: nested too deeply")
    if blank:
        yield make_row(place="line 1", error="the file has only blank lines")


def _parse_safely(raw: Any, place: str, default_id: str) -> dict[str, Any]:
    """A row whose column ``error`` says what is wrong with it, so that bad rows can be counted."""
    try:
        return make_row(**parse_row(raw, default_id), place=place)
    except ValueError as error:
        return make_row(place=place, error=str(error))


def _read_dataset(name: str | None, split: str) -> Dataset:
    if name is None:
        raise DataError("no data: pass a file or the name of a data set")
    try:
        raw = load_dataset(name, split=split)
    except Exception as error:  # every builder raises its own
        raise DataError(f"data set {name!r}, split {split!r}: {first_line(error)}") from error
    if isinstance(raw, DatasetDict) or not isinstance(raw, Dataset):
        raise DataError(f"data set {name!r}: split {split!r} is no table of rows")
    return raw.map(
        lambda row, index: _parse_safely(row, f"row {index}", f"{split}:{index}"),
        with_indices=True,
        remove_columns=raw.column_names,
        features=ROW_FEATURES,
        desc="Reading rows",
    )


def load_splits(
    train_file: str | None,
    validation_file: str | None,
    dataset_name: str | None = None,
    *,
    validation_split: float = 0.1,
    labels: Sequence[str] | None = None,
    on_bad_row: str = "raise",
    max_train_samples: int | None = None,
    seed: int = 42,
) -> tuple[dict[str, Dataset], dict[str, str], dict[str, int]]:
    """Read ``training`` and ``validation`` rows; without a validation file, they are drawn from the training rows.

    Args:
        validation_split: The share that is drawn; see :func:`split_rows`.

    Returns:
        By split: the rows, the name of their source, and the number of bad rows left out.

    Raises:
        DataError: With file, line and reason.
    """
    options = {"labels": labels, "on_bad_row": on_bad_row}
    rows, bad = load_rows(train_file, dataset_name=dataset_name, max_rows=max_train_samples, **options)
    source = train_file or dataset_name
    if validation_file is not None:
        validation, bad_validation = load_rows(validation_file, **options)
        names = {"training": source, "validation": validation_file}
        return {"training": rows, "validation": validation}, names, {"training": bad, "validation": bad_validation}
    if not 0 < validation_split < 1:
        raise DataError(f"--validation_split must lie between 0 and 1, got {validation_split}")
    training, validation = split_rows(rows, validation_split, seed)
    names = {split: f"{source}, {split} split" for split in ("training", "validation")}
    return {"training": training, "validation": validation}, names, {"training": bad, "validation": 0}


def read_texts(file: str | None) -> tuple[list[str], list[str]]:
    """Ids and texts, without gold: JSON lines (``*.jsonl``) with a ``text``, or plain text with one document a line.

    Args:
        file: ``None`` reads standard input, as plain text.

    Raises:
        DataError: With file, line and reason.
    """
    source = file or "standard input"
    try:
        content = read_text(file) if file else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8; save it as UTF-8") from error
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


def rows_from_texts(texts: Sequence[str], ids: Sequence[str]) -> Dataset:
    """Rows of texts without gold, for prediction."""
    rows = [make_row(id=identifier, text=text) for identifier, text in zip(ids, texts, strict=True)]
    return Dataset.from_list(rows, features=ROW_FEATURES)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write ``rows`` as JSON lines from which :func:`load_rows` reads the same documents."""
    write_json_lines(path, map(unparse_row, rows))


def label_schema(rows: Dataset, labels: Sequence[str] | None = None) -> LabelSchema:
    """The labels of ``rows``, those with a description first, in the order of their first occurrence.

    All prompts use this one order. The order of each row would tell which labels occur in it.
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
        DataError: Naming these labels.
    """
    unknown = {m["label"] for mentions in rows["mentions"] for m in mentions} - set(schema.labels)
    if unknown:
        raise DataError(
            f"{source}: mentions of labels that are not asked for: {', '.join(sorted(unknown))} "
            f"(known: {', '.join(schema.labels)}); `--labels` chooses the labels to use"
        )


def fold_rows(rows: Dataset, folds: int, seed: int) -> list[Dataset]:
    """Divide ``rows`` into ``folds`` of about the same size, shuffled by ``seed``; identical texts stay together.

    Raises:
        DataError: There are fewer different texts than folds.
    """
    groups = _group_by_text(rows, seed)
    if not 1 < folds <= len(groups):
        raise DataError(f"{len(groups)} different texts cannot be parted into {folds} folds")
    parts: list[list[int]] = [[] for _ in range(folds)]
    for group in groups:
        min(parts, key=len).extend(group)
    return [rows.select(sorted(part)) for part in parts]


def split_rows(rows: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Draw ``fraction`` of ``rows`` by ``seed`` for validation; identical texts stay together.

    Raises:
        DataError: One side would be empty.
    """
    order = _group_by_text(rows, seed)
    held_out: list[int] = []
    while order and len(held_out) < round(fraction * len(rows)):
        held_out.extend(order.pop())
    if not order or not held_out:
        raise DataError(f"{len(rows)} rows cannot be split {1 - fraction:.0%} / {fraction:.0%}: pass --validation_file")
    kept = sorted(index for group in order for index in group)
    return rows.select(kept), rows.select(sorted(held_out))


def _group_by_text(rows: Dataset, seed: int) -> list[list[int]]:
    """The indices of the rows of each text, the texts shuffled by ``seed``."""
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows["text"]):
        groups.setdefault(text, []).append(index)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    return order


def shared_texts(first: Dataset, second: Dataset) -> list[str]:
    """The ids of the rows of ``second`` whose text also occurs in ``first``."""
    texts = set(first["text"])
    return [row["id"] for row in second.select_columns(["id", "text"]) if row["text"] in texts]
