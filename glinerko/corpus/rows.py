"""A document with its labels: the classes, the form of a stored row, and parsing the three forms that users write.

Character spans are the one currency: parsing turns mention strings into offsets, and everything after it works with
end-exclusive ``(start, end)`` offsets into the original text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Features, List, Value

Offsets = tuple[int, int]
"""Start and end of a stretch of text in characters, end exclusive."""
OFFSETS = List(List(Value("int32"), length=2))
"""The column type of a list of :data:`Offsets`."""


@dataclass(frozen=True, order=True)
class Span:
    """A labelled stretch of a text, ``[start, end)`` in characters. ``score`` is a probability if it was predicted."""

    start: int
    end: int
    label: str
    score: float | None = None

    @property
    def key(self) -> tuple[int, int, str]:
        return self.start, self.end, self.label


@dataclass(frozen=True)
class Mention:
    """A gold mention as the annotator wrote it, and every place where it occurs in the text (none: absent)."""

    label: str
    text: str
    spans: tuple[Offsets, ...]


@dataclass(frozen=True)
class Example:
    """A document with its gold. ``labels`` are those that it was annotated for, with or without mentions."""

    id: str
    text: str
    labels: tuple[str, ...]
    mentions: tuple[Mention, ...]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """The document in a row of :data:`ROW_FEATURES`."""
        mentions = (Mention(m["label"], m["text"], tuple(map(tuple, m["spans"]))) for m in row["mentions"])
        return cls(row["id"], row["text"], tuple(row["labels"]), tuple(mentions))

    @property
    def gold_spans(self) -> set[tuple[int, int, str]]:
        """Every occurrence of every mention, as ``(start, end, label)``."""
        return {(start, end, m.label) for m in self.mentions for start, end in m.spans}

    @property
    def gold_strings(self) -> set[tuple[str, str]]:
        """Every mention, present in the text or not, as ``(mention string, label)``."""
        return {(m.text, m.label) for m in self.mentions}


@dataclass(frozen=True)
class LabelSchema:
    """The labels of a corpus in a fixed order, and the description of each that has one."""

    labels: tuple[str, ...]
    descriptions: dict[str, str]


#: A row as it is stored on disk and read by :meth:`Example.from_row`.
ROW_FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "labels": List(Value("string")),
        "descriptions": List({"label": Value("string"), "description": Value("string")}),
        "mentions": List({"label": Value("string"), "text": Value("string"), "spans": OFFSETS}),
        "place": Value("string"),
        "error": Value("string"),
    }
)


def make_row(**values: Any) -> dict[str, Any]:
    """A row of :data:`ROW_FEATURES`, empty except for ``values``."""
    return {"id": "", "text": "", "labels": [], "descriptions": [], "mentions": [], "place": "", "error": "", **values}


def find_mention(text: str, mention: str) -> list[Offsets]:
    """All occurrences of ``mention`` in ``text``: exact ones, or otherwise those that differ in white space only."""
    mention = mention.strip()
    exact = [match.span() for match in re.finditer(re.escape(mention), text)]
    if exact:
        return exact
    loose = r"\s*".join(re.escape(character) for character in mention if not character.isspace())
    return [match.span() for match in re.finditer(loose, text)]


def parse_row(raw: Any, default_id: str) -> dict[str, Any]:
    """The values of a row, checked, with the mentions as character offsets.

    Three forms are read: ``{"text", "entities": {label: [mention]}, "entity_descriptions"?, "id"?}``, the same with
    ``{"text", "start", "end"}`` mentions, and gliner2's ``{"input", "output": {"entities", "entity_descriptions"}}``.

    Raises:
        ValueError: The reason in one line, without the text of the row.
    """
    text, body = _find_body(raw)
    if not isinstance(text, str):
        raise ValueError(f"'text' must be a string, found {_kind(text)}")
    if not text.strip():
        raise ValueError("'text' is empty")
    _check_unicode("'text'", text)
    entities, descriptions = body.get("entities"), body.get("entity_descriptions") or {}
    _check_labels(entities, descriptions)
    mentions = []
    for label, values in entities.items():
        if not isinstance(values, Sequence | None) or isinstance(values, str):
            raise ValueError(f"the mentions of {label!r} must be a list, found {_kind(values)}")
        mentions.extend(_parse_mention(text, label, number, value) for number, value in enumerate(values or [], 1))
    identifier = default_id if raw.get("id") is None else str(raw["id"])
    _check_unicode("'id'", identifier)
    return {
        "id": identifier,
        "text": text,
        "labels": list(dict.fromkeys((*descriptions, *entities))),
        "descriptions": [{"label": label, "description": text} for label, text in descriptions.items() if text],
        "mentions": mentions,
    }


def unparse_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`parse_row` reads as ``row``."""
    example = Example.from_row(row)
    entities: dict[str, list] = {label: [] for label in example.labels}
    for mention in example.mentions:
        where = [{"text": mention.text, "start": start, "end": end} for start, end in mention.spans]
        everywhere = find_mention(example.text, mention.text) == list(mention.spans)
        entities[mention.label].extend([mention.text] if everywhere else where)
    descriptions = {entry["label"]: entry["description"] for entry in row["descriptions"]}
    return {"id": row["id"], "text": row["text"], "entities": entities, "entity_descriptions": descriptions}


def _find_body(raw: Any) -> tuple[Any, Mapping]:
    """The text of a row, and the object that holds its entities."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected an object with 'text' and 'entities', found {_kind(raw)}")
    if raw.get("input") is None or raw.get("output") is None:
        return raw.get("text"), raw
    if not isinstance(raw["output"], Mapping):
        raise ValueError(f"'output' must be an object, found {_kind(raw['output'])}")
    return raw["input"], raw["output"]


def _check_labels(entities: Any, descriptions: Any) -> None:
    if not isinstance(entities, Mapping):
        raise ValueError(f"'entities' must be an object of label: [mention, ...], found {_kind(entities)}")
    if not isinstance(descriptions, Mapping):
        raise ValueError(f"'entity_descriptions' must be an object of label: text, found {_kind(descriptions)}")
    for label in (*entities, *descriptions):
        if not isinstance(label, str) or not label.strip():
            raise ValueError("a label is empty")
        _check_unicode("a label", label)
    for label, description in descriptions.items():
        if description is not None and not isinstance(description, str):
            raise ValueError(f"the description of {label!r} must be a string, found {_kind(description)}")
        _check_unicode(f"the description of {label!r}", description or "")


def _parse_mention(text: str, label: str, number: int, value: Any) -> dict[str, Any]:
    where = f"mention {number} of {label!r}"
    if isinstance(value, str):
        _check_unicode(where, value)
        if not value.strip():
            raise ValueError(f"{where} is empty")
        return {"label": label, "text": value, "spans": find_mention(text, value)}
    if not isinstance(value, Mapping) or not {"text", "start", "end"} <= value.keys():
        raise ValueError(f"{where} must be a string or an object with 'text', 'start' and 'end', found {_kind(value)}")
    surface, start, end = value["text"], value["start"], value["end"]
    if not isinstance(surface, str) or type(start) is not int or type(end) is not int:
        raise ValueError(f"{where}: 'text' must be a string, 'start' and 'end' whole numbers")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: offsets [{start}, {end}) lie outside the text of {len(text)} characters")
    if text[start:end] != surface:
        raise ValueError(f"{where}: the text at offsets [{start}, {end}) is not the mention")
    return {"label": label, "text": surface, "spans": [(start, end)]}


def _check_unicode(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half of a surrogate pair, which is no character") from None


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "a string", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
