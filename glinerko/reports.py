"""Tables for people: what a swap did, what a corpus holds, how a model scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from glinerko.metrics import Score, Scores
from glinerko.segmentation import PieceReport
from glinerko.swap import SwapReport
from glinerko.targets import DataReport, Outcome


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    return table


def swap_table(report: SwapReport) -> Table:
    """What was kept, changed and initialised, one line a part."""
    table = Table(title="Encoder swap", title_justify="left", title_style="bold", box=None, show_header=False)
    table.padding = (0, 2)
    table.add_row("base model", report.base_model)
    table.add_row("encoder", report.encoder)
    for name, (before, after) in report.changed.items():
        table.add_row(name, f"{before} → {after}")
    for module, (before, after) in report.parameters.items():
        size = f"{after / 1e6:.1f}M parameters" + (f" (was {before / 1e6:.1f}M)" if before != after else "")
        checksum = report.kept.get(module)
        state = f"kept bit for bit, sha256 {checksum[:12]}, " if checksum else ""
        state += f"initialised {report.initialised[module]}, " if module in report.initialised else ""
        table.add_row(module, state + size)
    tokens = [name for name in report.initialised if name.startswith("[")]
    if tokens:
        table.add_row(f"{len(tokens)} special tokens", f"initialised: {report.initialised[tokens[0]]}")
    return table


def data_table(reports: Mapping[str, DataReport]) -> Table:
    """What each split holds and where its mentions went; every mention is in exactly one of the rows by outcome."""
    table = _table("Data", "", *reports)

    def add(name: str, values: Sequence[int | str], style: str | None = None) -> None:
        table.add_row(name, *(f"{value:,}" if isinstance(value, int) else value for value in values), style=style)

    every = list(reports.values())
    add("documents", [report.documents for report in every])
    for name in ("bad_rows_skipped", "texts_shared_with_training"):
        if any(getattr(report, name) for report in every):
            add(name.replace("_", " "), [getattr(report, name) for report in every], "yellow")
    add("windows", [report.windows for report in every])
    add("words a document", [f"{report.words / report.documents:.1f}" for report in every])
    add("mentions", [report.mentions for report in every])
    for outcome in reversed(Outcome):
        counts = [report.mentions_by_outcome.get(outcome.value, 0) for report in every]
        if any(counts) or outcome is Outcome.TARGET:
            add(f"  {outcome.value}", counts)
    add("spans (occurrences)", [report.spans for report in every])
    add("  target", [report.spans_by_outcome.get(Outcome.TARGET.value, 0) for report in every])
    add("reach of mentions in the text", [f"{report.reach:.1%}" for report in every], "bold")
    return table


def piece_table(reports: Mapping[str, PieceReport], in_use: str) -> Table:
    """What the encoder is given of the text, without and with continuation pieces."""
    table = _table("Pieces", "", *(f"{way} (in use)" if way == in_use else way for way in reports))
    every = list(reports.values())
    table.add_row("pieces a character", *(f"{report.pieces_per_character:.2f}" for report in every))
    table.add_row("unknown", *(f"{report.unknown_share:.1%}" for report in every))
    table.add_row("as the tokenizer cuts the raw text", *(f"{report.identical_share:.1%}" for report in every))
    if every[-1].fallbacks:
        table.add_row("words the vocabulary cannot continue", *(f"{report.fallbacks:,}" for report in every))
    return table


def sweep_table(title: str, curve: Mapping[float, Scores]) -> Table:
    """Overall precision, recall and F1 at every threshold."""
    table = _table(title, "threshold", "precision", "recall", "F1")
    for threshold, scores in curve.items():
        score = scores.overall
        table.add_row(f"{threshold:.2f}", f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}")
    return table


def score_table(title: str, scores: Mapping[str, Scores | Score], labels: Sequence[str] = ()) -> Table:
    """Precision, recall and F1 of each metric, overall and by label."""
    table = _table(title, "", "precision", "recall", "F1", "gold", "predicted")

    def add(name: str, score: Score, style: str | None = None) -> None:
        figures = f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}"
        table.add_row(name, *figures, f"{score.gold:,}", f"{score.predicted:,}", style=style)

    for name, score in scores.items():
        if isinstance(score, Score):
            add(name, score)
            continue
        add(name, score.overall, "bold")
        for label in labels:
            add(f"  {label}", score.labels[label])
    return table
