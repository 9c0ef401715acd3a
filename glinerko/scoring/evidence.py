"""The evidence, in numbers, for and against each span of a corpus that is labelled or could be."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from glinerko.corpus.diagnosis import runs
from glinerko.corpus.rows import ENTITIES, Example, Offsets, Span, SpanKey

LOWEST, HIGHEST = 0.025, 0.9995
"""The score of a span that is no candidate (candidates have at least 0.05), and the highest score that counts."""
EVIDENCE = {
    "score": "log odds of the out-of-fold score; 0 if the model cannot score the span",
    "no_score": "score below 0.05",
    "string": "log odds of the label for the same string in other documents",
    "string_known": "same string in another document",
    "rival_label": "log odds of the best other label at the same place",
    "rival_boundary": "log odds of the best span that overlaps it",
    "rival_string": "best string log odds among the spans that overlap it",
    "company": "mention at another place of the document: some documents are meant to have none",
}
"""The features of a span for the regression, in the order of the columns."""
DIRECTIONS = {"score": 1, "string": 1, "rival_label": -1, "rival_boundary": -1, "rival_string": -1}
"""The sign of a weight: evidence for a label (1) or against it (-1). A small corpus could suggest the opposite."""
OF_STRINGS = ["string" in name for name in EVIDENCE]
"""Whether each column comes from the same strings in other documents."""
COMMON = 2
"""The number of documents that must give a string a label, so that it is expected: one of them is another document."""


@dataclass(frozen=True)
class Uses:
    """How the string of a span is used in other documents."""

    agree: int
    """The number of documents that give it the label of the span."""
    other_label: int
    """The number that give it another label."""
    unlabelled: int
    """The number that have it as whole words, outside of all mentions."""
    log_odds: float | None
    """The smoothed log odds of the label, without one document that gives it and one that does not. So the value is the
    same for all documents that have the string, and does not tell how this one labels it. ``None`` if no document is
    left."""

    def to_record(self) -> dict[str, int]:
        return {"agree": self.agree, "other_label": self.other_label, "unlabelled": self.unlabelled}


@dataclass(frozen=True)
class Evidence:
    """A span that is labelled or could be. Its ``score`` is out of fold, ``None`` below 0.05."""

    document: int
    """The index of the document."""
    span: Span
    is_gold: bool
    in_reach: bool
    """Whether the model scores it: it is a run of words that is not too wide. This is so for all that are not gold."""
    uses: Uses


def collect_evidence(
    examples: Sequence[Example],
    candidates: Sequence[Sequence[Span]],
    words: Sequence[Sequence[Offsets]],
    max_width: int,
) -> tuple[list[Evidence], np.ndarray]:
    """All spans of interest, and the features of each, ``[items, len(EVIDENCE)]``.

    These are the gold spans, the candidates, the strings that have a label elsewhere, and what an annotator could have
    written instead of a gold span: another label, or a word more or less at one end. So most items are not labelled.
    Labels for which a document was not annotated are left out.

    Args:
        candidates: The out-of-fold candidates of each document, with scores.
        words: The words of each document.
        max_width: The widest span that the model scores, in words.
    """
    every = sorted({label for example in examples for label in example.labels})
    strings = _StringUses(examples)
    spans: list[dict[SpanKey, Span]] = []
    for example, own, of_document in zip(examples, candidates, words, strict=True):
        labels = _annotated_labels(example, every)
        keys = {*strings.expected(example, of_document, max_width, labels), *_near_misses(example, of_document, labels)}
        scored = {span.key: span for span in own if span.label in labels}
        spans.append({key: Span(*key) for key in sorted(keys | example.gold_spans | scored.keys())} | scored)
    strings.count_unlabelled(spans, words, max_width, every)
    items, features = [], []
    for document, (example, own, of_document) in enumerate(zip(examples, spans, words, strict=True)):
        gold = example.gold_spans
        of_spans = [
            Evidence(
                document,
                span,
                key in gold,
                span.score is not None or key not in gold or _in_reach(span, of_document, max_width),
                strings.elsewhere(document, span),
            )
            for key, span in own.items()
        ]
        if of_spans:
            items += of_spans
            expected = [strings.is_expected(example, span) for span in own.values()]
            features.append(_features(of_spans, expected, sorted(gold)))
    return items, np.concatenate(features) if features else np.zeros((0, len(EVIDENCE)))


def _annotated_labels(example: Example, every: Sequence[str]) -> Sequence[str]:
    """The labels for which a document was annotated."""
    return (example.labels or every) if ENTITIES in example.annotated else ()


def _near_misses(example: Example, words: Sequence[Offsets], labels: Sequence[str]) -> Iterator[SpanKey]:
    """The gold spans with each other label, and with a word more or less at one end."""
    first = {start: number for number, (start, _) in enumerate(words)}
    last = {end: number for number, (_, end) in enumerate(words)}
    for start, end, label in example.gold_spans:
        if start in first and end in last:
            yield from ((start, end, other) for other in labels)
            a, b = first[start], last[end]
            for i, j in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
                if 0 <= i <= j < len(words):
                    yield words[i][0], words[j][1], label


def _in_reach(span: Span, words: Sequence[Offsets], max_width: int) -> bool:
    """Whether a span is a run of at most ``max_width`` words."""
    inside = [word for word in words if span.start <= word[0] and word[1] <= span.end]
    return 0 < len(inside) <= max_width and (inside[0][0], inside[-1][1]) == (span.start, span.end)


def _features(items: Sequence[Evidence], expected: Sequence[bool], gold: Sequence[SpanKey]) -> np.ndarray:
    """The evidence of the spans of one document, ``[items, features]``; see :data:`EVIDENCE`.

    Args:
        expected: Whether the string of each has its label in other documents.
    """
    lowest, spans = _log_odds(LOWEST), [item.span for item in items]
    has_score = np.array([span.score is not None for span in spans])
    score = np.array([lowest if s.score is None else _log_odds(s.score) for s in spans])
    reach = np.array([item.in_reach for item in items])
    string = np.array([item.uses.log_odds or 0.0 for item in items])
    start, end = (np.array([getattr(span, name) for span in spans]) for name in ("start", "end"))
    same = (start[:, None] == start) & (end[:, None] == end)
    overlap = (start[:, None] < end) & (start < end[:, None])
    np.fill_diagonal(overlap, False)
    overlap &= has_score | np.array(expected)  # the others are only there because of a gold span of this document
    columns = {
        "score": np.where(reach, score, 0),
        "no_score": ~has_score & reach,
        "string": string,
        "string_known": [item.uses.log_odds is not None for item in items],
        "rival_label": np.where(overlap & same, score, lowest).max(1),
        "rival_boundary": np.where(overlap & ~same, score, lowest).max(1),
        "rival_string": np.where(overlap, string, 0).max(1).clip(0),
        "company": [any(s >= span.end or e <= span.start for s, e, _ in gold) for span in spans],
    }
    return np.stack([np.asarray(columns[name], dtype=float) for name in EVIDENCE], axis=1)


def _log_odds(score: float) -> float:
    score = min(max(score, LOWEST), HIGHEST)
    return math.log(score / (1 - score))


class _StringUses:
    """The number of documents in which a string has each label, and in which it has none."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = examples
        self.own_labelled = [{(e.string(s, end), label) for s, end, label in e.gold_spans} for e in examples]
        self.own_unlabelled: list[set[tuple[str, str]]] = []
        self.labelled: dict[str, Counter[str]] = defaultdict(Counter)
        self.unlabelled: dict[str, Counter[str]] = defaultdict(Counter)
        for string, label in chain.from_iterable(self.own_labelled):
            self.labelled[string][label] += 1

    def is_expected(self, example: Example, span: Span) -> bool:
        string = example.string(span.start, span.end)
        return string in self.labelled and self.labelled[string][span.label] >= COMMON

    def expected(
        self, example: Example, words: Sequence[Offsets], max_width: int, labels: Sequence[str]
    ) -> Iterator[SpanKey]:
        """The runs of words of a document whose strings are expected to have a label, labelled here or not."""
        for first, (start, _) in enumerate(words):
            for _, end in words[first : first + max_width]:
                counts = self.labelled.get(example.string(start, end), {})
                yield from ((start, end, label) for label in labels if counts.get(label, 0) >= COMMON)

    def count_unlabelled(
        self,
        spans: Sequence[Mapping[SpanKey, Span]],
        words: Sequence[Sequence[Offsets]],
        max_width: int,
        every: Sequence[str],
    ) -> None:
        """Count the documents that have the strings of ``spans`` as whole words, outside of all mentions."""
        wanted = {e.string(start, end) for e, own in zip(self.examples, spans, strict=True) for start, end, _ in own}
        for example, of_document in zip(self.examples, words, strict=True):
            covered = sorted((start, end) for start, end, _ in example.gold_spans)
            free = {*runs(example.text, of_document, max_width, covered)} & wanted
            labels = _annotated_labels(example, every)
            self.own_unlabelled.append({(string, label) for string in free for label in labels})
            for string, label in self.own_unlabelled[-1]:
                self.unlabelled[string][label] += 1

    def elsewhere(self, document: int, span: Span) -> Uses:
        """How the documents other than this one use the string of a span."""
        string = self.examples[document].string(span.start, span.end)
        labelled, unlabelled = self.own_labelled[document], self.own_unlabelled[document]
        counts, left = self.labelled[string], self.unlabelled[string][span.label]
        same = counts[span.label]
        others = counts.total() - same
        own = {label for each, label in labelled if each == string}
        yes, no = max(same - 1, 0), max(others + left - 1, 0)
        return Uses(
            same - (span.label in own),
            others - len(own - {span.label}),
            left - ((string, span.label) in unlabelled),
            math.log((yes + 0.5) / (no + 0.5)) if yes + no else None,
        )
