"""Score a model on labelled documents: is it good enough, how sure is that, against what, and why does it fail?

    python scripts/eval.py                                            # the latest model under outputs/, on the sample
    python scripts/eval.py --model outputs/medical/best --test_file test.jsonl --train_file train.jsonl
    python scripts/eval.py --model user/model --test_file test.jsonl --compare fastino/gliner2-base-v1 outputs/b/best
    accelerate launch scripts/eval.py --model user/model --test_file test.jsonl --min_f1 0.5

One inference pass serves every threshold. The threshold in use is the one chosen on validation documents and saved
with the model; it is never chosen on the documents being scored, unless --tune_threshold asks for it, which flatters.
Intervals are 95 % bootstrap intervals over documents. With --train_file, unseen mentions are scored apart, and a plain
dictionary of the training mentions is scored beside the model. The report holds the texts; it is for their owner.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from datasets import Dataset
from gliner2 import AutoExtractor
from rich.console import Console

from glinerko.analysis import count_errors, judge_spans
from glinerko.card import weights_digest
from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import Example, LabelSchema, Span, label_schema, load_rows, require_labels, shared_texts
from glinerko.errors import DataError, GlinerkoError, LoadError, first_line
from glinerko.files import write_json, write_json_lines
from glinerko.gliner_v1 import is_gliner_v1, load_gliner, predict_with_gliner
from glinerko.hub import fetch, load_extractor
from glinerko.metrics import (
    METRICS,
    Scores,
    best_threshold,
    compare_scores,
    match_dictionary,
    precision_recall,
    score_modes,
    score_strings,
    sweep,
)
from glinerko.page import render_page
from glinerko.plots import error_plot, label_plot, precision_recall_plot, save_plots, threshold_plot
from glinerko.prediction import Predictions, predict_on_all_processes, predict_spans
from glinerko.reports import as_markdown, comparison_table, data_table, error_table, score_table, target_table
from glinerko.targets import annotate, perfect_spans, report_data, span_outcomes
from glinerko.words import KoreanWordSplitter

DATA = Path(__file__).parents[1] / "data"
COUNTS = "counts.jsonl"  # of each document and label: true positives, predicted, gold
STRINGS, SPANS = "(mention, label) sets", "strict spans"


@dataclass
class Arguments:
    model: str | None = field(
        default=None, metadata={"help": "Hub id or directory; the latest model under outputs/ by default"}
    )
    test_file: str = field(
        default=str(DATA / "sample" / "test.jsonl"), metadata={"help": "the documents to score, JSON lines"}
    )
    train_file: str | None = field(
        default=None, metadata={"help": "the training documents: scores unseen mentions apart, and a dictionary"}
    )
    compare: list[str] | None = field(
        default=None,
        metadata={"help": "other models to score on the same documents, with a paired test of each: any GLiNER2, "
                          "trained here or not, and GLiNER v1"},
    )  # fmt: skip
    labels: list[str] | None = field(default=None, metadata={"help": "labels to ask for; the model's own by default"})
    label_names: str = field(
        default=str(DATA / "label_names.yaml"),
        metadata={"help": "YAML: what models are asked for that were not trained on these labels"},
    )
    threshold: float | None = field(
        default=None, metadata={"help": "score that a span must reach; the one saved with the model by default"}
    )
    tune_threshold: bool = field(
        default=False, metadata={"help": "choose the threshold on the documents being scored, which flatters"}
    )
    overlap_policy: str = field(
        default="greedy",
        metadata={"help": "which of overlapping spans of a label stand; greedy is gliner2's default",
                  "choices": ["greedy", "flat", "nested", "longest", "allow"]},
    )  # fmt: skip
    metric: str = field(
        default="string_f1",
        metadata={"help": "what targets, comparisons and --min_f1 look at", "choices": list(METRICS)},
    )
    targets: list[str] = field(
        default_factory=lambda: ["overall=0.50", "Disease=0.55", "Drug=0.45", "Procedure=0.40", "Biomarker=0.35"],
        metadata={"help": "the F1 to reach, overall and by label: overall=0.50 Disease=0.55 ..."},
    )
    min_f1: float | None = field(default=None, metadata={"help": "exit status 1 if the overall F1 is lower"})
    on_bad_row: str = field(
        default="raise", metadata={"help": "stop at a malformed row or skip and count it", "choices": ["raise", "skip"]}
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "windows a process takes at a time"})
    plain_gliner2: bool = field(
        default=False,
        metadata={"help": "also score the model as gliner2 alone loads it, by each word splitter: for the card"},
    )
    report_dir: str | None = field(
        default=None, metadata={"help": "where the report goes; report/ beside the model, or outputs/report"}
    )


@dataclass
class Evaluation:
    """A model's predictions on the documents, and what they score."""

    name: str
    directory: Path
    """Of the model's files; a snapshot where ``name`` is a repository of the Hub."""
    schema: LabelSchema
    annotated: Dataset
    """The documents with this model's words and windows (a GLiNER v1 keeps its own to itself)."""
    examples: list[Example]
    predictions: Predictions
    at_threshold: Callable[[float], list[list[Span]]]
    threshold: float
    threshold_source: str
    found: list[list[Span]]
    scores: dict[str, Scores]


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    targets = parse_targets(args.targets)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    quieten(accelerator.is_main_process)
    console = make_console(accelerator.is_main_process)

    name = args.model or str(latest_model(Path("outputs")))
    with accelerator.main_process_first():
        rows, skipped = load_rows(args.test_file, labels=args.labels, on_bad_row=args.on_bad_row)
    if is_gliner_v1(fetch(name)):
        raise GlinerkoError(f"{name}: a GLiNER v1 model, which can be compared with but not reported on: --compare")
    evaluations = [evaluate(accelerator, each, rows, args, console) for each in (name, *(args.compare or ()))]
    if not accelerator.is_main_process:
        return
    ours = evaluations[0]
    directory = Path(args.report_dir or (Path(name).parent if Path(name).is_dir() else Path("outputs")) / "report")
    directory.mkdir(parents=True, exist_ok=True)

    # 1. Is it good enough, and how sure is that?
    report = report_data(ours.annotated, ours.schema, args.test_file)
    report.bad_rows_skipped = skipped
    data = data_table({Path(args.test_file).stem: report})
    ceiling = score_ceiling(ours)
    result = {
        "model": name,
        "weights": weights_digest(ours.directory),
        "test_file": args.test_file,
        "metric": args.metric,
        "documents": len(ours.examples),
        "threshold": ours.threshold,
        "threshold_source": ours.threshold_source,
        **{metric: scores.to_dict() for metric, scores in ours.scores.items()},
        "modes": score_modes(ours.examples, ours.found, ours.schema.labels),
        "ceiling": {metric: scores.to_dict() for metric, scores in ceiling.items()},
        "closed_gates": ours.predictions.closed_gates,
        "data": report.to_dict(),
    }
    result["targets"] = judge_targets(result[args.metric], targets)
    title = f"{name} at threshold {ours.threshold:.2f} ({ours.threshold_source})"
    scores = {STRINGS: ours.scores["string_f1"], SPANS: ours.scores["span_f1"]}
    tables = [data, score_table(title, scores, ours.schema.labels), target_table(result["targets"], args.metric)]
    others = {
        f"ceiling of splitter and width, {STRINGS}": ceiling["string_f1"].overall,
        f"ceiling of splitter and width, {SPANS}": ceiling["span_f1"].overall,
    }

    # 2. Against what?
    seen: set[tuple[str, str]] = set()
    if args.train_file:
        seen, more, beside = compare_with_training(args, ours, console)
        result |= more
        others |= beside
    tables.append(score_table("Beside it", others))
    if args.compare:
        result["comparisons"] = compare_scores(
            [(each.name, each.threshold, each.scores[args.metric]) for each in evaluations]
        )
        tables.append(comparison_table(result["comparisons"], args.metric))

    if args.plain_gliner2:
        result["plain_gliner2"] = score_plain_gliner2(ours, args, accelerator, console)

    # 3. Why does it fail?
    outcomes = [span_outcomes(row) for row in ours.annotated]
    judged = judge_spans(ours.examples, outcomes, ours.found, ours.schema.labels, seen)
    result["errors"] = count_errors(judged)
    tables.append(error_table(result["errors"]))
    curve, average = precision_recall(ours.examples, ours.predictions.spans, ours.schema.labels)
    by_threshold = sweep(args.metric, ours.examples, ours.at_threshold, ours.schema.labels)
    result["average_precision"] = average
    result["sweep"] = {str(value): scores.overall.to_dict() for value, scores in by_threshold.items()}

    for table in tables:
        console.print(table)
    if ours.predictions.closed_gates:
        console.print(
            f"[yellow]The count gate is shut on {ours.predictions.closed_gates} of {ours.predictions.windows} windows."
        )
    figures = {
        "precision_recall": precision_recall_plot(curve, average),
        "threshold": threshold_plot({float(value): score for value, score in result["sweep"].items()}, ours.threshold),
        "labels": label_plot(result["targets"]),
        "errors": error_plot({side: groups.get("all", {}) for side, groups in result["errors"].items()}),
    }
    plots = save_plots(figures, directory)
    lines = {STRINGS: result["string_f1"]["overall"], SPANS: result["span_f1"]["overall"]}
    lines |= {f"SemEval {mode}": score for mode, score in result["modes"].items()}
    lines |= {name: score.to_dict() for name, score in others.items()}
    page = render_page(result, lines, plots, ours.examples, judged)
    (directory / "index.html").write_text(page, encoding="utf-8")
    markdown = "\n".join(f"## {table.title}\n\n{as_markdown(table)}" for table in tables)
    (directory / "report.md").write_text(f"# {name}\n\n{markdown}", encoding="utf-8")
    write_json(directory / "report.json", result)
    counts = [scores.counts.tolist() for scores in ours.scores.values()]
    documents = (dict(zip(ours.scores, each, strict=True)) for each in zip(*counts, strict=True))
    write_json_lines(
        directory / COUNTS,
        ({"id": example.id, **each} for example, each in zip(ours.examples, documents, strict=True)),
    )
    console.print(f"Report {directory / 'index.html'}, report.md, report.json and plots beside it", highlight=False)

    f1 = result[args.metric]["overall"]["f1"]
    if args.min_f1 is not None and f1 < args.min_f1:
        console.print(f"[red]{args.metric} {f1:.4f} is below {args.min_f1}")
        sys.exit(1)


def evaluate(accelerator: Accelerator, name: str, rows: Dataset, args: Arguments, console: Console) -> Evaluation:
    """Load a model and predict every document once, with the words, width, labels and threshold of its own."""
    directory = fetch(name)
    version_1 = is_gliner_v1(directory)
    if version_1:
        model, trained, saved_threshold = load_gliner(directory, accelerator.device), None, None
    else:
        model = load_extractor(name, map_location=accelerator.device)
        trained, saved_threshold = model.label_schema, model.threshold
    schema = choose_schema(trained, args.labels) if trained else label_schema(rows, args.labels)
    require_labels(rows, schema, args.test_file)
    names = read_label_names(args.label_names, (name, "gliner" if version_1 else "gliner2")) if not trained else {}
    asked = {names.get(label, label): label for label in schema.labels}
    if len(asked) < len(schema.labels):
        raise DataError(f"{args.label_names}: two of {', '.join(schema.labels)} have one name")
    if version_1:
        annotated, predict = rows, partial(predict_with_gliner, model, rows["text"][:], tuple(asked))
    else:
        descriptions = {names.get(label, label): text for label, text in schema.descriptions.items()}
        prompt = LabelSchema(tuple(asked), descriptions)
        with accelerator.main_process_first():
            annotated = annotate(rows, model.processor, prompt, max_width=model.max_width, **model.window_limits)
        predict = partial(predict_spans, model, annotated, prompt)
    predict = partial(predict, batch_size=args.per_device_eval_batch_size)
    predictions = predict_on_all_processes(accelerator, len(rows), predict).with_labels(asked)
    at_threshold = partial(predictions.at_threshold, overlap_policy=args.overlap_policy)
    examples = [Example.from_row(row) for row in annotated]
    if args.tune_threshold:
        curve = sweep(args.metric, examples, at_threshold, schema.labels)
        threshold, source = best_threshold(curve), "chosen on these very documents: optimistic"
    elif args.threshold is not None:
        threshold, source = args.threshold, "as asked"
    elif saved_threshold is not None:
        threshold, source = saved_threshold, "chosen on validation documents"
    else:
        threshold, source = 0.5, "gliner2's default, since the model names none"
    if args.tune_threshold or saved_threshold is None:
        console.print(f"[yellow]{name}: threshold {threshold:.2f}, {source}.")
    found = at_threshold(threshold)
    scores = {metric: function(examples, found, schema.labels) for metric, function in METRICS.items()}
    return Evaluation(
        name, directory, schema, annotated, examples, predictions, at_threshold, threshold, source, found, scores
    )


def score_ceiling(ours: Evaluation) -> dict[str, Scores]:
    """What a perfect model would score with this splitter, width and window."""
    perfect = [
        perfect_spans(example, row["outcomes"]) for example, row in zip(ours.examples, ours.annotated, strict=True)
    ]
    return {metric: function(ours.examples, perfect, ours.schema.labels) for metric, function in METRICS.items()}


def score_plain_gliner2(
    ours: Evaluation, args: Arguments, accelerator: Accelerator, console: Console
) -> dict[str, float]:
    """F1 of the same weights as gliner2 alone loads and runs them, by word splitter."""
    labels = ours.schema.labels
    types = {label: ours.schema.descriptions.get(label, {}) for label in labels}
    texts = [example.text for example in ours.examples]
    scores = {}
    for splitter in ("whitespace", "char", KoreanWordSplitter()):
        model = AutoExtractor.from_pretrained(
            str(ours.directory), word_splitter=splitter, map_location=accelerator.device
        )
        name = splitter if isinstance(splitter, str) else "KoreanWordSplitter()"
        batch_size = args.per_device_eval_batch_size
        found = model.batch_extract_entities(texts, types, batch_size, ours.threshold, include_spans=True)
        spans = [
            [Span(s["start"], s["end"], label) for label, each in document["entities"].items() for s in each]
            for document in found
        ]
        scores[name] = METRICS[args.metric](ours.examples, spans, labels).overall.f1
        console.print(f"gliner2 alone, word_splitter={name}: {args.metric} {scores[name]:.4f}", highlight=False)
    return scores


def parse_targets(targets: list[str]) -> dict[str, float]:
    """``{"overall": 0.5, label: ...}``.

    Raises:
        DataError: an entry that is no ``name=F1``.
    """
    try:
        return {name: float(value) for name, value in (entry.split("=") for entry in targets)}
    except ValueError as error:
        raise DataError(f"--targets takes entries like overall=0.50, got {' '.join(targets)!r}") from error


def judge_targets(scores: dict, targets: dict[str, float]) -> dict[str, dict]:
    """Each F1 with its interval next to its target: PASS, MISS, or nothing where there is no target."""
    judged = {}
    for name, score in {"overall": scores["overall"], **scores["labels"]}.items():
        target = targets.get(name)
        verdict = "" if target is None or not score["gold"] else "PASS" if score["f1"] >= target else "MISS"
        judged[name] = {"f1": score["f1"], "f1_interval": score["f1_interval"], "target": target, "verdict": verdict}
    return judged


def compare_with_training(args: Arguments, ours: Evaluation, console: Console) -> tuple[set, dict, dict]:
    """Score unseen mentions apart, and a dictionary of the training mentions; say which texts are in both files."""
    rows, _ = load_rows(args.train_file, labels=args.labels, on_bad_row=args.on_bad_row)
    training = [Example.from_row(row) for row in rows]
    seen = {pair for example in training for pair in example.gold_strings}
    labels = ours.schema.labels
    dictionary = match_dictionary(training, [example.text for example in ours.examples], labels)
    unseen = score_strings(ours.examples, ours.found, labels, leave_out=seen)
    matched = score_strings(ours.examples, dictionary, labels)
    shared = shared_texts(rows, ours.annotated)
    if shared:
        console.print(f"[yellow]{len(shared)} of these texts also stand in {args.train_file}: their F1 flatters.")
    result = {"unseen": unseen.to_dict(), "dictionary": matched.to_dict(), "texts_shared_with_training": shared}
    return seen, result, {"unseen mentions": unseen.overall, "dictionary of training mentions": matched.overall}


def read_label_names(file: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """What to ask a model for, by label: the first of ``kinds`` (its id, its kind) that the file lists.

    Raises:
        DataError: no such file, or another form.
    """
    try:
        mapping = dict(yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {})
        names = next((mapping[kind] for kind in kinds if kind in mapping), {})
        if not all(isinstance(text, str) for entry in names.items() for text in entry):
            raise ValueError("a label and its name must be text")
    except (OSError, yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: expected `kind: {{label: name}}` ({first_line(error)})") from error
    return names


def choose_schema(trained: LabelSchema, labels: list[str] | None) -> LabelSchema:
    """The labels asked for, all of the model's by default, with the descriptions that it was trained with.

    Raises:
        LoadError: --labels names one that the model was not trained for.
    """
    unknown = set(labels or ()) - set(trained.labels)
    if unknown:
        raise LoadError(
            f"the model was not trained for {', '.join(sorted(unknown))}; it knows {', '.join(trained.labels)}"
        )
    return LabelSchema(tuple(labels or trained.labels), trained.descriptions)


def latest_model(directory: Path) -> Path:
    """The model saved last under ``directory``.

    Raises:
        GlinerkoError: there is none.
    """
    models = sorted(directory.glob("*/best/config.json"), key=lambda path: path.stat().st_mtime)
    if not models:
        raise GlinerkoError(f"no trained model under {directory}/: pass --model, or train one first (`make train`)")
    return models[-1].parent


if __name__ == "__main__":
    run(main)
