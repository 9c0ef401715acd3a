"""A document with its labels: the classes, the form of a stored row, and parsing the three forms that users write.

Character spans are the one currency: parsing turns mention strings into offsets, and everything after it works with
end-exclusive ``(start, end)`` offsets into the original text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Features, List, Value
from gliner2.processor import SchemaTransformer

from glinerko.common import DataError
from glinerko.corpus.matching import compose, find_mention, plain, strip

Offsets = tuple[int, int]
"""Start and end of a stretch of text in characters, end exclusive."""
SpanKey = tuple[int, int, str]
"""Start, end and label of a span."""
OFFSETS = List(List(Value("int32"), length=2))
"""The column type of a list of :data:`Offsets`."""
# The keys that are read of the object that holds the entities, and values that say nothing.
_ENTITY_KEYS = ("entities", "entity_descriptions")
_EMPTY = (None, "", [], {})


@dataclass(frozen=True, order=True)
class Span:
    """A labelled stretch of a text, ``[start, end)`` in characters. ``score`` is a probability if it was predicted."""

    start: int
    end: int
    label: str
    score: float | None = None

    @property
    def key(self) -> SpanKey:
        return self.start, self.end, self.label

    def to_record(self, text: str) -> dict[str, Any]:
        """The span with its text, as it is shown to users."""
        record = {"start": self.start, "end": self.end, "label": self.label, "text": text[self.start : self.end]}
        return record if self.score is None else {**record, "score": round(self.score, 4)}


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
        return {(string, mention.label) for mention in self.mentions for string in self.strings(mention)}

    def string(self, start: int, end: int) -> str:
        """The text at these offsets, in the form in which strings are compared."""
        return plain(self.text[start:end])

    def strings(self, mention: Mention) -> set[str]:
        """A mention as its text has it, or as the annotator wrote it if the text does not have it."""
        return {self.string(*span) for span in mention.spans} or {plain(mention.text)}


@dataclass(frozen=True)
class LabelSchema:
    """The labels of a corpus in a fixed order, and the description of each that has one; see :func:`check_labels`."""

    labels: tuple[str, ...]
    descriptions: dict[str, str]

    def __post_init__(self) -> None:
        described = zip(check_labels(self.descriptions), self.descriptions.values(), strict=True)
        object.__setattr__(self, "labels", check_labels(self.labels))
        object.__setattr__(self, "descriptions", dict(described))


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
            raise DataError(f"a label must be a string, found {_kind(label)} ({label}): put it in quotes")
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


ROW_FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "labels": List(Value("string")),
        "descriptions": List({"label": Value("string"), "description": Value("string")}),
        "mentions": List({"label": Value("string"), "text": Value("string"), "spans": OFFSETS}),
        "unused": List(Value("string")),
        "left_out": Value("int32"),
        "place": Value("string"),
        "error": Value("string"),
    }
)
"""A row as it is stored on disk and read by :meth:`Example.from_row`. ``unused`` are its keys that are not used here,
``left_out`` is the number of mentions whose labels were not asked for."""


def make_row(**values: Any) -> dict[str, Any]:
    """A row of :data:`ROW_FEATURES`, empty except for ``values``."""
    empty = {"id": "", "text": "", "labels": [], "descriptions": [], "mentions": [], "unused": [], "left_out": 0}
    return {**empty, "place": "", "error": "", **values}


def parse_row(raw: Any, default_id: str) -> dict[str, Any]:
    """The values of a row, checked, with the mentions as character offsets.

    Three forms are read: ``{"text", "entities": {label: [mention]}, "entity_descriptions"?, "id"?}``, the same with
    ``{"text", "start", "end"}`` mentions, and gliner2's ``{"input", "output": {"entities", "entity_descriptions"}}``,
    of which ``{"text", "schema": {...}}`` is another spelling. Other keys are named in ``unused``.

    Raises:
        DataError: A label cannot be used.
        ValueError: Any other reason. Both are one line, without the text of the row.
    """
    text, body, unused = _find_body(raw)
    if not isinstance(text, str):
        raise ValueError(f"'text' must be a string, found {_kind(text)}")
    if not text.strip():
        raise ValueError("'text' is empty")
    check_unicode("'text'", text)
    entities, descriptions = _find_labels(body)
    mentions = []
    for label, values in entities.items():
        if not isinstance(values, Sequence | None) or isinstance(values, str):
            raise ValueError(f"the mentions of {label!r} must be a list, found {_kind(values)}")
        mentions.extend(_parse_mention(text, label, number, value) for number, value in enumerate(values or [], 1))
    identifier = default_id if raw.get("id") is None else str(raw["id"])
    check_unicode("'id'", identifier)
    return {
        "id": identifier,
        "text": text,
        "labels": list(dict.fromkeys((*descriptions, *entities))),
        "descriptions": [{"label": label, "description": text} for label, text in descriptions.items() if text],
        "mentions": mentions,
        "unused": unused,
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


def _find_body(raw: Any) -> tuple[Any, Mapping, list[str]]:
    """The text of a row, the object that holds its entities, and the keys of both that are not used."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected an object with 'text' and 'entities', found {_kind(raw)}")
    if "tokenized_text" in raw and raw.get("text") is None:
        raise ValueError(
            "a row of GLiNER v1 ('tokenized_text' and 'ner'): write the words, joined by spaces, as 'text', and the "
            "mentions as 'entities': {label: [mention, ...]}"
        )
    body = body_key(raw)
    text = "input" if body == "output" else "text"
    inner = raw[body] if body else {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{body!r} must be an object, found {_kind(inner)}")
    used = {"id", text, body} if body else {"id", "text", *_ENTITY_KEYS}
    unused = [key for key, value in raw.items() if key not in used and value not in _EMPTY]
    unused += [key for key, value in inner.items() if key not in _ENTITY_KEYS and value not in _EMPTY]
    for key in unused:
        check_unicode("a key", key)
    return raw.get(text), inner if body else raw, sorted(set(unused))


def body_key(raw: Mapping[str, Any]) -> str | None:
    """The key of the object that holds the entities of a row; ``None`` if the row itself does."""
    if raw.get("input") is not None and raw.get("output") is not None:
        return "output"
    return "schema" if raw.get("entities") is None and raw.get("schema") is not None else None


def _find_labels(body: Mapping) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The mentions and the description of each label."""
    entities, descriptions = body.get("entities"), body.get("entity_descriptions") or {}
    if not isinstance(entities, Mapping):
        raise ValueError(f"'entities' must be an object of label: [mention, ...], found {_kind(entities)}")
    if not isinstance(descriptions, Mapping):
        raise ValueError(f"'entity_descriptions' must be an object of label: text, found {_kind(descriptions)}")
    entities = dict(zip(check_labels(entities), entities.values(), strict=True))
    descriptions = dict(zip(check_labels(descriptions), descriptions.values(), strict=True))
    for label, description in descriptions.items():
        if description is not None and not isinstance(description, str):
            raise ValueError(f"the description of {label!r} must be a string, found {_kind(description)}")
        check_unicode(f"the description of {label!r}", description or "")
    return entities, descriptions


def _parse_mention(text: str, label: str, number: int, value: Any) -> dict[str, Any]:
    where = f"mention {number} of {label!r}"
    if isinstance(value, str):
        check_unicode(where, value)
        if not strip(value):
            raise ValueError(f"{where} is empty")
        return {"label": label, "text": value, "spans": find_mention(text, value)}
    if not isinstance(value, Mapping) or not {"text", "start", "end"} <= value.keys():
        raise ValueError(f"{where} must be a string or an object with 'text', 'start' and 'end', found {_kind(value)}")
    surface, start, end = value["text"], value["start"], value["end"]
    if not isinstance(surface, str) or type(start) is not int or type(end) is not int:
        raise ValueError(f"{where}: 'text' must be a string, 'start' and 'end' whole numbers")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: offsets [{start}, {end}) lie outside the text of {len(text)} characters")
    if compose(text[start:end])[0] != compose(surface)[0]:
        raise ValueError(f"{where}: the text at offsets [{start}, {end}) is not the mention")
    return {"label": label, "text": surface, "spans": [(start, end)]}


def check_unicode(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half of a surrogate pair, which is no character") from None


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "a string", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
