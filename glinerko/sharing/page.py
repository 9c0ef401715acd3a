"""The report of an evaluation: figures, plots, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader

matplotlib.use("Agg")
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from glinerko.common import write_json, write_json_lines
from glinerko.corpus.rows import Example
from glinerko.scoring.analysis import ErrorClass, Judged
from glinerko.scoring.metrics import Scores, metric_title
from glinerko.sharing.tables import as_markdown, evaluation_tables, plain_rows
from glinerko.training.checkpoints import REPORT_COUNTS, REPORT_FIGURES

# Labels may be Korean.
_HANGUL = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
plt.rcParams["font.family"] = ["DejaVu Sans", *(name for name in _HANGUL if name in _INSTALLED)]

_COLOUR, _ACCENT = "#2f6f9f", "#c8553d"

Curve = Sequence[tuple[float, float, float]]
"""``(score, precision, recall)`` from the highest score down."""


def write_report(
    directory: Path,
    result: Mapping[str, Any],
    scores: Mapping[str, Scores],
    curve: Curve,
    examples: Sequence[Example],
    judged: Sequence[Sequence[Judged]],
) -> None:
    """Write the record of an evaluation, and from it ``report.md``, the plots, and ``index.html`` with the texts.

    Args:
        result: The record, which ``scripts/eval.py`` makes. Every figure that is shown comes from it.
        scores: By metric. Their counts for each document and label are written too, to be pooled or compared later.
        curve: The precision-recall curve.
        judged: The spans of each document: see :func:`glinerko.scoring.analysis.judge_spans`.
    """
    write_json(directory / REPORT_FIGURES, result)
    counts = zip(*(each.counts.tolist() for each in scores.values()), strict=True)
    lines = ({"id": e.id, **dict(zip(scores, each, strict=True))} for e, each in zip(examples, counts, strict=True))
    write_json_lines(directory / REPORT_COUNTS, lines)
    markdown = "\n".join(f"## {table.title}\n\n{as_markdown(table)}" for table in evaluation_tables(result))
    (directory / "report.md").write_text(f"# {result['model']}\n\n{markdown}", encoding="utf-8")
    plots = save_plots(evaluation_plots(result, curve), directory)
    (directory / "index.html").write_text(render_page(result, plots, examples, judged), encoding="utf-8")


def evaluation_plots(result: Mapping[str, Any], curve: Curve) -> dict[str, Figure]:
    """The figures of an evaluation, by the name of their file."""
    return {
        "precision_recall": _precision_recall_plot(curve, result["average_precision"]),
        "threshold": _threshold_plot(result["sweep"], result["threshold"]),
        "labels": _label_plot(result["targets"]),
        "errors": _error_plot(result["errors"]),
    }


def _precision_recall_plot(curve: Curve, average_precision: float) -> Figure:
    figure, axes = _axes("Precision and recall (strict spans)", "recall", "precision")
    axes.plot([recall for _, _, recall in curve], [precision for _, precision, _ in curve], color=_COLOUR)
    axes.text(0.03, 0.05, f"average precision {average_precision:.3f}", transform=axes.transAxes)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure


def _threshold_plot(sweep: Mapping[float, Mapping[str, float]], threshold: float) -> Figure:
    """Precision, recall and F1 by threshold, and the threshold in use."""
    figure, axes = _axes("By threshold", "threshold", "")
    for name, style in (("f1", "-"), ("precision", "--"), ("recall", ":")):
        axes.plot(list(sweep), [score[name] for score in sweep.values()], style, label=name, color=_COLOUR)
    axes.axvline(threshold, color=_ACCENT, linewidth=1, label=f"in use: {threshold:.2f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False)
    return figure


def _label_plot(targets: Mapping[str, Mapping[str, Any]]) -> Figure:
    """F1 of each label with its interval, and its target if it has one."""
    figure, axes = _axes("F1 by label, 95 % intervals", "F1", "")
    for row, score in enumerate(targets.values()):
        low, high = score["f1_interval"]
        axes.barh(row, score["f1"], color=_COLOUR, height=0.6)
        axes.plot([low, high], [row, row], color="black", linewidth=1.5)
        if score["target"] is not None:
            axes.plot([score["target"]] * 2, [row - 0.4, row + 0.4], color=_ACCENT, linewidth=2)
    axes.set(xlim=(0, 1), yticks=range(len(targets)), yticklabels=list(targets))
    axes.invert_yaxis()
    return figure


def _error_plot(errors: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """The number of gold and predicted spans of each class of error."""
    figure, axes = _axes("Errors", "spans", "")
    counts = {side: groups.get("all", {}) for side, groups in errors.items()}
    present = {name for side in counts.values() for name in side}
    classes = [error.value for error in ErrorClass if error.value in present and error is not ErrorClass.CORRECT]
    for offset, (side, colour) in zip((-0.2, 0.2), (("gold", _COLOUR), ("predicted", _ACCENT)), strict=True):
        values = [counts[side].get(name, 0) for name in classes]
        axes.barh([row + offset for row in range(len(classes))], values, height=0.38, color=colour, label=side)
    axes.set(yticks=range(len(classes)), yticklabels=classes)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure


def training_plot(history: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Loss and validation F1 by epoch, from the entries of ``history.jsonl``."""
    figure, axes = _axes("Training", "epoch", "loss per window")
    epochs = [entry["epoch"] for entry in history]
    (loss,) = axes.plot(epochs, [entry["loss"] for entry in history], "--", color=_ACCENT, label="loss")
    right, title = axes.twinx(), metric_title(metric)
    (f1,) = right.plot(epochs, [entry[metric]["overall"]["f1"] for entry in history], color=_COLOUR, label=title)
    right.set(ylim=(0, 1), ylabel=f"validation {title}")
    right.spines["top"].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(handles=[loss, f1], frameon=False, loc="center right")
    return figure


def save_plots(figures: Mapping[str, Figure], directory: Path) -> dict[str, str]:
    """Write each figure as PNG, and return each as SVG for a page."""
    drawn = {}
    for name, figure in figures.items():
        figure.savefig(directory / f"{name}.png", dpi=150)
        content = StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
        drawn[name] = content.getvalue()[content.getvalue().index("<svg") :]
        plt.close(figure)
    return drawn


def _axes(title: str, x: str, y: str):
    figure, axes = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def render_page(
    result: Mapping[str, Any],
    plots: Mapping[str, str],
    examples: Sequence[Example],
    judged: Sequence[Sequence[Judged]],
) -> str:
    """The page of an evaluation. It holds the texts of the documents, so only people who may read them may see it.

    Args:
        result: See :func:`write_report`.
        plots: SVG by name.
    """
    templates = Environment(loader=PackageLoader("glinerko", "sharing/templates"), autoescape=True)
    present = {item.error for spans in judged for item in spans}
    return templates.get_template("report.html").render(
        result=result,
        tables={table.title: plain_rows(table) for table in evaluation_tables(result)[:-1]},  # errors have more groups
        plots=plots,
        documents=[_document(example, spans) for example, spans in zip(examples, judged, strict=True)],
        classes=[error.value for error in ErrorClass if error in present],
    )


def _document(example: Example, judged: Sequence[Judged]) -> dict[str, Any]:
    """The text in pieces; all characters of a piece lie in the same spans."""
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
