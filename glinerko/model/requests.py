"""What a caller asks for, checked: texts, schemas in gliner2's own form, and numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from gliner2.inference.schema import Schema
from gliner2.inference.schema_model import SchemaInput
from pydantic import ValidationError

from glinerko.common import DataError, check_unicode, first_line
from glinerko.corpus.schema import RESERVED_TASKS

T = TypeVar("T")
_SCHEMA_KEYS = (
    "entities", "entity_descriptions", "classifications", "json_structures", "json_descriptions", "relations",
    "relation_descriptions", "record_metadata",
)  # fmt: skip
"""The keys of a schema in gliner2's own form."""


def require_number(
    name: str, value: Any, *, whole: bool = False, at_least: float, at_most: float = math.inf
) -> int | float:
    """``value``, if it is a number in this range.

    Raises:
        DataError: It is not.
    """
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not at_least <= value <= at_most:
        described = "a whole number" if whole else "a number"
        limits = f"of at least {at_least}" if at_most == math.inf else f"between {at_least} and {at_most}"
        raise DataError(f"{name} {value!r}: it must be {described} {limits}")
    return value


def require_texts(texts: Any) -> None:
    """Stop if ``texts`` is no collection of texts.

    Raises:
        DataError: It is one text, or nothing that can be read one after the other.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"expected a list of texts, found {type(texts).__name__}; extract_entities takes one text")


@contextmanager
def schema_errors() -> Iterator[None]:
    """Whatever gliner2 raises about a schema that it cannot use, as one line.

    Raises:
        DataError: With the reason.
    """
    try:
        yield
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise DataError(f"the schema cannot be used: {'; '.join(reasons)}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the schema cannot be used: {first_line(error)}") from error


def read_schema(schema: Mapping[str, Any]) -> Schema | Mapping[str, Any]:
    """A schema in gliner2's own form, or gliner2's builder for one that it can be made from.

    Raises:
        ValueError: A key is unknown, or gliner2 refuses the content.
    """
    unknown = [key for key in schema if key not in SchemaInput.model_fields and key not in _SCHEMA_KEYS]
    if unknown or not schema:
        raise ValueError(f"it has no key {unknown[0]!r}" if unknown else "it asks for nothing")
    return Schema.from_dict(dict(schema)) if schema.keys() <= SchemaInput.model_fields.keys() else schema


def check_task_names(tasks: Mapping[str, Any]) -> None:
    """Stop if two tasks of a schema in gliner2's own form have one name, or a task has one of gliner2's own.

    Raises:
        ValueError: Naming it.
    """
    kinds = [{task["task"] for task in tasks.get("classifications") or ()}]
    kinds += [{name for item in tasks.get(kind) or () for name in item} for kind in ("relations", "json_structures")]
    names = Counter(name for kind in kinds for name in kind)
    for name, count in names.items():
        if count > 1 or name in RESERVED_TASKS:
            raise ValueError(f"the name {name!r} is used for two tasks, or is one of gliner2's own")


def chunks_of_texts(documents: Iterable[tuple[str, T]]) -> Iterator[list[tuple[str, T]]]:
    """The texts in chunks that are split into words together, each with what belongs to it.

    Raises:
        DataError: A text is no string, or no Unicode.
    """
    chunk, size = [], 0
    for number, (text, other) in enumerate(documents, 1):
        try:
            if not isinstance(text, str):
                raise ValueError(f"expected a string, found {type(text).__name__}")
            check_unicode("the text", text)
        except ValueError as error:
            raise DataError(f"text {number}: {error}") from error
        chunk.append((text, other))
        size += len(text)
        if size > 2**16 or len(chunk) == 256:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
