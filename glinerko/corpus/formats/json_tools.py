"""Records in JSON: doccano, Prodigy, Argilla, GLiNER v1, rows and predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from glinerko.corpus.formats.documents import (
    Annotation,
    Document,
    FormatOptions,
    LeftOut,
    objects,
    one_answer,
    own_id,
    pick_text,
)
from glinerko.corpus.formats.sources import Record, Source, json_records
from glinerko.corpus.parsing import body_key, parse_row
from glinerko.corpus.rows import ENTITIES


def read_records(source: Source, options: FormatOptions) -> Iterator[Record]:
    return json_records(source)


def _object(raw: Any, *keys: str) -> Mapping:
    if not isinstance(raw, Mapping) or not all(key in raw for key in keys):
        raise ValueError(f"expected an object with {' and '.join(map(repr, keys)) or 'a text'}")
    return raw


def is_doccano(raw: Any) -> bool:
    """Whether a record has spans as doccano writes them."""
    if not isinstance(raw, Mapping) or "answer" in raw:
        return False
    labels, entities = raw.get("label", raw.get("labels")), raw.get("entities")
    return isinstance(labels, list) or (
        isinstance(entities, list) and all(isinstance(each, Mapping) and "start_offset" in each for each in entities)
    )


def parse_doccano(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A document of sequence labelling, with ``label: [[start, end, label]]`` or ``entities: [{"start_offset"...}]``.

    Raises:
        ValueError: It is none, or malformed.
    """
    _object(raw)
    if isinstance(raw.get("entities"), list):
        found = [
            (e.get("start_offset"), e.get("end_offset"), e.get("label")) for e in objects(raw["entities"], "entities")
        ]
    else:
        found = raw.get("label", raw.get("labels"))
    if not isinstance(found, list) or not all(isinstance(e, list | tuple) and len(e) == 3 for e in found):
        raise ValueError(
            "'label' must be a list of [start, end, label]: export a project of sequence labelling as JSONL"
        )
    remarks = Counter({"relation": len(objects(raw.get("relations"), "relations"))})
    annotations = [Annotation(label, start, end) for start, end, label in found]
    return Document(pick_text(raw, options.text_column, ("text", "data")), annotations, own_id(raw), remarks=+remarks)


def is_prodigy(raw: Any) -> bool:
    """Whether a record is an answer of Prodigy, or has its spans."""
    return isinstance(raw, Mapping) and ("answer" in raw or "_input_hash" in raw or isinstance(raw.get("spans"), list))


def parse_prodigy(raw: Any, options: FormatOptions, source: Source) -> Document:
    """An accepted example of Prodigy.

    Raises:
        LeftOut: It was rejected or ignored.
        ValueError: It answers a question about one span only, or is malformed.
    """
    _object(raw)
    answer = raw.get("answer", "accept")
    if answer != "accept":
        raise LeftOut(f"answer: {answer}" if answer in ("reject", "ignore") else "answer that is not accept")
    if raw.get("_view_id") == "ner":
        raise ValueError("an answer about one mention (ner.teach): others in its text are unknown; use ner.correct")
    annotations = [
        Annotation(each.get("label"), each.get("start"), each.get("end"), each.get("text"))
        for each in objects(raw.get("spans"), "spans")
    ]
    meta = raw.get("meta") if isinstance(raw.get("meta"), Mapping) else {}
    remarks = +Counter({"relation": len(objects(raw.get("relations"), "relations"))})
    return Document(pick_text(raw, options.text_column), annotations, own_id(raw) or own_id(meta), remarks=remarks)


def is_argilla(raw: Any) -> bool:
    """Whether a record is of Argilla 2, or a token classification record of Argilla 1."""
    return isinstance(raw, Mapping) and (
        ("fields" in raw and "responses" in raw) or ("tokens" in raw and "annotation" in raw)
    )


def parse_argilla(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A record with the response that all its users agree on; suggestions and predictions are never gold.

    Raises:
        LeftOut: There is no submitted response.
        ValueError: Users differ, or it is malformed.
    """
    _object(raw)
    if "annotation" in raw:
        if raw.get("status") == "Discarded" or raw["annotation"] is None:
            raise LeftOut("record that is discarded or not annotated")
        return Document(pick_text(raw, options.text_column), _argilla_spans(raw["annotation"]), own_id(raw))
    responses, answers = raw.get("responses"), []
    if isinstance(responses, Mapping):  # question: [{"value", "user_id"}]
        for values in responses.values():
            answers += [(each.get("status"), each.get("value")) for each in objects(values, "responses")]
    else:  # a record of a feedback dataset: [{"values": {question: {"value"}}, "status"}]
        for response in objects(responses, "responses"):
            values = list(_object(response.get("values") or {}).values())
            answers += [(response.get("status"), each.get("value")) for each in objects(values, "values")]
    kept = [value for status, value in answers if status in (None, "submitted") and _is_spans(value)]
    if not kept:
        raise LeftOut("record without a submitted response to a span question")
    text = pick_text(_object(raw.get("fields")), options.text_column)
    labels = _argilla_labels(source.path.parent / ".argilla" / "settings.json")
    return Document(text, one_answer(list(map(_argilla_spans, kept))), own_id(raw), labels)


def _is_spans(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) and "start" in each for each in value)


def _argilla_spans(values: Any) -> list[Annotation]:
    """``{"label", "start", "end"}`` or ``[label, start, end]``."""
    if not isinstance(values, list):
        raise ValueError("the annotation must be a list of spans")
    parts = [[v.get(k) for k in ("label", "start", "end")] if isinstance(v, Mapping) else v for v in values]
    if not all(isinstance(each, list) and len(each) >= 3 for each in parts):
        raise ValueError("a span must be [label, start, end] or an object with these keys")
    return [Annotation(*each[:3]) for each in parts]


@lru_cache(maxsize=8)
def _argilla_labels(settings: Path) -> tuple[str, ...]:
    """The labels of the span questions in the settings that ``Dataset.to_disk`` writes; none without this file."""
    try:
        questions = json.loads(settings.read_text(encoding="utf-8"))["questions"]
        spans = [each["settings"]["options"] for each in questions if each["settings"]["type"] == "span"]
        return tuple(dict.fromkeys(option["value"] for options in spans for option in options))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def is_gliner(raw: Any) -> bool:
    """Whether a record is a training example of GLiNER v1."""
    return isinstance(raw, Mapping) and "tokenized_text" in raw


def parse_gliner(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A training example of GLiNER v1; its text is the tokens, joined by single spaces.

    Raises:
        ValueError: It is malformed.
    """
    tokens, spans = _strings(_object(raw, "tokenized_text", "ner"), "tokenized_text"), raw["ner"]
    if not isinstance(spans, list) or not all(isinstance(each, list) and len(each) == 3 for each in spans):
        raise ValueError("'ner' must be a list of [first token, last token, label]")
    starts = [0, *accumulate(len(token) + 1 for token in tokens)]
    annotations = []
    for first, last, label in spans:
        if type(first) is not int or type(last) is not int or not 0 <= first <= last < len(tokens):
            raise ValueError(f"'ner' names tokens {first} to {last}, of {len(tokens)} tokens")
        annotations.append(Annotation(label, starts[first], starts[last] + len(tokens[last])))
    labels = [*_strings(raw, "ner_labels"), *_strings(raw, "ner_negatives")]
    return Document(" ".join(tokens), annotations, own_id(raw), list(dict.fromkeys(labels)))


def _strings(raw: Mapping, key: str) -> list[str]:
    values = raw.get(key) or []
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{key!r} must be a list of strings")
    return values


def is_row(raw: Any) -> bool:
    """Whether a record is a row that :func:`glinerko.corpus.reading.load_rows` reads."""
    return isinstance(raw, Mapping) and any(isinstance(raw.get(k), Mapping) for k in ("entities", "output", "schema"))


def parse_gliner2(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A row of this project or of gliner2.

    Raises:
        DataError, ValueError: See :func:`glinerko.corpus.parsing.parse_row`.
    """
    key = body_key(raw) if isinstance(raw, Mapping) else None
    body = raw[key] if key else raw
    entities = body.get("entities") if isinstance(body, Mapping) else None
    if not isinstance(entities, Mapping):
        parse_row(raw, "")
        raise ValueError("expected 'entities': {label: [mention, ...]}")
    blank = {**body, "entities": dict.fromkeys(entities, ())}  # mentions are repaired and checked later
    row = parse_row({**raw, key: blank} if key else blank, "")
    annotations = []
    for label, mentions in entities.items():
        if not isinstance(mentions, list | None):
            raise ValueError(f"the mentions of {label!r} must be a list")
        for each in mentions or ():
            if isinstance(each, str):
                annotations.append(Annotation(label, None, None, each))
            elif isinstance(each, Mapping) and {"text", "start", "end"} <= each.keys():
                annotations.append(Annotation(label, each["start"], each["end"], each["text"], each.get("score")))
            else:
                raise ValueError(f"a mention of {label!r} must be a string or an object with 'text', 'start' and 'end'")
    descriptions = {each["label"]: each["description"] for each in row["descriptions"]}
    remarks = Counter({f"document with the unused key {key}": 1 for key in row["unused"]})
    remarks += Counter({f"document whose {kind} are not converted": 1 for kind in row["annotated"] if kind != ENTITIES})
    return Document(row["text"], annotations, row["id"] or None, row["labels"], descriptions, remarks=remarks)


def is_prediction(raw: Any) -> bool:
    """Whether a record is what ``scripts/predict.py`` writes."""
    if (
        not isinstance(raw, Mapping)
        or raw.keys() != {"id", "text", "entities"}
        or not isinstance(raw["entities"], list)
    ):
        return False
    return all(isinstance(each, Mapping) and {"start", "end"} <= each.keys() for each in raw["entities"])


def parse_prediction(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A document with predicted mentions and their scores.

    Raises:
        ValueError: It is malformed.
    """
    annotations = [
        Annotation(e.get("label"), e.get("start"), e.get("end"), e.get("text"), e.get("score"))
        for e in objects(_object(raw, "text", "entities")["entities"], "entities")
    ]
    return Document(pick_text(raw, options.text_column), annotations, own_id(raw), predicted=True)
