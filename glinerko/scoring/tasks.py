"""Scores of the tasks beside entities: classifications, relations and structures. No model in here.

Values are compared as strings, in the form in which mentions are: see :func:`glinerko.scoring.metrics.score_strings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glinerko.corpus.matching import plain
from glinerko.corpus.rows import Example, Record
from glinerko.corpus.schema import CLASSIFICATIONS, RELATIONS, STRUCTURES, LabelSchema, Task
from glinerko.model.answers import Found
from glinerko.scoring.metrics import THRESHOLDS, Scores, best_threshold, score_sets

Instance = frozenset[tuple[str, str]]
"""The ``(field, string)`` pairs of a relation or of an instance of a structure."""


@dataclass(frozen=True)
class TaskMetric:
    """A metric of a task, and its name for people."""

    title: str
    score: Callable[[Sequence[Example], Sequence[Found], Task], Scores]


def score_classes(examples: Sequence[Example], found: Sequence[Found], task: Task) -> Scores:
    """Of every class. If each document has one class, the F1 over all classes is the accuracy."""
    gold = [{(name,) for name in example.classes[task.name]} for example in examples]
    return score_sets(gold, [{(name,) for name, _ in each.classes[task.name]} for each in found], task.labels)


def score_fields(examples: Sequence[Example], found: Sequence[Found], task: Task) -> Scores:
    """The different values of each field in a document, whichever instance has them."""

    def pairs(instances: Sequence[Instance]) -> set[tuple[str, str]]:
        return {(string, f"{task.name}.{field}") for instance in instances for field, string in instance}

    gold = [pairs(_gold(example, task)) for example in examples]
    return score_sets(gold, [pairs(_predicted(each, task)) for each in found], task.score_labels)


def score_instances(examples: Sequence[Example], found: Sequence[Found], task: Task) -> Scores:
    """A relation or an instance is right if all of its values are, and no other value is in it.

    Equal instances of a document count as often as they occur.
    """
    counts = np.zeros((len(examples), 1, 3), dtype=int)
    for index, (example, each) in enumerate(zip(examples, found, strict=True)):
        gold, predicted = Counter(_gold(example, task)), Counter(_predicted(each, task))
        counts[index, 0] = (gold & predicted).total(), predicted.total(), gold.total()
    return Scores.from_counts(counts, [task.name])


def score_counts(examples: Sequence[Example], found: Sequence[Found], task: Task) -> Scores:
    """The share of documents with the right number of instances, as an F1."""
    right = [
        len(_gold(example, task)) == len(_predicted(each, task)) for example, each in zip(examples, found, strict=True)
    ]
    return Scores.from_counts([[[int(each), 1, 1]] for each in right] or np.zeros((0, 1, 3)), [task.name])


TASK_METRICS: dict[str, dict[str, TaskMetric]] = {
    CLASSIFICATIONS: {"class_f1": TaskMetric("class F1", score_classes)},
    RELATIONS: {"relation_f1": TaskMetric("relation F1", score_instances)},
    STRUCTURES: {
        "field_f1": TaskMetric("field F1", score_fields),
        "instance_f1": TaskMetric("exact-instance F1", score_instances),
        "count_accuracy": TaskMetric("count accuracy", score_counts),
    },
}
"""The metrics of each kind of task; the first one chooses thresholds. An entry is all that a new metric needs."""


def score_task(examples: Sequence[Example], found: Sequence[Found], task: Task) -> dict[str, Scores]:
    """The scores of a task by every metric, on the documents that were annotated for it."""
    return {name: _score(examples, found, task, metric) for name, metric in TASK_METRICS[task.kind].items()}


def score_main(examples: Sequence[Example], found: Sequence[Found], task: Task) -> Scores:
    """The scores of a task by the metric that chooses thresholds and models; see :func:`score_task`."""
    return _score(examples, found, task, next(iter(TASK_METRICS[task.kind].values())))


def _score(examples: Sequence[Example], found: Sequence[Found], task: Task, metric: TaskMetric) -> Scores:
    pairs = [(example, each) for example, each in zip(examples, found, strict=True) if is_annotated(example, task)]
    return metric.score([example for example, _ in pairs], [each for _, each in pairs], task)


def choose_thresholds(
    examples: Sequence[Example], find: Callable[[Mapping[str, float]], Sequence[Found]], tasks: Sequence[Task]
) -> dict[str, float]:
    """The threshold of each task by its main metric: see :func:`glinerko.scoring.metrics.best_threshold`.

    Args:
        find: Gives what is found in each document at thresholds by task, from predictions made once.
    """
    by_threshold = {value: find({task.name: value for task in tasks}) for value in (THRESHOLDS if tasks else ())}
    chosen = {}
    for task in tasks:
        scores = {value: score_main(examples, found, task) for value, found in by_threshold.items()}
        chosen[task.name] = best_threshold(scores)
    return chosen


@dataclass(frozen=True)
class Standing:
    """What a model scores on the validation documents, with the threshold chosen there for each task."""

    threshold: float = 0.5
    scores: Scores = field(default_factory=Scores)
    """Of entities."""
    tasks: dict[str, tuple[float, Scores]] = field(default_factory=dict)
    """Threshold and main scores of each other task."""

    @property
    def value(self) -> float:
        """What the best epoch has most of: the mean F1 of the tasks, entities being one of them."""
        f1 = [scores.overall.f1 for _, scores in self.tasks.values()]
        f1 += [self.scores.overall.f1] if self.scores.labels else []
        return sum(f1) / len(f1) if f1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The counts, from which :meth:`from_dict` makes all else."""
        tasks = {name: [threshold, scores.counts.tolist()] for name, (threshold, scores) in self.tasks.items()}
        return {"threshold": self.threshold, "counts": self.scores.counts.tolist(), "tasks": tasks}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], schema: LabelSchema) -> Standing:
        """The scores in the content of :meth:`to_dict`."""
        labels = {task.name: task.score_labels for task in schema.tasks}
        tasks = {
            name: (threshold, Scores.from_counts(counts, labels[name]))
            for name, (threshold, counts) in content["tasks"].items()
        }
        scores = Scores.from_counts(content["counts"], schema.labels) if schema.labels else Scores()
        return cls(content["threshold"], scores, tasks)


def describe_task(
    examples: Sequence[Example], found: Sequence[Found], task: Task, threshold: float | None = None
) -> dict[str, Any]:
    """The record of a task's scores, for tables, page and card.

    Args:
        threshold: The one in use; ``None`` for a classification with one class a document, which has none.
    """
    documents = sum(is_annotated(example, task) for example in examples)
    record = {
        "kind": task.kind,
        "labels": list(task.labels),
        "threshold": threshold if task.has_threshold else None,
        "documents": documents,
        "scores": {name: scores.to_dict() for name, scores in score_task(examples, found, task).items()},
    }
    if not task.has_threshold:
        return {**record, "confusion": confusion(examples, found, task)}
    return record if task.kind == CLASSIFICATIONS else {**record, "invented": invented(examples, found, task)}


def score_title(record: Mapping[str, Any], metric: str) -> str:
    """The name for people of a metric in a record of :func:`describe_task`."""
    # If each document has one class, the F1 over all classes is the accuracy.
    return "accuracy" if "confusion" in record else TASK_METRICS[record["kind"]][metric].title


def annotated_tasks(examples: Sequence[Example], tasks: Sequence[Task]) -> list[Task]:
    """The tasks for which at least one document was annotated: the others have no score."""
    return [task for task in tasks if any(is_annotated(example, task) for example in examples)]


def is_annotated(example: Example, task: Task) -> bool:
    """Whether a document was annotated for a task."""
    return task.name in example.classes if task.kind == CLASSIFICATIONS else task.kind in example.annotated


def confusion(examples: Sequence[Example], found: Sequence[Found], task: Task) -> list[list[int]]:
    """How many documents of each class (rows) got each class (columns); for a task with one class a document."""
    table = np.zeros((len(task.labels), len(task.labels)), dtype=int)
    for example, each in zip(examples, found, strict=True):
        if task.name in example.classes:
            (true,), ((given, _),) = example.classes[task.name], each.classes[task.name]
            table[task.labels.index(true), task.labels.index(given)] += 1
    return table.tolist()


def invented(examples: Sequence[Example], found: Sequence[Found], task: Task) -> tuple[int, int]:
    """In how many documents without a relation or instance some were found, and the number of such documents."""
    without = [
        bool(_predicted(each, task))
        for example, each in zip(examples, found, strict=True)
        if is_annotated(example, task) and not _gold(example, task)
    ]
    return sum(without), len(without)


def _gold(example: Example, task: Task) -> list[Instance]:
    def strings(record: Record) -> Instance:
        return frozenset((value.label, min(example.strings(value))) for value in record.values)

    instances = [strings(record) for record in example.records if record.task == task.name]
    return list(dict.fromkeys(instances)) if task.kind == RELATIONS else instances


def _predicted(found: Found, task: Task) -> list[Instance]:
    instances = [frozenset((field, plain(text)) for field, text in values) for values in found.values(task.name)]
    return list(dict.fromkeys(instances)) if task.kind == RELATIONS else instances
