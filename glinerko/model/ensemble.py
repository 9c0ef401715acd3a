"""Several models that answer as one: the score of a span is the mean of what they give it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from statistics import mean
from typing import Any

from glinerko.common import DataError
from glinerko.corpus.rows import Span, SpanKey
from glinerko.model.extractor import BATCH_SIZE, KoreanExtractor, spans_of
from glinerko.model.prediction import FLOOR, overlap_resolver


def average_spans(found: Sequence[Iterable[Span]]) -> list[Span]:
    """The spans that any of several models found in a text, each with its mean score.

    Args:
        found: The spans of each model with a score of at least :data:`FLOOR`, overlapping or not. A span that a model
            lacks has the score 0 there.
    """
    totals: dict[SpanKey, float] = defaultdict(float)
    for spans in found:
        for span in spans:
            totals[span.key] += span.score
    return sorted(Span(*key, total / len(found)) for key, total in totals.items())


def stream_average(
    models: Sequence[KoreanExtractor],
    texts: Iterable[str],
    labels: Sequence[str] | None = None,
    *,
    threshold: float | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[list[Span]]:
    """The entities of each text by the mean scores of several models, while ``texts`` is read on.

    Words, windows, prompts and architecture of the models may differ; overlaps are resolved as by the first one.

    Args:
        labels: What to ask for; those of the models by default.
        threshold: Lowest mean score; by default the mean of the thresholds of the models.
        batch_size: Windows in a batch.

    Raises:
        DataError: None are named, and the models were trained for different labels or for other tasks; or what
            :meth:`KoreanExtractor.stream_entities` raises.
    """
    first = models[0]
    own_labels = first.settings.labels
    for own in () if labels else (model.settings for model in models):
        if own.tasks:
            raise DataError("several models find entities only, and one has other tasks: name labels")
        if set(own.labels) != set(own_labels):
            raise DataError(
                f"one model has the labels {', '.join(own_labels)}, another {', '.join(own.labels)}: name labels"
            )
    lowest = first.choose_threshold(mean(model.choose_threshold(threshold) for model in models))
    resolve = overlap_resolver(first.overlap_policy)
    options: dict[str, Any] = {"threshold": min(FLOOR, lowest), "batch_size": batch_size, "overlap_policy": "allow"}
    streams = [
        model.stream(own, model.entity_schema(labels), **options)
        for model, own in zip(models, tee(texts, len(models)), strict=True)
    ]
    for answers in zip(*streams, strict=True):
        spans = average_spans([spans_of(answer) for answer in answers])
        yield resolve([span for span in spans if span.score >= lowest])
