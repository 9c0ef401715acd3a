"""What a corpus, a model or a prompt asks for: entity labels, and the other tasks of GLiNER2's schema."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gliner2.processor import SchemaTransformer

from glinerko.common import DataError, kind_of
from glinerko.corpus.matching import compose, strip

CLASSIFICATIONS, RELATIONS, STRUCTURES = KINDS = ("classifications", "relations", "structures")
"""The kinds of a :class:`Task`, named as in gliner2's schema files."""
RESERVED_TASKS = ("entities", "relation_extraction")


@dataclass(frozen=True)
class Task:
    """A task beside entities: a classification of the document, or relations or structures to find in it."""

    kind: str
    """One of :data:`KINDS`."""
    name: str
    labels: tuple[str, ...]
    """The classes; the fields of a structure; ``head`` and ``tail`` of a relation."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Of labels."""
    prompt: str = ""
    """The description of the task itself."""
    multi_label: bool = False
    """Whether a document has any number of the classes."""
    examples: tuple[tuple[str, str], ...] = ()
    """Inputs and their classes, for the prompt."""
    lists: tuple[str, ...] = ()
    """The fields that may have several values in one instance."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The possible values of fields that are chosen, and need not stand in the text."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """How a GLiNER2.5 forms the instances of a structure: gliner2's ``record_metadata``."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Task:
        """The task in what ``dataclasses.asdict`` and JSON made of one."""
        labels = tuple(content["labels"])
        ordered = {label: content["descriptions"][label] for label in labels if label in content["descriptions"]}
        examples = tuple((text, label) for text, label in content["examples"])
        choices = {name: tuple(values) for name, values in content["choices"].items()}
        lists = tuple(content["lists"])
        return cls(**{**content, "labels": labels, "descriptions": ordered, "examples": examples, "choices": choices,
                      "lists": lists})  # fmt: skip

    @property
    def has_threshold(self) -> bool:
        """Whether answers are chosen by their score; of classes that exclude each other the best one is the answer."""
        return self.kind != CLASSIFICATIONS or self.multi_label

    @property
    def score_labels(self) -> tuple[str, ...]:
        """What is scored one by one: the classes; ``structure.field``; the relation itself."""
        if self.kind == STRUCTURES:
            return tuple(f"{self.name}.{label}" for label in self.labels)
        return (self.name,) if self.kind == RELATIONS else self.labels

    def to_request(self) -> Any:
        """The entry for this task in a dictionary that gliner2's ``Schema.from_dict`` reads."""
        if self.kind == RELATIONS:
            return {"description": self.prompt} if self.prompt else {}
        if self.kind == CLASSIFICATIONS:
            labels = {label: self.descriptions.get(label, "") for label in self.labels}
            options = {"prompt": self.prompt or None, "examples": list(self.examples) or None}
            named = labels if self.descriptions else list(labels)
            return {"task": self.name, "labels": named, "multi_label": self.multi_label, **options}
        anchor = self.record.get("anchor", self.labels[0])
        fields = [
            {
                "name": name,
                "dtype": "list" if name in self.lists else "str",
                "choices": list(self.choices[name]) if name in self.choices else None,
                "description": self.descriptions.get(name),
                "cardinality": None if name == anchor else "zero_or_more" if name in self.lists else "optional_one",
                **self.record.get("fields", {}).get(name, {}),
            }
            for name in self.labels
        ]
        # Without a mode, a GLiNER2.5 would put all values of a text into one instance.
        formed = {name: self.record[name] for name in ("mode", "anchor", "occurrence_policy") if self.record.get(name)}
        return {"fields": fields, "mode": "natural", **formed}


@dataclass(frozen=True)
class LabelSchema:
    """What a corpus is labelled for, in a fixed order.

    ``labels`` are those of entities, ``descriptions`` those of labels that have one; see :func:`check_labels`.
    """

    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    tasks: tuple[Task, ...] = ()

    def __post_init__(self) -> None:
        described = zip(check_labels(self.descriptions), self.descriptions.values(), strict=True)
        object.__setattr__(self, "labels", check_labels(self.labels))
        object.__setattr__(self, "descriptions", dict(described))

    def of_kind(self, kind: str) -> list[Task]:
        """The tasks of one of the :data:`KINDS`."""
        return [task for task in self.tasks if task.kind == kind]

    def entities_only(self) -> LabelSchema:
        """The same labels without other tasks."""
        return replace(self, tasks=())

    def without_descriptions(self) -> LabelSchema:
        """The same labels and tasks, none of them described."""
        return LabelSchema(
            self.labels, {}, tuple(replace(task, descriptions={}, prompt="", examples=()) for task in self.tasks)
        )

    def to_request(self) -> dict[str, Any]:
        """The labels and tasks as a dictionary that gliner2's ``Schema.from_dict`` reads.

        gliner2 finds a classification by the beginning of its prompt, so that of two names the longer one comes first.
        """
        request: dict[str, Any] = {}
        if self.labels:
            described = {label: self.descriptions.get(label) for label in self.labels}
            request["entities"] = {label: {"description": text or None} for label, text in described.items()}
        classifications = sorted(self.of_kind(CLASSIFICATIONS), key=lambda task: -len(task.name))
        if classifications:
            request[CLASSIFICATIONS] = [task.to_request() for task in classifications]
        for kind in (RELATIONS, STRUCTURES):
            if self.of_kind(kind):
                request[kind] = {task.name: task.to_request() for task in self.of_kind(kind)}
        return request


def check_labels(labels: Iterable[Any]) -> tuple[str, ...]:
    """``labels`` in composed form (NFC): one label is one string, however it was typed.

    Raises:
        DataError: One is given twice, is empty, has white space around it, is no string, or is a reserved word
            of gliner2 or of our reports.
    """
    if isinstance(labels, str):
        raise DataError(f"labels must be a list, found the string {labels!r}")
    checked: dict[str, None] = {}
    for label in labels:
        if not isinstance(label, str):
            raise DataError(f"a label must be a string, found {kind_of(label)} ({label}): put it in quotes")
        if any("\ud800" <= character <= "\udfff" for character in label):
            raise DataError("a label holds half of a surrogate pair, which is no character")
        if not strip(label):
            raise DataError("a label is empty")
        if strip(label) != label:
            raise DataError(f"the label {label!r} has white space around it")
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in label):
            raise DataError(f"the label {label!r} holds a line break or a control character")
        reserved = next((word for word in SchemaTransformer.SPECIAL_TOKENS if word in label), None)
        if reserved or label == "overall":
            user = f"{reserved} is a token of gliner2's prompts" if reserved else "it names the score of all labels"
            raise DataError(f"the label {label!r} cannot be used ({user}): choose another name")
        if compose(label)[0] in checked:
            raise DataError(f"the label {label!r} is given twice")
        checked[compose(label)[0]] = None
    return tuple(checked)


def merge_tasks(declared: Iterable[Task]) -> tuple[Task, ...]:
    """One task for each name, from what the rows of a corpus say of it; labels in the order of first occurrence.

    Raises:
        DataError: A name is used for two kinds of tasks, or is one of gliner2's own.
    """
    merged: dict[str, Task] = {}
    for task in declared:
        known = merged.setdefault(task.name, task)
        if known.kind != task.kind or task.name in RESERVED_TASKS:
            uses = f"both {known.kind} and {task.kind}" if known.kind != task.kind else "a name of gliner2's own"
            raise DataError(f"the task {task.name!r} is {uses}: choose another name")
        if known is not task and known != task:
            merged[task.name] = replace(
                known,
                labels=tuple(dict.fromkeys((*known.labels, *task.labels))),
                descriptions={**task.descriptions, **known.descriptions},
                prompt=known.prompt or task.prompt,
                multi_label=known.multi_label or task.multi_label,
                examples=known.examples or task.examples,
                lists=tuple(dict.fromkeys((*known.lists, *task.lists))),
                choices={
                    name: tuple(dict.fromkeys((*known.choices.get(name, ()), *task.choices.get(name, ()))))
                    for name in dict.fromkeys((*known.choices, *task.choices))
                },
                record=known.record or task.record,
            )
    return tuple(merged.values())
