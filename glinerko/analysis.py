"""Why a model fails where it fails: every gold and every predicted span falls in one class."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from glinerko.data import Example, Span
from glinerko.kiwi import analyser
from glinerko.targets import Outcome


class ErrorClass(str, Enum):
    """What a span is; the kinds of wrong boundary are those of the prediction, seen from the gold."""

    CORRECT = "correct"
    PARTICLE_ATTACHED = "wrong boundary: particle attached"
    PARTICLE_CUT = "wrong boundary: particle cut"
    WIDER = "wrong boundary: wider"
    NARROWER = "wrong boundary: narrower"
    SHIFTED = "wrong boundary: shifted"
    WRONG_LABEL = "wrong label"
    MISSED = "missed"
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
    """Where in the document it begins, from 0 to 1."""


def judge_spans(
    examples: Sequence[Example],
    outcomes: Sequence[Mapping[tuple[int, int, str], str]],
    predicted: Sequence[Iterable[Span]],
    labels: Sequence[str],
    seen: set[tuple[str, str]] = frozenset(),
) -> list[list[Judged]]:
    """Classify every gold and every predicted span of each document.

    A prediction is correct if a gold span agrees in start, end and label; of the rest, it has the wrong label if a gold
    span overlaps it under another label alone, the wrong boundary if one overlaps under its own, and is spurious
    otherwise. A gold span that is no target of the splitter, the width and the windows is unreachable, whatever
    overlaps it; of the rest that is not correct, it has the class of the prediction that overlaps it most, and is
    missed otherwise.

    Args:
        outcomes: Of each document, what became of each gold span ``(start, end, label)``: values of
            :class:`glinerko.targets.Outcome`.
        seen: The ``(mention, label)`` pairs of the training documents.
    """
    judged = []
    for example, reached, spans in zip(examples, outcomes, predicted, strict=True):
        gold = [Span(*key) for key in sorted(example.gold_spans) if key[2] in labels]
        found = sorted(spans)
        right = {span.key for span in gold} & {span.key for span in found}
        particles = _particles(example.text) if len(right) < max(len(gold), len(found)) else []
        document: list[Judged] = []

        def add(span: Span, is_gold: bool, error: ErrorClass, example=example, document=document) -> None:
            known = (example.text[span.start : span.end], span.label) in seen
            document.append(Judged(span, is_gold, error, known, span.start / max(len(example.text), 1)))

        for span in found:
            if span.key in right:
                add(span, False, ErrorClass.CORRECT)
            elif (other := _nearest(span, gold)) is None:
                add(span, False, ErrorClass.SPURIOUS)
            else:
                add(span, False, _compare(other, span, particles))
        wrong = [span for span in found if span.key not in right]
        for span in gold:
            if span.key in right:
                add(span, True, ErrorClass.CORRECT)
            elif reached.get(span.key) not in (Outcome.TARGET.value, Outcome.NESTED.value):
                add(span, True, ErrorClass.UNREACHABLE)
            elif (other := _nearest(span, wrong)) is None:
                add(span, True, ErrorClass.MISSED)
            else:
                add(span, True, _compare(span, other, particles))
        judged.append(document)
    return judged


def _nearest(span: Span, others: Iterable[Span]) -> Span | None:
    """The span that overlaps ``span``: of its own label before others, then the one that shares most with it."""

    def shared(other: Span) -> int:
        return min(span.end, other.end) - max(span.start, other.start)

    overlapping = [other for other in others if shared(other) > 0]
    return max(overlapping, key=lambda other: (other.label == span.label, shared(other)), default=None)


def _compare(gold: Span, found: Span, particles: Sequence[tuple[int, int]]) -> ErrorClass:
    """The class of two spans that overlap and do not agree."""
    if gold.label != found.label:
        return ErrorClass.WRONG_LABEL
    if gold.start == found.start and _covered(gold.end, found.end, particles):
        return ErrorClass.PARTICLE_ATTACHED
    if gold.start == found.start and _covered(found.end, gold.end, particles):
        return ErrorClass.PARTICLE_CUT
    if found.start <= gold.start and gold.end <= found.end:
        return ErrorClass.WIDER
    if gold.start <= found.start and found.end <= gold.end:
        return ErrorClass.NARROWER
    return ErrorClass.SHIFTED


def _covered(start: int, end: int, particles: Sequence[tuple[int, int]]) -> bool:
    """Whether ``[start, end)`` is a run of particles and nothing else."""
    for first, last in particles:
        if first == start < end:
            start = last
    return start == end and any(last == end for _, last in particles)


def _particles(text: str) -> list[tuple[int, int]]:
    """Where the particles (josa) and the copula with its ending stand in ``text``, in order."""
    tokens = analyser(os.getpid()).tokenize(text)
    copula, particles = False, []
    for token in tokens:
        copula = token.tag == "VCP" or (copula and token.tag.startswith("E"))
        if token.tag.startswith("J") or copula:
            particles.append((token.start, token.end))
    return particles


_LENGTHS = ((2, "1–2"), (5, "3–5"), (10, "6–10"), (math.inf, "over 10"))


def count_errors(judged: Sequence[Sequence[Judged]]) -> dict[str, dict[str, dict[str, int]]]:
    """How many spans of each class there are: gold and predicted, overall and by property.

    Returns:
        ``{"gold" or "predicted": {group: {class: count}}}``, the groups being ``all``, each label, lengths in
        characters, seen or unseen in training, and thirds of the document.
    """
    counts: dict[str, dict[str, Counter]] = {"gold": {}, "predicted": {}}
    for item in (item for document in judged for item in document):
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
    return {side: {group: dict(found) for group, found in sorted(groups.items())} for side, groups in counts.items()}
