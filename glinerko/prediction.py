"""Batches of text in, scored spans out, from one inference pass."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from gliner2.inference.overlap import resolve_overlaps
from tqdm import tqdm

from glinerko.data import LabelSchema, Span
from glinerko.errors import DataError
from glinerko.modeling import KoreanSpanExtractor
from glinerko.targets import row_windows


@dataclass
class Predictions:
    """What a model found, document by document."""

    candidates: list[list[Span]] = field(default_factory=list)
    """Every span that reaches the floor, overlapping or not."""
    windows: int = 0
    closed_gates: int = 0
    """Windows for which the count head predicts 0, so that nothing is returned whatever the scores are."""

    @cached_property
    def spans(self) -> list[list[Span]]:
        """Resolved greedily within each label, best score first: gliner2's default for the span architecture."""
        return [resolve_greedily(candidates) for candidates in self.candidates]

    def at_threshold(self, threshold: float, overlap_policy: str = "greedy") -> list[list[Span]]:
        """The spans of each document that stand at ``threshold``.

        Args:
            overlap_policy: ``greedy``, or one of gliner2's: ``flat``, ``nested``, ``longest``, ``allow``.
        """
        if overlap_policy == "greedy":
            # A span is only ever beaten by one of a higher score, so that those of a lower threshold serve every other.
            return [[span for span in spans if span.score >= threshold] for spans in self.spans]
        return [
            resolve_by_policy([span for span in candidates if span.score >= threshold], overlap_policy)
            for candidates in self.candidates
        ]

    def with_labels(self, names: Mapping[str, str]) -> Predictions:
        """The same spans under the labels that ``names`` gives for theirs."""
        renamed = [[replace(span, label=names[span.label]) for span in spans] for spans in self.candidates]
        return replace(self, candidates=renamed)


def predict_spans(
    model: KoreanSpanExtractor,
    annotated: Dataset,
    schema: LabelSchema,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = 0.05,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> Predictions:
    """Score every span of every window once, and keep what reaches ``floor``.

    Args:
        annotated: Rows of :func:`glinerko.targets.annotate`.
        schema: The labels to ask for, the same for every document, and their descriptions.
        indices: The documents to do, in this order; all by default.
        batch_size: Windows at a time; windows of like length go together.
        floor: The lowest score that is kept.
        progress: Wraps the batches, to show how far it is.
    """
    indices = range(len(annotated)) if indices is None else indices
    windows = [
        (position, begin, window)
        for position, index in enumerate(indices)
        for begin, window in row_windows(annotated[index], schema.labels)
    ]
    windows.sort(key=lambda entry: len(entry[2].words))
    scores: list[dict[tuple[int, int, str], float]] = [{} for _ in indices]
    predictions = Predictions(windows=len(windows))

    training = model.training
    model.eval()
    for first in progress(range(0, len(windows), batch_size)):
        batch = windows[first : first + batch_size]
        collated = model.processor.collate([window for _, _, window in batch], schema)
        for (position, begin, window), probabilities in zip(batch, model.span_probabilities(collated), strict=True):
            if probabilities is None:
                predictions.closed_gates += 1
                continue
            for label, start, width in (probabilities >= floor).nonzero().tolist():
                if start + width >= len(window.words):  # the full stop that gliner2 adds is not the caller's
                    continue
                key = (begin + window.words[start][0], begin + window.words[start + width][1], window.labels[label])
                score = probabilities[label, start, width].item()
                scores[position][key] = max(score, scores[position].get(key, 0.0))
    model.train(training)

    for index, found in zip(indices, scores, strict=True):
        length = len(annotated[index]["text"])
        spans = [Span(*key, score=score) for key, score in found.items() if key[1] <= length]
        predictions.candidates.append(sorted(spans))
    return predictions


def predict_on_all_processes(
    accelerator: Accelerator, documents: int, predict: Callable[..., Predictions]
) -> Predictions:
    """Share ``documents`` out; every process returns all predictions, in order.

    Args:
        predict: Takes ``indices`` and ``progress``, as :func:`predict_spans` does.
    """
    with accelerator.split_between_processes(list(range(documents))) as indices, accelerator.autocast():
        own = predict(
            indices=indices,
            progress=lambda batches: tqdm(
                batches, desc="Predicting", unit="batch", leave=False, disable=not accelerator.is_main_process
            ),
        )
    windows, closed_gates = (sum(gather_object([count])) for count in (own.windows, own.closed_gates))
    return Predictions(gather_object(own.candidates), windows, closed_gates)


def resolve_by_policy(spans: Iterable[Span], policy: str) -> list[Span]:
    """Resolve overlaps within each label by one of gliner2's policies.

    Raises:
        DataError: no such policy.
    """
    by_label: dict[str, list[Span]] = {}
    for span in spans:
        by_label.setdefault(span.label, []).append(span)
    ways = {"score": lambda span: span.score, "start": lambda span: span.start, "end": lambda span: span.end}
    try:
        return sorted(span for group in by_label.values() for span in resolve_overlaps(group, policy, **ways))
    except ValueError as error:
        raise DataError(str(error)) from error


def resolve_greedily(spans: Iterable[Span]) -> list[Span]:
    """Drop each span that overlaps a better one of its label: gliner2's default for the span architecture."""
    kept: dict[str, list[tuple[int, int]]] = {}
    result = []
    for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
        taken = kept.setdefault(span.label, [])
        # Spans taken so far do not overlap, so only the neighbours of this one can.
        place = bisect_right(taken, (span.start, span.end))
        if place and taken[place - 1][1] > span.start:
            continue
        if place < len(taken) and taken[place][0] < span.end:
            continue
        insort(taken, (span.start, span.end))
        result.append(span)
    return sorted(result)
