"""The classes, relations and structures of a row, in gliner2's own form, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from glinerko.common import check_unicode, kind_of
from glinerko.corpus.matching import find_mention, parse_mention, strip
from glinerko.corpus.rows import Example, Mention, Record
from glinerko.corpus.schema import (
    CLASSIFICATIONS,
    KINDS,
    RELATIONS,
    STRUCTURES,
    Task,
    check_labels,
    merge_tasks,
)

TASK_KEYS = {"classifications": CLASSIFICATIONS, "relations": RELATIONS, "json_structures": STRUCTURES}
"""The keys of a row that hold tasks, and their kinds."""
DESCRIPTION_KEYS = ("json_descriptions", "relation_descriptions", "record_metadata")
"""The keys that describe these tasks."""
_ABSENT = (None, "", [])
_RECORD_KEYS = {"mode", "anchor", "occurrence_policy", "fields"}
_CLASSIFICATION_KEYS = {
    "task", "labels", "true_label", "multi_label", "prompt", "examples", "label_descriptions", "cls_threshold", "top_k",
    "class_act",
}  # fmt: skip


def parse_tasks(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The columns ``annotated`` (without entities), ``classes``, ``records`` and ``tasks`` of a row.

    A key that is there, even if it is empty, was annotated: ``"relations": []`` says that there is none. Fields that
    have a description come first.

    Raises:
        DataError: A name cannot be used.
        ValueError: Any other reason.
    """
    given = {kind: body[key] for key, kind in TASK_KEYS.items() if body.get(key) is not None}
    for kind, items in given.items():
        wrong = [items] if not isinstance(items, list) else [each for each in items if not isinstance(each, Mapping)]
        if wrong:
            raise ValueError(f"{_key_of(kind)!r} must be a list of objects, found {kind_of(wrong[0])}")
    tasks: list[Task] = []
    classes: list[dict[str, Any]] = []
    for item in given.get(CLASSIFICATIONS, ()):
        task, true = _parse_classification(item)
        if any(task.name == entry["task"] for entry in classes):
            raise ValueError(f"the classification {task.name!r} is given twice")
        tasks.append(task)
        classes.append({"task": task.name, "labels": true})
    parsed = [*_parse_relations(text, given, body), *_parse_structures(text, given, body)]
    tasks += [task for task, _ in parsed]
    records = [
        {
            "kind": task.kind,
            "task": task.name,
            "values": values,
            "chosen": [v["label"] for v in values if not v["spans"] and v["label"] in task.choices],
        }
        for task, values in parsed
        if values
    ]
    return {
        "annotated": [kind for kind in KINDS if kind in given],
        "classes": classes,
        "records": records,
        "tasks": json.dumps(list(map(asdict, merge_tasks(tasks))), ensure_ascii=False),
    }


def _parse_classification(item: Mapping[str, Any]) -> tuple[Task, list[str]]:
    (name,) = check_labels([item.get("task")])
    where, labels = f"the classification {name!r}", item.get("labels")
    if not isinstance(labels, list | Mapping) or len(labels) < 2:
        raise ValueError(f"{where} needs a list of at least two 'labels'")
    described = _descriptions(item.get("label_descriptions"), where)
    if isinstance(labels, Mapping):
        described = {**_descriptions(labels, where), **described}
    labels, true = check_labels(labels), item.get("true_label")
    if "true_label" not in item:
        raise ValueError(f"{where} has no 'true_label'")
    true = check_labels(true if isinstance(true, list) else [] if true in _ABSENT else [true])
    unknown = [label for label in true if label not in labels]
    if unknown:
        raise ValueError(f"{where}: the true label {unknown[0]!r} is none of its labels")
    multi_label = item.get("multi_label") or False
    others = [name for name in described if name not in labels]
    if others:
        raise ValueError(f"{where}: {others[0]!r} is described, and is none of its labels")
    if type(multi_label) is not bool:
        raise ValueError(f"{where}: 'multi_label' must be true or false, found {kind_of(multi_label)}")
    unused = item.keys() - _CLASSIFICATION_KEYS
    if unused:
        raise ValueError(f"{where} has the unknown key {min(unused)!r}")
    if not multi_label and len(true) != 1:
        raise ValueError(f"{where} has {len(true)} true labels: it needs one, or 'multi_label': true")
    prompt, examples = item.get("prompt") or "", item.get("examples") or []
    if not isinstance(prompt, str) or not isinstance(examples, list):
        raise ValueError(f"{where}: 'prompt' must be a string, 'examples' a list of [input, label]")
    for example in examples:
        if not isinstance(example, list | tuple) or len(example) != 2 or not all(isinstance(e, str) for e in example):
            raise ValueError(f"{where}: an example must be [input, label]")
        if example[1] not in labels:
            raise ValueError(f"{where}: an example has the label {example[1]!r}, which is none of its labels")
    pairs = tuple((source, label) for source, label in examples)
    check_unicode(f"the description of {name!r}", prompt + "".join(map("".join, pairs)))
    return Task(CLASSIFICATIONS, name, labels, described, prompt, bool(multi_label), pairs), list(true)


def _parse_relations(text: str, given: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[tuple[Task, list]]:
    described = _descriptions(body.get("relation_descriptions"), "'relation_descriptions'")
    ends = ("head", "tail")
    if RELATIONS in given:
        yield from ((Task(RELATIONS, name, ends, prompt=prompt), []) for name, prompt in described.items())
    for number, (name, value) in enumerate(_instances(given.get(RELATIONS, ()), RELATIONS), 1):
        task, where = Task(RELATIONS, name, ends, prompt=described.get(name, "")), f"relation {number} ({name})"
        if value.keys() != set(ends):
            raise ValueError(f"{where} must have 'head' and 'tail', found {', '.join(map(str, value)) or 'nothing'}")
        missing = [end for end in ends if value[end] in _ABSENT]
        if len(missing) == 1:
            raise ValueError(f"{where} has no {missing[0]}")
        yield task, [] if missing else [_value(text, f"the {end} of {where}", end, value[end]) for end in ends]


def _parse_structures(text: str, given: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[tuple[Task, list]]:
    described, formed = body.get("json_descriptions") or {}, body.get("record_metadata") or {}
    if not isinstance(described, Mapping) or not isinstance(formed, Mapping):
        raise ValueError("'json_descriptions' and 'record_metadata' must be objects of structure: {field: ...}")
    texts = {
        name: _descriptions(each, f"'json_descriptions' of {name!r}")
        for name, each in zip(check_labels(described), described.values(), strict=True)
    }
    if STRUCTURES in given:
        yield from ((Task(STRUCTURES, name, tuple(each), each), []) for name, each in texts.items() if each)
    for number, (name, fields) in enumerate(_instances(given.get(STRUCTURES, ()), STRUCTURES), 1):
        names, values, lists, choices = check_labels(fields), [], [], {}
        if "confidence" in names:
            raise ValueError(
                f"a field of {name!r} is named 'confidence', as the scores of gliner2: choose another name"
            )
        for field, value in zip(names, fields.values(), strict=True):
            where = f"{field!r} of structure {number} ({name})"
            chosen = isinstance(value, Mapping) and "choices" in value
            if chosen:
                choices[field], value = check_labels(value["choices"]), value.get("value")
            if value in _ABSENT:
                continue
            several = value if isinstance(value, list) else [value]
            if len(several) > 1:
                lists.append(field)
            if not chosen:
                values += [_value(text, where, field, each) for each in several]
                continue
            for each in check_labels(several):
                if each not in choices[field]:
                    raise ValueError(f"{where}: {each!r} is none of its choices")
                values.append({"label": field, "text": each, "spans": []})
        record = formed.get(name) or {}
        if not isinstance(record, Mapping):
            raise ValueError(f"'record_metadata' of {name!r} must be an object, found {kind_of(record)}")
        if record.keys() - _RECORD_KEYS:
            raise ValueError(f"'record_metadata' of {name!r} has the unknown key {min(record.keys() - _RECORD_KEYS)!r}")
        labels = tuple(dict.fromkeys((*texts.get(name, ()), *names)))
        options = {"lists": tuple(lists), "choices": choices, "record": dict(record)}
        yield Task(STRUCTURES, name, labels, texts.get(name, {}), **options), values


def _instances(items: Sequence[Mapping], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name and the values of each instance of a list ``[{name: {field: value}}]``."""
    for item in items:
        for name, value in zip(check_labels(item), item.values(), strict=True):
            if not isinstance(value, Mapping) or not value:
                found = "an empty one" if value == {} else kind_of(value)
                raise ValueError(f"{name!r} in {_key_of(kind)!r} must be an object with values, found {found}")
            yield name, value


def _value(text: str, where: str, field: str, value: Any) -> dict[str, Any]:
    surface, spans = parse_mention(text, where, value)
    return {"label": field, "text": surface, "spans": spans}


def _descriptions(value: Any, where: str) -> dict[str, str]:
    """A mapping of names to their descriptions; those that say nothing are left out."""
    if not isinstance(value, Mapping | None):
        raise ValueError(f"the descriptions of {where} must be an object of name: text, found {kind_of(value)}")
    described = dict(zip(check_labels(value or {}), (value or {}).values(), strict=True))
    for name, text in described.items():
        if not isinstance(text, str | None):
            raise ValueError(f"the description of {name!r} must be a string, found {kind_of(text)}")
        check_unicode(f"the description of {name!r}", text or "")
    return {name: text for name, text in described.items() if text and strip(text)}


def _key_of(kind: str) -> str:
    return next(key for key, value in TASK_KEYS.items() if value == kind)


def unparse_tasks(example: Example, tasks: Sequence[Task]) -> dict[str, Any]:
    """What :func:`parse_tasks` reads as the classes and records of ``example``.

    Args:
        tasks: What its row says of the tasks.
    """
    known = {task.name: task for task in tasks}
    body: dict[str, Any] = {_key_of(kind): [] for kind in KINDS if kind in example.annotated}
    for name, true in example.classes.items():
        task = known[name]
        options = {"prompt": task.prompt, "label_descriptions": dict(task.descriptions)}
        options |= {"multi_label": task.multi_label, "examples": [list(pair) for pair in task.examples]}
        entry = {"task": name, "labels": list(task.labels), "true_label": list(true)}
        body["classifications"].append({**entry, **{key: value for key, value in options.items() if value}})
    for task in tasks:
        of_task = [record for record in example.records if record.task == task.name]
        if task.kind == RELATIONS:
            empty = [{"head": "", "tail": ""}]
            found = [{each.label: _written(example.text, each) for each in record.values} for record in of_task]
            body["relations"] += [{task.name: instance} for instance in found or empty]
            if task.prompt:
                body.setdefault("relation_descriptions", {})[task.name] = task.prompt
        elif task.kind == STRUCTURES:
            found = [
                _written_fields(example.text, record, task) for record in of_task or [Record(STRUCTURES, task.name, ())]
            ]
            body["json_structures"] += [{task.name: instance} for instance in found]
            for key, value in (("json_descriptions", task.descriptions), ("record_metadata", task.record)):
                if value:
                    body.setdefault(key, {})[task.name] = dict(value)
    return body


def _written_fields(text: str, record: Record, task: Task) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in task.labels:
        several = [
            value.text if name in task.choices else _written(text, value)
            for value in record.values
            if value.label == name
        ]
        value = several if len(several) > 1 else several[0] if several else ""
        fields[name] = {"value": value, "choices": list(task.choices[name])} if name in task.choices else value
    return fields


def _written(text: str, mention: Mention) -> str | dict[str, Any]:
    """A mention as a string if that finds the same places, otherwise with its offsets."""
    if find_mention(text, mention.text) == list(mention.spans):
        return mention.text
    start, end = mention.spans[0]
    return {"text": mention.text, "start": start, "end": end}
