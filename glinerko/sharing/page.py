"""The report of an evaluation: figures, plots, and one self-contained HTML page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from glinerko.common import first_line, write_json, write_json_lines, write_text
from glinerko.corpus.rows import Example
from glinerko.scoring.analysis import ErrorClass, Judged
from glinerko.scoring.metrics import Scores, metric_title
from glinerko.sharing.tables import as_markdown, escape_markdown, evaluation_tables, plain_rows
from glinerko.training.checkpoints import REPORT_COUNTS, REPORT_FIGURES

_FONT = "DejaVu Sans"  # comes with matplotlib
# The first fonts to try for other characters, before all that are installed: those made for Korean.
_HANGUL = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")

_COLOUR, _ACCENT = "#2f6f9f", "#c8553d"

Curve = Sequence[tuple[float, float, float]]
"""``(score, precision, recall)`` from the highest score down."""
Draw = Callable[[], Figure]


def write_report(
    directory: Path,
    result: Mapping[str, Any],
    scores: Mapping[str, Scores],
    curve: Curve,
    examples: Sequence[Example],
    judged: Sequence[Sequence[Judged]],
    tell: Callable[[str], None] = warnings.warn,
) -> None:
    """Write the record of an evaluation, and from it ``report.md``, the plots, and ``index.html`` with the texts.

    The figures are written first, so that nothing that is made from them can lose them.

    Args:
        result: The record, which ``scripts/eval.py`` makes. Every figure that is shown comes from it.
        scores: By metric. Their counts for each document and label are written too, to be pooled or compared later.
        curve: The precision-recall curve.
        judged: The spans of each document: see :func:`glinerko.scoring.analysis.judge_spans`.
        tell: See :func:`save_plots`.
    """
    write_json(directory / REPORT_FIGURES, result)
    counts = zip(*(each.counts.tolist() for each in scores.values()), strict=True)
    lines = ({"id": e.id, **dict(zip(scores, each, strict=True))} for e, each in zip(examples, counts, strict=True))
    write_json_lines(directory / REPORT_COUNTS, lines)
    tables = evaluation_tables(result)
    markdown = "\n".join(f"## {escape_markdown(table.title)}\n\n{as_markdown(table)}" for table in tables)
    write_text(directory / "report.md", f"# {escape_markdown(result['model'])}\n\n{markdown}")
    plots = save_plots(evaluation_plots(result, curve), directory, tell)
    write_text(directory / "index.html", render_page(result, plots, examples, judged))


def evaluation_plots(result: Mapping[str, Any], curve: Curve) -> dict[str, Draw]:
    """What draws the figures of an evaluation, by the name of their file."""
    return {
        "precision_recall": partial(_precision_recall_plot, curve, result["average_precision"]),
        "threshold": partial(_threshold_plot, result["sweep"], result["threshold"]),
        "labels": partial(_label_plot, result["targets"]),
        "errors": partial(_error_plot, result["errors"]),
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


def save_plots(
    plots: Mapping[str, Draw], directory: Path, tell: Callable[[str], None] = warnings.warn
) -> dict[str, str]:
    """Write each figure as PNG, and return each as SVG for a page. One that cannot be drawn is left out.

    Args:
        tell: Gets a line for each figure that cannot be drawn, and one if no installed font has some characters.
    """
    drawn, missing = {}, set()
    for name, draw in plots.items():
        path = directory / f"{name}.png"
        path.unlink(missing_ok=True)  # an older one would show other figures
        try:
            figure = draw()
            missing |= _show_texts_as_they_are(figure)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib .* not support")  # told once, below
                content = StringIO()
                figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None})
                figure.savefig(path, dpi=150, bbox_inches="tight")
            drawn[name] = content.getvalue()[content.getvalue().index("<svg") :]
        except (RuntimeError, ValueError) as error:  # what matplotlib and FreeType raise for a text or a font
            tell(f"The plot {path} cannot be drawn: {first_line(error)}")
    if missing:
        tell(
            f"No installed font has {''.join(sorted(missing)[:20])}, so the plots show boxes. Install such a font, for "
            "Korean NanumGothic (apt install fonts-nanum) or Noto Sans KR."
        )
    return drawn


def _show_texts_as_they_are(figure: Figure) -> set[str]:
    """Give all texts of a figure fonts that have their characters, and let ``$`` be a character.

    Returns:
        The characters that no installed font has.
    """
    texts = figure.findobj(Text)
    families, missing = _find_fonts(frozenset().union(*(text.get_text() for text in texts)))
    for text in texts:
        text.set(family=families, parse_math=False)
    return missing


@cache
def _find_fonts(characters: frozenset[str]) -> tuple[list[str], set[str]]:
    """The font families that together have ``characters``, and the characters that none of them has."""
    manager, families = font_manager.fontManager, [_FONT]
    missing = _lacking(font_manager.findfont(_FONT), {each for each in characters if each.isprintable()})
    if missing:
        for path in set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}:
            with suppress(RuntimeError, OSError):  # not a font that matplotlib reads
                manager.addfont(path)  # matplotlib's list may be older than the font
        # "Last Resort" has a box for everything.
        fonts = [font for font in manager.ttflist if "LastResort" not in font.name.replace(" ", "")]
        for font in sorted(fonts, key=lambda font: (font.name not in _HANGUL, font.name)):
            lacking = _lacking(font.fname, missing) if missing else missing
            if lacking != missing:
                families.append(font.name)
                missing = lacking
    return families, missing


def _lacking(path: str, characters: set[str]) -> set[str]:
    """Those of ``characters`` that a font does not have."""
    try:
        known = font_manager.get_font(path).get_charmap()
    except (RuntimeError, OSError):  # the file is damaged or gone
        return characters
    return {each for each in characters if ord(each) not in known}


def _axes(title: str, x: str, y: str):
    figure = Figure(figsize=(5.2, 3.6))
    axes = figure.subplots()
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
    data, *scores, _ = evaluation_tables(result)  # the page has more groups of errors than the last table
    return templates.get_template("report.html").render(
        result=result,
        tables=[(table.title.plain, plain_rows(table)) for table in (*scores, data)],
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
