"""Which labels of a corpus are probably wrong: its out-of-fold predictions and the same strings elsewhere as evidence.

Every gold span and every candidate span is an item. A logistic regression of "is labelled" on the evidence of all items
says how much each kind of evidence counts in this corpus. Where it contradicts the label, there is a finding.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from glinerko.common import DataError
from glinerko.corpus.diagnosis import runs
from glinerko.corpus.rows import Example, Offsets, Span

LOWEST, HIGHEST = 0.025, 0.9995
"""The score that is assumed of a span without one (candidates have at least 0.05), and the highest that counts."""
NESTED = 0.02
"""The share of gold spans that overlap others from which on this is a habit of the annotators, and no mistake."""
EVIDENCE = {
    "score": "log odds of the out-of-fold score",
    "no_score": "score below 0.05",
    "out_of_reach": "no run of words, or a run too wide, so that the model cannot score it",
    "string": "log odds of the label for the same string in other documents",
    "string_known": "same string in another document",
    "rival_label": "log odds of the best other label at the same place",
    "rival_boundary": "log odds of the best span that overlaps it",
    "rival_string": "best string log odds among the spans that overlap it",
}
"""What the regression is given of an item, in the order of its columns."""
_STRING = [name.startswith("string") or name == "rival_string" for name in EVIDENCE]


class Kind(str, Enum):
    """What is probably wrong at a place."""

    MISSING = "missing mention"
    UNSUPPORTED = "unsupported mention"
    OTHER_LABEL = "other label"
    OTHER_BOUNDARY = "other boundary"
    INCONSISTENT = "inconsistent string"
    """The other documents that have the string decide: without them, the evidence would agree with the label."""


@dataclass(frozen=True)
class Item:
    """A span with what is known of it.

    Args:
        span: Its ``score`` is out of fold, ``None`` below 0.05.
        probability: That it should be labelled, by all evidence.
        agree: The number of other documents that give its string the same label.
        other_label: The number that give it another label.
        unlabelled: The number that have it as whole words, and leave it unlabelled.
    """

    span: Span
    probability: float
    agree: int
    other_label: int
    unlabelled: int

    def to_record(self, text: str) -> dict[str, Any]:
        """The item as it is written and shown."""
        return {
            **self.span.to_record(text),
            "score": self.span.score,
            "probability": round(self.probability, 4),
            "elsewhere": {"agree": self.agree, "other_label": self.other_label, "unlabelled": self.unlabelled},
        }


@dataclass(frozen=True)
class Finding:
    """A place with two readings: the gold spans as they are, and what the evidence says."""

    document: int
    """The index of the document."""
    kind: Kind
    score: float
    """From 0 to 1: how sure it is that the place is not labelled as it should be."""
    current: tuple[Item, ...]
    proposed: tuple[Item, ...]

    @property
    def labels(self) -> list[str]:
        return sorted({item.span.label for item in (*self.current, *self.proposed)})


@dataclass(frozen=True)
class Review:
    """All places with a doubt, the most doubtful first, and the weight of each kind of :data:`EVIDENCE`."""

    findings: list[Finding]
    weights: dict[str, float]
    """Of evidence divided by its standard deviation, so that weights can be compared."""
    items: int


def review_labels(
    examples: Sequence[Example],
    candidates: Sequence[Sequence[Span]],
    words: Sequence[Sequence[Offsets]],
    max_width: int,
) -> Review:
    """Rank the places of a corpus by how much the evidence contradicts their labels. A place is found once.

    Args:
        candidates: The out-of-fold candidates of each document, with scores.
        words: The words of each document.
        max_width: The widest span that the model scores, in words.

    Raises:
        DataError: No span is labelled, or all are: nothing can be compared.
    """
    items, features = _collect(examples, candidates, words, max_width)
    labelled = np.array([is_gold for _, _, is_gold, _ in items], dtype=bool)
    if not labelled.any() or labelled.all():
        which = "no mention is in its text" if not labelled.any() else "there is no candidate that is not labelled"
        raise DataError(f"nothing to compare: {which}")
    scale = features.std(0)
    scale[scale == 0] = 1
    weights, bias = fit_logistic(features / scale, labelled)
    probability = expit(features / scale @ weights + bias)
    features[:, _STRING] = 0
    without_strings = expit(features / scale @ weights + bias)
    places: list[list[_Place]] = [[] for _ in examples]
    for (document, span, is_gold, uses), p, alone in zip(
        items, probability.tolist(), without_strings.tolist(), strict=True
    ):
        places[document].append(_Place(Item(span, p, *uses), is_gold, alone))
    nested = _share_nested(examples) >= NESTED
    findings = [f for document, own in enumerate(places) for f in _find(document, own, nested)]
    findings.sort(key=lambda f: (-f.score, f.document, min(item.span for item in (*f.current, *f.proposed)).key))
    return Review(findings, dict(zip(EVIDENCE, weights.tolist(), strict=True)), len(items))


def fit_logistic(features: np.ndarray, labelled: np.ndarray, penalty: float = 1.0) -> tuple[np.ndarray, float]:
    """The weights ``[features]`` and the bias of an L2-regularised logistic regression.

    Args:
        features: ``[items, features]``
        labelled: ``[items]``, truth values.
    """
    sign = np.where(labelled, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (features @ weights + bias)
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + penalty / 2 * weights @ weights
        return value, np.append(features.T @ slope + penalty * weights, slope.sum())

    fitted = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return fitted[:-1], float(fitted[-1])


def _collect(
    examples: Sequence[Example],
    candidates: Sequence[Sequence[Span]],
    words: Sequence[Sequence[Offsets]],
    max_width: int,
) -> tuple[list[tuple[int, Span, bool, tuple[int, int, int]]], np.ndarray]:
    """Each item as (document, span, whether it is gold, how its string is used elsewhere), and its features."""
    spans: list[dict[tuple[int, int, str], Span]] = []
    for example, own in zip(examples, candidates, strict=True):
        judged = (span for span in own if not example.labels or span.label in example.labels)
        spans.append({key: Span(*key) for key in example.gold_spans} | {span.key: span for span in judged})
    strings = _StringUses(examples, spans, words, max_width)
    items, features = [], []
    for document, (example, own, of_document) in enumerate(zip(examples, spans, words, strict=True)):
        gold, ordered = example.gold_spans, [own[key] for key in sorted(own)]
        uses = [strings.elsewhere(document, span) for span in ordered]
        items += [(document, span, span.key in gold, use) for span, use in zip(ordered, uses, strict=True)]
        if ordered:
            features.append(_features(ordered, uses, [_in_reach(s, of_document, max_width) for s in ordered]))
    return items, np.concatenate(features) if features else np.zeros((0, len(EVIDENCE)))


def _in_reach(span: Span, words: Sequence[Offsets], max_width: int) -> bool:
    """Whether a span is a run of at most ``max_width`` words."""
    inside = [word for word in words if span.start <= word[0] and word[1] <= span.end]
    return 0 < len(inside) <= max_width and (inside[0][0], inside[-1][1]) == (span.start, span.end)


def _features(spans: Sequence[Span], uses: Sequence[tuple[int, int, int]], in_reach: Sequence[bool]) -> np.ndarray:
    """The evidence of the spans of one document, ``[items, features]``; see :data:`EVIDENCE`."""
    lowest = _log_odds(LOWEST)
    has_score = np.array([span.score is not None for span in spans])
    score = np.array([lowest if s.score is None else _log_odds(s.score) for s in spans])
    reach = np.array(in_reach) | has_score
    string = np.array([math.log((agree + 0.5) / (other + left + 0.5)) if agree + other + left else 0.0
                       for agree, other, left in uses])  # fmt: skip
    start, end = (np.array([getattr(span, name) for span in spans]) for name in ("start", "end"))
    same = (start[:, None] == start) & (end[:, None] == end)
    overlap = (start[:, None] < end) & (start < end[:, None])
    np.fill_diagonal(overlap, False)
    overlap &= has_score  # a span that is only there because it is gold must not tell that it is gold
    columns = {
        "score": np.where(reach, score, 0),
        "no_score": ~has_score & reach,
        "out_of_reach": ~reach,
        "string": string,
        "string_known": [any(use) for use in uses],
        "rival_label": np.where(overlap & same, score, lowest).max(1),
        "rival_boundary": np.where(overlap & ~same, score, lowest).max(1),
        "rival_string": np.where(overlap, string, 0).max(1).clip(0),
    }
    return np.stack([np.asarray(columns[name], dtype=float) for name in EVIDENCE], axis=1)


def _log_odds(score: float) -> float:
    score = min(max(score, LOWEST), HIGHEST)
    return math.log(score / (1 - score))


class _StringUses:
    """In how many documents the strings of all spans have each label, and in how many they are left unlabelled."""

    def __init__(
        self,
        examples: Sequence[Example],
        spans: Sequence[Iterable[tuple[int, int, str]]],
        words: Sequence[Sequence[Offsets]],
        max_width: int,
    ):
        self.examples, self.own = examples, []
        every = {label for own in spans for _, _, label in own}
        wanted = {e.string(start, end) for e, own in zip(examples, spans, strict=True) for start, end, _ in own}
        self.labelled: dict[str, Counter[str]] = defaultdict(Counter)
        self.unlabelled: dict[str, Counter[str]] = defaultdict(Counter)
        for example, of_document in zip(examples, words, strict=True):
            covered = sorted((start, end) for start, end, _ in example.gold_spans)
            labelled = {(example.string(start, end), label) for start, end, label in example.gold_spans}
            free = {*runs(example.text, of_document, max_width, covered)} & wanted
            unlabelled = {(string, label) for string in free for label in example.labels or every}
            for string, label in labelled:
                self.labelled[string][label] += 1
            for string, label in unlabelled:
                self.unlabelled[string][label] += 1
            self.own.append((labelled, unlabelled))

    def elsewhere(self, document: int, span: Span) -> tuple[int, int, int]:
        """The other documents that give the string of a span its label, another label, and none."""
        string = self.examples[document].string(span.start, span.end)
        labelled, unlabelled = self.own[document]
        counts = {label: n - ((string, label) in labelled) for label, n in self.labelled[string].items()}
        left = self.unlabelled[string][span.label] - ((string, span.label) in unlabelled)
        agree = counts.pop(span.label, 0)
        return agree, sum(counts.values()), left


@dataclass(frozen=True)
class _Place:
    """An item as the search for findings sees it. ``alone`` is its probability without the strings elsewhere."""

    item: Item
    is_gold: bool
    alone: float

    def overlaps(self, others: Iterable[_Place]) -> bool:
        own = self.item.span
        return any(o.item.span.start < own.end and own.start < o.item.span.end for o in others)


def _share_nested(examples: Sequence[Example]) -> float:
    """The share of gold spans that overlap another one."""
    overlapping = total = 0
    for example in examples:
        spans = sorted(example.gold_spans)
        total += len(spans)
        overlapping += sum(second[0] < first[1] for first, second in zip(spans, spans[1:], strict=False))
    return overlapping / max(total, 1)


def _find(document: int, places: Sequence[_Place], nested: bool) -> list[Finding]:
    """The findings of a document, without two at one place."""
    readings = sorted((_read(place, places, nested) for place in places), key=lambda reading: -reading[0])
    taken: list[_Place] = []
    findings = []
    for score, about, current, proposed in readings:
        if not any(place.overlaps(taken) for place in (*current, *proposed)):
            taken += [*current, *proposed]
            items = (tuple(place.item for place in side) for side in (current, proposed))
            findings.append(Finding(document, _kind(about, current, proposed), score, *items))
    return findings


def _read(
    place: _Place, places: Sequence[_Place], nested: bool
) -> tuple[float, _Place, Sequence[_Place], Sequence[_Place]]:
    """How doubtful it is that a place is labelled as it is: the score, the place, the current and the other reading."""
    near = [other for other in places if other is not place and other.overlaps([place])]
    kept = [other for other in near if other.is_gold and nested and other.item.probability >= 0.5]
    p = place.item.probability
    if not place.is_gold:
        replaced = [other for other in near if other.is_gold and other not in kept]
        return p * math.prod(1 - other.item.probability for other in replaced), place, replaced, [place]
    gold = [other for other in near if other.is_gold]
    free = [other for other in near if not other.is_gold and (nested or not other.overlaps(gold))]
    best = max(free, key=lambda other: other.item.probability, default=None)
    nothing = 1 - p - sum(other.item.probability for other in free)
    return 1 - p, place, [place], [best] if best and best.item.probability > nothing else []


def _kind(about: _Place, current: Sequence[_Place], proposed: Sequence[_Place]) -> Kind:
    if current and proposed:
        labels = {place.item.span.label for place in (*current, *proposed)}
        return Kind.OTHER_BOUNDARY if len(labels) == 1 else Kind.OTHER_LABEL
    if (about.alone >= 0.5) == about.is_gold:
        return Kind.INCONSISTENT
    return Kind.MISSING if proposed else Kind.UNSUPPORTED
