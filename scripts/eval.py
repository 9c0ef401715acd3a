"""Score a model on labelled documents: is it good enough, how sure is that, against what, and why does it fail?

    python scripts/eval.py                                            # the latest model under outputs/, on the sample
    python scripts/eval.py --model outputs/medical/best --test_file test.jsonl --train_file train.jsonl
    python scripts/eval.py --model user/model --test_file test.jsonl --compare fastino/gliner2-base-v1 outputs/b/best
    python scripts/eval.py --model outputs/a/best --test_file test.jsonl --compare outputs/b/best --average
    accelerate launch scripts/eval.py --model user/model --test_file test.jsonl --min_f1 0.5

One inference pass serves every threshold. The threshold in use is the one chosen on validation documents and saved with
the model. It is only chosen on the documents being scored if --tune_threshold asks for that; such scores are
optimistic. Intervals are 95 % bootstrap intervals over documents. With --train_file, unseen mentions are also scored
separately, and so is a plain dictionary of the training mentions. The page of the report holds the texts of the
documents: only people who may read them may see it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from gliner2 import AutoExtractor
from rich.console import Console

from glinerko.cli import SCORES, make_console, option, parse_arguments, run, set_log_levels
from glinerko.common import DataError, GlinerkoError, LoadError, check_writable, read_yaml, write_json_lines
from glinerko.corpus.reading import label_schema, load_rows, require_labels
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example, Span
from glinerko.corpus.schema import CLASSIFICATIONS, LabelSchema, Task, check_labels
from glinerko.corpus.splits import shared_texts
from glinerko.corpus.windows import perfect_spans, span_outcomes
from glinerko.corpus.words import WordSplitter
from glinerko.hub import fetch, is_gliner_v1, read_config
from glinerko.model.answers import Found
from glinerko.model.attention import read_faster
from glinerko.model.ensemble import average_spans
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.model.prediction import (
    FLOOR,
    OVERLAP_POLICIES,
    Predictions,
    gliner2_policy,
    predict_on_all_processes,
    predict_spans,
)
from glinerko.model.settings import Settings
from glinerko.scoring.analysis import count_errors, find_unscored, judge_spans
from glinerko.scoring.gliner import load_gliner, predict_with_gliner
from glinerko.scoring.metrics import (
    METRICS,
    Scores,
    best_threshold,
    compare_scores,
    match_dictionary,
    precision_recall,
    score_all,
    score_modes,
    score_strings,
    sweep,
)
from glinerko.scoring.tasks import annotated_tasks, choose_thresholds, describe_task, score_main
from glinerko.sharing.card import weights_digest
from glinerko.sharing.page import write_report
from glinerko.sharing.tables import evaluation_tables, evaluation_warnings
from glinerko.training.checkpoints import BEST, REPORT, REPORT_CANDIDATES

DATA = Path(__file__).parents[1] / "data"
TARGETS = ["overall=0.50", "Disease=0.55", "Drug=0.45", "Procedure=0.40", "Biomarker=0.35"]


@dataclass
class Arguments:
    model: str | None = option(None, "Hub id or directory of the model (default: the latest one under outputs/)")
    test_file: str = option(str(DATA / "sample" / "test.jsonl"), "documents to score, JSON lines")
    train_file: str | None = option(None, "training documents, to score unseen mentions and a dictionary separately")
    compare: list[str] | None = option(
        None, "other models to test against on the same documents: any GLiNER2, trained here or not, and GLiNER v1"
    )
    average: bool = option(False, "the mean scores of all these models as one more model")
    labels: list[str] | None = option(None, "labels to ask for (default: those of the model)")
    label_names: str = option(
        str(DATA / "label_names.yaml"), "YAML file of names to ask for if a model was not trained on these labels"
    )
    threshold: float | None = option(
        None, "lowest score of a span; no score is above 1 (default: the model's own)", **SCORES
    )
    tune_threshold: bool = option(False, "choice of the threshold on the documents being scored; optimistic")
    probe_base: str | None = option(
        None, "base model: what the tasks that were not trained were worth before and are now, on --probe_file"
    )
    probe_file: str = option(
        str(DATA / "sample" / "tasks" / "test.jsonl"), "documents with these tasks, JSON lines, for --probe_base"
    )
    overlap_policy: str | None = option(
        None,
        "rule for overlapping spans of a label (default: gliner2's, greedy; for GLiNER2.5 flat)",
        choices=lambda: OVERLAP_POLICIES,
    )
    metric: str = option("string_f1", "metric of targets, comparisons and --min_f1", choices=lambda: METRICS)
    targets: list[str] = option(TARGETS, "F1 to reach, overall and by label")
    min_f1: float | None = option(None, "overall F1 below which the exit status is 1", **SCORES)
    on_bad_row: str = option("raise", "what to do with a malformed row", choices=["raise", "skip"])
    per_device_eval_batch_size: int = option(16, "windows per batch and process", at_least=1)
    plain_gliner2: bool = option(False, "scores of the model as plain gliner2 loads it, by word splitter, for the card")
    report_dir: str | None = option(None, "report directory (default: report/ beside the model, or outputs/report)")


@dataclass
class Evaluation:
    """The predictions of a model on the documents, and their scores."""

    name: str
    directory: Path
    schema: LabelSchema
    documents: Dataset
    """With words, windows and outcomes of gold spans, except for GLiNER v1."""
    splitter: WordSplitter | None
    """``None`` for GLiNER v1."""
    predictions: Predictions
    overlap_policy: str | None
    model: KoreanExtractor | None = None
    """``None`` for GLiNER v1."""
    prompt: LabelSchema | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    """The label for each name that the prompt asks for."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Of the tasks beside entities."""
    threshold: float = 0.5
    threshold_source: str = "gliner2's default, because none is saved with the model"

    @cached_property
    def examples(self) -> list[Example]:
        return [Example.from_row(row) for row in self.documents]

    def at_threshold(self, threshold: float) -> list[list[Span]]:
        return self.predictions.at_threshold(threshold, self.overlap_policy)

    @cached_property
    def spans(self) -> list[list[Span]]:
        return self.at_threshold(self.threshold)

    @cached_property
    def scores(self) -> dict[str, Scores]:
        return score_all(self.examples, self.spans, self.schema.labels)

    @cached_property
    def found(self) -> list[Found]:
        return self.predictions.found(self.thresholds)

    def sweep(self, metric: str) -> dict[float, Scores]:
        return sweep(metric, self.examples, self.at_threshold, self.schema.labels)


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    targets = parse_targets(args.targets)
    if args.average and not args.compare:
        raise GlinerkoError("--average needs several models: pass the others as --compare")
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    set_log_levels(accelerator.is_main_process)
    console = make_console(accelerator.is_main_process)

    name = args.model or str(latest_model(Path("outputs")))
    source = fetch(name)
    if is_gliner_v1(source):
        raise GlinerkoError(f"{name}: a GLiNER v1 model, which can be compared with but not reported on: --compare")
    trained = Settings.from_config(read_config(source), source)
    with accelerator.main_process_first():
        rows, skipped = load_rows(
            args.test_file, labels=args.labels, named_labels_only=not trained.labels, on_bad_row=args.on_bad_row
        )
    if args.targets != TARGETS:
        named = label_schema(rows)
        tasks = (trained if trained.labels or trained.tasks else named).tasks
        check_targets(targets, [*(args.labels or trained.labels or named.labels), *(task.name for task in tasks)])
    if args.average and not args.labels:
        check_same_labels([name, *args.compare], label_schema(rows))
    directory = Path(args.report_dir or (Path(name).parent if Path(name).is_dir() else Path("outputs")) / REPORT)
    if accelerator.is_main_process:
        check_writable(directory)
    evaluations = [evaluate(accelerator, each, rows, args, console) for each in (name, *(args.compare or ()))]
    if not accelerator.is_main_process:
        return
    ours, labels = evaluations[0], evaluations[0].schema.labels

    # 1. Is it good enough, and how sure is that?
    result = describe(ours, args, skipped, targets)
    curve, result["average_precision"] = precision_recall(ours.examples, ours.predictions.spans, labels)

    # 2. Against what?
    seen: set[tuple[str, str]] = set()
    if args.train_file:
        training, _ = load_rows(args.train_file, labels=args.labels, on_bad_row=args.on_bad_row)
        seen = {pair for row in training for pair in Example.from_row(row).gold_strings}
        result |= compare_with_training(ours, training, seen)
    if args.compare:
        models = [(each.name, each.threshold, each.scores[args.metric]) for each in evaluations]
        models += [score_average(evaluations, args)] if args.average else []
        result["comparisons"] = compare_scores(models)
        scored = annotated_tasks(ours.examples, ours.prompt.tasks)
        result["task_comparisons"] = {task.name: compare_tasks(evaluations, task) for task in scored}
    if args.probe_base:
        result["probe"] = probe(accelerator, ours, args)
    if args.plain_gliner2 and labels:
        result["plain_gliner2"] = score_plain_gliner2(ours, args, accelerator)

    # 3. Why does it fail?
    outcomes = [span_outcomes(row) for row in ours.documents]
    asked = ours.prompt, ours.asked, ours.spans, args.per_device_eval_batch_size
    with accelerator.autocast():  # the fast attention keeps what it computed in the precision of the predictions
        unscored = find_unscored(ours.model, ours.documents, *asked)
    judged = judge_spans(ours.examples, outcomes, ours.spans, labels, seen, ours.splitter.particles, unscored)
    result["errors"] = count_errors(judged)

    tell = partial(console.print, style="yellow", soft_wrap=True)
    write_report(directory, result, ours.scores, curve, ours.examples, judged, tell)
    candidates = zip(ours.examples, ours.predictions.candidates, strict=True)
    write_json_lines(
        directory / REPORT_CANDIDATES,
        ({"id": each.id, "spans": [[*span.key, round(span.score, 4)] for span in spans]} for each, spans in candidates),
    )
    for shown in (*evaluation_tables(result), *evaluation_warnings(result)):
        console.print(shown)
    console.print(f"Report {directory / 'index.html'}, report.md, report.json and plots beside it")

    f1 = result[args.metric]["overall"]["f1"]
    if args.min_f1 is not None and f1 < args.min_f1:
        console.print(f"{args.metric} {f1:.4f} is below {args.min_f1}", style="red")
        sys.exit(1)


def evaluate(accelerator: Accelerator, name: str, rows: Dataset, args: Arguments, console: Console) -> Evaluation:
    """Load a model and predict every document once, with the words, width, labels and threshold of the model."""
    directory = fetch(name)
    version_1 = is_gliner_v1(directory)
    model = (load_gliner if version_1 else load_extractor)(directory, map_location=accelerator.device)
    trained = None if version_1 else model.label_schema
    schema = choose_schema(trained, args.labels) if trained else label_schema(rows, args.labels)
    require_labels(rows, schema, args.test_file)
    names = {} if trained else read_label_names(args.label_names, (name, "gliner" if version_1 else "gliner2"))
    asked = {names.get(label, label): label for label in schema.labels}
    if len(asked) < len(schema.labels):
        raise DataError(f"{args.label_names}: two of {', '.join(schema.labels)} have one name")
    descriptions = {names.get(label, label): text for label, text in schema.descriptions.items()}
    prompt = LabelSchema(tuple(asked), descriptions, () if version_1 else schema.tasks)
    if version_1:
        documents, splitter = rows, None
        predict = partial(predict_with_gliner, model, rows["text"][:], prompt.labels)
    else:
        with accelerator.main_process_first():
            documents, splitter = model.align(rows, prompt), model.processor.word_splitter.splitter
        read_faster(model)
        predict = partial(predict_spans, model, documents, prompt)
    floor = FLOOR if args.threshold is None else min(FLOOR, args.threshold)
    predict = partial(predict, batch_size=args.per_device_eval_batch_size, floor=floor)
    predictions = predict_on_all_processes(accelerator, len(rows), predict).with_labels(asked)
    evaluation = Evaluation(name, directory, schema, documents, splitter, predictions, args.overlap_policy)
    evaluation.model, evaluation.prompt, evaluation.asked = None if version_1 else model, prompt, asked
    if prompt.tasks and not version_1:
        evaluation.thresholds = choose_task_thresholds(evaluation, args)

    saved = None if version_1 else model.threshold
    if args.tune_threshold:
        evaluation.threshold = best_threshold(evaluation.sweep(args.metric))
        evaluation.threshold_source = "chosen on these very documents: optimistic"
    elif args.threshold is not None:
        evaluation.threshold, evaluation.threshold_source = args.threshold, "as requested"
    elif saved is not None:
        evaluation.threshold, evaluation.threshold_source = saved, "chosen on validation documents"
    if args.tune_threshold or saved is None:
        console.print(f"{name}: threshold {evaluation.threshold:.2f}, {evaluation.threshold_source}.", style="yellow")
    return evaluation


def choose_task_thresholds(evaluation: Evaluation, args: Arguments) -> dict[str, float]:
    """The thresholds of the tasks beside entities: as requested, the model's own, or gliner2's default."""
    tasks = evaluation.prompt.tasks
    if args.tune_threshold:
        return choose_thresholds(evaluation.examples, evaluation.predictions.found, tasks)
    own = {task.name: evaluation.model.settings.thresholds.get(task.name, 0.5) for task in tasks}
    requested = [] if args.threshold is None else [task.name for task in tasks if task.kind != CLASSIFICATIONS]
    return own | dict.fromkeys(requested, args.threshold)


def describe_tasks(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """The record of the scores of every task beside entities that the documents were annotated for."""
    examples, found = evaluation.examples, evaluation.found
    tasks = annotated_tasks(examples, evaluation.prompt.tasks)
    return {task.name: describe_task(examples, found, task, evaluation.thresholds[task.name]) for task in tasks}


def check_same_labels(names: Sequence[str], named: LabelSchema) -> None:
    """Check that all models are asked for the same labels: their own, or those that the documents name.

    Raises:
        DataError: They are not.
    """
    asked = set()
    for source in map(fetch, names):
        own = () if is_gliner_v1(source) else Settings.from_config(read_config(source), source).labels
        asked.add(frozenset(own or named.labels))
    if len(asked) > 1:
        raise DataError("--average: these models have different labels; name some with --labels")


def score_average(evaluations: Sequence[Evaluation], args: Arguments) -> tuple[str, float, Scores]:
    """Name, threshold and scores of the mean of the models, as ``scripts/predict.py`` reads with all of them."""
    ours = evaluations[0]
    threshold = mean(each.threshold for each in evaluations)
    found = zip(*(each.predictions.candidates for each in evaluations), strict=True)
    predictions = replace(ours.predictions, candidates=list(map(average_spans, found)))
    spans = predictions.at_threshold(threshold, ours.overlap_policy)
    scores = METRICS[args.metric].score(ours.examples, spans, ours.schema.labels)
    return f"mean of these {len(evaluations)}", threshold, scores


def compare_tasks(evaluations: Sequence[Evaluation], task: Task) -> list[dict[str, Any]]:
    """The models that were asked the same task, side by side on the same documents; see :func:`compare_scores`."""
    return compare_scores(
        [
            (
                each.name,
                each.thresholds[task.name] if task.has_threshold else None,
                score_main(each.examples, each.found, task),
            )
            for each in evaluations
            if task.name in each.thresholds
        ]
    )


def probe(accelerator: Accelerator, ours: Evaluation, args: Arguments) -> dict[str, Any]:
    """What the tasks that the model was not trained for are worth on small documents, before the training and now.

    Each model is asked these tasks alone, at gliner2's default threshold.
    """
    rows, _ = load_rows(args.probe_file)
    known = {task.kind for task in ours.model.settings.tasks}
    tasks = tuple(task for task in label_schema(rows).tasks if task.kind not in known)
    if not tasks:
        raise GlinerkoError(f"--probe_base: the model was trained for all tasks of {args.probe_file}")
    asked, examples, scores = LabelSchema((), {}, tasks), list(map(Example.from_row, rows)), {}
    for name, model in (
        (args.probe_base, load_extractor(fetch(args.probe_base), map_location=accelerator.device)),
        (ours.name, ours.model),
    ):
        read_faster(model)
        documents = model.split(rows, asked)
        predictions = predict_spans(model, documents, asked, batch_size=args.per_device_eval_batch_size)
        found = predictions.found(dict.fromkeys((task.name for task in tasks), 0.5))
        scores[name] = {task.name: describe_task(examples, found, task, 0.5) for task in tasks}
    return {"file": args.probe_file, "documents": len(rows), "scores": scores}


def describe(ours: Evaluation, args: Arguments, bad_rows_skipped: int, targets: dict[str, float]) -> dict[str, Any]:
    """The record of a model's scores, with those of a perfect model that has the same words, width and windows."""
    report = report_data(ours.documents, ours.schema, args.test_file)
    report.bad_rows_skipped = bad_rows_skipped
    labels, tasks = ours.schema.labels, describe_tasks(ours)
    ceiling = score_all(ours.examples, [perfect_spans(row) for row in ours.documents], labels)
    return {
        "model": ours.name,
        "weights": weights_digest(ours.directory),
        "test_file": args.test_file,
        "metric": args.metric,
        "documents": len(ours.examples),
        "threshold": ours.threshold,
        "overlap_policy": args.overlap_policy or ours.predictions.overlap_policy,
        "threshold_source": ours.threshold_source,
        **{metric: scores.to_dict() for metric, scores in ours.scores.items()},
        "modes": score_modes(ours.examples, ours.spans, labels),
        "ceiling": {metric: scores.to_dict() for metric, scores in ceiling.items()},
        "gate": ours.model.gate,
        "gates": ours.predictions.gates,
        "closed_gates": ours.predictions.closed_gates,
        "data": report.to_dict(),
        "targets": judge_targets(ours.scores[args.metric].to_dict(), tasks, targets),
        "tasks": tasks,
        "sweep": {value: scores.overall.to_dict() for value, scores in ours.sweep(args.metric).items()},
    }


def compare_with_training(ours: Evaluation, training: Dataset, seen: set[tuple[str, str]]) -> dict[str, Any]:
    """The scores of mentions that are not ``seen``, those of a dictionary of training mentions, and shared texts."""
    labels, examples = ours.schema.labels, ours.examples
    dictionary = match_dictionary(map(Example.from_row, training), [example.text for example in examples], labels)
    return {
        "unseen": score_strings(examples, ours.spans, labels, leave_out=seen).to_dict(),
        "dictionary": score_strings(examples, dictionary, labels).to_dict(),
        "texts_shared_with_training": shared_texts(training, ours.documents),
    }


def score_plain_gliner2(ours: Evaluation, args: Arguments, accelerator: Accelerator) -> dict[str, float]:
    """F1 of the same weights as plain gliner2 loads and runs them, by word splitter."""
    labels = ours.schema.labels
    types = {label: ours.schema.descriptions.get(label) or {} for label in labels}
    texts = [example.text for example in ours.examples]
    splitters: dict[str, str | WordSplitter] = {"whitespace": "whitespace", "char": "char"}
    if ours.splitter.name not in splitters:
        splitters[f"{type(ours.splitter).__name__}()"] = ours.splitter
    scores = {}
    for name, splitter in splitters.items():
        options = {"word_splitter": splitter, "map_location": accelerator.device}
        model, size = AutoExtractor.from_pretrained(str(ours.directory), **options), args.per_device_eval_batch_size
        options = {"include_spans": True, "overlap_policy": gliner2_policy(args.overlap_policy)}
        documents = model.batch_extract_entities(texts, types, size, ours.threshold, **options)
        spans = [
            [Span(s["start"], s["end"], label) for label, each in document["entities"].items() for s in each]
            for document in documents
        ]
        scores[name] = METRICS[args.metric].score(ours.examples, spans, labels).overall.f1
    return scores


def parse_targets(targets: list[str]) -> dict[str, float]:
    """``{"overall": 0.5, label: ...}``.

    Raises:
        DataError: An entry is not ``name=F1``, or a name stands twice.
    """
    parsed = {}
    for name, _, value in (entry.rpartition("=") for entry in targets):
        with suppress(ValueError):
            parsed[name] = float(value)
    if "" in parsed or len(parsed) < len(targets) or not all(0 <= value <= 1 for value in parsed.values()):
        raise DataError(
            f"--targets takes entries like overall=0.50, F1 from 0 to 1 and each name once, got {' '.join(targets)!r}"
        )
    return parsed


def check_targets(targets: dict[str, float], labels: Sequence[str]) -> None:
    """Check that there is a score for every target.

    Raises:
        DataError: One names neither a label nor ``overall``.
    """
    unknown = targets.keys() - {"overall", *labels}
    if unknown:
        raise DataError(
            f"--targets: no score is named {', '.join(sorted(unknown))}; there are overall, {', '.join(labels)}"
        )


def judge_targets(scores: dict, tasks: dict[str, dict], targets: dict[str, float]) -> dict[str, dict]:
    """Each F1 with its interval, its target, and the verdict: PASS, MISS, or empty without a target or gold.

    Args:
        scores: Of entities.
        tasks: The records of the other tasks, each with its main score first.
    """
    named = {"overall": scores["overall"], **scores["labels"]} if scores["labels"] else {}
    named |= {name: next(iter(record["scores"].values()))["overall"] for name, record in tasks.items()}
    judged = {}
    for name, score in named.items():
        target = targets.get(name)
        verdict = "" if target is None or not score["gold"] else "PASS" if score["f1"] >= target else "MISS"
        judged[name] = {"f1": score["f1"], "f1_interval": score["f1_interval"], "target": target, "verdict": verdict}
    return judged


def read_label_names(file: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """The name to ask for, by label: from the first of ``kinds`` (id of the model, its kind) that the file lists.

    Raises:
        DataError: The file cannot be read or has another form.
    """

    def parse(content: Any) -> dict[str, str]:
        mapping = dict(content or {})
        names = next((mapping[kind] for kind in kinds if kind in mapping), {})
        if not all(isinstance(text, str) for entry in names.items() for text in entry):
            raise ValueError("a label and its name must be text")
        return names

    return read_yaml(file, "`kind: {label: name}`", parse)


def choose_schema(trained: LabelSchema, labels: list[str] | None) -> LabelSchema:
    """The labels to ask for, all of the model's by default, with the descriptions that it was trained with.

    Raises:
        LoadError: One of ``labels`` is not a label of the model.
    """
    chosen = check_labels(labels or trained.labels)
    unknown = set(chosen) - set(trained.labels)
    if unknown:
        raise LoadError(
            f"the model was not trained for {', '.join(sorted(unknown))}; it knows {', '.join(trained.labels)}"
        )
    return LabelSchema(chosen, trained.descriptions, trained.tasks)


def latest_model(directory: Path) -> Path:
    """The model saved last under ``directory``.

    Raises:
        GlinerkoError: There is none.
    """
    models = sorted(directory.glob(f"*/{BEST}/config.json"), key=lambda path: path.stat().st_mtime)
    if not models:
        raise GlinerkoError(f"no trained model under {directory}/: pass --model, or train one first (`make train`)")
    return models[-1].parent


if __name__ == "__main__":
    run(main)
