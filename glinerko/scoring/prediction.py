"""From documents to scored spans: one inference pass gives the spans at every threshold. Gold is not read.

GLiNER v1 models, through the optional ``gliner`` package, can be compared with; they are never trained here.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from gliner2.inference.overlap import resolve_overlaps
from tqdm import tqdm

from glinerko.common import DataError, LoadError, first_line
from glinerko.corpus.processor import Window
from glinerko.corpus.rows import LabelSchema, Offsets, Span
from glinerko.corpus.windows import cut_windows, row_windows
from glinerko.model.spans import SpanScorer

if TYPE_CHECKING:
    from gliner import GLiNER

Progress = Callable[[Iterable], Iterable]
"""Wraps the batches of an inference pass, to show its progress."""


@dataclass
class Predictions:
    """The predicted spans of each document."""

    candidates: list[list[Span]] = field(default_factory=list)
    """Every span with a score of at least the floor, overlapping or not."""
    windows: int = 0
    closed_gates: int = 0
    """The number of windows for which the count head predicts 0: nothing is predicted, whatever the scores are."""

    @cached_property
    def spans(self) -> list[list[Span]]:
        """The candidates without overlaps: see :func:`resolve_greedily`."""
        return [resolve_greedily(candidates) for candidates in self.candidates]

    def at_threshold(self, threshold: float, overlap_policy: str = "greedy") -> list[list[Span]]:
        """The spans of each document with a score of at least ``threshold``, overlaps resolved within each label.

        Args:
            overlap_policy: One of :data:`OVERLAP_POLICIES`.

        Raises:
            DataError: There is no such policy.
        """
        if overlap_policy == "greedy":
            # Only a span with a higher score displaces a span, so the spans of the lowest threshold serve all others.
            return [[span for span in spans if span.score >= threshold] for spans in self.spans]
        if overlap_policy not in OVERLAP_POLICIES:
            raise DataError(f"unknown overlap_policy {overlap_policy!r}; choose one of: {', '.join(OVERLAP_POLICIES)}")
        resolve = OVERLAP_POLICIES[overlap_policy]
        return [resolve([span for span in spans if span.score >= threshold]) for spans in self.candidates]

    def with_labels(self, names: Mapping[str, str]) -> Predictions:
        """The same spans with each label replaced by its entry in ``names``."""
        renamed = [[replace(span, label=names[span.label]) for span in spans] for spans in self.candidates]
        return replace(self, candidates=renamed)


def predict_spans(
    model: SpanScorer,
    documents: Dataset,
    schema: LabelSchema,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = 0.05,
    progress: Progress = iter,
) -> Predictions:
    """Score every span of every window once, and keep those that reach ``floor``.

    Args:
        documents: Rows of :func:`glinerko.corpus.windows.split_into_windows`.
        schema: The labels to ask for, the same for every document, and their descriptions.
        indices: The documents to predict, in this order; all by default.
        batch_size: The number of windows in a batch; windows of similar length go together.
        floor: The lowest score that is kept.
    """

    def score(batch: list[Window]) -> Iterator[list[Span] | None]:
        probabilities = model.span_probabilities(model.processor.collate(batch, schema))
        for window, scores in zip(batch, probabilities, strict=True):
            if scores is None:
                yield None
                continue
            words, spans = window.words, []
            for label, first, width in (scores >= floor).nonzero().tolist():
                if first + width < len(words):  # one word more is the full stop that the processor may add
                    start, end = words[first][0], words[first + width][1]
                    spans.append(Span(start, end, window.labels[label], scores[label, first, width].item()))
            yield spans

    rows = documents.select_columns(["text", "words", "windows"])
    rows = rows if indices is None else rows.select(indices)
    training = model.training
    model.eval()
    predictions = _predict(rows, schema.labels, score, batch_size, progress)
    model.train(training)
    return predictions


def _predict(
    rows: Iterable[Mapping[str, Any]],
    labels: Sequence[str],
    score: Callable[[list[Window]], Iterable[list[Span] | None]],
    batch_size: int,
    progress: Progress,
) -> Predictions:
    """Score the windows of all documents in batches; a span that several windows contain keeps its best score.

    Args:
        rows: The text, words and windows of each document.
        score: Returns the spans of each window of a batch, with offsets into the window; ``None`` for a shut gate.
    """
    best: list[dict[tuple[int, int, str], float]] = []
    windows: list[tuple[dict, int, Window]] = []
    for row in rows:
        best.append({})
        windows += ((best[-1], begin, window) for begin, window in row_windows(row, labels))
    windows.sort(key=lambda entry: len(entry[2].words))
    closed_gates = 0
    for first in progress(range(0, len(windows), batch_size)):
        batch = windows[first : first + batch_size]
        for (document, begin, _), spans in zip(batch, score([window for *_, window in batch]), strict=True):
            closed_gates += spans is None
            for span in spans or ():
                key = begin + span.start, begin + span.end, span.label
                document[key] = max(span.score, document.get(key, 0.0))
    candidates = [sorted(Span(*key, score=value) for key, value in document.items()) for document in best]
    return Predictions(candidates, len(windows), closed_gates)


def predict_on_all_processes(
    accelerator: Accelerator, documents: int, predict: Callable[..., Predictions]
) -> Predictions:
    """Divide ``documents`` among the processes; every process returns all predictions, in order.

    Args:
        documents: The number of documents.
        predict: Takes ``indices`` and ``progress``, as :func:`predict_spans` does.
    """
    options = {"desc": "Predicting", "unit": "batch", "leave": False, "disable": not accelerator.is_main_process}
    with accelerator.split_between_processes(list(range(documents))) as indices, accelerator.autocast():
        own = predict(indices=indices, progress=partial(tqdm, **options))
    windows, closed_gates = (sum(gather_object([count])) for count in (own.windows, own.closed_gates))
    return Predictions(gather_object(own.candidates), windows, closed_gates)


def resolve_by_policy(spans: Iterable[Span], policy: str) -> list[Span]:
    """Resolve overlaps within each label by one of gliner2's policies."""
    by_label: dict[str, list[Span]] = {}
    for span in spans:
        by_label.setdefault(span.label, []).append(span)
    fields = {name: attrgetter(name) for name in ("score", "start", "end")}
    return sorted(span for group in by_label.values() for span in resolve_overlaps(group, policy, **fields))


def resolve_greedily(spans: Iterable[Span]) -> list[Span]:
    """Drop each span that overlaps a better one of its label: gliner2's default for the span architecture."""
    taken_by_label: dict[str, list[Offsets]] = {}
    kept = []
    for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
        taken = taken_by_label.setdefault(span.label, [])
        # Spans that are kept do not overlap, so only the two neighbours of this one need to be compared.
        place = bisect_right(taken, (span.start, span.end))
        if place and taken[place - 1][1] > span.start:
            continue
        if place < len(taken) and taken[place][0] < span.end:
            continue
        insort(taken, (span.start, span.end))
        kept.append(span)
    return sorted(kept)


OVERLAP_POLICIES: dict[str, Callable[[list[Span]], list[Span]]] = {
    "greedy": resolve_greedily,
    **{name: partial(resolve_by_policy, policy=name) for name in ("flat", "nested", "longest", "allow")},
}
"""The policies by name. An entry is all that a new one needs: it takes the spans of a document and returns its own."""


def load_gliner(directory: Path, map_location: str | torch.device = "cpu") -> GLiNER:
    """Load a GLiNER v1 model.

    Raises:
        LoadError: ``gliner`` is not installed, or the files cannot be loaded.
    """
    try:
        from gliner import GLiNER
    except ImportError as error:
        raise LoadError(f"{directory}: a GLiNER v1 model, which needs the gliner package: `make gliner`") from error
    try:
        return GLiNER.from_pretrained(str(directory), map_location=str(map_location), local_files_only=True).eval()
    except Exception as error:  # each reader raises its own errors on damaged files
        raise LoadError(f"{directory}: the GLiNER v1 model cannot be loaded: {first_line(error)}") from error


def predict_with_gliner(
    model: GLiNER,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = 0.05,
    progress: Progress = iter,
) -> Predictions:
    """The spans that a GLiNER v1 model predicts with its own words and its own decoding (flat: no two spans overlap).

    It reads at most ``config.max_len`` words, so longer texts are cut into windows. Decoding takes the best spans
    first, so the spans of a low floor serve all higher thresholds. The other arguments are as in :func:`predict_spans`.

    Args:
        labels: The labels to ask for; these models were trained on lower-case names.
    """
    limit = model.config.max_len

    def split(text: str) -> dict[str, Any]:
        words = [(start, end) for _, start, end in model.data_processor.words_splitter(text)]
        return {"text": text, "words": words, "windows": cut_windows(words, [1] * len(words), limit, limit // 8)}

    def score(batch: list[Window]) -> Iterator[list[Span]]:
        texts = [window.text for window in batch]
        for entities in model.inference(texts, list(labels), threshold=floor, batch_size=batch_size):
            yield [Span(each["start"], each["end"], each["label"], each["score"]) for each in entities]

    chosen = texts if indices is None else [texts[index] for index in indices]
    return _predict(map(split, chosen), labels, score, batch_size, progress)
