"""A row as users write it, in three forms, into the values of a stored row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from glinerko.common import check_unicode, kind_of
from glinerko.corpus.matching import find_mention, parse_mention
from glinerko.corpus.rows import ENTITIES, Example
from glinerko.corpus.schema import Task, check_labels
from glinerko.corpus.tasks import DESCRIPTION_KEYS, TASK_KEYS, parse_tasks, unparse_tasks

# The keys that are read of the object that holds the labels, and values that say nothing.
_USED_KEYS = ("entities", "entity_descriptions", *TASK_KEYS, *DESCRIPTION_KEYS)
_EMPTY = (None, "", [], {})


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
        raise ValueError(f"'text' must be a string, found {kind_of(text)}")
    if not text.strip():
        raise ValueError("'text' is empty")
    check_unicode("'text'", text)
    tasks = parse_tasks(text, body)
    if body.get("entities") is not None or not tasks["annotated"]:
        tasks["annotated"] = [ENTITIES, *tasks["annotated"]]
    entities, descriptions = _find_labels(body, tasks["annotated"])
    mentions = []
    for label, values in entities.items():
        if not isinstance(values, Sequence | None) or isinstance(values, str):
            raise ValueError(f"the mentions of {label!r} must be a list, found {kind_of(values)}")
        for number, value in enumerate(values or [], 1):
            surface, spans = parse_mention(text, f"mention {number} of {label!r}", value)
            mentions.append({"label": label, "text": surface, "spans": spans})
    identifier = default_id if raw.get("id") is None else str(raw["id"])
    check_unicode("'id'", identifier)
    return {
        "id": identifier,
        "text": text,
        "labels": list(dict.fromkeys((*descriptions, *entities))),
        "descriptions": [{"label": label, "description": text} for label, text in descriptions.items() if text],
        "mentions": mentions,
        "unused": unused,
        **tasks,
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
    written = {"id": row["id"], "text": row["text"]}
    if ENTITIES in example.annotated:
        written |= {"entities": entities, "entity_descriptions": descriptions}
    return {**written, **unparse_tasks(example, [Task.from_dict(each) for each in json.loads(row["tasks"])])}


def _find_body(raw: Any) -> tuple[Any, Mapping, list[str]]:
    """The text of a row, the object that holds its entities, and the keys of both that are not used."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected an object with 'text' and 'entities', found {kind_of(raw)}")
    if "tokenized_text" in raw and raw.get("text") is None:
        raise ValueError(
            "a row of GLiNER v1 ('tokenized_text' and 'ner'): write the words, joined by spaces, as 'text', and the "
            "mentions as 'entities': {label: [mention, ...]}"
        )
    body = body_key(raw)
    text = "input" if body == "output" else "text"
    inner = raw[body] if body else {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{body!r} must be an object, found {kind_of(inner)}")
    used = {"id", text, body} if body else {"id", "text", *_USED_KEYS}
    unused = [key for key, value in raw.items() if key not in used and value not in _EMPTY]
    unused += [key for key, value in inner.items() if key not in _USED_KEYS and value not in _EMPTY]
    for key in unused:
        check_unicode("a key", key)
    return raw.get(text), inner if body else raw, sorted(set(unused))


def body_key(raw: Mapping[str, Any]) -> str | None:
    """The key of the object that holds the entities of a row; ``None`` if the row itself does."""
    if raw.get("input") is not None and raw.get("output") is not None:
        return "output"
    return "schema" if raw.get("entities") is None and raw.get("schema") is not None else None


def _find_labels(body: Mapping, annotated: Sequence[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The mentions and the description of each label."""
    entities, descriptions = body.get("entities"), body.get("entity_descriptions") or {}
    if ENTITIES not in annotated:
        entities, descriptions = {}, {}
    if not isinstance(entities, Mapping):
        raise ValueError(f"'entities' must be an object of label: [mention, ...], found {kind_of(entities)}")
    if not isinstance(descriptions, Mapping):
        raise ValueError(f"'entity_descriptions' must be an object of label: text, found {kind_of(descriptions)}")
    entities = dict(zip(check_labels(entities), entities.values(), strict=True))
    descriptions = dict(zip(check_labels(descriptions), descriptions.values(), strict=True))
    for label, description in descriptions.items():
        if description is not None and not isinstance(description, str):
            raise ValueError(f"the description of {label!r} must be a string, found {kind_of(description)}")
        check_unicode(f"the description of {label!r}", description or "")
    return entities, descriptions
