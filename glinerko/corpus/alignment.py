"""What words and windows make of the gold: mentions and records as targets, or the cause why they are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from glinerko.corpus.rows import Example, Offsets, Record
from glinerko.corpus.schema import RELATIONS, STRUCTURES


class Outcome(StrEnum):
    """What became of an occurrence of a gold mention; the causes in the order in which they are checked."""

    ABSENT = "absent from text"
    STARTS_INSIDE_WORD = "starts inside a word"
    ENDS_INSIDE_WORD = "ends inside a word"
    TOO_WIDE = "wider than max_width"
    OUTSIDE_WINDOWS = "outside every window"
    NESTED = "nested in a span of its label"
    APART = "not in one window with the rest of its record"
    TOO_MANY = "of a record too many for its window"
    TARGET = "target"


_RANKS = {outcome: rank for rank, outcome in enumerate(Outcome)}


def classify_spans(
    example: Example, words: Sequence[Offsets], windows: Sequence[Offsets], max_width: int | None
) -> list[list[Outcome]]:
    """The outcome of every occurrence of every mention of ``example``.

    Args:
        words: ``(start, end)`` of each word of the text.
        windows: ``(first, last)`` word of each window, ``last`` exclusive.
        max_width: The widest span that can be found, in words; ``None`` if there is none.
    """
    classify = _span_classifier(words, windows, max_width)
    outcomes = [[classify(*span) for span in mention.spans] for mention in example.mentions]
    targets: dict[str, set[Offsets]] = {}
    for mention, results in zip(example.mentions, outcomes, strict=True):
        reached = (span for span, result in zip(mention.spans, results, strict=True) if result is Outcome.TARGET)
        targets.setdefault(mention.label, set()).update(reached)
    for mention, results in zip(example.mentions, outcomes, strict=True):
        for index, span in enumerate(mention.spans):
            if results[index] is Outcome.TARGET and any(
                other != span and other[0] <= span[0] and span[1] <= other[1] for other in targets[mention.label]
            ):
                results[index] = Outcome.NESTED
    return outcomes


def _span_classifier(
    words: Sequence[Offsets], windows: Sequence[Offsets], max_width: int | None
) -> Callable[[int, int], Outcome]:
    """A function from a start and an end to what the words, the width and the windows make of that span."""
    starts = {start: index for index, (start, _) in enumerate(words)}
    ends = {end: index for index, (_, end) in enumerate(words)}

    def classify(start: int, end: int) -> Outcome:
        if start not in starts:
            return Outcome.STARTS_INSIDE_WORD
        if end not in ends:
            return Outcome.ENDS_INSIDE_WORD
        if max_width is not None and ends[end] - starts[start] >= max_width:
            return Outcome.TOO_WIDE
        if not any(first <= starts[start] and ends[end] < last for first, last in windows):
            return Outcome.OUTSIDE_WINDOWS
        return Outcome.TARGET

    return classify


def place_records(
    example: Example,
    words: Sequence[Offsets],
    windows: Sequence[Offsets],
    max_width: int | None,
    max_records: int | None = None,
) -> tuple[list[list[Outcome]], list[dict[str, Any]]]:
    """The outcome of every value of every record of ``example``, and the records that each window is to find.

    A relation is a target where both of its ends are. A structure is one wherever all of its values are that can be
    found at all; if that is nowhere, in the first window that has most of them.

    Args:
        words, windows, max_width: See :func:`classify_spans`.
        max_records: How many records of a task can be found in a window; ``None`` for any number.
    """
    classify = _span_classifier(words, windows, max_width)
    limits = [(words[first][0], words[last - 1][1]) for first, last in windows]
    outcomes: list[list[Outcome]] = []
    targets: list[dict[str, Any]] = []
    for number, record in enumerate(example.records):
        found = [[classify(*span) for span in value.spans] for value in record.values]
        whole = [
            [span for span, outcome in zip(value.spans, results, strict=True) if outcome is Outcome.TARGET]
            for value, results in zip(record.values, found, strict=True)
        ]
        inside = [[[p for p in places if begin <= p[0] and p[1] <= end] for places in whole] for begin, end in limits]
        counts = [sum(map(bool, places)) for places in inside]
        wanted = len(record.values) if record.kind == RELATIONS else sum(map(bool, whole))
        homes = [window for window, count in enumerate(counts) if count == wanted > 0]
        if not homes and record.kind == STRUCTURES and (any(counts) or set(record.chosen) == record.fields):
            homes = [counts.index(max(counts))] if counts else []
        targets += [_record_target(number, record, window, inside[window]) for window in homes]
        outcomes.append([])
        for index, (value, results) in enumerate(zip(record.values, found, strict=True)):
            kept = value.label in record.chosen or any(inside[window][index] for window in homes)
            best = max(results, key=_RANKS.__getitem__, default=Outcome.ABSENT)
            outcomes[-1].append(Outcome.TARGET if kept and homes else Outcome.APART if whole[index] else best)
    return _limit_records(outcomes, targets, max_records)


def _record_target(number: int, record: Record, window: int, places: Sequence[Sequence[Offsets]]) -> dict[str, Any]:
    """An entry of the column ``record_targets``."""
    values = [
        {"label": value.label, "spans": spans} for value, spans in zip(record.values, places, strict=True) if spans
    ]
    chosen = [{"label": value.label, "text": value.text} for value in record.values if value.label in record.chosen]
    return {"window": window, "record": number, "task": record.task, "values": values, "chosen": chosen}


def _limit_records(
    outcomes: list[list[Outcome]], targets: list[dict[str, Any]], max_records: int | None
) -> tuple[list[list[Outcome]], list[dict[str, Any]]]:
    """The records of each window in the order of their first values, without those past ``max_records``."""
    # gliner2 tells the instances of a task apart by their order.
    targets.sort(
        key=lambda each: (each["window"], each["task"], min((v["spans"][0] for v in each["values"]), default=()))
    )
    kept, counts = [], Counter()
    for target in targets:
        counts[target["window"], target["task"]] += 1
        if max_records is None or counts[target["window"], target["task"]] <= max_records:
            kept.append(target)
    for number in {target["record"] for target in targets} - {target["record"] for target in kept}:
        outcomes[number] = [Outcome.TOO_MANY] * len(outcomes[number])
    return outcomes, kept
