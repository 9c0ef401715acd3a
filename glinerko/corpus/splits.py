"""Training, validation and test rows: reading them, drawing them, and texts that are the same in two rows.

Texts that differ only in white space or Unicode form are the same text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from datasets import Dataset

from glinerko.common import DataError
from glinerko.corpus.matching import without_spaces
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import ENTITIES, Example


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

    Both must hold a mention. A training row must name each of ``labels``.

    Args:
        validation_split: The share that is drawn; see :func:`split_rows`.

    Returns:
        By split: the rows, the name of their source, and the number of bad rows left out.

    Raises:
        DataError: With file, line and reason.
    """
    options = {"labels": labels, "on_bad_row": on_bad_row}
    rows, bad = load_rows(
        train_file, dataset_name=dataset_name, max_rows=max_train_samples, named_labels_only=True, **options
    )
    source = train_file or dataset_name
    _require_gold(rows, source)
    if validation_file is not None:
        validation, bad_validation = load_rows(validation_file, **options)
        names = {"training": source, "validation": validation_file}
    elif not 0 < validation_split < 1:
        raise DataError(f"--validation_split must lie between 0 and 1, got {validation_split}")
    else:
        (rows, validation), bad_validation = split_rows(rows, validation_split, seed), 0
        names = {split: f"{source}, {split} split" for split in ("training", "validation")}
    splits = {"training": rows, "validation": validation}
    for split, part in splits.items():
        _require_gold(part, names[split])
    return splits, names, {"training": bad, "validation": bad_validation}


def _require_gold(rows: Dataset, source: str) -> None:
    """Stop if no mention occurs in its text, and there are no classes, relations or structures either.

    Raises:
        DataError: Naming the source.
    """
    found = any(mention["spans"] for mentions in rows["mentions"] for mention in mentions)
    if not found and not any(map(any, (rows["classes"], rows["records"]))):
        absent = sum(map(len, rows["mentions"]))
        lack = f"none of {absent:,} mentions is in its text" if absent else f"no mention in {len(rows):,} documents"
        raise DataError(f"{source}: {lack}: nothing can be learned, and no epoch or threshold can be chosen")


def fold_rows(rows: Dataset, folds: int, seed: int) -> list[Dataset]:
    """Divide ``rows`` into ``folds`` of about the same size, shuffled by ``seed``; the same texts stay together.

    Raises:
        DataError: There are fewer different texts than folds.
    """
    order = _shuffle_texts(rows, seed)
    different = len({same for same, _ in order})
    if not 1 < folds <= different:
        raise DataError(f"{different} different texts cannot be parted into {folds} folds")
    parts: list[list[int]] = [[] for _ in range(folds)]
    sizes, place = [0] * folds, {}
    for same, indices in order:
        # A second copy of a text goes to the fold of the first. Its own place stays counted, so that other texts stay.
        turn = parts.index([]) if [] in parts and same not in place else sizes.index(min(sizes))
        sizes[turn] += len(indices)
        parts[place.setdefault(same, turn)].extend(indices)
    return [rows.select(sorted(part)) for part in parts]


def split_rows(rows: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Draw ``fraction`` of ``rows`` by ``seed`` for validation; the same texts stay together.

    Raises:
        DataError: One side would be empty.
    """
    groups: dict[str, list[int]] = {}
    for same, indices in _shuffle_texts(rows, seed):
        groups.setdefault(same, []).extend(indices)
    order = list(groups.values())
    held_out: list[int] = []
    while order and len(held_out) < round(fraction * len(rows)):
        held_out.extend(order.pop())
    if not order or not held_out:
        raise DataError(f"{len(rows)} rows cannot be split {1 - fraction:.0%} / {fraction:.0%}: pass --validation_file")
    kept = sorted(index for group in order for index in group)
    return rows.select(kept), rows.select(sorted(held_out))


def _shuffle_texts(rows: Dataset, seed: int) -> list[tuple[str, list[int]]]:
    """The rows of each text as it is written, the texts shuffled by ``seed``.

    Each entry is (text without white space, row indices). Equal first parts mean the same text.
    """
    written: dict[str, list[int]] = {}
    for index, text in enumerate(rows["text"]):
        written.setdefault(text, []).append(index)
    order = [(without_spaces(text), indices) for text, indices in written.items()]
    random.Random(seed).shuffle(order)
    return order


def shared_texts(first: Dataset, second: Dataset) -> list[str]:
    """The ids of the rows of ``second`` whose text also occurs in ``first``, perhaps spaced or encoded differently."""
    texts = set(map(without_spaces, first["text"]))
    return [row["id"] for row in second.select_columns(["id", "text"]) if without_spaces(row["text"]) in texts]


def contradicting_texts(rows: Dataset) -> list[list[str]]:
    """The ids of the rows of each text that is labelled in two ways: a label of both rows has mentions at other places.

    Texts and places are compared without white space. A row without labels says that nothing was found.
    """
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows["text"]):
        groups.setdefault(without_spaces(text), []).append(index)
    found = []
    for group in (rows.select(indices) for indices in groups.values() if len(indices) > 1):
        examples = [each for each in map(Example.from_row, group) if ENTITIES in each.annotated]
        every = {label for example in examples for label in example.labels}
        versions: dict[str, set[frozenset]] = {label: set() for label in every}
        for example in examples:
            for label in example.labels or every:
                spans = (span for mention in example.mentions if mention.label == label for span in mention.spans)
                versions[label].add(frozenset(tuple(len(without_spaces(example.text[:at])) for at in s) for s in spans))
        if any(len(each) > 1 for each in versions.values()):
            found.append([example.id for example in examples])
    return found
