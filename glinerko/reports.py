"""Tables for people: what a swap did, what a corpus holds, how a model scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import HORIZONTALS
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from glinerko.analysis import ErrorClass
from glinerko.checks import Check, Status
from glinerko.encoders import Inspection, Verdict
from glinerko.metrics import Score, Scores
from glinerko.segmentation import PieceReport
from glinerko.swap import SwapReport
from glinerko.targets import DataReport, Outcome


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    return table


def as_markdown(table: Table) -> str:
    """A table of this module as Markdown, without its colours."""
    cells = [
        [Text.from_markup(str(cell)).plain.replace("|", "\\|") for cell in column.cells] for column in table.columns
    ]
    headers = [str(column.header) for column in table.columns]
    lines = [headers, ["---"] * len(headers), *zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def check_table(checks: Sequence[Check], header: bool = True) -> Table:
    """The result of each check, with its evidence and what to do."""
    colours = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}
    table = Table(box=None, show_header=header, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    for name, width in (("result", 6), ("check", 20), ("evidence", None)):
        table.add_column(name, width=width, overflow="fold", ratio=None if width else 1)
    for check in checks:
        advice = f" → {check.advice}" if check.advice else ""
        status = f"[{colours[check.status]}]{check.status.value}[/]"
        table.add_row(status, check.name, escape(check.evidence + advice))
    return table


def inspection_table(inspections: Sequence[Inspection]) -> Table:
    """What the files of each candidate say."""
    table = _folding_table(
        "Candidates", "candidate", "kind", "config class", "width × layers", "parameters (embeddings)", "tokens / rows",
        "positions", "licence",
    )  # fmt: skip
    for found in inspections:
        sizes = (_figure(value and value / 1e6, "{:.1f}M") for value in (found.parameters, found.embedding_parameters))
        table.add_row(
            found.name,
            found.kind.value if found.kind else "–",
            found.config_class or "–",
            f"{_figure(found.hidden_size)} × {_figure(found.layers)}",
            "{} ({})".format(*sizes),
            f"{_figure(found.tokens)} / {_figure(found.embedding_rows)}",
            _figure(found.positions),
            found.licence or "–",
        )
    return table


def choice_table(inspections: Sequence[Inspection]) -> Table:
    """The five criteria of the choice; every cell is read or measured, but for the domain, which is stated."""
    table = _folding_table(
        "Choice", "candidate", "architecture match", "Korean tokenization", "GLiNER2 compatibility",
        "size, CPU time, memory", "pre-training domain (as stated by its publisher)",
    )  # fmt: skip
    colours = {Verdict.SWAP: "green", Verdict.NEW_HEADS: "yellow", Verdict.UNSUITABLE: "red"}
    for found in inspections:
        cut, size = found.segmentation, found.parameters
        syllables = cut and f"{cut.single_syllable_share:.0%} single syllables, {cut.pieces_per_word:.1f} pieces a word"
        time = f", {found.relative_time:.2f} × the base encoder" if found.relative_time else ""
        colour = colours.get(found.verdict, "dim")
        table.add_row(
            found.name,
            f"{found.config_class}, width {found.hidden_size}" if found.config_class else "–",
            syllables or "–",
            f"[{colour}]{found.verdict.value}[/]: {escape(found.reason)}",
            f"{size / 1e6:.0f}M{time}, {size * 4 / 2**30:.2f} GiB in fp32" if size else "–",
            found.domain or "–",
        )
    return table


def _folding_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=HORIZONTALS)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _figure(value: float | None, form: str = "{:,}") -> str:
    return "–" if value is None else form.format(value)


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


def target_table(targets: Mapping[str, Mapping], metric: str) -> Table:
    """Each F1 with its interval next to the target it should reach."""
    table = _table(f"Targets ({metric})", "", "F1", "95 % interval", "target", "verdict")
    for name, score in targets.items():
        colour = {"PASS": "green", "MISS": "red"}.get(score["verdict"], "default")
        target = "–" if score["target"] is None else f"{score['target']:.2f}"
        verdict = f"[{colour}]{score['verdict'] or '–'}[/]"
        table.add_row(name, f"{score['f1']:.3f}", _interval(score["f1_interval"]), target, verdict)
    return table


def comparison_table(compared: Sequence[Mapping], metric: str) -> Table:
    """Models on the same documents, and how far the first one is ahead."""
    table = _table(f"Models ({metric})", "", "threshold", "F1", "95 % interval", "first is ahead by", "p")
    for model in compared:
        ahead = model["difference"]
        difference = f"{ahead['f1']:+.3f} ({_interval((ahead['low'], ahead['high']))})" if ahead else "–"
        p_value = f"{ahead['p_value']:.3f}" if ahead else "–"
        threshold = "–" if model["threshold"] is None else f"{model['threshold']:.2f}"
        figures = threshold, f"{model['f1']:.3f}", _interval(model["f1_interval"])
        table.add_row(model["model"], *figures, difference, p_value)
    return table


def error_table(errors: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """How many gold and predicted spans fall in each class."""
    table = _table("Spans by class", "", *errors)
    everything = [groups.get("all", {}) for groups in errors.values()]
    for error in ErrorClass:
        counts = [found.get(error.value, 0) for found in everything]
        if any(counts):
            table.add_row(error.value, *(f"{count:,}" if count else "" for count in counts))
    return table


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f} – {bounds[1]:.3f}"


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
