"""Decisions about findings, and the corrected rows that follow from them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glinerko.common import DataError, read_lines
from glinerko.corpus.matching import compose
from glinerko.corpus.rows import Example, SpanKey, parse_row

ACCEPT, REJECT, SKIP = "accept", "reject", "skip"
"""What can be decided about a finding. Only ``accept`` changes a row."""


@dataclass(frozen=True)
class Change:
    """The spans of a document that are removed and added, and the number of the finding that says so."""

    finding: int
    id: str
    removed: frozenset[SpanKey]
    added: frozenset[SpanKey]

    @classmethod
    def from_finding(cls, record: Mapping[str, Any]) -> Change:
        """The change of a line of ``findings.jsonl`` that is accepted."""
        sides = ([(s["start"], s["end"], s["label"]) for s in record[side]] for side in ("current", "proposed"))
        current, proposed = map(frozenset, sides)
        return cls(record["finding"], record["id"], current - proposed, proposed - current)

    def to_record(self, text: str) -> dict[str, Any]:
        """The change as it is logged."""

        def spans(keys: Iterable[SpanKey]) -> list[dict[str, Any]]:
            return [{"start": s, "end": e, "label": label, "text": text[s:e]} for s, e, label in sorted(keys)]

        return {"id": self.id, "finding": self.finding, "removed": spans(self.removed), "added": spans(self.added)}


def read_decisions(file: str, findings: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> dict[int, str]:
    """What was decided, by the number of the finding.

    Args:
        findings: The lines of the findings file.
        digests: The SHA-256 of the corpus and of the findings file, by the names that a decision has for them. Each
            line of the file must have the same.

    Raises:
        DataError: With file, line and reason.
    """
    ids = {record["finding"]: record["id"] for record in findings}
    decisions: dict[int, str] = {}
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        try:
            finding, decision = _parse_decision(json.loads(line), ids, digests)
        except (ValueError, RecursionError) as error:
            reason = "malformed JSON" if isinstance(error, json.JSONDecodeError | RecursionError) else error
            raise DataError(f"{file}, line {number}: {reason}") from error
        if decisions.setdefault(finding, decision) != decision:
            raise DataError(f"{file}, line {number}: finding {finding} is decided twice, in two ways")
    return decisions


def _parse_decision(raw: Any, ids: Mapping[int, str], digests: Mapping[str, str]) -> tuple[int, str]:
    if not isinstance(raw, Mapping) or not {"finding", "id", "decision", *digests} <= raw.keys():
        raise ValueError(f"expected an object with finding, id, decision, {', '.join(digests)}")
    for name, digest in digests.items():
        if raw[name] != digest:
            raise ValueError(f"a decision of another {name} file (its SHA-256 is not the same)")
    finding, decision = raw["finding"], raw["decision"]
    if type(finding) is not int or finding not in ids or ids[finding] != raw["id"]:
        raise ValueError("there is no such finding in the findings file")
    if decision not in (ACCEPT, REJECT, SKIP):
        raise ValueError(f"the decision must be {ACCEPT}, {REJECT} or {SKIP}")
    return finding, decision


def correct_lines(
    file: str, rows: Iterable[Mapping[str, Any]], changes: Mapping[str, Sequence[Change]]
) -> Iterator[str]:
    """The lines of a corrected JSON-lines file. What is not changed stays as it is written.

    Args:
        rows: What :func:`glinerko.corpus.reading.load_rows` reads of ``file``.
        changes: By the id of the document.
    """
    lines = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    places = {int(row["place"].removeprefix("line ")): row for row in rows}
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        row = places.get(number)
        if row is None or row["id"] not in changes:
            yield line.decode() + "\n"
        else:
            yield json.dumps(correct_row(json.loads(line), row, changes[row["id"]]), ensure_ascii=False) + "\n"


def correct_row(raw: Mapping[str, Any], row: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A row as a user wrote it, with other mentions. All of them get offsets, so that one occurrence can be changed.

    A mention that is not in the text stays a string. Keys that are not read here are kept.

    Args:
        raw: The object of the row, in any of the forms of :func:`glinerko.corpus.rows.parse_row`.
        row: The same row as it was read.

    Raises:
        DataError: The result is not read as what it should be: a span to remove is not there.
    """
    example, changes = Example.from_row(row), list(changes)
    removed = frozenset().union(*(change.removed for change in changes))
    added = frozenset().union(*(change.added for change in changes))
    corrected = copy.deepcopy(dict(raw))
    body = _body(corrected)
    entities: dict[str, list] = {compose(label)[0]: [] for label in body["entities"]}
    for mention in example.mentions:
        kept = [span for span in mention.spans if (*span, mention.label) not in removed]
        entities[mention.label] += [_offsets(example.text, *span) for span in kept]
        entities[mention.label] += [] if mention.spans else [mention.text]
    for start, end, label in sorted(added):
        entities.setdefault(label, []).append(_offsets(example.text, start, end))
    for mentions in entities.values():
        mentions.sort(key=lambda each: each["start"] if isinstance(each, dict) else len(example.text))
    body["entities"] = entities
    spans = {(s, e, m["label"]) for m in parse_row(corrected, example.id)["mentions"] for s, e in m["spans"]}
    if not removed <= example.gold_spans or spans != (example.gold_spans - removed) | added:
        raise DataError(f"{example.id}: the finding does not fit the mentions of the row")
    return corrected


def _offsets(text: str, start: int, end: int) -> dict[str, Any]:
    return {"text": text[start:end], "start": start, "end": end}


def _body(raw: dict[str, Any]) -> dict[str, Any]:
    """The object of a row that holds its entities."""
    if raw.get("input") is not None and raw.get("output") is not None:
        return raw["output"]
    return raw["schema"] if raw.get("entities") is None and raw.get("schema") is not None else raw
