"""An evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader

from glinerko.analysis import ErrorClass, Judged
from glinerko.data import Example


def render_page(
    result: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, float]],
    plots: Mapping[str, str],
    examples: Sequence[Example],
    judged: Sequence[Sequence[Judged]],
) -> str:
    """The page. It holds the texts of the documents, so it is for their owner alone.

    Args:
        result: What ``scripts/eval.py`` found.
        rows: Precision, recall and F1 by name, for the table of scores.
        plots: SVG by name.
    """
    template = Environment(loader=PackageLoader("glinerko"), autoescape=True).get_template("report.html")
    documents = [_document(example, spans) for example, spans in zip(examples, judged, strict=True)]
    present = {item.error for spans in judged for item in spans}
    classes = [error.value for error in ErrorClass if error in present]
    return template.render(result=result, rows=rows, plots=plots, documents=documents, classes=classes)


def _document(example: Example, judged: Sequence[Judged]) -> dict[str, Any]:
    """The text in pieces, each under the same spans from its start to its end."""
    bounds = sorted({0, len(example.text)} | {b for item in judged for b in (item.span.start, item.span.end)})
    pieces = []
    for start, end in pairwise(bounds):
        over = [item for item in judged if item.span.start <= start and end <= item.span.end]
        kinds = " ".join(kind for kind, gold in (("gold", True), ("predicted", False))
                         if any(item.is_gold is gold for item in over))  # fmt: skip
        pieces.append({"text": example.text[start:end], "kinds": kinds, "title": "; ".join(map(_describe, over))})
    wrong = [item for item in judged if item.error is not ErrorClass.CORRECT]
    return {
        "id": example.id,
        "pieces": pieces,
        "classes": sorted({item.error.value for item in judged}),
        "errors": [f"{example.text[item.span.start : item.span.end]} — {_describe(item)}" for item in wrong],
    }


def _describe(item: Judged) -> str:
    side = "gold" if item.is_gold else f"predicted {item.span.score:.2f}"
    return f"{side}, {item.span.label}: {item.error.value}"
