"""Tables for people: what a swap did, what a corpus holds, how a model scored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import HORIZONTALS
from rich.table import Table as RichTable
from rich.text import Text

from glinerko.corpus.alignment import Outcome
from glinerko.corpus.report import DataReport, PieceReport, TaskReport
from glinerko.model.swap import SwapReport
from glinerko.scoring.analysis import ErrorClass
from glinerko.scoring.learning_curve import Point
from glinerko.scoring.metrics import METRICS, metric_title
from glinerko.scoring.tasks import score_title

if TYPE_CHECKING:
    from glinerko.training.trial import RunPlan
    from glinerko.verification.candidates import Inspection
    from glinerko.verification.checks import Check


class Table(RichTable):
    """A table of rich whose title, headers and cells are shown as they are, on any console: none of them is markup."""

    def __init__(self, title: str = "", **options: Any):
        title_text = Text(title, "bold", overflow="fold") if title else None
        super().__init__(title=title_text, title_justify="left", header_style="bold", **options)

    def add_column(self, header: str = "", **options: Any) -> None:
        super().add_column(Text(header), overflow="fold", **options)

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        super().add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), style=style)


def plain_table(title: str, *columns: str) -> Table:
    """A table without lines, its first column to the left and the others to the right."""
    table = Table(title, box=None, padding=(0, 2))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def escape_markdown(text: object) -> str:
    """``text`` on one line, for Markdown that shows it as it is: in a table, a heading, a list or a sentence."""
    line = " ".join(str(text).splitlines())
    return re.sub(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)  # not the _ inside a word


def code_span(text: str) -> str:
    """``text`` as code in Markdown, outside of tables."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text or text.startswith(" ") else ""  # one blank on either side is not shown
    return f"{fence}{pad}{text}{pad}{fence}"


def as_markdown(table: Table) -> str:
    """A table of this module as Markdown, without its colours."""
    headers, *rows = (map(escape_markdown, line) for line in plain_rows(table))
    lines = [list(headers), ["---"] * len(table.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plain_rows(table: Table) -> list[tuple[str, ...]]:
    """The headers of a table of this module, then its rows, without colours."""
    columns = ([cell.plain for cell in (column.header, *column.cells)] for column in table.columns)
    return list(zip(*columns, strict=True))


def check_table(checks: Sequence[Check], header: bool = True) -> Table:
    """The result of each check, with its evidence and what to do."""
    colours = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "SKIP": "dim"}
    table = Table(box=None, show_header=header, padding=(0, 2, 0, 0), expand=True)
    for name, width in (("result", 6), ("check", 20), ("evidence", None)):
        table.add_column(name, width=width, ratio=None if width else 1)
    for check in checks:
        advice = f" → {check.advice}" if check.advice else ""
        table.add_row(Text(check.status.value, colours[check.status.name]), check.name, check.evidence + advice)
    return table


def inspection_table(inspections: Sequence[Inspection]) -> Table:
    """What the files of each candidate say."""
    table = _folding_table(
        "Candidates", "candidate", "kind", "config class", "width × layers", "parameters (embeddings)", "tokens / rows",
        "positions", "licence",
    )  # fmt: skip
    for each in inspections:
        sizes = (_figure(value and value / 1e6, "{:.1f}M") for value in (each.parameters, each.embedding_parameters))
        table.add_row(
            each.name,
            each.kind.value if each.kind else "–",
            each.config_class or "–",
            f"{_figure(each.hidden_size)} × {_figure(each.layers)}",
            "{} ({})".format(*sizes),
            f"{_figure(each.tokens)} / {_figure(each.embedding_rows)}",
            _figure(each.positions),
            each.licence or "–",
        )
    return table


def choice_table(inspections: Sequence[Inspection]) -> Table:
    """The five criteria of the choice; every cell is read or measured, except the domain, which is stated."""
    table = _folding_table(
        "Choice", "candidate", "architecture match", "Korean tokenization", "GLiNER2 compatibility",
        "size, CPU time, memory", "pre-training domain (as stated by its publisher)",
    )  # fmt: skip
    colours = {"SWAP": "green", "NEW_HEADS": "yellow", "UNSUITABLE": "red"}
    for each in inspections:
        cut, size, share = each.segmentation, each.parameters, "{:.0%} single syllables, {:.1f} pieces per word"
        time = f", {each.relative_time:.2f} × the base encoder" if each.relative_time else ""
        colour = colours.get(each.verdict.name, "dim")
        table.add_row(
            each.name,
            f"{each.config_class}, width {each.hidden_size}" if each.config_class else "–",
            share.format(cut.single_syllable_share, cut.pieces_per_word) if cut else "–",
            Text.assemble((each.verdict.value, colour), f": {each.reason}"),
            f"{size / 1e6:.0f}M{time}, {size * 4 / 2**30:.2f} GiB in fp32" if size else "–",
            each.domain or "–",
        )
    return table


def _folding_table(title: str, *columns: str) -> Table:
    table = Table(title, box=HORIZONTALS)
    for name in columns:
        table.add_column(name)
    return table


def _figure(value: float | None, form: str = "{:,}") -> str:
    return "–" if value is None else form.format(value)


def swap_table(report: SwapReport) -> Table:
    """What was kept, changed and initialised, one line for each part."""
    table = Table("Encoder swap", box=None, show_header=False, padding=(0, 2))
    table.add_column()
    table.add_column()
    table.add_row("base model", report.base_model)
    table.add_row("encoder", report.encoder)
    if report.common_ancestor:
        table.add_row("common ancestor", f"{report.common_ancestor}; added what the base's encoder has learned since")
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
    """What each split holds and the outcome of its mentions; every mention counts in exactly one outcome row."""
    table = plain_table("Data", "", *reports)

    def add(name: str, values: Sequence[int | str], style: str | None = None) -> None:
        table.add_row(name, *(f"{value:,}" if isinstance(value, int) else value for value in values), style=style)

    every = list(reports.values())
    add("documents", [report.documents for report in every])
    unlabelled = [report.documents_without_labels for report in every]
    if any(unlabelled):
        add("  without a label: negative examples of all", unlabelled)
    doubtful = {
        "bad rows skipped": [report.bad_rows_skipped for report in every],
        "texts shared with training": [report.texts_shared_with_training for report in every],
        "texts labelled in two ways": [len(report.contradicting_texts) for report in every],
        "mentions of labels not asked for": [report.mentions_left_out for report in every],
        "mentions matched loosely": [report.mentions_matched_loosely for report in every],
    }
    for key in sorted({key for report in every for key in report.unused_keys}):
        doubtful[f"rows with the unused key {key}"] = [report.unused_keys.get(key, 0) for report in every]
    for name, counts in doubtful.items():
        if any(counts):
            add(name, counts, "yellow")
    add("windows", [report.windows for report in every])
    add("words per document", [f"{report.words / report.documents:.1f}" for report in every])
    add("mentions", [report.mentions for report in every])
    for outcome in reversed(Outcome):
        counts = [report.mentions_by_outcome.get(outcome.value, 0) for report in every]
        if any(counts) or outcome is Outcome.TARGET:
            add(f"  {outcome.value}", counts)
    add("spans (occurrences)", [report.spans for report in every])
    add("  target", [report.spans_by_outcome.get(Outcome.TARGET.value, 0) for report in every])
    add("reach of mentions in the text", [_figure(report.reach, "{:.1%}") for report in every], "bold")
    for name in dict.fromkeys(name for report in every for name in report.tasks):
        tasks = [report.tasks.get(name) for report in every]
        add(f"{name}: documents annotated for it", [task.documents if task else 0 for task in tasks])
        for row in dict.fromkeys(row for task in tasks if task for row in task.counts):
            add(f"  {row}", [task.counts.get(row, 0) if task else 0 for task in tasks])
    return table


def piece_table(reports: Mapping[str, PieceReport], in_use: str) -> Table:
    """The pieces that the encoder gets, with and without continuation pieces."""
    table = plain_table("Pieces", "", *(f"{way} (in use)" if way == in_use else way for way in reports))
    every = list(reports.values())
    table.add_row("pieces per character", *(f"{report.pieces_per_character:.2f}" for report in every))
    table.add_row("unknown", *(f"{report.unknown_share:.1%}" for report in every))
    table.add_row("as the tokenizer cuts the raw text", *(f"{report.identical_share:.1%}" for report in every))
    if every[-1].fallbacks:
        table.add_row("words the vocabulary cannot continue", *(f"{report.fallbacks:,}" for report in every))
    return table


def evaluation_tables(result: Mapping[str, Any]) -> list[Table]:
    """All tables of an evaluation, from the record that ``scripts/eval.py`` makes."""
    report = DataReport(**{each.name: result["data"][each.name] for each in fields(DataReport)})
    report.tasks = {name: TaskReport(**each) for name, each in report.tasks.items()}
    title = f"{result['model']} at threshold {result['threshold']:.2f} ({result['threshold_source']})"
    tables = [data_table({Path(result["test_file"]).stem: report})]
    asks_entities = any(result[name]["labels"] for name in METRICS if name in result)
    if asks_entities:
        tables.append(score_table(title, {name: result[name] for name in METRICS if name in result}))
    tables.append(target_table(result["targets"], result["metric"]))
    if asks_entities:
        tables.append(score_table("Other scores", _other_scores(result)))
    if "comparisons" in result:
        tables.append(comparison_table(result["comparisons"], metric_title(result["metric"])))
    if "plain_gliner2" in result:
        plain = plain_table(f"Loaded with gliner2 ({metric_title(result['metric'])})", "word_splitter", "F1")
        for splitter, f1 in result["plain_gliner2"].items():
            plain.add_row(splitter, f"{f1:.3f}")
        tables.append(plain)
    tables += task_tables(result.get("tasks", {}))
    for name, compared in result.get("task_comparisons", {}).items():
        tables.append(comparison_table(compared, name))
    if "probe" in result:
        tables.append(probe_table(result["probe"]))
    return [*tables, error_table(result["errors"])]


def evaluation_warnings(result: Mapping[str, Any]) -> list[Text]:
    """What makes the scores in the record of an evaluation doubtful."""
    shared, gates = len(result.get("texts_shared_with_training", ())), result["closed_gates"]
    partial = result["data"]["documents"] - result["data"]["documents_with_all_labels"]
    warnings = {
        f"{partial} documents do not name all labels: what is predicted of the others there counts as wrong.": partial,
        f"{shared} of these texts also occur in the training documents: F1 on them is optimistic.": shared,
        f"The {result['gate']} kept spans back {gates} of {result['gates']} times.": gates,
    }
    return [Text(text, style="yellow") for text, number in warnings.items() if number]


def _other_scores(result: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, float]]]:
    """Scores by other rules, of a perfect model with the same words, of unseen mentions, and of a dictionary."""
    modes = {f"SemEval {mode}": {"overall": score} for mode, score in result["modes"].items()}
    ceilings = {f"ceiling of splitter and width, {metric_title(name)}": s for name, s in result["ceiling"].items()}
    strings = metric_title("string_f1")
    names = {"unseen": f"unseen mentions, {strings}", "dictionary": f"dictionary of training mentions, {strings}"}
    scores = modes | ceilings | {title: result[name] for name, title in names.items() if name in result}
    return {title: {"overall": score["overall"]} for title, score in scores.items()}


def score_table(title: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Precision, recall and F1, overall and by label.

    Args:
        scores: Records of :meth:`glinerko.scoring.metrics.Scores.to_dict`, by metric or another name.
    """
    table = plain_table(title, "", "precision", "recall", "F1", "gold", "predicted")

    def add(title: str, score: Mapping[str, float], style: str | None = None) -> None:
        figures = (f"{score[name]:.3f}" for name in ("precision", "recall", "f1"))
        counts = (_figure(score.get(name)) for name in ("gold", "predicted"))
        table.add_row(title, *figures, *counts, style=style)

    for name, record in scores.items():
        labels = record.get("labels", {})
        add(metric_title(name), record["overall"], "bold" if labels else None)
        for label, score in labels.items():
            add(f"  {label}", score)
    return table


def target_table(targets: Mapping[str, Mapping], metric: str) -> Table:
    """Each F1 with its interval, its target and the verdict."""
    table = plain_table(f"Targets ({metric_title(metric)})", "", "F1", "95 % interval", "target", "verdict")
    for name, score in targets.items():
        colour = {"PASS": "green", "MISS": "red"}.get(score["verdict"], "default")
        target = "–" if score["target"] is None else f"{score['target']:.2f}"
        verdict = Text(score["verdict"] or "–", colour)
        table.add_row(name, f"{score['f1']:.3f}", _interval(score["f1_interval"]), target, verdict)
    return table


def task_tables(tasks: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The scores of the tasks beside entities, and who is mistaken for whom among the classes of each.

    Args:
        tasks: Records of :func:`glinerko.scoring.tasks.describe_task`.
    """
    if not tasks:
        return []
    scores = plain_table("Other tasks", "", "precision", "recall", "F1", "95 % interval", "gold", "predicted")

    def add(title: str, score: Mapping[str, Any], style: str | None = None) -> None:
        figures = (f"{score[name]:.3f}" for name in ("precision", "recall", "f1"))
        interval, counts = _interval(score["f1_interval"]), (_figure(score[name]) for name in ("gold", "predicted"))
        scores.add_row(title, *figures, interval, *counts, style=style)

    for name, record in tasks.items():
        at = "" if record["threshold"] is None else f" at threshold {record['threshold']:.2f}"
        for metric, each in record["scores"].items():
            add(f"{name}: {score_title(record, metric)}{at}", each["overall"], "bold")
            if len(each["labels"]) > 1:
                for label, score in each["labels"].items():
                    add(f"  {label}", score)
                scores.add_row("  macro F1", "", "", f"{each['macro_f1']:.3f}", "", "", "")
        if "invented" in record:
            found, documents = record["invented"]
            scores.add_row("  found where there is none", "", "", f"{found} of {documents}", "", "", "")
    return [scores, *(confusion_table(name, each) for name, each in tasks.items() if "confusion" in each)]


def confusion_table(name: str, record: Mapping[str, Any]) -> Table:
    """The documents of each class, by the class that was found."""
    table = plain_table(f"{name}: true (rows) and found (columns)", "", *record["labels"])
    for label, counts in zip(record["labels"], record["confusion"], strict=True):
        table.add_row(label, *(f"{count:,}" for count in counts))
    return table


def probe_table(probe: Mapping[str, Any]) -> Table:
    """What tasks that were not trained are worth before the training and after it."""
    title = f"Tasks that were not trained, on {probe['documents']} small documents (F1)"
    table = plain_table(title, "", *probe["scores"])
    for name in next(iter(probe["scores"].values())):
        records = [scores[name] for scores in probe["scores"].values()]
        metric = next(iter(records[0]["scores"]))
        table.add_row(
            f"{name}: {score_title(records[0], metric)}",
            *(f"{each['scores'][metric]['overall']['f1']:.3f}" for each in records),
        )
    return table


def plan_table(plan: RunPlan) -> Table:
    """What a run will take."""
    table = plain_table("Plan of the run", "", plan.device)
    step = f"{plan.batches_per_step} × {plan.windows_per_batch} windows"
    step += f" × {plan.processes} processes" if plan.processes > 1 else ""
    rows = {
        "a step": step,
        "precision, attention": f"{plan.precision}, {plan.attention}",
        "peak of memory": f"{plan.memory_gb:.1f} GB",
        "an epoch": f"{plan.steps_per_epoch:,} steps of {plan.seconds_per_step:.2f} s",
        "  with evaluation and checkpoint": f"{plan.minutes_per_epoch:.1f} minutes",
        f"{plan.epochs} epochs": f"{plan.minutes / 60:.1f} hours ({plan.minutes:.0f} minutes); less if it stops early",
        "the model, a checkpoint": f"{plan.model_gb:.2f} GB, {plan.checkpoint_gb:.2f} GB",
        "all files at once, at most": f"{plan.disk_gb:.1f} GB",
    }
    rows |= {} if plan.price is None else {"price": f"{plan.price:,.2f} at {plan.price_per_hour:g} an hour"}
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def curve_table(points: Sequence[Point], metric: str) -> Table:
    """F1 by the number of training documents."""
    table = plain_table(f"Learning curve ({metric_title(metric)})", "training documents", "F1", "95 % interval")
    for point in points:
        table.add_row(f"{point.documents:,}", f"{point.f1:.3f}", _interval(point.f1_interval))
    return table


def comparison_table(compared: Sequence[Mapping], what: str) -> Table:
    """Models on the same documents, and how far the first one is ahead of each; ``what`` is what was scored."""
    table = plain_table(f"Models ({what})", "", "threshold", "F1", "95 % interval", "first is ahead by", "p")
    for model in compared:
        ahead = model["difference"]
        difference = f"{ahead['f1']:+.3f} ({_interval((ahead['low'], ahead['high']))})" if ahead else "–"
        p_value = f"{ahead['p_value']:.3f}" if ahead else "–"
        threshold = "–" if model["threshold"] is None else f"{model['threshold']:.2f}"
        figures = threshold, f"{model['f1']:.3f}", _interval(model["f1_interval"])
        table.add_row(model["model"], *figures, difference, p_value)
    return table


def error_table(errors: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """The number of gold and predicted spans of each class."""
    table = plain_table("Spans by class", "", *errors)
    sides = [groups.get("all", {}) for groups in errors.values()]
    for error in ErrorClass:
        counts = [side.get(error.value, 0) for side in sides]
        if any(counts):
            table.add_row(error.value, *(f"{count:,}" if count else "" for count in counts))
    return table


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f} – {bounds[1]:.3f}"
