"""Reading the candidates that ``scripts/eval.py`` writes, as out-of-fold predictions for a whole corpus."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from glinerko.common import DataError, read_json_lines, read_lines
from glinerko.corpus.rows import Example, Span


def find_candidates(directory: str, name: str, examples: Sequence[Example]) -> list[str]:
    """The files of all folds of a cross-validation, for the variant ``name``.

    Raises:
        DataError: There is none, or a text that was held out is not that of ``examples``.
    """
    _require_own_ids(examples)
    files = sorted(Path(directory).glob(f"fold-*/{name}/dev/candidates.jsonl"))
    if not files:
        raise DataError(f"{directory}: no fold-*/{name}/dev/candidates.jsonl; run scripts/cross_validate.py first")
    texts = {example.id: example.text for example in examples}
    for held_out in (file.parents[2] / "dev.jsonl" for file in files):
        for row in read_json_lines(held_out):
            if texts.get(row["id"], row["text"]) != row["text"]:
                raise DataError(f"{held_out}: the document {row['id']!r} has another text than in the corpus")
    return list(map(str, files))


def read_candidates(files: Sequence[str], examples: Sequence[Example], labels: Collection[str]) -> list[list[Span]]:
    """The candidates of each document, in the order of ``examples``.

    Args:
        labels: The labels of the corpus.

    Raises:
        DataError: Naming file and line: a document is missing, unknown or covered twice, or a line has another form.
    """
    _require_own_ids(examples)
    texts = {example.id: example.text for example in examples}
    found: dict[str, list[Span]] = {}
    for file in files:
        for number, line in enumerate(read_lines(file), 1):
            if not line.strip():
                continue
            try:
                identifier, spans = _parse(json.loads(line), texts, labels)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                bad_form = not isinstance(error, ValueError) or isinstance(error, json.JSONDecodeError)
                reason = 'expected {"id", "spans": [[start, end, label, score]]}' if bad_form else error
                raise DataError(f"{file}, line {number}: {reason}") from error
            if identifier in found:
                raise DataError(f"{file}, line {number}: the document {identifier!r} is covered twice")
            found[identifier] = spans
    missing = [example.id for example in examples if example.id not in found]
    if missing:
        more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(f"no candidates for the document {missing[0]!r}{more}: pass the files of all folds")
    return [found[example.id] for example in examples]


def _require_own_ids(examples: Sequence[Example]) -> None:
    twice = [id for id, count in Counter(example.id for example in examples).items() if count > 1]
    if twice:
        more = f" ({len(twice)} ids are repeated)" if len(twice) > 1 else ""
        raise DataError(f"the id {twice[0]!r} stands for several documents{more}: give each its own")


def _parse(raw: Any, texts: Mapping[str, str], labels: Collection[str]) -> tuple[str, list[Span]]:
    identifier, spans = raw["id"], [Span(*span) for span in raw["spans"]]
    if identifier not in texts:
        raise ValueError(f"the corpus has no document {identifier!r}")
    for span in spans:
        if type(span.start) is not int or type(span.end) is not int or not isinstance(span.score, float | int):
            raise TypeError
        if not 0 <= span.start < span.end <= len(texts[identifier]) or not 0 <= span.score <= 1:
            raise ValueError(f"a span does not fit the text of the document {identifier!r}: of another corpus?")
        if span.label not in labels:
            raise ValueError(f"the corpus has no label {span.label!r}")
    return identifier, spans
