"""Which labels of a corpus are probably wrong, by its out-of-fold predictions and the same strings elsewhere.

Every gold span and every span that could be one is an item. A logistic regression of "is labelled" on the evidence says
how much each kind of evidence counts in this corpus. If it contradicts a label, there is a finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from glinerko.common import DataError
from glinerko.corpus.rows import Example, Offsets, Span
from glinerko.scoring.evidence import DIRECTIONS, EVIDENCE, OF_STRINGS, Uses, collect_evidence

NOISE = 0.05
"""The share of wrong labels that is assumed before the evidence is seen. A higher one gives higher scores."""
ROUNDS = 3
"""How often the regression is fitted, each time without the labels that are probably wrong."""
NESTED = 0.02
"""If at least this share of gold spans overlap others, this is a habit of the annotators and no mistake."""


class Kind(StrEnum):
    """The kind of mistake that is probable at a place."""

    MISSING = "missing mention"
    UNSUPPORTED = "unsupported mention"
    OTHER_LABEL = "other label"
    OTHER_BOUNDARY = "other boundary"
    INCONSISTENT = "inconsistent string"
    """A missing or unsupported mention; more than half of the doubt comes from the same string elsewhere."""


@dataclass(frozen=True)
class Item:
    """A span with its evidence.

    Args:
        span: Its ``score`` is out of fold, ``None`` below 0.05.
        probability: The share of spans with such evidence that are labelled.
        in_reach: Whether the model scores it: it is a run of words that is not too wide.
    """

    span: Span
    probability: float
    uses: Uses
    in_reach: bool

    def to_record(self, text: str) -> dict[str, Any]:
        """The item as it is written and shown."""
        return {
            **self.span.to_record(text),
            "score": self.span.score,
            "in_reach": self.in_reach,
            "probability": round(self.probability, 4),
            "elsewhere": self.uses.to_record(),
        }


@dataclass(frozen=True)
class Finding:
    """A place with two readings: the gold spans as they are, and what the evidence says."""

    document: int
    """The index of the document."""
    kind: Kind
    score: float
    """The probability, from 0 to 1, that the place is not labelled as it should be."""
    current: tuple[Item, ...]
    proposed: tuple[Item, ...]

    @property
    def labels(self) -> list[str]:
        return sorted({item.span.label for item in (*self.current, *self.proposed)})


@dataclass(frozen=True)
class Review:
    """The findings, the most doubtful first, and the weight of each kind of :data:`EVIDENCE`."""

    findings: list[Finding]
    weights: dict[str, float]
    """The weights of the features divided by their standard deviations, so that they can be compared."""
    items: int
    """The number of spans that were compared."""


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
        DataError: No candidate is labelled, or all are: nothing can be compared.
    """
    items, features = collect_evidence(examples, candidates, words, max_width)
    labelled = np.array([item.is_gold for item in items], dtype=bool)
    # Spans that the model cannot score are items only if they are gold: "no score" would be learned as a sign of gold.
    fitted = np.array([item.in_reach for item in items], dtype=bool)
    if not labelled[fitted].any() or labelled[fitted].all():
        which = "no mention is a run of words" if not labelled[fitted].any() else "all candidates are labelled"
        raise DataError(f"nothing to compare: {which}")
    judge = _fit(features, labelled, fitted)
    for _ in range(ROUNDS - 1):
        judge = _fit(features, labelled, fitted & (judge.doubts(features, labelled) < 0.5))
    probabilities, doubts = judge.probabilities(features).tolist(), judge.doubts(features, labelled).tolist()
    features[:, OF_STRINGS] = 0
    alone = judge.doubts(features, labelled).tolist()
    places: list[list[_Place]] = [[] for _ in examples]
    for each, *judged in zip(items, probabilities, doubts, alone, strict=True):
        item = Item(each.span, judged[0], each.uses, each.in_reach)
        places[each.document].append(_Place(item, each.is_gold, *judged[1:]))
    nested = _share_nested(examples) >= NESTED
    findings = [f for document, own in enumerate(places) for f in _find(document, own, nested)]
    findings.sort(key=lambda f: (-f.score, f.document, min(item.span.key for item in (*f.current, *f.proposed))))
    return Review(findings, dict(zip(EVIDENCE, (judge.weights * judge.scale).tolist(), strict=True)), len(items))


@dataclass(frozen=True)
class _Judge:
    """The fitted regression, for features that are not scaled. ``scale`` is their standard deviation."""

    weights: np.ndarray
    bias: float
    scale: np.ndarray
    base: float
    """The odds of gold among the items that it was fitted to."""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """The share of items with these features that are labelled, ``[items]``."""
        return expit(features @ self.weights + self.bias)

    def doubts(self, features: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        """The probability that each label, or the lack of one, is wrong, ``[items]``.

        By Bayes' rule, with :data:`NOISE` as the probability before the evidence is seen.
        """
        logits = features @ self.weights + self.bias
        return expit(math.log(NOISE) + np.where(labelled, math.log(self.base) - logits, logits))


def _fit(features: np.ndarray, labelled: np.ndarray, fitted: np.ndarray) -> _Judge:
    """Fit the regression to the items for which ``fitted`` is true."""
    features, labelled = features[fitted], labelled[fitted]
    scale = features.std(0)
    scale[scale < 1e-6] = 1  # the same for all items, apart from rounding
    weights, bias = fit_logistic(features / scale, labelled, [DIRECTIONS.get(name, 0) for name in EVIDENCE])
    return _Judge(weights / scale, bias, scale, labelled.mean() / (1 - labelled.mean()))


def fit_logistic(
    features: np.ndarray, labelled: np.ndarray, directions: Sequence[int], penalty: float = 1.0
) -> tuple[np.ndarray, float]:
    """The weights ``[features]`` and the bias of an L2-regularised logistic regression.

    Args:
        features: ``[items, features]``.
        labelled: ``[items]``, truth values.
        directions: ``[features]``: 1 for a weight of at least 0, -1 for one of at most 0, 0 for any.
    """
    sign = np.where(labelled, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (features @ weights + bias)
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + penalty / 2 * weights @ weights
        return value, np.append(features.T @ slope + penalty * weights, slope.sum())

    bounds = [(0 if each > 0 else None, 0 if each < 0 else None) for each in (*directions, 0)]
    fitted = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return fitted[:-1], float(fitted[-1])


@dataclass(frozen=True)
class _Place:
    """An item as the search for findings sees it.

    Args:
        doubt: The probability that it is labelled and should not be, or that it should be and is not.
        alone: The same without the strings in other documents.
    """

    item: Item
    is_gold: bool
    doubt: float
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
        overlapping += sum(second[0] < first[1] for first, second in pairwise(spans))
    return overlapping / max(total, 1)


def _find(document: int, places: Sequence[_Place], nested: bool) -> list[Finding]:
    """The findings of a document, without two at one place."""
    gold = [place for place in places if place.is_gold]
    readings = []
    for place in places:
        near = [other for other in gold if other is not place and other.overlaps([place])]
        replaced = [other for other in near if not nested or other.doubt >= 0.5]
        score = place.doubt * (1 if place.is_gold else math.prod(other.doubt for other in replaced))
        readings.append((score, place, replaced))
    taken: list[_Place] = []
    findings = []
    for score, place, replaced in sorted(readings, key=lambda reading: -reading[0]):
        current, proposed = replaced, [place]
        if place.is_gold:
            barred = taken if nested else [*taken, *(other for other in gold if other is not place)]
            current, proposed = [place], _best_instead(place, places, barred)
        if not any(each.overlaps(taken) for each in (*current, *proposed)):
            taken += [*current, *proposed]
            sides = (tuple(each.item for each in side) for side in (current, proposed))
            findings.append(Finding(document, _kind(place, current, proposed), score, *sides))
    return findings


def _best_instead(place: _Place, places: Sequence[_Place], barred: Sequence[_Place]) -> list[_Place]:
    """The span that is probably right where a gold span is wrong, if any; it overlaps no span of ``barred``."""
    near = [other for other in places if not other.is_gold and other.overlaps([place]) and not other.overlaps(barred)]
    best = max(near, key=lambda other: other.item.probability, default=None)
    nothing = 1 - place.item.probability - sum(other.item.probability for other in near)
    return [best] if best and best.item.probability > nothing else []


def _kind(about: _Place, current: Sequence[_Place], proposed: Sequence[_Place]) -> Kind:
    if current and proposed:
        labels = {place.item.span.label for place in (*current, *proposed)}
        return Kind.OTHER_BOUNDARY if len(labels) == 1 else Kind.OTHER_LABEL
    if about.alone < about.doubt / 2:
        return Kind.INCONSISTENT
    return Kind.MISSING if proposed else Kind.UNSUPPORTED
