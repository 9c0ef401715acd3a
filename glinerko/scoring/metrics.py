"""Scores of predicted spans against gold spans, the registry of metrics, and how sure a score is. No model in here.

Every score is made of counts for each document and label, so that intervals and paired tests can be computed from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from nervaluate import Evaluator
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from glinerko.corpus.matching import compose
from glinerko.corpus.rows import ENTITIES, Example, Span

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""The thresholds of a sweep: 0.05, 0.10 ... 0.95."""


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 from counts; each is 0 if its denominator is 0, as in seqeval."""

    true_positives: int = 0
    predicted: int = 0
    gold: int = 0

    @property
    def precision(self) -> float:
        return self.true_positives / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.true_positives / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        total = self.predicted + self.gold
        return 2 * self.true_positives / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        return {"precision": self.precision, "recall": self.recall, "f1": self.f1, **asdict(self)}


@dataclass(frozen=True)
class Scores:
    """A micro-averaged score, overall and for each label."""

    overall: Score = field(default_factory=Score)
    labels: dict[str, Score] = field(default_factory=dict)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), int), repr=False, compare=False)
    """``[documents, labels, 3]``: true positives, predicted, gold."""

    @classmethod
    def from_counts(cls, counts: ArrayLike, labels: Sequence[str]) -> Scores:
        """Scores from ``[documents, labels, 3]``: true positives, predicted, gold."""
        counts = np.asarray(counts, dtype=int)
        totals = counts.sum(axis=0)
        by_label = {label: Score(*map(int, totals[index])) for index, label in enumerate(labels)}
        return cls(Score(*map(int, totals.sum(axis=0))), by_label, counts)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the labels that have gold or predictions."""
        used = [score.f1 for score in self.labels.values() if score.gold or score.predicted]
        return sum(used) / len(used) if used else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The record that tables, pages and cards are made from; each F1 has its 95 % interval."""
        labels = {
            label: {**score.to_dict(), "f1_interval": f1_interval(self.counts[:, index])}
            for index, (label, score) in enumerate(self.labels.items())
        }
        overall = {**self.overall.to_dict(), "f1_interval": f1_interval(self.counts.sum(axis=1))}
        return {"overall": overall, "macro_f1": self.macro_f1, "labels": labels}


def score_sets(gold: Sequence[set[tuple]], predicted: Sequence[set[tuple]], labels: Sequence[str]) -> Scores:
    """Scores of sets of items, one set for each document; the last part of an item is its label."""
    counts = np.zeros((len(gold), len(labels), 3), dtype=int)
    place = {label: index for index, label in enumerate(labels)}
    for document, (expected, given) in enumerate(zip(gold, predicted, strict=True)):
        for kind, items in enumerate((expected & given, given, expected)):
            for item in items:
                counts[document, place[item[-1]], kind] += 1
    return Scores.from_counts(counts, labels)


def score_spans(examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]) -> Scores:
    """Strict span F1: start, end and label must agree. Gold is every occurrence of every mention."""
    gold = [_of(example.gold_spans, labels) for example in examples]
    given = [{span.key for span in spans} for spans in where_annotated(examples, predicted)]
    return score_sets(gold, given, labels)


def where_annotated(examples: Sequence[Example], predicted: Sequence[Iterable[Span]]) -> list[Iterable[Span]]:
    """The spans of the documents that were annotated for entities; in others nobody knows which are right."""
    pairs = zip(examples, predicted, strict=True)
    return [spans if ENTITIES in example.annotated else () for example, spans in pairs]


def score_strings(
    examples: Sequence[Example],
    predicted: Sequence[Iterable[Span]],
    labels: Sequence[str],
    leave_out: set[tuple[str, str]] = frozenset(),
) -> Scores:
    """F1 of a document's set of (mention string, label) pairs. Gold strings that are not in the text count too.

    A gold mention has the string that stands at its place in the text, however the annotator spaced or encoded it.

    Args:
        leave_out: Pairs that do not count, neither as gold nor as predictions. With the pairs of the training
            documents, the score is that of unseen mentions only.
    """
    gold = [_of(example.gold_strings, labels) - leave_out for example in examples]
    pairs = [
        {(example.string(span.start, span.end), span.label) for span in spans} - leave_out
        for example, spans in zip(examples, where_annotated(examples, predicted), strict=True)
    ]
    return score_sets(gold, pairs, labels)


def _of(items: set[tuple], labels: Sequence[str]) -> set[tuple]:
    return {item for item in items if item[-1] in labels}


@dataclass(frozen=True)
class Metric:
    """A metric and its name for people."""

    title: str
    score: Callable[[Sequence[Example], Sequence[Iterable[Span]], Sequence[str]], Scores]
    """Takes the documents, the predicted spans of each, and the labels to score."""
    description: str = ""
    """What counts as correct, as a phrase for the model card."""


METRICS: dict[str, Metric] = {
    "string_f1": Metric("string F1", score_strings, "(mention string, label) pairs of a document, all gold included"),
    "span_f1": Metric("strict span F1", score_spans, "start, end and label of every occurrence"),
}
"""The metrics by name. An entry is all that a new metric needs: options, reports and cards follow this registry."""


def score_all(
    examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]
) -> dict[str, Scores]:
    """The scores of every metric of :data:`METRICS`."""
    return {name: metric.score(examples, predicted, labels) for name, metric in METRICS.items()}


def metric_title(name: str) -> str:
    """The name of a metric for people; ``name`` itself if it is not registered."""
    return METRICS[name].title if name in METRICS else name


def score_modes(
    examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 in the modes of SemEval-2013 task 9.1, from nervaluate.

    ``strict``: boundaries and label; ``exact``: boundaries; ``partial``: half a point for an overlap; ``ent_type``: the
    label of an overlapping span.
    """

    def listed(spans: Iterable[tuple[int, int, str]]) -> list[dict]:
        # nervaluate takes the last character as the end, and drops spans that are not sorted.
        return [{"start": start, "end": end - 1, "label": label} for start, end, label in sorted(spans)]

    gold = [listed(_of(example.gold_spans, labels)) for example in examples]
    given = [listed(span.key for span in spans) for spans in where_annotated(examples, predicted)]
    modes = Evaluator(gold, given, tags=list(labels), loader="dict").evaluate()["overall"]
    return {mode: {"precision": m.precision, "recall": m.recall, "f1": m.f1} for mode, m in modes.items()}


def precision_recall(
    examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]
) -> tuple[list[tuple[float, float, float]], float]:
    """The precision-recall curve of strict spans over all predicted scores, and its average precision.

    Returns:
        ``(score, precision, recall)`` from the highest score down, and the mean precision weighted by the gain in
        recall. Recall ends at the lowest predicted score; gold that is never predicted counts as missed.
    """
    gold = [_of(example.gold_spans, labels) for example in examples]
    ranked = sorted(
        (
            (span.score, span.key in expected)
            for expected, spans in zip(gold, where_annotated(examples, predicted), strict=True)
            for span in spans
        ),
        reverse=True,
    )
    total, hits, curve, average = sum(map(len, gold)), 0, [], 0.0
    for rank, (score, hit) in enumerate(ranked, 1):
        hits += hit
        if rank == len(ranked) or ranked[rank][0] < score:  # spans with the same score make one point
            recall = hits / total if total else 0.0
            average += hits / rank * (recall - (curve[-1][2] if curve else 0.0))
            curve.append((score, hits / rank, recall))
    return curve, average


def sweep(
    metric: str,
    examples: Sequence[Example],
    at_threshold: Callable[[float], Sequence[Sequence[Span]]],
    labels: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[float, Scores]:
    """The scores at every threshold.

    Args:
        metric: A name in :data:`METRICS`.
        at_threshold: Returns the spans of each document at a threshold, from predictions made once.
    """
    return {threshold: METRICS[metric].score(examples, at_threshold(threshold), labels) for threshold in thresholds}


def best_threshold(scores: Mapping[float, Scores]) -> float:
    """The threshold nearest to 0.5 whose overall F1 is within one standard error of the highest.

    The rule of Breiman et al. (1984). On a few dozen documents the F1 is nearly flat over many thresholds, and the
    maximum is often a chance peak that does not transfer to other documents.
    """
    counts = {threshold: score.counts.sum(axis=1) for threshold, score in scores.items()}
    top = max(scores, key=lambda threshold: scores[threshold].overall.f1)

    def is_as_good(threshold: float) -> bool:
        behind = scores[top].overall.f1 - scores[threshold].overall.f1
        return behind <= difference_error(counts[top], counts[threshold])

    return min(filter(is_as_good, scores), key=lambda threshold: abs(threshold - 0.5))


def match_dictionary(training: Iterable[Example], texts: Iterable[str], labels: Sequence[str]) -> list[list[Span]]:
    """The spans that a plain dictionary of the training mentions finds: the longest match, with its most common label.

    A model must beat this baseline to have learned more than names.
    """
    votes: dict[str, Counter] = {}
    for example in training:
        for mention in example.mentions:
            if mention.label in labels:
                for string in example.strings(mention):
                    votes.setdefault(string, Counter())[mention.label] += 1
    dictionary = {text: counts.most_common(1)[0][0] for text, counts in votes.items()}
    by_first: dict[str, list[str]] = {}
    for text in sorted(dictionary, key=len, reverse=True):
        by_first.setdefault(text[0], []).append(text)
    documents = []
    for text, origins in map(compose, texts):
        spans, position = [], 0
        while position < len(text):
            match = next((m for m in by_first.get(text[position], ()) if text.startswith(m, position)), None)
            if match:
                start, end = origins[position], origins[position + len(match)]
                spans.append(Span(start, end, dictionary[match], 1.0))
            position += len(match) if match else 1
        documents.append(spans)
    return documents


@dataclass(frozen=True)
class Difference:
    """The F1 of a first model minus that of a second one, on the same documents, with its interval."""

    f1: float
    low: float
    high: float
    p_value: float
    """Two-sided: twice the share of resamples in which the difference has the other sign."""


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """Micro-averaged F1 of counts ``[..., documents, 3]``: true positives, predicted, gold."""
    hits, predicted, gold = np.moveaxis(counts.sum(axis=-2), -1, 0)
    return 2 * hits / np.maximum(predicted + gold, 1)


def f1_interval(counts: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap percentile interval of the micro-averaged F1, resampling documents.

    Args:
        counts: ``[documents, 3]``: true positives, predicted, gold.

    Returns:
        Lower and upper bound; for a single document both are its F1.
    """
    if len(counts) < 2:
        return float(micro_f1(counts)), float(micro_f1(counts))
    return _resample(lambda drawn: micro_f1(counts[drawn]), len(counts))[:2]


def compare_f1(first: np.ndarray, second: np.ndarray) -> Difference:
    """The paired bootstrap test of two models on the same documents, in the same order.

    Args:
        first: ``[documents, 3]``: true positives, predicted, gold.
        second: The same for the other model.

    Raises:
        ValueError: The numbers of documents differ.
    """
    if len(first) != len(second):
        raise ValueError(f"counts of {len(first)} and of {len(second)} documents cannot be paired")
    difference = float(micro_f1(first) - micro_f1(second))
    if len(first) < 2:
        return Difference(difference, difference, difference, 1.0)
    low, high, drawn = _resample(lambda drawn: micro_f1(first[drawn]) - micro_f1(second[drawn]), len(first))
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return Difference(difference, low, high, min(1.0, 2 * max(float(other_side), 1 / len(drawn))))


def compare_scores(models: Sequence[tuple[str, float | None, Scores]]) -> list[dict[str, Any]]:
    """The F1 of each model with its interval, and how far the first model is ahead of it on the same documents.

    Args:
        models: Name, threshold and scores of each model; the threshold is ``None`` if there are several.
    """
    counts = [scores.counts.sum(axis=1) for _, _, scores in models]
    return [
        {
            "model": name,
            "threshold": threshold,
            **scores.overall.to_dict(),
            "f1_interval": f1_interval(own),
            "difference": asdict(compare_f1(counts[0], own)) if index else None,
        }
        for index, ((name, threshold, scores), own) in enumerate(zip(models, counts, strict=True))
    ]


def difference_error(first: np.ndarray, second: np.ndarray) -> float:
    """The standard error of the difference of two F1 scores, linearised (delta method); see :func:`compare_f1`."""

    def influence(counts: np.ndarray) -> np.ndarray:
        hits, predicted, gold = np.moveaxis(counts, -1, 0)
        marked = predicted + gold
        return (2 * hits - micro_f1(counts) * marked) / max(marked.sum(), 1)

    return float(np.linalg.norm(influence(first) - influence(second)))


def _resample(statistic: Callable[[np.ndarray], np.ndarray], documents: int) -> tuple[float, float, np.ndarray]:
    """The 95 % interval of ``statistic``, which takes indices of drawn documents, and its value in every resample."""
    result = bootstrap(
        (np.arange(documents),),
        lambda drawn, axis: statistic(drawn),
        n_resamples=2000,
        batch=max(1, 10_000_000 // documents),
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(42),
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high), result.bootstrap_distribution
