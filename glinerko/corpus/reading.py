"""Reading a corpus. Rows are stored in a ``datasets.Dataset``, on disk and memory-mapped."""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, Features, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from gliner2.inference.schema import Schema

from glinerko.common import (
    JSON_BEGIN,
    DataError,
    check_unicode,
    check_writable,
    code_digest,
    first_line,
    open_binary,
    parse_json,
    read_lines,
    without_compression,
    write_json_lines,
)
from glinerko.corpus.parsing import parse_row, unparse_row
from glinerko.corpus.rows import ENTITIES, ROW_FEATURES, make_row
from glinerko.corpus.schema import STRUCTURES, LabelSchema, Task, check_labels, merge_tasks

logger = logging.getLogger(__name__)

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def load_rows(
    file: str | None = None,
    *,
    dataset_name: str | None = None,
    split: str = "train",
    labels: Sequence[str] | None = None,
    named_labels_only: bool = False,
    on_bad_row: str = "raise",
    max_rows: int | None = None,
) -> tuple[Dataset, int]:
    """Read ``file`` (JSON lines) or a split of a ``datasets`` data set into checked rows.

    Args:
        labels: The labels to use. They become the label set of every row; mentions of other labels are left out, and
            counted in ``left_out``.
        named_labels_only: Whether to stop if no row names one of ``labels``, which is then misspelt.
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
    wanted = check_labels(labels or ())
    if named_labels_only:
        _require_named(rows, wanted, source)
    if max_rows is not None:
        rows = rows.select(range(min(max_rows, len(rows))))
    if wanted:
        select = partial(_select_labels, labels=wanted)
        rows = rows.map(select, features=rows.features, desc="Selecting labels")
    return rows, bad


def _select_labels(row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    labels = labels if ENTITIES in row["annotated"] else ()
    kept = [mention for mention in row["mentions"] if mention["label"] in labels]
    return {"labels": list(labels), "mentions": kept, "left_out": len(row["mentions"]) - len(kept)}


def _require_named(rows: Dataset, labels: Sequence[str], source: str) -> None:
    """Stop if a label is named by no row.

    Raises:
        DataError: Naming the labels of the rows, and the one that is close.
    """
    mentions: Counter[str] = Counter()
    for row in rows.select_columns(["labels", "mentions"]):
        mentions.update(dict.fromkeys(row["labels"], 0))
        mentions.update(mention["label"] for mention in row["mentions"])
    wrong = [label for label in labels if label not in mentions]
    if not wrong:
        return
    left_out = sum(count for label, count in mentions.items() if label not in labels)
    unknown = ", ".join(label + _hint(label, mentions) for label in wrong)
    named = ", ".join(islice(mentions, 20)) + (" ..." if len(mentions) > 20 else "")
    raise DataError(
        f"{source}: no row names the label {unknown}; the rows name {named or 'no label at all'}; "
        f"{left_out:,} of {mentions.total():,} mentions would be left out"
    )


def _hint(label: str, known: Iterable[str]) -> str:
    """The label that ``label`` may stand for, or several of them."""
    folded = {each.casefold(): each for each in known}
    parts = [folded.get(part.strip().casefold()) for part in label.split(",")]
    if len(parts) > 1 and all(parts):
        return f" (write {' '.join(parts)}, without commas)"
    close = get_close_matches(label.casefold(), folded, n=1)
    return f" ({folded[close[0]]} is close)" if close else ""


def _ensure_cache() -> None:
    """Keep the rows in a temporary directory if the cache of the ``datasets`` library cannot be written."""
    try:
        check_writable(datasets.config.HF_DATASETS_CACHE)
    except DataError as error:
        directory = tempfile.mkdtemp(prefix="datasets.")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        datasets.config.HF_DATASETS_CACHE = Path(directory)
        logger.warning(f"{error}: rows are kept in {directory} for this run; HF_DATASETS_CACHE names another directory")


def _drop_bad_rows(rows: Dataset, source: str, on_bad_row: str) -> tuple[Dataset, int]:
    errors = rows["error"][:]
    bad = [index for index, error in enumerate(errors) if error]
    if bad and on_bad_row == "raise":
        more = f" ({len(bad)} bad rows in all)" if len(bad) > 1 else ""
        advice = "fix it, or leave it out with `--on_bad_row skip` (training and evaluation)"
        raise DataError(f"{source}, {rows['place'][bad[0]]}: {errors[bad[0]]}{more}; {advice}")
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
    return read_once(file, _generate, ROW_FEATURES, path=str(path), digest=digest)


def read_once(
    source: str, generate: Callable[..., Iterator[dict[str, Any]]], features: Features, **content: Any
) -> Dataset:
    """The rows that ``generate(**content)`` yields, kept in the ``datasets`` cache for the next time.

    Args:
        source: The name of what is read, for the error message.
        content: Digests of what is read belong in here. A list would be split, and each part generated by itself.

    Raises:
        DataError: Reading failed, or the cache cannot be written.
    """
    _ensure_cache()
    try:
        return Dataset.from_generator(generate, features=features, gen_kwargs={**content, "code": code_digest()})
    except DatasetGenerationError as error:
        reason = error.__cause__
        if isinstance(reason, DataError):
            raise reason from None
        if isinstance(reason, OSError) and reason.filename is None:  # of what is written; what is read has a name
            raise no_room(reason) from reason
        raise DataError(f"{source}: cannot be read ({first_line(reason)})") from reason


def no_room(reason: OSError) -> DataError:
    """The error of a cache that cannot be written."""
    cache = datasets.config.HF_DATASETS_CACHE
    free = shutil.disk_usage(cache).free / 1e9
    return DataError(f"{cache}: {reason.strerror} ({free:.1f} GB are free); HF_DATASETS_CACHE names another directory")


def _generate(path: str, **_: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; digests only tell the cache when to read it again."""
    blank = True
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            place = f"line {number}"
            blank = blank and not line.strip()
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield _parse_safely(parse_json(text), place, f"{Path(path).stem}:{number}")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8"
                yield make_row(place=place, error=reason)
            except (ValueError, DataError) as error:
                yield make_row(place=place, error=str(error))
    if blank:
        yield make_row(place="line 1", error="the file has only blank lines")


def _parse_safely(raw: Any, place: str, default_id: str) -> dict[str, Any]:
    """A row whose column ``error`` says what is wrong with it, so that bad rows can be counted."""
    try:
        return make_row(**parse_row(raw, default_id), place=place)
    except (ValueError, DataError) as error:
        return make_row(place=place, error=str(error))


def load_split(name: str, split: str) -> Dataset:
    """A split of a data set, on the Hub or in a directory, as it is.

    Raises:
        DataError: It cannot be loaded, or is no table of rows.
    """
    _ensure_cache()
    try:
        raw = load_dataset(name, split=split)
    except Exception as error:  # every builder raises its own
        raise DataError(f"data set {name!r}, split {split!r}: {first_line(error.__cause__ or error)}") from error
    if isinstance(raw, DatasetDict) or not isinstance(raw, Dataset):
        raise DataError(f"data set {name!r}: split {split!r} is no table of rows")
    return raw


def _read_dataset(name: str | None, split: str) -> Dataset:
    if name is None:
        raise DataError("no data: pass a file or the name of a data set")
    raw = load_split(name, split)
    return raw.map(
        lambda row, index: _parse_safely(row, f"row {index}", f"{split}:{index}"),
        with_indices=True,
        remove_columns=raw.column_names,
        features=ROW_FEATURES,
        desc="Reading rows",
    )


def read_texts(file: str | None) -> Iterator[tuple[str, str]]:
    """Id and text of one document after the other: JSON lines with a ``text``, or plain text with a document a line.

    JSON lines are recognised by the name of the file, or by a first line in which an object begins. A row without an
    ``id`` has the number of its line as its id.

    Args:
        file: ``None`` reads standard input, each line as soon as it is there.

    Raises:
        DataError: With file, line and reason.
    """
    source, are_json = "standard input" if file is None else file, None
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        if are_json is None:
            are_json = without_compression(source).suffix.lower() in _JSON_SUFFIXES or bool(JSON_BEGIN.match(line))
        try:
            row = parse_json(line) if are_json else {"text": line}
            text = row.get("text", row.get("input")) if isinstance(row, Mapping) else None
            if not isinstance(text, str):
                raise ValueError('expected an object with a "text" on each line')
            identifier = str(number if row.get("id") is None else row["id"])
            check_unicode("'text'", text)
            check_unicode("'id'", identifier)
        except (ValueError, DataError) as error:
            raise DataError(f"{source}, line {number}: {error}") from error
        yield identifier, text
    if are_json is None:
        raise DataError(f"{source}: no text")


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write ``rows`` as JSON lines from which :func:`load_rows` reads the same documents."""
    write_json_lines(path, map(unparse_row, rows))


def label_schema(rows: Dataset, labels: Sequence[str] | None = None) -> LabelSchema:
    """The labels of ``rows``, those with a description first, in the order of their first occurrence, and the tasks.

    All prompts use this one order. The order of each row would tell which labels occur in it.

    Args:
        labels: The labels of entities; all by default.

    Raises:
        DataError: The rows name neither a label nor a task, or a task in two ways.
    """
    described: dict[str, str] = {}
    seen: dict[str, None] = {}
    for row in rows.select_columns(["labels", "descriptions"]):
        for entry in row["descriptions"]:
            described.setdefault(entry["label"], entry["description"])
        seen.update(dict.fromkeys(row["labels"]))
    names = check_labels(labels or dict.fromkeys((*described, *seen)))
    tasks = merge_tasks(Task.from_dict(task) for text in dict.fromkeys(rows["tasks"]) for task in json.loads(text))
    if not names and not tasks:
        raise DataError("the rows name no label: neither in 'entities' nor in 'entity_descriptions'")
    descriptions = {label: described[label] for label in names if label in described}
    schema = LabelSchema(names, descriptions, tuple(_with_record(task, rows) for task in tasks))
    both = [task.name for task in tasks if task.name in names]
    if both:
        raise DataError(f"{both[0]!r} is the name of a label and of a task: choose another name")
    try:
        Schema.from_dict(schema.to_request())
    except ValueError as error:
        raise DataError(f"gliner2 refuses the tasks of the rows: {', '.join(str(error).splitlines()[1:3])}") from error
    return schema


def _with_record(task: Task, rows: Dataset) -> Task:
    """A structure with its instances formed around the first field that all of them have, unless rows say how."""
    if task.kind != STRUCTURES:
        return task
    instances = [each for records in rows["records"] for each in records if each["task"] == task.name]
    fields = [{value["label"] for value in each["values"]} for each in instances]
    for each, named in zip(instances, fields, strict=True):
        plain = [name for name in task.choices if name in named and name not in each["chosen"]]
        if plain:
            raise DataError(f"the field {plain[0]!r} of {task.name!r} has choices in some instances and none in others")
    if task.record:
        return task
    always = set(task.labels).intersection(*fields)
    anchor = next((name for name in task.labels if name in always and name not in task.choices), None)
    return replace(task, record={"mode": "natural", "anchor": anchor} if anchor else {"mode": "latent"})


def require_labels(rows: Dataset, schema: LabelSchema, source: str) -> None:
    """Stop if ``rows`` hold mentions of labels, or classes, that are not in ``schema``.

    Raises:
        DataError: Naming them.
    """
    unknown = {m["label"] for mentions in rows["mentions"] for m in mentions} - set(schema.labels)
    if unknown and schema.labels:
        raise DataError(
            f"{source}: mentions of labels that are not asked for: {', '.join(sorted(unknown))} "
            f"(known: {', '.join(schema.labels)}); `--labels` chooses the labels to use"
        )
    known = {task.name: task for task in schema.tasks}
    for task in label_schema(rows, schema.labels or None).tasks if known else ():
        other = known.get(task.name, task)
        others = [label for label in task.labels if label not in other.labels]
        if other.kind != task.kind or task.multi_label > other.multi_label:
            raise DataError(f"{source}: {task.name!r} is another task here than the one that is asked for")
        if others:
            raise DataError(
                f"{source}: {task.name!r} has {', '.join(others)}, which is not asked for "
                f"(known: {', '.join(other.labels)})"
            )
