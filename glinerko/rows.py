"""One row of a file or data set: its three shapes, checked, with mentions turned into character spans."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def find_mention(text: str, mention: str) -> list[tuple[int, int]]:
    """All occurrences of ``mention`` in ``text``: exact ones, or else those that differ only in white space."""
    mention = mention.strip()
    exact = [match.span() for match in re.finditer(re.escape(mention), text)]
    if exact:
        return exact
    loose = r"\s*".join(re.escape(character) for character in mention if not character.isspace())
    return [match.span() for match in re.finditer(loose, text)]


def parse_row(raw: Any, default_id: str) -> dict[str, Any]:
    """One row of any of the three shapes, checked, with its mentions as character spans.

    The shapes: ``{"text", "entities": {label: [mention]}, "entity_descriptions"?, "id"?}``, the same with
    ``{"text", "start", "end"}`` mentions, and gliner2's ``{"input", "output": {"entities", "entity_descriptions"}}``.

    Raises:
        ValueError: the reason in one line, without the row's text.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected an object with 'text' and 'entities', found {_kind(raw)}")
    body: Any = raw
    text = raw.get("text")
    if raw.get("input") is not None and raw.get("output") is not None:
        text, body = raw["input"], raw["output"]
        if not isinstance(body, Mapping):
            raise ValueError(f"'output' must be an object, found {_kind(body)}")
    if not isinstance(text, str):
        raise ValueError(f"'text' must be a string, found {_kind(text)}")
    if not text.strip():
        raise ValueError("'text' is empty")
    _check_unicode("'text'", text)

    descriptions = body.get("entity_descriptions") or {}
    entities = body.get("entities")
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


def _parse_mention(text: str, label: str, number: int, value: Any) -> dict[str, Any]:
    where = f"mention {number} of {label!r}"
    if isinstance(value, str):
        _check_unicode(where, value)
        if not value.strip():
            raise ValueError(f"{where} is empty")
        return {"label": label, "text": value, "spans": as_offsets(find_mention(text, value))}
    if not isinstance(value, Mapping) or not {"text", "start", "end"} <= value.keys():
        raise ValueError(f"{where} must be a string or an object with 'text', 'start' and 'end', found {_kind(value)}")
    surface, start, end = value["text"], value["start"], value["end"]
    if not isinstance(surface, str) or type(start) is not int or type(end) is not int:
        raise ValueError(f"{where}: 'text' must be a string, 'start' and 'end' whole numbers")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: offsets [{start}, {end}) lie outside the text of {len(text)} characters")
    if text[start:end] != surface:
        raise ValueError(f"{where}: the text at offsets [{start}, {end}) is not the mention")
    return {"label": label, "text": surface, "spans": as_offsets([(start, end)])}


def as_offsets(offsets: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Pairs as an Arrow column holds them."""
    return [{"start": start, "end": end} for start, end in offsets]


def _check_unicode(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half of a surrogate pair, which is no character") from None


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "a string", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
