"""The page on which a person decides about the findings of a review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader

from glinerko.corpus.rows import Example
from glinerko.scoring.review import Finding, Item

CONTEXT = 80
"""Characters of the text that are shown on either side of a finding."""


def render_review(
    title: str,
    findings: Sequence[Finding],
    examples: Sequence[Example],
    places: Sequence[str],
    digests: Mapping[str, str],
) -> str:
    """The page as HTML. It shows texts of the documents: only people who may read these may see it.

    Args:
        title: The name of the corpus.
        findings: The first one has the number 1.
        places: Where the document of each finding stands in the file of the corpus: ``line 3``.
        digests: SHA-256 of the files that a decision is about; each saved decision has them. See
            :func:`glinerko.corpus.corrections.read_decisions`.
    """
    templates = Environment(loader=PackageLoader("glinerko", "sharing/templates"), autoescape=True)
    return templates.get_template("review.html").render(
        title=title,
        digests=dict(digests),
        findings=[
            {"place": place, **_entry(finding, examples[finding.document])}
            for finding, place in zip(findings, places, strict=True)
        ],
        kinds=sorted({finding.kind.value for finding in findings}),
        labels=sorted({label for finding in findings for label in finding.labels}),
    )


def _entry(finding: Finding, example: Example) -> dict[str, Any]:
    spans = [item.span for item in (*finding.current, *finding.proposed)]
    start = max(min(span.start for span in spans) - CONTEXT, 0)
    end = min(max(span.end for span in spans) + CONTEXT, len(example.text))
    sides = {"as labelled": finding.current, "as the evidence says": finding.proposed}
    return {
        "id": example.id,
        "kind": finding.kind.value,
        "score": f"{finding.score:.2f}",
        "labels": finding.labels,
        "readings": [(name, _pieces(example.text, start, end, items)) for name, items in sides.items()],
        "cut": (start > 0, end < len(example.text)),
        "evidence": [_explain(item, example.text) for item in (*finding.current, *finding.proposed)],
    }


def _pieces(text: str, start: int, end: int, items: Sequence[Item]) -> list[tuple[str, str]]:
    """The text from ``start`` to ``end`` in pieces, each with its labels (none: an empty string)."""
    bounds = sorted({start, end} | {bound for item in items for bound in (item.span.start, item.span.end)})
    return [
        (text[first:last], " + ".join(i.span.label for i in items if i.span.start <= first and last <= i.span.end))
        for first, last in pairwise(bounds)
    ]


def _explain(item: Item, text: str) -> str:
    """The evidence for a span in words."""
    span, uses = item.span, item.uses
    none = "below 0.05" if item.in_reach else "none (not a run of words that models score)"
    score = none if span.score is None else f"{span.score:.2f}"
    elsewhere = {"the same label": uses.agree, "another label": uses.other_label, "no label": uses.unlabelled}
    counts = ", ".join(
        f"{name} in {count:,} other document{'s' if count > 1 else ''}" for name, count in elsewhere.items() if count
    )
    return (
        f"{text[span.start : span.end]} — {span.label}: out-of-fold score {score}, probability {item.probability:.2f}; "
        f"{counts or 'in no other document'}"
    )
