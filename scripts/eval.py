"""Score a model on labelled documents, from one inference pass.

    python scripts/eval.py                                            # the latest model under outputs/, on the sample
    python scripts/eval.py --model outputs/medical/best --test_file test.jsonl --train_file train.jsonl
    accelerate launch scripts/eval.py --model user/model --test_file test.jsonl --min_f1 0.5

The threshold is the one chosen on validation documents and saved with the model; it is never chosen on the documents
being scored, unless --sweep asks for the F1 of every threshold, which flatters. With --train_file, unseen mentions
are scored apart, and a plain dictionary of the training mentions is scored beside the model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from rich.console import Console

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import Example, LabelSchema, label_schema, load_rows, require_labels, shared_texts
from glinerko.errors import GlinerkoError, LoadError
from glinerko.files import write_json
from glinerko.hub import load_extractor
from glinerko.metrics import METRICS, at_threshold, match_dictionary, score_spans, score_strings, sweep
from glinerko.prediction import predict_on_all_processes
from glinerko.reports import data_table, score_table, sweep_table
from glinerko.targets import annotate, report_data

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


@dataclass
class Arguments:
    model: str | None = field(
        default=None, metadata={"help": "Hub id or directory; the latest model under outputs/ by default"}
    )
    test_file: str = field(default=str(SAMPLE / "test.jsonl"), metadata={"help": "the documents to score, JSON lines"})
    train_file: str | None = field(
        default=None, metadata={"help": "the training documents: scores unseen mentions apart, and a dictionary"}
    )
    labels: list[str] | None = field(default=None, metadata={"help": "labels to ask for; the model's own by default"})
    threshold: float | None = field(
        default=None, metadata={"help": "score that a span must reach; the one saved with the model by default"}
    )
    sweep: bool = field(default=False, metadata={"help": "also show the F1 of every threshold on these documents"})
    metric: str = field(
        default="string_f1", metadata={"help": "what --sweep shows and --min_f1 looks at", "choices": list(METRICS)}
    )
    min_f1: float | None = field(default=None, metadata={"help": "exit status 1 if the overall F1 is lower"})
    on_bad_row: str = field(
        default="raise", metadata={"help": "stop at a malformed row or skip and count it", "choices": ["raise", "skip"]}
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "windows a process takes at a time"})
    output_dir: str | None = field(
        default=None, metadata={"help": "where eval.json goes; beside the model, or outputs/ for one of the Hub"}
    )


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    quieten(accelerator.is_main_process)
    console = make_console(accelerator.is_main_process)

    name = args.model or str(latest_model(Path("outputs")))
    model = load_extractor(name, map_location=accelerator.device)
    with accelerator.main_process_first():
        rows, skipped = load_rows(args.test_file, labels=args.labels, on_bad_row=args.on_bad_row)
        schema = choose_schema(model.label_schema, args.labels, label_schema(rows))
        require_labels(rows, schema, args.test_file)
        annotated = annotate(rows, model.processor, schema, max_width=model.max_width, **model.window_limits)
    threshold = args.threshold if args.threshold is not None else model.threshold
    if threshold is None:
        threshold = 0.5
        console.print("[yellow]The model names no threshold: 0.5, gliner2's default, is used.")

    predictions = predict_on_all_processes(accelerator, model, annotated, schema, args.per_device_eval_batch_size)
    if not accelerator.is_main_process:
        return
    examples = [Example.from_row(row) for row in annotated]
    found = at_threshold(predictions.spans, threshold)
    scores = {
        "(mention, label) sets": score_strings(examples, found, schema.labels),
        "strict spans": score_spans(examples, found, schema.labels),
    }
    report = report_data(annotated, schema, args.test_file)
    report.bad_rows_skipped = skipped
    result = {
        "model": name,
        "test_file": args.test_file,
        "documents": len(examples),
        "threshold": threshold,
        "string_f1": scores["(mention, label) sets"].to_dict(),
        "span_f1": scores["strict spans"].to_dict(),
        "data": report.to_dict(),
        "closed_gates": predictions.closed_gates,
    }

    console.print(data_table({Path(args.test_file).stem: report}))
    console.print(score_table(f"{name} at threshold {threshold:.2f}", scores, schema.labels))
    if predictions.closed_gates:
        console.print(f"[yellow]The count gate is shut on {predictions.closed_gates} of {predictions.windows} windows.")
    if args.train_file:
        result |= compare_with_training(args, annotated, found, schema, console)
    if args.sweep:
        curve = sweep(args.metric, examples, predictions.spans, schema.labels)
        result["sweep"] = {str(value): scores.overall.to_dict() for value, scores in curve.items()}
        console.print(sweep_table(f"{args.metric} by threshold, on the documents scored: flatters", curve))

    directory = Path(args.output_dir or (Path(name).parent if Path(name).is_dir() else "outputs"))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"eval_{Path(args.test_file).stem}.json"
    write_json(path, result)
    console.print(f"Scores {path}", highlight=False)
    f1 = result[args.metric]["overall"]["f1"]
    if args.min_f1 is not None and f1 < args.min_f1:
        console.print(f"[red]{args.metric} {f1:.4f} is below {args.min_f1}")
        sys.exit(1)


def compare_with_training(
    args: Arguments, annotated: Dataset, found: list, schema: LabelSchema, console: Console
) -> dict:
    """Score unseen mentions apart, and a dictionary of the training mentions; say which texts are in both files."""
    rows, _ = load_rows(args.train_file, labels=args.labels, on_bad_row=args.on_bad_row)
    training, examples = ([Example.from_row(row) for row in part] for part in (rows, annotated))
    seen = {pair for example in training for pair in example.gold_strings}
    texts = [example.text for example in examples]
    dictionary = match_dictionary(training, texts, schema.labels)
    unseen = score_strings(examples, found, schema.labels, leave_out=seen)
    matched = score_strings(examples, dictionary, schema.labels)
    console.print(
        score_table(
            "(mention, label) sets, against the training documents",
            {"model, unseen mentions": unseen.overall, "dictionary of training mentions": matched.overall},
        )
    )
    shared = shared_texts(rows, annotated)
    if shared:
        console.print(f"[yellow]{len(shared)} of these texts also stand in {args.train_file}: their F1 flatters.")
    return {"unseen": unseen.to_dict(), "dictionary": matched.to_dict(), "texts_shared_with_training": shared}


def choose_schema(trained: LabelSchema | None, labels: list[str] | None, described: LabelSchema) -> LabelSchema:
    """The labels asked for, with the descriptions that the model was trained with, or else those of the documents.

    Raises:
        LoadError: --labels names one that the model was not trained for.
    """
    if trained is None:
        return described
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
