"""Why a model fails: every gold and every predicted span falls in one class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from datasets import Dataset

from glinerko.corpus.alignment import Outcome
from glinerko.corpus.processor import TrainingWindow
from glinerko.corpus.rows import Example, Offsets, Span, SpanKey
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.windows import aligned_windows, perfect_spans
from glinerko.model.architecture import Architecture
from glinerko.scoring.metrics import where_annotated


class ErrorClass(StrEnum):
    """The class of a span. The kinds of wrong boundary say how the prediction differs from the gold span."""

    CORRECT = "correct"
    PARTICLE_ATTACHED = "wrong boundary: particle attached"
    PARTICLE_CUT = "wrong boundary: particle cut"
    WIDER = "wrong boundary: wider"
    NARROWER = "wrong boundary: narrower"
    SHIFTED = "wrong boundary: shifted"
    WRONG_LABEL = "wrong label"
    MISSED = "missed"
    NO_CANDIDATE = "missed: no candidate"
    SPURIOUS = "spurious"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Judged:
    """A gold or predicted span with its class."""

    span: Span
    is_gold: bool
    error: ErrorClass
    seen: bool
    """Whether its text, with its label, is a mention of the training documents."""
    place: float
    """Where it begins in the document, from 0 to 1."""


def judge_spans(
    examples: Sequence[Example],
    outcomes: Sequence[Mapping[tuple[int, int, str], str]],
    predicted: Sequence[Iterable[Span]],
    labels: Sequence[str],
    seen: set[tuple[str, str]] = frozenset(),
    particles: Callable[[str], Sequence[Offsets]] = lambda text: [],
    not_scored: Sequence[set[SpanKey]] | None = None,
) -> list[list[Judged]]:
    """Classify every gold and every predicted span of each document.

    A prediction is correct if a gold span has the same start, end and label. Otherwise its boundary is wrong if it
    overlaps a gold span of its label, its label is wrong if it only overlaps gold spans of other labels, and it is
    spurious if it overlaps none. A gold span that is no target of the splitter, the width and the windows is
    unreachable, whatever overlaps it. Any other gold span that is not correct gets the class of the wrong prediction
    that overlaps it most, or is missed if there is none: it had no candidate, or a low score.

    Args:
        outcomes: For each document, the outcome of each gold span ``(start, end, label)``: values of
            :class:`glinerko.corpus.alignment.Outcome`.
        seen: The ``(mention, label)`` pairs of the training documents.
        particles: Returns what the language attaches to the end of entities in a text: the method of a
            :class:`glinerko.corpus.words.WordSplitter`. By default no particles are known.
        not_scored: The gold spans of each document that the model did not score; by default it scored all.
    """
    predicted = where_annotated(examples, predicted)
    documents = zip(examples, outcomes, predicted, not_scored or [set()] * len(examples), strict=True)
    return [_judge_document(*document, labels, seen, particles) for document in documents]


def _judge_document(
    example: Example,
    outcomes: Mapping[tuple[int, int, str], str],
    predicted: Iterable[Span],
    not_scored: set[SpanKey],
    labels: Sequence[str],
    seen: set[tuple[str, str]],
    particles: Callable[[str], Sequence[Offsets]],
) -> list[Judged]:
    text = example.text
    gold, predicted = [Span(*key) for key in sorted(example.gold_spans) if key[2] in labels], sorted(predicted)
    correct = {span.key for span in gold} & {span.key for span in predicted}
    wrong = [span for span in predicted if span.key not in correct]
    attached = particles(text) if len(correct) < max(len(gold), len(predicted)) else []

    def classify(span: Span, is_gold: bool) -> ErrorClass:
        if span.key in correct:
            return ErrorClass.CORRECT
        if is_gold and outcomes.get(span.key) not in (Outcome.TARGET.value, Outcome.NESTED.value):
            return ErrorClass.UNREACHABLE
        other = _nearest(span, wrong if is_gold else gold)
        if other is None and is_gold:
            return ErrorClass.NO_CANDIDATE if span.key in not_scored else ErrorClass.MISSED
        if other is None:
            return ErrorClass.SPURIOUS
        return _compare(span, other, attached) if is_gold else _compare(other, span, attached)

    return [
        Judged(
            span,
            is_gold,
            classify(span, is_gold),
            seen=(example.string(span.start, span.end), span.label) in seen,
            place=span.start / max(len(text), 1),
        )
        for is_gold, spans in ((False, predicted), (True, gold))
        for span in spans
    ]


def _nearest(span: Span, others: Iterable[Span]) -> Span | None:
    """The span that overlaps ``span``: one of its own label if possible, then the one that overlaps it most."""

    def shared(other: Span) -> int:
        return min(span.end, other.end) - max(span.start, other.start)

    overlapping = [other for other in others if shared(other) > 0]
    return max(overlapping, key=lambda other: (other.label == span.label, shared(other)), default=None)


def _compare(gold: Span, predicted: Span, particles: Sequence[Offsets]) -> ErrorClass:
    """The class of two spans that overlap and differ."""
    if gold.label != predicted.label:
        return ErrorClass.WRONG_LABEL
    if gold.start == predicted.start and _covered(gold.end, predicted.end, particles):
        return ErrorClass.PARTICLE_ATTACHED
    if gold.start == predicted.start and _covered(predicted.end, gold.end, particles):
        return ErrorClass.PARTICLE_CUT
    if predicted.start <= gold.start and gold.end <= predicted.end:
        return ErrorClass.WIDER
    if gold.start <= predicted.start and predicted.end <= gold.end:
        return ErrorClass.NARROWER
    return ErrorClass.SHIFTED


def _covered(start: int, end: int, particles: Sequence[Offsets]) -> bool:
    """Whether ``[start, end)`` consists of particles only."""
    for first, last in particles:
        if first == start < end:
            start = last
    return start == end and any(last == end for _, last in particles)


def find_unscored(
    model: Architecture,
    aligned: Dataset,
    prompt: LabelSchema,
    labels: Mapping[str, str],
    predicted: Sequence[Iterable[Span]],
    batch_size: int,
) -> list[set[SpanKey]]:
    """The targets of each document that were not predicted and that the model did not score in any window.

    Args:
        aligned: Rows of :func:`glinerko.corpus.windows.align_gold`.
        prompt: What the model was asked.
        labels: The label for each name that ``prompt`` asks for.
        predicted: The spans of each document. Documents in which no target is missing are not read.
    """
    names = {label: name for name, label in labels.items()}
    windows: list[tuple[int, int, TrainingWindow]] = []
    targets: list[set[SpanKey]] = []
    for index, (row, spans) in enumerate(zip(aligned, predicted, strict=True)):
        targets.append({span.key for span in perfect_spans(row)} - {span.key for span in spans})
        if targets[-1]:
            for begin, window in aligned_windows(row, tuple(labels.values())):
                own = [replace(span, label=names[span.label]) for span in window.targets]
                windows.append((index, begin, replace(window, labels=tuple(labels), targets=own)))
    scored: list[set[SpanKey]] = [set() for _ in targets]
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        missing = model.find_missing([window for _, _, window in batch], prompt)
        for (index, begin, window), lost in zip(batch, missing, strict=True):
            keys = {span.key for span in window.targets} - {span.key for span in lost}
            scored[index] |= {(begin + start, begin + end, labels[name]) for start, end, name in keys}
    return [own - found for own, found in zip(targets, scored, strict=True)]


_LENGTHS = ((2, "1–2"), (5, "3–5"), (10, "6–10"), (math.inf, "over 10"))


def count_errors(judged: Iterable[Iterable[Judged]]) -> dict[str, dict[str, dict[str, int]]]:
    """The number of gold and predicted spans of each class, overall and by property.

    Returns:
        ``{"gold" or "predicted": {group: {class: count}}}``. The groups are ``all``, each label, lengths in
        characters, seen or unseen in training, and thirds of the document.
    """
    counts: dict[str, dict[str, Counter]] = {"gold": {}, "predicted": {}}
    for item in chain.from_iterable(judged):
        characters = item.span.end - item.span.start
        length = next(name for most, name in _LENGTHS if characters <= most)
        groups = (
            "all",
            f"label: {item.span.label}",
            f"length: {length} characters",
            f"training: {'seen' if item.seen else 'unseen'}",
            f"position: {('first', 'middle', 'last')[min(int(item.place * 3), 2)]} third",
        )
        for group in groups:
            counts["gold" if item.is_gold else "predicted"].setdefault(group, Counter())[item.error.value] += 1
    return {side: {group: dict(each) for group, each in sorted(groups.items())} for side, groups in counts.items()}
