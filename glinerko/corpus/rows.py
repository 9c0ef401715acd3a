"""A document with its labels, and the form in which it is stored.

Character spans are the one currency: parsing turns mention strings into offsets, and everything after it works with
end-exclusive ``(start, end)`` offsets into the original text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Features, List, Value

from glinerko.corpus.matching import plain

Offsets = tuple[int, int]
"""Start and end of a stretch of text in characters, end exclusive."""
SpanKey = tuple[int, int, str]
"""Start, end and label of a span."""
OFFSETS = List(List(Value("int32"), length=2))
"""The column type of a list of :data:`Offsets`."""
ENTITIES = "entities"
"""What a row is annotated for, beside the kinds of tasks of :mod:`glinerko.corpus.schema`."""


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
class Record:
    """A relation or an instance of a structure. Each value is a mention, labelled with its field."""

    kind: str
    task: str
    values: tuple[Mention, ...]
    chosen: tuple[str, ...] = ()
    """The fields whose value is one of some choices, and has no spans."""

    @property
    def fields(self) -> set[str]:
        """The fields that have a value."""
        return {value.label for value in self.values}


@dataclass(frozen=True)
class Example:
    """A document with its gold. ``labels`` are those that it was annotated for, with or without mentions."""

    id: str
    text: str
    labels: tuple[str, ...]
    mentions: tuple[Mention, ...]
    annotated: tuple[str, ...] = (ENTITIES,)
    """What was looked for: :data:`ENTITIES`, and kinds of tasks. Where nothing is given, nothing was found."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The true classes of each classification that was answered."""
    records: tuple[Record, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """The document in a row of :data:`ROW_FEATURES`."""
        classes = {entry["task"]: tuple(entry["labels"]) for entry in row["classes"]}
        records = (
            Record(entry["kind"], entry["task"], _mentions(entry["values"]), tuple(entry["chosen"]))
            for entry in row["records"]
        )
        return cls(row["id"], row["text"], tuple(row["labels"]), _mentions(row["mentions"]), tuple(row["annotated"]),
                   classes, tuple(records))  # fmt: skip

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


def _mentions(entries: Any) -> tuple[Mention, ...]:
    return tuple(Mention(each["label"], each["text"], tuple(map(tuple, each["spans"]))) for each in entries)


_MENTION = {"label": Value("string"), "text": Value("string"), "spans": OFFSETS}
ROW_FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "labels": List(Value("string")),
        "descriptions": List({"label": Value("string"), "description": Value("string")}),
        "mentions": List(_MENTION),
        "annotated": List(Value("string")),
        "classes": List({"task": Value("string"), "labels": List(Value("string"))}),
        "records": List(
            {
                "kind": Value("string"),
                "task": Value("string"),
                "values": List(_MENTION),
                "chosen": List(Value("string")),
            }
        ),
        "tasks": Value("string"),
        "unused": List(Value("string")),
        "left_out": Value("int32"),
        "place": Value("string"),
        "error": Value("string"),
    }
)
"""A row as it is stored on disk and read by :meth:`Example.from_row`. ``tasks`` is JSON: what the row says of the tasks
themselves. ``unused`` are its keys that are not used here, ``left_out`` is the number of mentions whose labels were not
asked for."""


def make_row(**values: Any) -> dict[str, Any]:
    """A row of :data:`ROW_FEATURES`, empty except for ``values``."""
    lists = {name: [] for name in ("labels", "descriptions", "mentions", "classes", "records", "unused")}
    texts = dict.fromkeys(("id", "text", "place", "error"), "")
    return {**lists, **texts, "annotated": [ENTITIES], "tasks": "[]", "left_out": 0, **values}
