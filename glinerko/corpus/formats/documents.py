"""A document as an export has it, and as a row of this project. Every format is read into it and written from rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glinerko.cli import option
from glinerko.corpus.matching import compose, find_mention, trim
from glinerko.corpus.parsing import parse_row
from glinerko.corpus.words import word_splitter_names


@dataclass
class FormatOptions:
    """Options of formats. The help of each names the formats that use it, if not all do."""

    text_column: str | None = option(None, "key or column of the text (default: text, or the only one that is a text)")
    spans_key: str | None = option(None, "key of doc.spans to read besides doc.ents, or to write instead (spacy)")
    on_discontinuous: str = option(
        "raise",
        "reaction to a mention of several parts (brat): an error, one mention from its start to its end, or none",
        choices=["raise", "join", "skip"],
    )
    word_splitter: str = option("korean", "words that are written (conll, spacy)", choices=word_splitter_names)


class LeftOut(Exception):
    """A record that its annotator did not finish or did not accept: it is counted, and is no error."""


@dataclass(frozen=True)
class Annotation:
    """A labelled stretch of a text as an export has it. It is checked when it is made.

    Args:
        start, end: Offsets, end exclusive; ``None`` for a string that stands for all its occurrences.
        text: The surface that the export keeps beside the offsets, if it does.
        score: A probability, if it was predicted.

    Raises:
        ValueError: A field has another type, the stretch is empty, or the score is no probability.
    """

    label: str
    start: int | None
    end: int | None
    text: str | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.label, str):
            raise ValueError("a label must be a string")
        if self.text is not None and not isinstance(self.text, str):
            raise ValueError(f"the text of a mention of {self.label!r} must be a string")
        if self.score is not None and not (type(self.score) in (int, float) and 0 <= self.score <= 1):
            raise ValueError(f"the score of a mention of {self.label!r} must be a number from 0 to 1")
        if self.start is None and self.end is None and self.text is not None:
            if not self.text.strip():
                raise ValueError(f"a mention of {self.label!r} is empty")
            return
        if type(self.start) is not int or type(self.end) is not int:
            raise ValueError(f"the offsets of a mention of {self.label!r} must be whole numbers")
        if not 0 <= self.start < self.end:
            why = "is empty" if self.start >= self.end else "begins before its text"
            raise ValueError(f"a mention of {self.label!r} {why}: offsets [{self.start}, {self.end})")


@dataclass
class Document:
    """A text with its annotations.

    Args:
        labels: Labels that it was annotated for, besides those of its annotations.
        predicted: Whether a model annotated it.
        remarks: What the user should know of it: the number of mentions for each phrase.
    """

    text: str
    annotations: Sequence[Annotation]
    id: str | None = None
    labels: Sequence[str] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    predicted: bool = False
    remarks: Counter[str] = field(default_factory=Counter)


def make_document_row(document: Document, default_id: str, only: Sequence[str] = ()) -> dict[str, Any]:
    """The row of a document: ``{"id", "text", "entities": {label: [{"text", "start", "end"}]}}``.

    A mention string that does not occur in the text stays a string. What is noticed is added to ``document.remarks``.

    Args:
        only: The labels to keep; all by default.

    Raises:
        DataError, ValueError: :func:`glinerko.corpus.parsing.parse_row` would not read it.
    """
    entities: dict[str, list] = {label: [] for label in only or map(_composed, document.labels)}
    seen: set[tuple] = set()
    for each in document.annotations:
        label = _composed(each.label)
        if only and label not in only:
            document.remarks["mention of a label that is not asked for"] += 1
            continue
        mentions = entities.setdefault(label, [])
        for mention in _mentions(document.text, each):
            key = (label, mention) if isinstance(mention, str) else (label, mention["start"], mention["end"])
            if key in seen:
                document.remarks["mention that is given twice: kept once"] += 1
                continue
            if isinstance(mention, str):
                document.remarks["mention that is not in its text: kept as a string"] += 1
            elif each.start is not None and (each.start, each.end) != (mention["start"], mention["end"]):
                document.remarks["mention with white space around it: cut to its text"] += 1
            seen.add(key)
            mentions.append(mention)
    row = {"id": default_id if document.id is None else document.id, "text": document.text, "entities": entities}
    descriptions = {label: text for label, text in document.descriptions.items() if not only or label in only}
    if descriptions:
        row["entity_descriptions"] = descriptions
    parse_row(row, default_id)
    return row


def _composed(label: Any) -> Any:
    """A label in composed form: one label is one string, on every system."""
    return compose(label)[0] if isinstance(label, str) else label


def _mentions(text: str, annotation: Annotation) -> list[dict[str, Any] | str]:
    if annotation.start is None:
        spans = find_mention(text, annotation.text)
    elif annotation.end > len(text):
        raise ValueError(
            f"a mention of {annotation.label!r} has offsets [{annotation.start}, {annotation.end}), outside its text "
            f"of {len(text)} characters: export again, with the text that was annotated"
        )
    else:
        spans = [trim(text, annotation.start, annotation.end)]
    score = {} if annotation.score is None else {"score": annotation.score}
    return [{"text": text[s:e], "start": s, "end": e, **score} for s, e in spans] or [annotation.text]


def pick_text(fields: Mapping[str, Any], name: str | None, usual: Iterable[str] = ("text",)) -> str:
    """The text among ``fields``: that of the key ``name``, or of a usual key, or the only string.

    Raises:
        ValueError: There is no text, or several could be it.
    """
    strings = [key for key, value in fields.items() if isinstance(value, str)]
    if name is None:
        name = next((key for key in usual if key in strings), strings[0] if len(strings) == 1 else None)
        if name is None:
            question = f"which of {', '.join(strings)} is the text?" if strings else "no text:"
            raise ValueError(f"{question} --text_column names it")
    if name not in strings:
        raise ValueError(f"{name!r} is no text; the texts are {', '.join(strings) or 'none'}: --text_column names it")
    return fields[name]


def objects(values: Any, key: str) -> list[Mapping[str, Any]]:
    """``values``, which must be a list of objects; ``None`` counts as an empty list.

    Raises:
        ValueError: It is something else.
    """
    if values is not None and not (isinstance(values, list) and all(isinstance(each, Mapping) for each in values)):
        raise ValueError(f"{key!r} must be a list of objects")
    return values or []


def own_id(raw: Mapping[str, Any]) -> str | None:
    """The id of a record as a string, if it has one that is not empty."""
    return None if raw.get("id") in (None, "") else str(raw["id"])


def one_answer(answers: Sequence[Sequence[Annotation]]) -> Sequence[Annotation]:
    """The annotations that all annotators of a document agree on.

    Raises:
        ValueError: They do not agree.
    """
    if len({frozenset((a.label, a.start, a.end) for a in answer) for answer in answers}) > 1:
        raise ValueError(f"{len(answers)} annotations that differ: keep one of them in the tool and export again")
    return answers[0]
