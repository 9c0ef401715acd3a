"""How F1 grows with the number of training documents, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from glinerko.scoring.metrics import f1_interval, micro_f1

RESAMPLES = 500
"""The number of bootstrap samples for an interval."""


@dataclass
class Point:
    """The score of the models that were trained on so many documents."""

    documents: int
    """The mean over the folds."""
    f1: float
    f1_interval: tuple[float, float]
    """The 95 % interval, over held-out documents."""


@dataclass
class Forecast:
    """The F1 that the curve has at a number of documents."""

    documents: int
    f1: float
    low: float
    high: float
    """The 95 % interval: folds, and documents within them, are resampled, and the curve is fitted again."""


def curve_points(sizes: Sequence[float], counts: Sequence[Sequence[np.ndarray]]) -> list[Point]:
    """The score at each size.

    Args:
        sizes: The mean number of training documents of each share, ascending.
        counts: For each share and each fold, ``[documents, 3]``: the numbers of true positives, predictions and gold.
    """
    pooled = [np.concatenate(folds) for folds in counts]
    return [Point(round(size), float(micro_f1(own)), f1_interval(own)) for size, own in zip(sizes, pooled, strict=True)]


def fit_power_law(sizes: Sequence[float], f1: Sequence[float]) -> np.ndarray:
    """The parameters ``(e, b, c)`` of ``1 - F1 = e + b * n ** -c``, by least squares (Hestness et al. 2017).

    With fewer than four sizes, ``e`` is 0: three points fit any three parameters.

    Raises:
        ValueError: There are fewer than two sizes.
    """
    sizes, error = np.asarray(sizes, float), 1 - np.asarray(f1, float)
    if len(sizes) < 2:
        raise ValueError(f"a curve needs two sizes, got {len(sizes)}")
    free = len(sizes) > 3

    def residuals(parameters: np.ndarray) -> np.ndarray:
        e, b, c = parameters if free else (0.0, *parameters)
        return e + b * (sizes / sizes[0]) ** -c - error

    start, upper = [0.01, max(error[0], 1e-3), 0.3], [1.0, 1.0, 3.0]
    bounds = ([0.0] * 3, upper) if free else ([0.0] * 2, upper[1:])
    found = least_squares(residuals, start if free else start[1:], bounds=bounds).x
    e, b, c = found if free else (0.0, *found)
    return np.array([e, b * sizes[0] ** c, c])


def f1_at(parameters: np.ndarray, documents: float) -> float:
    """The F1 of a curve of :func:`fit_power_law` at a number of documents."""
    e, b, c = parameters
    return float(1 - e - b * documents**-c)


def forecast(
    sizes: Sequence[float], counts: Sequence[Sequence[np.ndarray]], documents: float, since: float | None = None
) -> Forecast:
    """The F1 at ``documents`` training documents; with ``since``, how much higher it is than at ``since`` documents.

    Args:
        sizes, counts: See :func:`curve_points`.

    Raises:
        ValueError: There are fewer than two sizes.
    """

    def value(f1: Sequence[float]) -> float:
        curve = fit_power_law(sizes, f1)
        return f1_at(curve, documents) - (0.0 if since is None else f1_at(curve, since))

    drawn, generator, folds = [], np.random.default_rng(42), range(len(counts[0]))
    for _ in range(RESAMPLES):
        chosen = generator.choice(folds, len(folds))
        # The same documents of every size: they are the same texts in the same order.
        places = [(fold, generator.integers(len(counts[0][fold]), size=len(counts[0][fold]))) for fold in chosen]
        resampled = (np.concatenate([own[fold][rows] for fold, rows in places]) for own in counts)
        drawn.append(value([float(micro_f1(own)) for own in resampled]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    middle = value([float(micro_f1(np.concatenate(own))) for own in counts])
    return Forecast(round(documents), middle, float(low), float(high))
