"""Decisions about the findings of a review, and the corrected rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glinerko.common import DataError, open_binary, parse_json_lines
from glinerko.corpus.matching import compose
from glinerko.corpus.parsing import body_key, parse_row
from glinerko.corpus.rows import Example, SpanKey

ACCEPT, REJECT, SKIP = "accept", "reject", "skip"
"""The possible decisions about a finding. Only ``accept`` changes a row."""


@dataclass(frozen=True)
class Change:
    """The spans of a document that a finding removes and adds.

    Args:
        finding: The number of the finding.
        place: Where the document stands in its file: ``line 3``. Ids may be repeated.
    """

    finding: int
    id: str
    place: str
    removed: frozenset[SpanKey]
    added: frozenset[SpanKey]

    @classmethod
    def from_finding(cls, record: Mapping[str, Any]) -> Change:
        """The change that a line of ``findings.jsonl`` proposes."""
        sides = ([(s["start"], s["end"], s["label"]) for s in record[side]] for side in ("current", "proposed"))
        current, proposed = map(frozenset, sides)
        return cls(record["finding"], record["id"], record["place"], current - proposed, proposed - current)

    def to_record(self, text: str) -> dict[str, Any]:
        """The change as a line of the log. ``text`` is that of the document."""

        def spans(keys: Iterable[SpanKey]) -> list[dict[str, Any]]:
            return [{"start": s, "end": e, "label": label, "text": text[s:e]} for s, e, label in sorted(keys)]

        about = {"id": self.id, "place": self.place, "finding": self.finding}
        return {**about, "removed": spans(self.removed), "added": spans(self.added)}


def read_findings(file: str | Path) -> list[Change]:
    """The change that each finding of a review proposes.

    Raises:
        DataError: With file, line and reason.
    """
    changes = []
    for place, record in parse_json_lines(file):
        try:
            changes.append(Change.from_finding(record))
        except (TypeError, KeyError) as error:
            raise DataError(f"{place}: not a finding as the review writes it: run the review again") from error
    return changes


def read_decisions(file: str, findings: Sequence[Change], digests: Mapping[str, str]) -> dict[int, str]:
    """The decisions, by the number of the finding.

    Args:
        findings: What :func:`read_findings` reads.
        digests: The SHA-256 of the corpus and of the findings file, by the keys that a decision has for them. Each
            decision must have the same.

    Raises:
        DataError: With file, line and reason.
    """
    known = {(each.finding, each.id) for each in findings}
    decisions: dict[int, str] = {}
    for place, raw in parse_json_lines(file):
        try:
            finding, decision = _parse_decision(raw, known, digests)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
        if decisions.setdefault(finding, decision) != decision:
            raise DataError(f"{place}: finding {finding} is decided twice, in two ways")
    return decisions


def _parse_decision(raw: Any, known: Collection[tuple[int, str]], digests: Mapping[str, str]) -> tuple[int, str]:
    if not isinstance(raw, Mapping) or not {"finding", "id", "decision", *digests} <= raw.keys():
        raise ValueError(f"expected an object with finding, id, decision, {', '.join(digests)}")
    for name, digest in digests.items():
        if raw[name] != digest:
            raise ValueError(f"a decision of another {name} file (SHA-256 is different): pass the files of one review")
    finding, decision = raw["finding"], raw["decision"]
    if type(finding) is not int or not isinstance(raw["id"], str) or (finding, raw["id"]) not in known:
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
        changes: By the place of the document in the file.
    """
    with open_binary(file) as content:
        lines = content.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    changed = {row["place"]: row for row in rows if row["place"] in changes}
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        place = f"line {number}"
        if place in changed:
            corrected = correct_row(json.loads(line), changed[place], changes[place])
            yield json.dumps(corrected, ensure_ascii=False) + "\n"
        else:
            yield line.decode() + "\n"


def correct_row(raw: Mapping[str, Any], row: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A row as a user wrote it, with other mentions. All of them get offsets, so that one occurrence can be changed.

    A mention that is not in the text stays a string. Keys that are not read here are kept.

    Args:
        raw: The object of the row, in any of the forms of :func:`glinerko.corpus.parsing.parse_row`.
        row: The same row as it was read.

    Raises:
        DataError: A span to remove is not there, or the corrected row does not have the spans that it should.
    """
    example, changes = Example.from_row(row), list(changes)
    removed = frozenset().union(*(change.removed for change in changes))
    added = frozenset().union(*(change.added for change in changes))
    corrected = copy.deepcopy(dict(raw))
    body = corrected[key] if (key := body_key(raw)) else corrected
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
        raise DataError(f"{example.id}: the finding does not fit the mentions of the row: run the review again")
    return corrected


def _offsets(text: str, start: int, end: int) -> dict[str, Any]:
    return {"text": text[start:end], "start": start, "end": end}
