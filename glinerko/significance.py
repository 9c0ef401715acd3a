"""How sure a score is: bootstrap over documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """How much higher the first model's F1 is than the second's, on the same documents."""

    f1: float
    low: float
    high: float
    p_value: float
    """Two-sided: twice the share of resamples in which the sign is the other."""


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """Micro-averaged F1 of counts ``[..., documents, 3]``: true positives, predicted, gold."""
    hits, predicted, gold = np.moveaxis(counts.sum(axis=-2), -1, 0)
    return 2 * hits / np.maximum(predicted + gold, 1)


def f1_interval(counts: np.ndarray, confidence: float = 0.95, seed: int = 42) -> tuple[float, float]:
    """The bootstrap percentile interval of the micro-averaged F1, resampling documents.

    Args:
        counts: ``[documents, 3]``: true positives, predicted, gold.

    Returns:
        Lower and upper bound; the F1 twice where there is but one document.
    """
    if len(counts) < 2:
        return float(micro_f1(counts)), float(micro_f1(counts))
    return _resample(lambda drawn: micro_f1(counts[drawn]), len(counts), confidence, seed)[:2]


def compare_f1(first: np.ndarray, second: np.ndarray, confidence: float = 0.95, seed: int = 42) -> Difference:
    """The paired bootstrap test of two models' counts on the same documents, in the same order.

    Args:
        first: ``[documents, 3]``: true positives, predicted, gold.
        second: The same of the other model.
    """
    if len(first) != len(second):
        raise ValueError(f"counts of {len(first)} and of {len(second)} documents cannot be paired")
    difference = float(micro_f1(first) - micro_f1(second))
    if len(first) < 2:
        return Difference(difference, difference, difference, 1.0)
    low, high, drawn = _resample(
        lambda drawn: micro_f1(first[drawn]) - micro_f1(second[drawn]), len(first), confidence, seed
    )
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return Difference(difference, low, high, min(1.0, 2 * max(float(other_side), 1 / len(drawn))))


def difference_error(first: np.ndarray, second: np.ndarray) -> float:
    """The standard error of how much higher the first F1 is, counts paired by document, linearised (delta method).

    Args:
        first: ``[documents, 3]``: true positives, predicted, gold.
        second: The same, of the same documents.
    """

    def influence(counts: np.ndarray) -> np.ndarray:
        hits, predicted, gold = np.moveaxis(counts, -1, 0)
        marked = predicted + gold
        return (2 * hits - micro_f1(counts) * marked) / max(marked.sum(), 1)

    return float(np.linalg.norm(influence(first) - influence(second)))


def _resample(statistic, documents: int, confidence: float, seed: int) -> tuple[float, float, np.ndarray]:
    result = bootstrap(
        (np.arange(documents),),
        lambda drawn, axis: statistic(drawn),
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // documents),
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high), result.bootstrap_distribution
