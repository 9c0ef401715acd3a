"""Give a GLiNER2 a Korean encoder and fine-tune it on labelled documents.

    accelerate launch scripts/train_gliner2_korean_encoder.py
    accelerate launch scripts/train_gliner2_korean_encoder.py --train_file train.jsonl --output_dir outputs/medical
    accelerate launch --config_file accelerate_configs/multi_gpu.yaml scripts/train_gliner2_korean_encoder.py run.yaml
    accelerate launch scripts/train_gliner2_korean_encoder.py run.yaml --dry_run --price_per_hour 2.5
    accelerate launch scripts/train_gliner2_korean_encoder.py run.yaml --resume_from_checkpoint latest

The first command trains on the bundled sample corpus. A YAML or JSON file may stand before the flags. The best model of
the run, by F1 on the validation documents, is written to OUTPUT_DIR/best. A run that is stopped (SIGTERM, SIGINT,
--max_train_minutes) finishes its step, writes a checkpoint and exits with status 75. Resumed, it ends with the same
weights as a run that was never stopped.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DistributedType, set_seed
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from rich.console import Console
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_scheduler

from glinerko.cli import parse_arguments
from glinerko.cli import run as run_script
from glinerko.common import (
    GlinerkoError,
    Stopped,
    TrainingError,
    check_output,
    first_line,
    write_json,
)
from glinerko.corpus.reading import label_schema, require_labels, write_rows
from glinerko.corpus.report import WAYS, report_data, report_pieces
from glinerko.corpus.rows import Example
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.splits import load_splits, shared_texts
from glinerko.corpus.windows import WINDOW_OVERLAP, training_windows
from glinerko.hub import read_config
from glinerko.model.extractor import SCORE_TOLERANCE, KoreanExtractor, load_and_compare
from glinerko.model.lora import add_lora
from glinerko.model.prediction import Predictions, predict_on_all_processes, predict_spans
from glinerko.model.settings import Settings, Validation
from glinerko.model.swap import swap_encoder, weight_checksum
from glinerko.scoring.metrics import Scores, best_threshold, sweep
from glinerko.scoring.tasks import Standing, annotated_tasks, choose_thresholds, score_main
from glinerko.sharing.card import write_card
from glinerko.sharing.publishing import prepare_repository, publish, verify_saved
from glinerko.sharing.tables import data_table, piece_table, plan_table, score_table, swap_table
from glinerko.training import checkpoints
from glinerko.training.arguments import DataArguments, ModelArguments, TrainingArguments
from glinerko.training.batches import WindowCollator, find_batch_size, longest_rows, out_of_memory
from glinerko.training.optimizer import (
    MAX_GRADIENT_NORM,
    average_weights,
    averaged_weights,
    check_disk_space,
    check_gradient,
    check_step,
    disk_space,
    learning_rates,
    parameter_groups,
    whole_parameters,
)
from glinerko.training.run import Run, StopRequest, start_run
from glinerko.training.speed import speed_up
from glinerko.training.trial import RunPlan, peak_memory, wait

ARGUMENTS = (ModelArguments, DataArguments, TrainingArguments)
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
PLANNED_STEPS, PLANNED_DOCUMENTS = 8, 40
"""How much is timed for the plan of a dry run."""


@dataclass
class Progress:
    """Where a run is. All of it is in every checkpoint; weights and optimizer are saved beside it."""

    epoch: int = 1
    done: int = 0
    """Batches of this epoch that are done."""
    step: int = 0
    """Optimizer steps."""
    sums: torch.Tensor | None = None
    """Of this epoch and process: windows, pieces, and the losses of :meth:`Architecture.summed_losses`."""
    best_epoch: int = 0
    best: Standing = field(default_factory=Standing)
    """Of the best epoch."""

    def is_best(self, standing: Standing) -> bool:
        """Whether this epoch is the best so far; if so it is recorded."""
        # As long as nothing is found, every epoch is the best so far: patience starts with the first F1 above 0.
        if self.best.value and standing.value <= self.best.value:
            return False
        self.best_epoch, self.best = self.epoch, standing
        return True

    def to_dict(self, sums: list[float]) -> dict[str, Any]:
        """The content for a checkpoint, with the sums of all processes."""
        best = {"epoch": self.best_epoch, **self.best.to_dict()}
        return {"epoch": self.epoch, "done": self.done, "step": self.step, "best": best, "sums": sums}

    @classmethod
    def from_dict(cls, content: dict[str, Any], schema: LabelSchema) -> Progress:
        """The progress in the content of a checkpoint."""
        best, where = content["best"], {name: content[name] for name in ("epoch", "done", "step")}
        standing = Standing.from_dict(best, schema) if best["epoch"] else Standing()
        return cls(**where, sums=torch.tensor(content["sums"]), best_epoch=best["epoch"], best=standing)


@dataclass
class Training:
    """What the loop works with; :func:`rehearse` and :func:`prepare` set the last fields."""

    run: Run
    args: TrainingArguments
    extractor: KoreanExtractor
    windows: Dataset
    validation: Dataset
    collator: WindowCollator
    identity: dict[str, Any]
    """What a resumed run must have in common with this one."""

    # Made by rehearse() and prepare().
    batch_size: int = 0
    model: torch.nn.Module = None
    """The extractor as Accelerate prepared it."""
    optimizer: torch.optim.Optimizer = None
    scheduler: torch.optim.lr_scheduler.LRScheduler = None
    loader: DataLoader = None
    total_steps: int = 0
    epochs: int = 0
    bar: tqdm = None

    @cached_property
    def examples(self) -> list[Example]:
        """The validation documents."""
        return [Example.from_row(row) for row in self.validation]

    @property
    def accumulation(self) -> int:
        """Batches per optimizer step: more of them if the batch was made smaller to fit in memory."""
        wanted = self.args.per_device_train_batch_size
        return self.args.gradient_accumulation_steps * math.ceil(wanted / self.batch_size)


def main() -> None:
    model_args, data_args, args = parse_arguments(*ARGUMENTS, description=__doc__)
    if args.dry_run:  # an earlier run is left as it is
        args.output_dir, args.overwrite_output_dir = f"{args.output_dir}.dry-run", True
        args.resume_from_checkpoint = None
    check_output(Path(args.output_dir) / checkpoints.VALIDATION, data_args.train_file, data_args.validation_file)
    run = start_run(args, checkpoints.BEST, report_to=args.report_to)
    accelerator, console = run.accelerator, run.console
    if args.weight_averaging and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise GlinerkoError("--weight_averaging: not under DeepSpeed, which steps on weights of its own; FSDP does it")
    if args.push_to_hub and accelerator.is_main_process:  # a token without write access fails now
        name = args.hub_model_id or run.output_dir.resolve().name
        args.hub_model_id = prepare_repository(name, token=args.hub_token, private=args.hub_private_repo)

    # 1. The documents.
    with accelerator.main_process_first():
        rows, sources, skipped = load_data(data_args, args.seed, console)
    schema = label_schema(rows["training"], data_args.labels)
    if not data_args.label_descriptions:
        schema = schema.without_descriptions()
    require_labels(rows["validation"], schema, sources["validation"])

    # 2. The swap.
    extractor, swap_report = swap_encoder(
        model_args.base_model, model_args.encoder, schema=schema, seed=args.seed, **model_args.options
    )
    console.print(swap_table(swap_report))
    if model_args.lora:
        console.print(add_lora(extractor, model_args.base_model))

    # 3. Words, windows and targets, computed once.
    extractor.configure(window={"max_length": data_args.max_length, "window_overlap": WINDOW_OVERLAP})
    with accelerator.main_process_first():
        aligned = {"training": extractor.align(rows["training"])}
        windows = training_windows(aligned["training"], schema)
        extractor.fit_to(windows)
        aligned["validation"] = extractor.align(rows["validation"])
    arguments = {**asdict(model_args), **asdict(data_args), **asdict(args), "hub_token": None}
    if data_args.dataset_name and Path(data_args.dataset_name).exists():  # so that a card never takes it for a Hub id
        arguments["dataset_name"] = str(Path(data_args.dataset_name).resolve())
    if accelerator.is_main_process:
        write_json(run.output_dir / checkpoints.TRAINING_ARGUMENTS, arguments)
        write_json(run.output_dir / checkpoints.ENVIRONMENT, run.describe())
        write_json(run.output_dir / checkpoints.SWAP_REPORT, asdict(swap_report))
        write_rows(rows["validation"], run.output_dir / checkpoints.VALIDATION)
        report_all(aligned, extractor, sources, skipped, run)
    identity = {
        **checkpoints.run_identity(accelerator, model_args, data_args, args),
        "training documents": checkpoints.dataset_digest(windows),
        "validation documents": checkpoints.dataset_digest(aligned["validation"]),
        "swapped model": weight_checksum(extractor),
    }
    resumed = checkpoints.find_resumed(
        run.output_dir, args.resume_from_checkpoint, identity, args.resume_anyway, console
    )

    # 4. Everything once, then the training.
    collator = WindowCollator(
        extractor.processor, schema, data_args.prompt_augmentation, data_args.word_dropout, args.seed
    )
    training = Training(run, args, extractor, windows, aligned["validation"], collator, identity)
    extractor.to(accelerator.device)
    attention = speed_up(extractor, extractor.encoder, args.attention_backend, accelerator)
    rehearse(training)
    prepare(training)
    announce(training, attention)
    if args.dry_run:
        plan_run(training, attention)
        return
    run.start_trackers(arguments)
    progress = fit(training, resumed)

    # 5. The result.
    finish(training, progress)


def load_data(
    args: DataArguments, seed: int, console: Console
) -> tuple[dict[str, Dataset], dict[str, str], dict[str, int]]:
    """See :func:`load_splits`; without a file or data set, the bundled sample corpus."""
    files = args.train_file, args.validation_file
    if args.dataset_name is None and args.train_file is None:
        files = str(SAMPLE / "train.jsonl"), str(SAMPLE / "validation.jsonl")
        console.rule("No --train_file: training on the bundled sample corpus, good for a demo only", style="yellow")
    return load_splits(
        *files,
        args.dataset_name,
        validation_split=args.validation_split,
        labels=args.labels,
        on_bad_row=args.on_bad_row,
        max_train_samples=args.max_train_samples,
        seed=seed,
    )


def fit(training: Training, resumed: tuple[Path, dict[str, Any]] | None) -> Progress:
    """Train, score the validation documents after every epoch, and keep the best model and the newest checkpoints."""
    run, args = training.run, training.args
    progress = resume(training, *resumed) if resumed else Progress()
    sums = torch.zeros(3 + len(training.extractor.loss_parts)) if progress.sums is None else progress.sums
    progress.sums = sums.to(run.accelerator.device)
    if run.accelerator.is_main_process:
        checkpoints.trim_history(run.output_dir / checkpoints.HISTORY, progress.epoch)
    with interruptible(training, progress):
        while progress.epoch <= training.epochs:
            if progress.best_epoch and progress.epoch - 1 - progress.best_epoch >= args.early_stopping_patience:
                run.accelerator.print(f"No better F1 for {args.early_stopping_patience} epochs: stopped early.")
                break
            train_epoch(training, progress)
            validate_and_keep_best(training, progress)
            progress.epoch, progress.done = progress.epoch + 1, 0
            progress.sums.zero_()
            if args.checkpointing_steps == "epoch":
                checkpoint(training, progress)
    return progress


def train_epoch(training: Training, progress: Progress) -> None:
    """Do the steps of an epoch that are not done yet.

    Raises:
        Stopped: A stop was requested; a checkpoint is written.
    """
    run, args, model, loader = training.run, training.args, training.model, training.loader
    accelerator = run.accelerator
    every = args.checkpointing_steps if isinstance(args.checkpointing_steps, int) else 0
    logged, since = progress.sums.clone(), time.monotonic()  # what the trackers were told of this epoch
    training.collator.epoch = progress.epoch
    loader.set_epoch(progress.epoch)
    model.train()
    batches = iter(skip_first_batches(loader, progress.done) if progress.done else loader)
    while progress.step < training.total_steps and (group := list(islice(batches, training.accumulation))):
        sums, norm, stopping = take_step(training, progress.step, group)
        progress.step += 1
        progress.done += len(group)
        progress.sums += sums
        show_step(training, progress, sums)
        if accelerator.trackers and progress.step % args.logging_steps == 0:
            log_step(training, progress.step, progress.sums - logged, time.monotonic() - since, norm)
            logged, since = progress.sums.clone(), time.monotonic()
        if stopping:
            raise Stopped(
                f"{run.stop.reason} after step {progress.step}: {checkpoint(training, progress)} is complete; the same "
                "command with --resume_from_checkpoint latest continues from it"
            )
        if every and progress.step % every == 0:
            checkpoint(training, progress)


def take_step(training: Training, step: int, group: list[dict]) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Do optimizer step number ``step`` (from 0) on some batches.

    Returns:
        What :func:`backward` returns, and between its parts the norm of the gradient.
    """
    accelerator, model, optimizer = training.run.accelerator, training.model, training.optimizer
    set_seed(training.args.seed + step, device_specific=True)
    training.extractor.anneal(step, training.total_steps)
    sums, stopping = backward(accelerator, model, group, training.run.stop)
    norm = accelerator.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    ids = (name for entry in group for name in entry["ids"])
    check_gradient(norm, accelerator.mixed_precision, f"documents {', '.join(ids)}")
    optimizer.step()
    training.scheduler.step()
    optimizer.zero_grad()
    return sums, norm, stopping


def backward(
    accelerator: Accelerator, model: torch.nn.Module, group: list[dict], stop: StopRequest
) -> tuple[torch.Tensor, bool]:
    """Add up the gradients of the batches of one optimizer step.

    The loss is a sum over windows. It is divided by the number of windows in the step, over all processes.

    Returns:
        The sums of this process (see :attr:`Progress.sums`), and whether any process should stop.
    """
    extractor = accelerator.unwrap_model(model)
    windows = sum(len(entry["batch"]) for entry in group)
    everywhere = accelerator.reduce(torch.tensor([windows, stop.asked], device=accelerator.device), reduction="sum")
    windows_everywhere, stopping = everywhere.tolist()
    sums = torch.zeros(3 + len(extractor.loss_parts), device=accelerator.device)
    sums[0] = windows
    for entry in group:
        last = entry is group[-1]
        accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in `accelerator.backward`
        with nullcontext() if last else accelerator.no_sync(model):
            outputs = model(entry["batch"])
            check_step(outputs, extractor, entry["batch"], entry["ids"])
            losses = extractor.summed_losses(outputs, len(entry["batch"]))
            losses[0] = losses[0] + extractor.touch_heads() if extractor.settings.tasks else losses[0]
            # DDP averages gradients over processes, so multiply by num_processes to get the sum.
            accelerator.backward(losses[0] * accelerator.num_processes / windows_everywhere)
        sums[1] += entry["batch"].attention_mask.sum()
        sums[2:] += torch.stack(losses).detach()
    return sums, bool(stopping)


def validate_and_keep_best(training: Training, progress: Progress) -> None:
    """Score the validation documents, save the model if it is the best so far, and record the epoch."""
    run, args, extractor = training.run, training.args, training.extractor
    accelerator, metric = run.accelerator, args.metric_for_best_model
    with averaged_weights(training.optimizer):
        with whole_parameters(training.model):
            predictions = predict(training)
            standing = stand(training, predictions)
            is_best = progress.is_best(standing)
            reference_scores = extractor.reference_scores() if is_best else None
        weights = accelerator.get_state_dict(training.model) if is_best else None
        if weights and accelerator.is_main_process:
            f1, thresholds = standing.scores.overall.f1, {name: value for name, (value, _) in standing.tasks.items()}
            claim = Validation(progress.epoch, metric, f1, accelerator.mixed_precision, reference_scores)
            extractor.configure(threshold=standing.threshold, thresholds=thresholds, validation=claim)
            save = partial(extractor.save_pretrained, state_dict=weights)
            checkpoints.replace_directory(run.output_dir / checkpoints.BEST, save)
    losses = mean_losses(training, accelerator.reduce(progress.sums, reduction="sum"))
    if accelerator.is_main_process:
        rates = {f"{name}_learning_rate": rate for name, rate in learning_rates(training.optimizer).items()}
        where = {"epoch": progress.epoch, "step": progress.step}
        tasks = {name: {"threshold": at, **scores.to_dict()} for name, (at, scores) in standing.tasks.items()}
        entry = {**where, **losses, **rates, "threshold": standing.threshold, metric: standing.scores.to_dict()}
        entry |= {"tasks": tasks, "mean_f1": standing.value} if tasks else {}
        checkpoints.trim_history(run.output_dir / checkpoints.HISTORY, progress.epoch, entry)
        reached = [f"{metric} {standing.scores.overall.f1:.4f} at threshold {standing.threshold:.2f}"]
        reached = (reached if standing.scores.labels else []) + [
            f"{name} {scores.overall.f1:.4f}" for name, (_, scores) in standing.tasks.items()
        ]
        training.bar.write(
            f"epoch {progress.epoch}: loss {losses['loss']:.2f}, {', '.join(reached)}"
            f"{', best so far' if is_best else ''}"
        )
        if predictions.closed_gates:
            training.bar.write(f"  {extractor.gate} shut: {predictions.closed_gates} of {predictions.gates}")
    accelerator.wait_for_everyone()
    figures = {f"validation/{name}": value for name, value in flat_scores(standing).items()}
    accelerator.log({**figures, "epoch": progress.epoch}, step=progress.step)


def stand(training: Training, predictions: Predictions) -> Standing:
    """The scores of predictions for the validation documents, each task at its best threshold."""
    schema, examples, metric = training.collator.schema, training.examples, training.args.metric_for_best_model
    threshold, scores = 0.5, Scores()
    if schema.labels:
        by_threshold = sweep(metric, examples, predictions.at_threshold, schema.labels)
        threshold = best_threshold(by_threshold)
        scores = by_threshold[threshold]
    scored = annotated_tasks(examples, schema.tasks)
    thresholds = choose_thresholds(examples, predictions.found, scored)
    found = predictions.found(thresholds) if thresholds else []
    tasks = {task.name: (thresholds[task.name], score_main(examples, found, task)) for task in scored}
    return Standing(threshold, scores, tasks)


def finish(training: Training, progress: Progress) -> None:
    """Print and log the scores of the best epoch, write the card, and publish if requested."""
    run, args, best = training.run, training.args, training.run.output_dir / checkpoints.BEST
    accelerator, console = run.accelerator, run.console
    best_scores = {args.metric_for_best_model: progress.best.scores} if progress.best.scores.labels else {}
    best_scores |= {name: scores for name, (_, scores) in progress.best.tasks.items()}
    console.print(score_table("Validation", {name: scores.to_dict() for name, scores in best_scores.items()}))
    console.print(
        f"Best epoch {progress.best_epoch}, threshold {progress.best.threshold:.2f}\n"
        f"Model    {best}\nHistory  {run.output_dir / checkpoints.HISTORY}\n"
        f"Next     python scripts/eval.py --model {best} --test_file YOUR_TEST.jsonl",
    )
    figures = {f"best/{name}": value for name, value in flat_scores(progress.best).items()}
    if accelerator.is_main_process:
        card = write_card(best, args.hub_model_id).read_text(encoding="utf-8")
        figures |= {"best/epoch": progress.best_epoch}
        accelerator.log({**figures, "report": card})
    accelerator.wait_for_everyone()
    accelerator.end_training()  # the other processes do not wait for an upload
    if args.push_to_hub and accelerator.is_main_process:
        verify_saved(best, run.output_dir / checkpoints.VALIDATION)
        commit = publish(best, args.hub_model_id, token=args.hub_token, tell=console.print)
        console.print(f"Hub      {commit.commit_url}")


def rehearse(training: Training) -> None:
    """Do everything once that would otherwise fail after hours: a step, an evaluation, a save and a load.

    Sets ``batch_size``, and freezes the parameters that entity data does not train.

    Raises:
        TrainingError: What will not work, and what to do.
    """
    run, args, extractor, schema = training.run, training.args, training.extractor, training.collator.schema
    accelerator, wanted = run.accelerator, args.per_device_train_batch_size
    check_disk_space(
        extractor, run.output_dir, args.checkpoints_total_limit, bool(args.weight_averaging), checkpoints.BEST
    )
    training.batch_size, unused = find_batch_size(
        extractor, training.windows, schema, wanted, accelerator, args.auto_find_batch_size
    )
    if training.batch_size < wanted:
        step = f"{training.accumulation} × {training.batch_size} a step"
        accelerator.print(f"{wanted} windows do not fit in memory: {step}")
    if unused:
        run.console.print(f"Not trained, since these documents give no gradient: {', '.join(unused)}")
    with accelerator.autocast():
        predict_spans(extractor, training.validation, schema, indices=range(1))
    if accelerator.is_main_process:
        with tempfile.TemporaryDirectory(dir=run.output_dir, prefix="trial.") as directory:
            extractor.save_pretrained(directory)
            _, difference = load_and_compare(directory, extractor.reference_scores(), accelerator.device)
        if difference > SCORE_TOLERANCE:
            raise TrainingError("a model that was saved and loaded again gives other scores")
    accelerator.wait_for_everyone()


def prepare(training: Training) -> None:
    """Make the optimizer, the batches and the schedule, and let Accelerate prepare them."""
    args, accelerator = training.args, training.run.accelerator
    loader = DataLoader(
        training.windows,
        training.batch_size,
        shuffle=True,
        collate_fn=training.collator,
        num_workers=args.dataloader_num_workers,
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        training.extractor.flatten_scalars()
    rates = args.encoder_learning_rate, args.head_learning_rate
    optimizer = torch.optim.AdamW(parameter_groups(training.extractor, *rates, args.weight_decay), fused=True)
    if args.weight_averaging:
        average_weights(optimizer, args.weight_averaging)
    training.model, training.optimizer, training.loader = accelerator.prepare(training.extractor, optimizer, loader)
    steps_per_epoch = math.ceil(len(training.loader) / training.accumulation)
    training.total_steps = args.max_train_steps or args.num_train_epochs * steps_per_epoch
    training.epochs = math.ceil(training.total_steps / steps_per_epoch)
    # The schedule is not prepared: it counts optimizer steps, and Accelerate would advance it once per process.
    warmup_steps = math.ceil(args.warmup_ratio * training.total_steps)
    training.scheduler = get_scheduler("linear", training.optimizer, warmup_steps, training.total_steps)
    accelerator.register_for_checkpointing(training.scheduler)


def announce(training: Training, attention: str) -> None:
    accelerator = training.run.accelerator
    training.run.console.print(
        f"Training {training.epochs} epochs of {math.ceil(training.total_steps / training.epochs)} steps of "
        f"{training.batch_size * training.accumulation * accelerator.num_processes} windows on "
        f"{accelerator.num_processes} × {accelerator.device.type}, precision {accelerator.mixed_precision}, "
        f"attention {attention}"
    )


def plan_run(training: Training, attention: str) -> None:
    """Time some steps, an evaluation and a checkpoint, and print what the whole run will take."""
    run, args, extractor, accelerator = training.run, training.args, training.extractor, training.run.accelerator
    documents = range(0, len(training.validation), -(-len(training.validation) // PLANNED_DOCUMENTS))
    read, all_windows = training.validation.select(documents), sum(map(len, training.validation["windows"]))
    share = sum(map(len, read["windows"])) / all_windows
    batches = chain.from_iterable(repeat(training.loader))
    longest = [training.windows[index] for index in longest_rows(training.windows, training.batch_size)]

    def seconds(action: Callable[[], object]) -> float:
        wait()
        begin = time.monotonic()
        action()
        wait()
        return time.monotonic() - begin

    def evaluate() -> None:
        options = {"floor": 0.9, "batch_size": 2 * training.batch_size}  # a model that is not trained finds everything
        with accelerator.autocast(), whole_parameters(training.model):
            predict_spans(extractor, read, training.collator.schema, **options)

    training.model.train()
    bar = tqdm(range(PLANNED_STEPS + 1), desc="Timing", unit="step", leave=False, disable=not run.console.is_terminal)
    steps = [seconds(lambda: take_step(training, 0, list(islice(batches, training.accumulation)))) for _ in bar]
    entry = training.collator(longest)
    take_step(training, 0, [{**entry, "batch": entry["batch"].to(accelerator.device)}])  # for the peak of memory
    progress = Progress(sums=torch.zeros(3 + len(extractor.loss_parts), device=accelerator.device))
    saving = seconds(lambda: checkpoint(training, progress))
    model, kept, disk = disk_space(extractor, args.checkpoints_total_limit, bool(args.weight_averaging))
    plan = RunPlan(
        device=run.describe()["device"],
        processes=accelerator.num_processes,
        precision=accelerator.mixed_precision,
        attention=attention,
        windows_per_batch=training.batch_size,
        batches_per_step=training.accumulation,
        steps_per_epoch=math.ceil(training.total_steps / training.epochs),
        epochs=training.epochs,
        seconds_per_step=sum(steps[1:]) / PLANNED_STEPS,  # the first one waits for more than a step
        seconds_per_evaluation=seconds(evaluate) / share / accelerator.num_processes + saving * model / kept,
        seconds_per_checkpoint=saving if args.checkpointing_steps == "epoch" else 0.0,
        memory_gb=peak_memory(accelerator.device) / 1e9,
        model_gb=model / 1e9,
        checkpoint_gb=kept / 1e9,
        disk_gb=disk / 1e9,
        price_per_hour=args.price_per_hour,
    )
    if accelerator.is_main_process:
        write_json(run.output_dir / checkpoints.PLAN, plan.to_dict())
        run.console.print(plan_table(plan))
        run.console.print(f"Plan     {run.output_dir / checkpoints.PLAN}\nNext     the same command without --dry_run")
    accelerator.wait_for_everyone()


def checkpoint(training: Training, progress: Progress) -> Path:
    """Write everything from which the run can continue."""
    sums = training.run.accelerator.reduce(progress.sums, reduction="sum").tolist()
    content = {**progress.to_dict(sums), "identity": training.identity}
    limit = training.args.checkpoints_total_limit
    return checkpoints.save_checkpoint(training.run.accelerator, training.run.output_dir, progress.step, content, limit)


def resume(training: Training, path: Path, content: dict[str, Any]) -> Progress:
    """Load a checkpoint; the sums of all processes continue on the first one."""
    run, accelerator = training.run, training.run.accelerator
    accelerator.load_state(str(path))
    progress = Progress.from_dict(content, training.collator.schema)
    if not accelerator.is_main_process:
        progress.sums.zero_()
    saved = run.output_dir / checkpoints.BEST
    held = Settings.from_config(read_config(saved), saved).validation if saved.is_dir() else None
    if held is None or held.epoch != progress.best_epoch:  # of an epoch that is now done again, or of another run
        progress.best_epoch, progress.best = 0, Standing()
    run.console.print(f"Going on from {path}: epoch {progress.epoch}, step {progress.step}")
    return progress


@contextmanager
def interruptible(training: Training, progress: Progress):
    """Show a progress bar, let a signal wait for the end of a step, and turn known errors into one line."""
    run, accelerator = training.run, training.run.accelerator
    silent = not accelerator.is_main_process
    run.stop.patient = True
    training.bar = tqdm(total=training.total_steps, initial=progress.step, desc="Training", unit="step", disable=silent)
    try:
        yield
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise out_of_memory(training.args.per_device_train_batch_size) from error
        if "DataLoader worker" in str(error):
            raise TrainingError(f"a process that makes batches died ({first_line(error)})") from error
        raise
    except KeyboardInterrupt:
        saved = f"the best model so far, of epoch {progress.best_epoch}, is in {run.output_dir / checkpoints.BEST}"
        raise KeyboardInterrupt(saved if progress.best_epoch else "no epoch was complete, nothing is saved") from None
    finally:
        run.stop.patient = False
        training.bar.close()


def predict(training: Training) -> Predictions:
    """The predictions for all validation documents, on every process."""
    options = {"schema": training.collator.schema, "batch_size": 2 * training.batch_size}  # no gradients: more fit
    some = partial(predict_spans, training.extractor, training.validation, **options)
    return predict_on_all_processes(training.run.accelerator, len(training.validation), some)


def mean_losses(training: Training, sums: torch.Tensor) -> dict[str, float]:
    """Losses per window, from :attr:`Progress.sums`."""
    windows, _, *losses = sums.tolist()
    return {name: loss / windows for name, loss in zip(("loss", *training.extractor.loss_parts), losses, strict=True)}


def show_step(training: Training, progress: Progress, sums: torch.Tensor) -> None:
    rates = {f"{name}_lr": f"{rate:.1e}" for name, rate in learning_rates(training.optimizer).items()}
    loss, f1 = mean_losses(training, sums)["loss"], progress.best.value
    training.bar.set_postfix(loss=f"{loss:.2f}", **rates, f1=f"{f1:.3f}", refresh=False)
    training.bar.update()


def log_step(training: Training, step: int, sums: torch.Tensor, seconds: float, norm: torch.Tensor) -> None:
    """Send the trackers the mean losses, rates, throughput and memory of the steps since the last entry."""
    accelerator = training.run.accelerator
    sums = accelerator.reduce(sums, reduction="sum")
    on_gpu = accelerator.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    values = {
        **mean_losses(training, sums),
        **{f"{name}_learning_rate": rate for name, rate in learning_rates(training.optimizer).items()},
        "gradient_norm": float(norm),
        "windows_per_second": sums[0].item() / seconds,
        "tokens_per_second": sums[1].item() / seconds,
        "memory_gb": memory / 1e9,  # of this process; on a GPU the maximum so far
    }
    accelerator.log({f"train/{name}": value for name, value in values.items()}, step=step)


def flat_scores(standing: Standing) -> dict[str, float]:
    """Threshold, precision, recall and F1, and the F1 of each label and task, in the form of trackers."""
    overall = standing.scores.overall
    by_label = {f"f1/{label}": score.f1 for label, score in standing.scores.labels.items()}
    by_task = {f"f1/{name}": scores.overall.f1 for name, (_, scores) in standing.tasks.items()}
    flat = {"threshold": standing.threshold, "precision": overall.precision, "recall": overall.recall, "f1": overall.f1}
    return {**flat, **by_label, **by_task}


def report_all(
    aligned: dict[str, Dataset],
    extractor: KoreanExtractor,
    sources: dict[str, str],
    skipped: dict[str, int],
    run: Run,
) -> None:
    """Print and write the data report, and list the mentions that cannot become targets."""
    console, schema, reports = run.console, extractor.label_schema, {}
    for split, part in aligned.items():
        reports[split] = report_data(part, schema, sources[split], run.output_dir / f"unreached_{split}.jsonl")
        reports[split].bad_rows_skipped = skipped[split]
    shared = shared_texts(aligned["training"], aligned["validation"])
    reports["validation"].texts_shared_with_training = len(shared)
    pieces = report_pieces(aligned["training"], extractor.processor)
    figures = {name: report.to_dict() for name, report in reports.items()}
    figures["pieces"] = {way: report.to_dict() for way, report in pieces.items()}
    write_json(run.output_dir / checkpoints.DATA_REPORT, figures)
    console.print(data_table(reports))
    console.print(piece_table(pieces, WAYS[extractor.settings.continuation_pieces]))
    console.print(f"Mentions that are no target are listed in {run.output_dir}/unreached_*.jsonl")
    if shared:
        console.print(
            f"{len(shared)} validation texts also occur in the training rows: F1 on them is optimistic.", style="yellow"
        )
    partial = reports["training"].documents - reports["training"].documents_with_all_labels
    if partial:
        console.print(
            f"{partial} training rows do not name all of {', '.join(schema.labels)}, so they do not say that "
            "the others are absent; --labels says so for every row.",
            style="yellow",
        )


if __name__ == "__main__":
    run_script(main)
