"""The one way from windows to scored spans, whoever asks: batches, merged by document, overlaps resolved.

One inference pass gives the spans at every threshold. Gold is not read.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from gliner2.inference.overlap import normalize_overlap_policy, resolve_overlaps
from gliner2.inference.schema import Schema
from tqdm import tqdm

from glinerko.common import DataError
from glinerko.corpus.processor import Window, gliner2_schema
from glinerko.corpus.rows import Offsets, Span
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.windows import row_windows
from glinerko.model.answers import Found, TaskAnswers, as_spans, merge_entities
from glinerko.model.architecture import Architecture, Prompt, WindowAnswer

POOL = 64
"""How many batches of windows wait at a time, so that windows of similar length share a batch."""
FLOOR = 0.05
"""The lowest score of a span that is kept as a candidate."""
K, R = TypeVar("K"), TypeVar("R")


@dataclass
class Predictions:
    """The predicted spans of each document."""

    candidates: list[list[Span]] = field(default_factory=list)
    """Every span with a score of at least the floor, overlapping or not."""
    answers: list[TaskAnswers | None] = field(default_factory=list)
    """The answers to the other tasks."""
    prompt: Prompt | None = None
    """What was asked; ``None`` for a model that is none of gliner2."""
    gates: int = 0
    closed_gates: int = 0
    """How many of the gates kept back spans with a score of at least the floor; see :class:`WindowAnswer`."""
    overlap_policy: str = "greedy"
    """The model's default; one of :data:`OVERLAP_POLICIES`."""

    @cached_property
    def spans(self) -> list[list[Span]]:
        """The candidates without overlaps: see :func:`resolve_greedily`."""
        return [resolve_greedily(candidates) for candidates in self.candidates]

    def at_threshold(self, threshold: float, overlap_policy: str | None = None) -> list[list[Span]]:
        """The spans of each document with a score of at least ``threshold``, overlaps resolved within each label.

        Args:
            overlap_policy: One of :data:`OVERLAP_POLICIES`; by default that of the model.

        Raises:
            DataError: There is no such policy.
        """
        overlap_policy = self.overlap_policy if overlap_policy is None else overlap_policy
        if overlap_policy == "greedy":
            # Only a span with a higher score displaces a span, so the spans of the lowest threshold serve all others.
            return [[span for span in spans if span.score >= threshold] for spans in self.spans]
        resolve = overlap_resolver(overlap_policy)
        return [resolve([span for span in spans if span.score >= threshold]) for spans in self.candidates]

    def found(self, thresholds: Mapping[str, float]) -> list[Found]:
        """What is found in each document beside entities, at these thresholds by task."""
        return [each.select(self.prompt, thresholds) for each in self.answers]

    def with_labels(self, names: Mapping[str, str]) -> Predictions:
        """The same spans with each label replaced by its entry in ``names``."""
        renamed = [[replace(span, label=names[span.label]) for span in spans] for spans in self.candidates]
        return replace(self, candidates=renamed)


def predict_spans(
    model: Architecture,
    documents: Dataset,
    schema: LabelSchema,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = FLOOR,
    progress: bool = False,
) -> Predictions:
    """Score every span of every window once, and keep those that reach ``floor``.

    Args:
        documents: Rows of :func:`glinerko.corpus.windows.split_into_windows`.
        schema: The labels to ask for, the same for every document, and their descriptions.
        indices: The documents to predict, in this order; all by default.
        batch_size: The number of windows in a batch; windows of similar length go together.
        floor: The lowest score that is kept.
        progress: Whether to show a bar.
    """
    prompt = own_prompt(model, schema, floor)

    def score(windows: Sequence[Window]) -> list[WindowAnswer]:
        return model.extract_from_windows(windows, [prompt] * len(windows))

    rows = documents.select_columns(["text", "words", "windows"])
    rows = rows if indices is None else rows.select(indices)
    total = sum(map(len, rows["windows"]))
    training = model.training
    model.eval()
    with tqdm(total=total, desc="Predicting", unit="window", leave=False, disable=not progress) as bar:
        predictions = collect(map(partial(row_windows, labels=schema.labels), rows), score, batch_size, bar, prompt)
    model.train(training)
    return replace(predictions, overlap_policy=model.overlap_policy)


def own_prompt(model: Architecture, schema: LabelSchema, threshold: float) -> Prompt:
    """The prompt that asks for the labels and tasks of ``schema``."""
    (tasks,), (metadata,) = model._build_schema_dicts_and_metadata([Schema.from_dict(schema.to_request())])
    return Prompt({**tasks, **gliner2_schema(Window("", [], schema.labels), schema)}, metadata, threshold,
                  model.resolve_relations)  # fmt: skip


def collect(
    documents: Iterable[Iterable[tuple[int, Window]]],
    score: Callable[[Sequence[Window]], Sequence[WindowAnswer]],
    batch_size: int,
    bar: tqdm,
    prompt: Prompt | None = None,
) -> Predictions:
    """The entities of all documents, overlapping or not, and the answers to other tasks.

    Args:
        documents: The windows of each document, each with the offset at which it begins.
        score: Returns the answer for each window of a batch.
        prompt: What is asked; without it, only entities are collected.
    """

    def run(batch: Sequence[tuple[int, Window]]) -> Sequence[WindowAnswer]:
        results = score([window for _, window in batch])
        bar.update(len(batch))
        return results

    predictions = Predictions(prompt=prompt)
    for results in in_batches(documents, run, batch_size):
        predictions.gates += sum(answer.gates for _, answer in results)
        predictions.closed_gates += sum(answer.shut for _, answer in results)
        windows = [(begin, answer.tasks) for begin, answer in results]
        predictions.candidates.append(sorted(as_spans(merge_entities(windows))))
        predictions.answers.append(TaskAnswers(prompt, windows) if prompt else None)
    return predictions


def in_batches(
    documents: Iterable[Iterable[tuple[K, Window]]],
    run: Callable[[Sequence[tuple[K, Window]]], Iterable[R]],
    batch_size: int,
) -> Iterator[list[tuple[K, R]]]:
    """Run batches of windows of similar length, and yield the results of each document's windows, in order.

    The windows of a document are made one after the other, and at most :data:`POOL` batches of them wait at a time.
    Of a window that was run only its key is kept.

    Args:
        documents: The windows of each document, each with a key.
        run: Returns a result for each window of a batch.
    """
    waiting: list[tuple[list[tuple[K, R]], int, tuple[K, Window]]] = []
    unfinished: deque[list[tuple[K, R]]] = deque()

    def run_all() -> None:
        waiting.sort(key=lambda entry: len(entry[2][1].words))
        for first in range(0, len(waiting), batch_size):
            batch = waiting[first : first + batch_size]
            results = run([item for _, _, item in batch])
            for (document, place, (key, _)), result in zip(batch, results, strict=True):
                document[place] = key, result
        waiting.clear()

    for windows in documents:
        unfinished.append([])
        for item in windows:
            if len(waiting) == POOL * batch_size:
                run_all()
                while len(unfinished) > 1:
                    yield unfinished.popleft()
            waiting.append((unfinished[-1], len(unfinished[-1]), item))
            unfinished[-1].append(None)
    run_all()
    yield from unfinished


def predict_on_all_processes(
    accelerator: Accelerator, documents: int, predict: Callable[..., Predictions]
) -> Predictions:
    """Divide ``documents`` among the processes; every process returns all predictions, in order.

    Args:
        documents: The number of documents.
        predict: Takes ``indices`` and ``progress``, as :func:`predict_spans` does.
    """
    with accelerator.split_between_processes(list(range(documents))) as indices, accelerator.autocast():
        own = predict(indices=indices, progress=accelerator.is_main_process)
    gates, closed_gates = (sum(gather_object([count])) for count in (own.gates, own.closed_gates))
    gathered = {"candidates": gather_object(own.candidates), "answers": gather_object(own.answers)}
    return replace(own, **gathered, gates=gates, closed_gates=closed_gates)


def resolve_by_policy(spans: Iterable[Span], policy: str) -> list[Span]:
    """Resolve overlaps within each label by one of gliner2's policies.

    Spans that nothing overlaps are never compared: gliner2 compares all with all.
    """
    fields = {name: attrgetter(name) for name in ("score", "start", "end")}
    groups: list[list[Span]] = []
    label, end = None, 0
    for span in sorted(spans, key=lambda span: (span.label, span.start, span.end)):
        if span.label != label or span.start >= end:
            groups.append([])
            label, end = span.label, 0
        groups[-1].append(span)
        end = max(end, span.end)
    return sorted(span for group in groups for span in resolve_overlaps(group, policy, **fields))


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


_OF_GLINER2 = ("flat", "nested", "longest", "allow")
OVERLAP_POLICIES: dict[str, Callable[[list[Span]], list[Span]]] = {
    "greedy": resolve_greedily,
    **{name: partial(resolve_by_policy, policy=name) for name in _OF_GLINER2},
}
"""The policies by name. An entry is all that a new one needs: it takes the spans of a document and returns its own."""


def overlap_resolver(policy: str | None) -> Callable[[list[Span]], list[Span]]:
    """The function of a policy; gliner2's other names for its own are known too, and ``greedy`` is the default.

    Raises:
        DataError: There is no such policy.
    """
    name = "greedy" if policy is None else policy
    try:
        return OVERLAP_POLICIES.get(name) or OVERLAP_POLICIES[gliner2_policy(name).replace("disallow", "flat")]
    except (TypeError, ValueError, AttributeError) as error:
        names = ", ".join(OVERLAP_POLICIES)
        raise DataError(f"unknown overlap_policy {policy!r}; choose one of: {names}") from error


def gliner2_policy(policy: str | None) -> str | None:
    """gliner2's own name of a policy; ``None`` for ``greedy``, and for a policy that only this package knows."""
    if policy in (None, "greedy") or (policy in OVERLAP_POLICIES and policy not in _OF_GLINER2):
        return None
    return normalize_overlap_policy(policy)
