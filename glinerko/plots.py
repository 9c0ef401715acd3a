"""Plots of an evaluation. Only the user's own labels may need a Korean font."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from glinerko.analysis import ErrorClass

_HANGUL = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
plt.rcParams["font.family"] = ["DejaVu Sans", *(name for name in _HANGUL if name in _INSTALLED)]

_COLOUR, _ACCENT = "#2f6f9f", "#c8553d"


def precision_recall_plot(curve: Sequence[tuple[float, float, float]], average_precision: float) -> Figure:
    """``(score, precision, recall)`` from the highest score down."""
    figure, axes = _axes("Precision and recall (strict spans)", "recall", "precision")
    axes.plot([recall for _, _, recall in curve], [precision for _, precision, _ in curve], color=_COLOUR)
    axes.text(0.03, 0.05, f"average precision {average_precision:.3f}", transform=axes.transAxes)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure


def threshold_plot(curve: Mapping[float, Mapping[str, float]], threshold: float) -> Figure:
    """Precision, recall and F1 by threshold, and the threshold in use."""
    figure, axes = _axes("By threshold", "threshold", "")
    for name, style in (("f1", "-"), ("precision", "--"), ("recall", ":")):
        axes.plot(list(curve), [score[name] for score in curve.values()], style, label=name, color=_COLOUR)
    axes.axvline(threshold, color=_ACCENT, linewidth=1, label=f"in use: {threshold:.2f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False)
    return figure


def label_plot(scores: Mapping[str, Mapping]) -> Figure:
    """F1 of each label with its interval, and its target where there is one."""
    figure, axes = _axes("F1 by label, 95 % intervals", "F1", "")
    for row, score in enumerate(scores.values()):
        low, high = score["f1_interval"]
        axes.barh(row, score["f1"], color=_COLOUR, height=0.6)
        axes.plot([low, high], [row, row], color="black", linewidth=1.5)
        if score.get("target") is not None:
            axes.plot([score["target"]] * 2, [row - 0.4, row + 0.4], color=_ACCENT, linewidth=2)
    axes.set(xlim=(0, 1), yticks=range(len(scores)), yticklabels=list(scores))
    axes.invert_yaxis()
    return figure


def error_plot(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """How many gold and predicted spans fall in each class of error."""
    figure, axes = _axes("Errors", "spans", "")
    present = {name for found in counts.values() for name in found}
    classes = [error.value for error in ErrorClass if error.value in present and error is not ErrorClass.CORRECT]
    for offset, (side, colour) in zip((-0.2, 0.2), (("gold", _COLOUR), ("predicted", _ACCENT)), strict=True):
        values = [counts.get(side, {}).get(name, 0) for name in classes]
        axes.barh([row + offset for row in range(len(classes))], values, height=0.38, color=colour, label=side)
    axes.set(yticks=range(len(classes)), yticklabels=classes)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure


def training_plot(history: Sequence[Mapping], metric: str) -> Figure:
    """Loss and validation F1 by epoch, from the entries of ``history.jsonl``."""
    figure, axes = _axes("Training", "epoch", "loss a window")
    epochs = [entry["epoch"] for entry in history]
    (loss,) = axes.plot(epochs, [entry["loss"] for entry in history], "--", color=_ACCENT, label="loss")
    right = axes.twinx()
    (f1,) = right.plot(epochs, [entry[metric]["overall"]["f1"] for entry in history], color=_COLOUR, label=metric)
    right.set(ylim=(0, 1), ylabel=f"validation {metric}")
    right.spines["top"].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(handles=[loss, f1], frameon=False, loc="center right")
    return figure


def save_plots(figures: Mapping[str, Figure], directory: Path) -> dict[str, str]:
    """Write each figure as PNG, and return each as SVG to be put in a page."""
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
