"""The answers of a document's windows as one answer, and the shapes in which users get it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from gliner2.inference.chunking import TextChunk, _strip_span_metadata, remap_result_spans
from gliner2.inference.runtime import format_entity_dict, format_struct

from glinerko.corpus.rows import Offsets, Span
from glinerko.model.architecture import Prompt

Windows = Sequence[tuple[int, Mapping[str, Any]]]
"""The offset at which each window of a document begins, and gliner2's unformatted answer with offsets and scores."""


def merge_entities(windows: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, dict[Offsets, dict[str, Any]]]:
    """The entities of a document by label and offsets; one that several windows contain keeps its best score.

    Args:
        windows: See :data:`Windows`.
    """
    found: dict[str, dict[Offsets, dict[str, Any]]] = {}
    for begin, result in windows:
        for label, mentions in chain.from_iterable(each.items() for each in result.get("entities") or ()):
            of_label = found.setdefault(label, {})
            for mention in mentions:
                offsets = begin + mention["start"], begin + mention["end"]
                if offsets not in of_label or of_label[offsets]["confidence"] < mention["confidence"]:
                    of_label[offsets] = {**mention, "start": offsets[0], "end": offsets[1]}
    return found


def as_spans(found: Mapping[str, Mapping[Offsets, Mapping[str, Any]]]) -> list[Span]:
    """What :func:`merge_entities` returns, as spans."""
    return [Span(*offsets, label, m["confidence"]) for label, ms in found.items() for offsets, m in ms.items()]


class TaskAnswers:
    """The answers to the tasks beside entities, in all windows of a document, before any threshold.

    Args:
        windows: See :data:`Windows`.
    """

    def __init__(self, prompt: Prompt, windows: Windows):
        self.classes = {
            name: {label: sum(result[name][label] for _, result in windows) / len(windows) for label in task["labels"]}
            for name, task in prompt.classifications.items()
        }
        """The probability of each class, by task: the mean over the windows."""
        self.records = {
            name: [
                remap_result_spans(each, "", TextChunk("", begin, begin, 0, 0))  # only where it begins is read
                for begin, result in windows
                for each in result.get(name) or ()
            ]
            for name in (*prompt.relations, *prompt.structures)
        }
        """Relations and instances by task, in gliner2's form: the value or the values of each field."""

    def select(self, prompt: Prompt, thresholds: Mapping[str, float] | None = None) -> Found:
        """What reaches the thresholds.

        Args:
            thresholds: By task; those of ``prompt`` by default.
        """
        found = Found()
        for name, task in prompt.classifications.items():
            ranked = sorted(self.classes[name].items(), key=lambda entry: -entry[1])
            if task.get("multi_label"):
                lowest = prompt.threshold_of(name, thresholds)
                ranked = [entry for entry in ranked[: task.get("top_k")] if entry[1] >= lowest]
                found.classes[name] = sorted(ranked, key=lambda entry: task["labels"].index(entry[0]))
            else:
                found.classes[name] = ranked[:1]
        for name in prompt.relations:
            lowest = prompt.threshold_of(name, thresholds)
            pairs = (each for each in self.records[name] if score_of(each) >= lowest)
            found.relations[name] = prompt.resolve_relations(_without_repeats(pairs))
        for name in prompt.structures:
            instances = (_above(each, name, prompt, thresholds) for each in self.records[name])
            found.structures[name] = _without_repeats(filter(None, instances))
        return found


def _above(
    instance: Mapping[str, Any], name: str, prompt: Prompt, thresholds: Mapping[str, float] | None
) -> dict[str, Any] | None:
    """The values of an instance that reach the threshold; ``None`` if none does."""
    kept: dict[str, Any] = dict(instance)
    for part, value in _fields(instance):
        lowest = prompt.threshold_of(name, thresholds, part)
        above = [each for each in _values(value) if each["confidence"] >= lowest]
        kept[part] = above if isinstance(value, list) else above[0] if above else None
    if isinstance(instance.get("confidence"), float) and instance["confidence"] < prompt.threshold_of(name, thresholds):
        return None
    return kept if any(_values(value) for _, value in _fields(kept)) else None


def _without_repeats(instances: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instances without those whose values another one has too: two windows contain them, one of them not whole."""
    best: dict[frozenset, dict[str, Any]] = {}
    for each in instances:
        key = frozenset((field, *_identity(value)) for field, values in _fields(each) for value in _values(values))
        if key not in best or score_of(best[key]) < score_of(each):
            best[key] = each
    return [each for key, each in best.items() if not any(key < other for other in best)]


def _fields(instance: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The fields of an instance, without the score that a GLiNER2.5 puts beside them."""
    return [(name, value) for name, value in instance.items() if not isinstance(value, float)]


def _values(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value] if value else []


def _identity(value: Mapping[str, Any]) -> tuple[str, int, int]:
    return value["text"], value.get("start", -1), value.get("end", -1)


def score_of(instance: Mapping[str, Any]) -> float:
    """The score of a relation or an instance: a GLiNER2.5's own, or the lowest of its values."""
    if isinstance(instance.get("confidence"), float):
        return instance["confidence"]
    return min(value["confidence"] for _, values in _fields(instance) for value in _values(values))


@dataclass
class Found:
    """What is found in a document beside entities, by task; values have offsets and scores."""

    classes: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    relations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    structures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def values(self, task: str) -> list[list[tuple[str, str]]]:
        """``(field, string)`` of every value of each relation or instance of a task."""
        instances = self.relations.get(task) or self.structures.get(task) or []
        return [[(name, v["text"]) for name, value in _fields(each) for v in _values(value)] for each in instances]


def answer(
    prompt: Prompt,
    windows: Windows,
    resolve: Callable[[list[Span]], list[Span]],
    *,
    confidence: bool,
    spans: bool,
) -> dict[str, Any]:
    """The answer for a document in gliner2's form.

    Args:
        windows: See :data:`Windows`.
        resolve: Resolves overlaps among the entities of the document.
        confidence: Whether to show scores.
        spans: Whether to show offsets.
    """
    shown = _shape(TaskAnswers(prompt, windows).select(prompt), prompt, confidence, spans)
    metadata = prompt.metadata
    if not metadata["entity_order"]:
        return shown
    found = merge_entities(windows)
    chosen: dict[str, list] = {label: [] for label in metadata["entity_order"]}
    for span in sorted(resolve(as_spans(found)), key=lambda span: (-span.score, span.start, span.end)):
        mention = found[span.label][span.start, span.end]
        chosen[span.label].append(_strip_span_metadata(mention, confidence, spans))
    options = metadata["entity_metadata"]
    scalars = {label for label in chosen if options.get(label, {}).get("dtype", "list") != "list"}
    entities = {label: (ms or [None])[0] if label in scalars else ms for label, ms in chosen.items()}
    return {"entities": format_entity_dict(entities, confidence), **shown}


def _shape(found: Found, prompt: Prompt, confidence: bool, spans: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, classes in found.classes.items():
        labels = [{"label": label, "confidence": score} if confidence else label for label, score in classes]
        shown[name] = labels if prompt.classifications[name].get("multi_label") else labels[0]
    for name, instances in found.structures.items():
        plain = [each if confidence else dict(_fields(each)) for each in instances]
        # Without offsets, equal strings of a field are one.
        shown[name] = [format_struct(_strip_span_metadata(each, confidence, spans), confidence) for each in plain]
    if found.relations:
        # Without offsets and scores, gliner2 shows a relation as a pair.
        shown["relation_extraction"] = {
            name: [
                _strip_span_metadata(each, confidence, spans)
                if confidence
                else _strip_span_metadata({"head": each["head"], "tail": each["tail"]}, False, True)
                if spans
                else (each["head"]["text"], each["tail"]["text"])
                for each in pairs
            ]
            for name, pairs in found.relations.items()
        }
    return shown
