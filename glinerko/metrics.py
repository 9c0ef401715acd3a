"""Scores of predicted against gold spans. No model in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from nervaluate import Evaluator
from numpy.typing import ArrayLike

from glinerko.data import Example, Span
from glinerko.significance import compare_f1, difference_error, f1_interval

#: The thresholds of a sweep: 0.05, 0.10 ... 0.95.
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 from counts; each is 0 where it has no denominator, as in seqeval."""

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
    """Micro-averaged, and label by label."""

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
        """The mean of the labels' F1, of labels with gold or predictions."""
        used = [score.f1 for score in self.labels.values() if score.gold or score.predicted]
        return sum(used) / len(used) if used else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Figures, with the 95 % bootstrap interval over documents of each F1."""
        labels = {
            label: {**score.to_dict(), "f1_interval": f1_interval(self.counts[:, index])}
            for index, (label, score) in enumerate(self.labels.items())
        }
        overall = {**self.overall.to_dict(), "f1_interval": f1_interval(self.counts.sum(axis=1))}
        return {"overall": overall, "macro_f1": self.macro_f1, "labels": labels}


def score_sets(gold: Sequence[set[tuple]], predicted: Sequence[set[tuple]], labels: Sequence[str]) -> Scores:
    """Exact match of items whose last part is their label, document by document, micro-averaged."""
    counts = np.zeros((len(gold), len(labels), 3), dtype=int)
    place = {label: index for index, label in enumerate(labels)}
    for document, (expected, found) in enumerate(zip(gold, predicted, strict=True)):
        for kind, items in enumerate((expected & found, found, expected)):
            for item in items:
                counts[document, place[item[-1]], kind] += 1
    return Scores.from_counts(counts, labels)


def score_spans(examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]) -> Scores:
    """Strict span F1: start, end and label must agree. Gold is every occurrence of every mention."""
    found = [{span.key for span in spans} for spans in predicted]
    return score_sets([_of(example.gold_spans, labels) for example in examples], found, labels)


def score_strings(
    examples: Sequence[Example],
    predicted: Sequence[Iterable[Span]],
    labels: Sequence[str],
    leave_out: set[tuple[str, str]] = frozenset(),
) -> Scores:
    """F1 of a document's set of (mention string, label) pairs, gold strings as annotated, present or not.

    Args:
        leave_out: Pairs that do not count, neither as gold nor as predictions. With those of the training gold, the
            score is that of unseen mentions alone.
    """
    found = [
        {(example.text[span.start : span.end], span.label) for span in spans} - leave_out
        for example, spans in zip(examples, predicted, strict=True)
    ]
    return score_sets([_of(example.gold_strings, labels) - leave_out for example in examples], found, labels)


def _of(items: set[tuple], labels: Sequence[str]) -> set[tuple]:
    return {item for item in items if item[-1] in labels}


def score_modes(
    examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 in the modes of SemEval-2013 task 9.1, from nervaluate.

    ``strict``: boundaries and label; ``exact``: boundaries; ``partial``: half a point for an overlap; ``ent_type``: the
    label of what overlaps.
    """

    def listed(spans: Iterable[tuple[int, int, str]]) -> list[dict]:
        # nervaluate counts the last character in, and leaves out what it cannot sort.
        return [{"start": start, "end": end - 1, "label": label} for start, end, label in sorted(spans)]

    gold = [listed(_of(example.gold_spans, labels)) for example in examples]
    found = [listed(span.key for span in spans) for spans in predicted]
    modes = Evaluator(gold, found, tags=list(labels), loader="dict").evaluate()["overall"]
    return {mode: {"precision": m.precision, "recall": m.recall, "f1": m.f1} for mode, m in modes.items()}


def precision_recall(
    examples: Sequence[Example], predicted: Sequence[Iterable[Span]], labels: Sequence[str]
) -> tuple[list[tuple[float, float, float]], float]:
    """The precision-recall curve of strict spans over all scores there are, and the average precision under it.

    Returns:
        ``(score, precision, recall)`` from the highest score down, and the mean precision weighted by the recall won.
        Recall ends where the lowest predicted score ends, and what is never predicted counts as missed.
    """
    gold = [_of(example.gold_spans, labels) for example in examples]
    ranked = sorted(
        ((span.score, span.key in expected) for expected, spans in zip(gold, predicted, strict=True) for span in spans),
        reverse=True,
    )
    total, hits, curve, average = sum(map(len, gold)), 0, [], 0.0
    for rank, (score, hit) in enumerate(ranked, 1):
        hits += hit
        if rank == len(ranked) or ranked[rank][0] < score:  # spans of the same score come together
            recall = hits / total if total else 0.0
            average += hits / rank * (recall - (curve[-1][2] if curve else 0.0))
            curve.append((score, hits / rank, recall))
    return curve, average


METRICS = {"string_f1": score_strings, "span_f1": score_spans}


def sweep(
    metric: str,
    examples: Sequence[Example],
    at_threshold: Callable[[float], Sequence[Sequence[Span]]],
    labels: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[float, Scores]:
    """The scores at every threshold, from predictions made once.

    Args:
        at_threshold: Gives the spans of each document that stand at a threshold.
    """
    return {threshold: METRICS[metric](examples, at_threshold(threshold), labels) for threshold in thresholds}


def best_threshold(scores: dict[float, Scores]) -> float:
    """The threshold nearest to 0.5 whose overall F1 is within one standard error of the highest.

    The rule of Breiman et al. (1984): on a few dozen documents the F1 is all but flat over many thresholds, and the
    highest of them stands as often as not at one that other documents pay for.
    """
    counts = {threshold: score.counts.sum(axis=1) for threshold, score in scores.items()}
    top = max(scores, key=lambda threshold: scores[threshold].overall.f1)

    def is_as_good(threshold: float) -> bool:
        behind = scores[top].overall.f1 - scores[threshold].overall.f1
        return behind <= difference_error(counts[top], counts[threshold])

    return min(filter(is_as_good, scores), key=lambda threshold: abs(threshold - 0.5))


def compare_scores(models: Sequence[tuple[str, float | None, Scores]]) -> list[dict[str, Any]]:
    """Each model's F1 with its interval, and how far the first one is ahead of it on the same documents.

    Args:
        models: Name, threshold and scores of each; no threshold where there are several.
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


def match_dictionary(training: Iterable[Example], texts: Iterable[str], labels: Sequence[str]) -> list[list[Span]]:
    """What a plain dictionary of the training mentions finds: the longest one at each place, with its usual label.

    The baseline that a model must beat to have learned more than names.
    """
    votes: dict[str, Counter] = {}
    for example in training:
        for mention in example.mentions:
            if mention.label in labels:
                votes.setdefault(mention.text, Counter())[mention.label] += 1
    dictionary = {text: counts.most_common(1)[0][0] for text, counts in votes.items()}
    by_first: dict[str, list[str]] = {}
    for text in sorted(dictionary, key=len, reverse=True):
        by_first.setdefault(text[0], []).append(text)
    found = []
    for text in texts:
        spans, position = [], 0
        while position < len(text):
            match = next((m for m in by_first.get(text[position], ()) if text.startswith(m, position)), None)
            if match:
                spans.append(Span(position, position + len(match), dictionary[match], 1.0))
            position += len(match) if match else 1
        found.append(spans)
    return found
