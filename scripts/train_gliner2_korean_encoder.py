"""Give a GLiNER2 a Korean encoder and fine-tune it on labelled documents.

    accelerate launch scripts/train_gliner2_korean_encoder.py
    accelerate launch scripts/train_gliner2_korean_encoder.py --train_file train.jsonl --output_dir outputs/medical
    accelerate launch --config_file accelerate_configs/multi_gpu.yaml scripts/train_gliner2_korean_encoder.py run.yaml
    accelerate launch scripts/train_gliner2_korean_encoder.py run.yaml --resume_from_checkpoint latest

The first command trains on the bundled sample corpus. A YAML or JSON file may stand before the flags. The best model of
the run, by F1 on the validation documents, goes to OUTPUT_DIR/best. A run that is stopped (SIGTERM, SIGINT,
--max_train_minutes) finishes its step, leaves a checkpoint and exits with status 75; resumed, it ends in the same
weights as if it had never been stopped.
"""

from __future__ import annotations

import math
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, gather_object, set_seed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from rich.console import Console
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from glinerko.card import DATA_REPORT, ENVIRONMENT, HISTORY, SWAP_REPORT, TRAINING_ARGUMENTS, write_card
from glinerko.checkpoints import (
    dataset_digest,
    find_resumed,
    prepare_output_dir,
    save_checkpoint,
)
from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import (
    Example,
    LabelSchema,
    label_schema,
    load_rows,
    require_labels,
    shared_texts,
    split_rows,
    write_rows,
)
from glinerko.errors import DataError, GlinerkoError, Stopped, TrainingError, first_line
from glinerko.files import append_json, trim_history, write_json
from glinerko.hub import load_extractor
from glinerko.lora import add_lora
from glinerko.metrics import METRICS, Scores, best_threshold, sweep
from glinerko.modeling import SCORE_TOLERANCE, KoreanSpanExtractor, score_difference
from glinerko.prediction import Predictions, predict_on_all_processes, predict_spans
from glinerko.publishing import prepare_repository, publish, verify_saved
from glinerko.reports import data_table, piece_table, score_table, swap_table
from glinerko.segmentation import WAYS, report_pieces
from glinerko.swap import swap_encoder, weight_checksum
from glinerko.targets import annotate, report_data, training_windows, window_from_row
from glinerko.training import (
    NOT_OF_THE_RESULT,
    RunArguments,
    StopRequest,
    WindowCollator,
    average_weights,
    averaged_weights,
    cheapen_dropout,
    check_disk_space,
    check_step,
    choose_precision,
    enable_fast_attention,
    freeze_unused,
    keep_freed_memory,
    longest_rows,
    parameter_groups,
    whole_parameters,
    window_lengths,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
VALIDATION = "validation.jsonl"

NOT_COMPARED = NOT_OF_THE_RESULT | {
    "base_model", "korean_encoder", "user_dictionary", "validation_file", "per_device_eval_batch_size",
    "dataloader_num_workers", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "report_to",
    "logging_dir", "logging_steps", "run_name",
}  # fmt: skip


@dataclass
class ModelArguments:
    base_model: str = field(
        default="fastino/gliner2-base-v1",
        metadata={"help": "GLiNER2 whose heads are kept (span architecture): Hub id or directory"},
    )
    korean_encoder: str = field(
        default="team-lucid/deberta-v3-base-korean",
        metadata={"help": "encoder to install: Hub id or directory; 'none' fine-tunes the base model as it is"},
    )
    head_init: str = field(
        default="keep",
        metadata={"help": "keep the heads bit for bit or start new ones", "choices": ["keep", "reinit"]},
    )
    lora: bool = field(
        default=False,
        metadata={"help": "train LoRA adapters (rank 16) on the base model as it is, to compare with a swap"},
    )
    max_width: int = field(default=12, metadata={"help": "widest span that is scored, in words"})
    word_splitter: str = field(
        default="korean",
        metadata={"help": "what a word is: korean (Kiwi's morphemes, tuned), kiwi (as they come), white space, or char",
                  "choices": ["korean", "kiwi", "whitespace", "char"]},
    )  # fmt: skip
    user_dictionary: str | None = field(
        default=None,
        metadata={"help": "words the Korean splitter should know, one a line (form, or form<TAB>tag<TAB>score); "
                          "saved with the model"},
    )  # fmt: skip
    lower_case: bool = field(default=False, metadata={"help": "lower-case the words of the Korean splitter"})
    continuation_pieces: bool = field(
        default=False, metadata={"help": "tokenize a word that continues one as in pre-training (##에게, not 에게)"}
    )
    token_pooling: str | None = field(
        default=None,
        metadata={"help": "how the pieces of a word become its state; as the base model does by default",
                  "choices": ["first", "mean", "max"]},
    )  # fmt: skip


@dataclass
class DataArguments:
    train_file: str | None = field(default=None, metadata={"help": "JSON lines; the bundled sample corpus by default"})
    validation_file: str | None = field(default=None, metadata={"help": "JSON lines; drawn from training otherwise"})
    dataset_name: str | None = field(default=None, metadata={"help": "a `datasets` data set instead of files"})
    dataset_config_name: str | None = field(default=None, metadata={"help": "its configuration"})
    validation_split: float = field(
        default=0.1, metadata={"help": "share drawn by seed for validation; identical texts stay together"}
    )
    labels: list[str] | None = field(
        default=None, metadata={"help": "labels in use, in prompt order; all that rows name or describe by default"}
    )
    on_bad_row: str = field(
        default="raise",
        metadata={"help": "stop at a malformed row or skip and count it", "choices": ["raise", "skip"]},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "use only so many training rows"})
    max_length: int = field(default=512, metadata={"help": "pieces in a window, the prompt's included"})
    window_overlap: int = field(default=64, metadata={"help": "pieces that windows of a long document share"})
    label_descriptions: bool = field(
        default=True, metadata={"help": "put what the rows say of a label into the prompt, beside its name"}
    )
    prompt_augmentation: bool = field(
        default=False, metadata={"help": "shuffle and rename labels and drop descriptions in training, as gliner2 does"}
    )
    word_dropout: float = field(
        default=0.0, metadata={"help": "share of the words that are masked in training, so that contexts are learned"}
    )


@dataclass
class TrainingArguments(RunArguments):
    output_dir: str = field(default="outputs/korean-gliner2", metadata={"help": "where everything of this run goes"})
    encoder_learning_rate: float = field(default=2e-5, metadata={"help": "peak learning rate of the encoder"})
    head_learning_rate: float = field(default=5e-4, metadata={"help": "peak learning rate of the heads"})
    num_train_epochs: int = field(default=15, metadata={"help": "passes over the training windows, at most"})
    max_train_steps: int | None = field(default=None, metadata={"help": "optimizer steps, instead of epochs"})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "windows a process takes at a time"})
    auto_find_batch_size: bool = field(
        default=False, metadata={"help": "halve the batch until it fits in memory, and accumulate more of them"}
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "the same, for evaluation"})
    gradient_accumulation_steps: int = field(default=2, metadata={"help": "batches before the optimizer steps"})
    weight_averaging: float = field(
        default=0.0,
        metadata={"help": "score and keep the average of the weights over the steps, those of step t weighing about t "
                          "to this power: 3 looks back over the last fifth of the run; 0 takes the last weights"},
    )  # fmt: skip
    negative_masking: float = field(
        default=0.5, metadata={"help": "share of the spans without an entity that a step leaves out, as gliner2 does"}
    )
    metric_for_best_model: str = field(
        default="string_f1",
        metadata={"help": "string_f1: set of (mention string, label) a document; span_f1: strict spans",
                  "choices": list(METRICS)},
    )  # fmt: skip
    early_stopping_patience: int = field(default=5, metadata={"help": "epochs without a better F1 before it stops"})
    group_by_length: bool = field(
        default=False, metadata={"help": "batches of windows of similar length: less padding for eager attention"}
    )
    dataloader_num_workers: int = field(default=0, metadata={"help": "processes that make batches ahead"})
    checkpointing_steps: str = field(
        default="epoch", metadata={"help": "checkpoint after every 'epoch', after so many optimizer steps, or 'no'"}
    )
    report_to: str = field(
        default="none",
        metadata={"help": "where to log the run; all takes every one that is installed",
                  "choices": ["none", "tensorboard", "trackio", "wandb", "all"]},
    )  # fmt: skip
    logging_dir: str | None = field(
        default=None, metadata={"help": "of TensorBoard's files; logs/ in output_dir by default"}
    )
    logging_steps: int = field(default=10, metadata={"help": "optimizer steps between two entries"})
    run_name: str | None = field(default=None, metadata={"help": "of the run; the name of output_dir by default"})
    push_to_hub: bool = field(default=False, metadata={"help": "publish the best model when training ends"})
    hub_model_id: str | None = field(
        default=None, metadata={"help": "user/model; the name of output_dir under the token's user by default"}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "make a new repository private; the owner's default otherwise"}
    )
    hub_token: str | None = field(default=None, metadata={"help": "a token; that of `hf auth login` by default"})


def main() -> None:
    model_args, data_args, args = parse_arguments(ModelArguments, DataArguments, TrainingArguments, description=__doc__)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # `accelerate launch` does not say so to several processes
        mixed_precision=choose_precision(args.mixed_precision),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        log_with=choose_trackers(args.report_to),
        project_dir=args.logging_dir or str(Path(args.output_dir) / "logs"),
    )
    quieten(accelerator.is_main_process)
    stop = StopRequest(args.max_train_minutes)
    set_seed(args.seed)
    console = make_console(accelerator.is_main_process)
    output_dir = prepare_output_dir(
        accelerator, Path(args.output_dir), "best", args.resume_from_checkpoint, args.overwrite_output_dir
    )
    if args.push_to_hub and accelerator.is_main_process:  # a token that may not write fails now
        args.hub_model_id = prepare_repository(
            args.hub_model_id or output_dir.resolve().name, token=args.hub_token, private=args.hub_private_repo
        )

    # 1. The documents.
    with accelerator.main_process_first():
        rows, sources, skipped = load_data(data_args, args.seed, console)
    schema = label_schema(rows["training"], data_args.labels)
    if not data_args.label_descriptions:
        schema = LabelSchema(schema.labels, {})
    require_labels(rows["validation"], schema, sources["validation"])

    # 2. The swap.
    if model_args.lora and model_args.korean_encoder.lower() != "none":
        raise GlinerkoError("--lora trains the base model as it is: pass --korean_encoder none with it")
    if args.weight_averaging < 0:
        raise GlinerkoError(f"--weight_averaging must be 0 or more, got {args.weight_averaging:g}")
    if args.weight_averaging and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise GlinerkoError("--weight_averaging: not under DeepSpeed, which steps on weights of its own; FSDP does it")
    encoder = None if model_args.korean_encoder.lower() == "none" else model_args.korean_encoder
    model, swap_report = swap_encoder(
        model_args.base_model,
        encoder,
        max_width=model_args.max_width,
        word_splitter=model_args.word_splitter,
        lower_case=model_args.lower_case,
        continuation_pieces=model_args.continuation_pieces,
        token_pooling=model_args.token_pooling,
        user_dictionary=model_args.user_dictionary,
        schema=schema,
        head_init=model_args.head_init,
        seed=args.seed,
    )
    console.print(swap_table(swap_report))
    if model_args.lora:
        console.print(add_lora(model, model_args.base_model))

    # 3. Words, windows and targets, made once.
    with accelerator.main_process_first():
        limits = {"max_length": data_args.max_length, "window_overlap": data_args.window_overlap}
        annotated = {
            split: annotate(part, model.processor, schema, max_width=model_args.max_width, **limits)
            for split, part in rows.items()
        }
        windows = training_windows(annotated["training"], schema)
    model.configure(window=limits)
    arguments = {**asdict(model_args), **asdict(data_args), **asdict(args), "hub_token": None}
    if accelerator.is_main_process:
        write_json(output_dir / TRAINING_ARGUMENTS, arguments)
        write_json(output_dir / ENVIRONMENT, describe_environment(accelerator))
        write_json(output_dir / SWAP_REPORT, asdict(swap_report))
        write_rows(rows["validation"], output_dir / VALIDATION)
        report_all(annotated, model.processor, schema, sources, skipped, output_dir, console)

    # 4. The training, and what came of it.
    run_name = args.run_name or output_dir.resolve().name
    accelerator.init_trackers(
        "glinerko",
        config={
            name: value if isinstance(value, int | float | str) else str(value) for name, value in arguments.items()
        },
        init_kwargs={tracker: {"name": run_name} for tracker in ("wandb", "trackio")},
    )
    identity = {
        **{name: value for name, value in arguments.items() if name not in NOT_COMPARED},
        "processes": accelerator.num_processes,
        "training documents": dataset_digest(windows),
        "validation documents": dataset_digest(annotated["validation"]),
        "swapped model": weight_checksum(model),
    }
    augment, dropout = data_args.prompt_augmentation, data_args.word_dropout
    collator = WindowCollator(model.processor, schema, augment, dropout, args.seed)
    best = fit(accelerator, model, windows, annotated["validation"], collator, identity, stop, args, console)
    console.print(score_table("Validation", {args.metric_for_best_model: best.scores}, schema.labels))
    console.print(
        f"Best epoch {best.epoch}, threshold {best.threshold:.2f}\n"
        f"Model    {best.directory}\nHistory  {output_dir / HISTORY}\n"
        f"Next     python scripts/eval.py --model {best.directory} --test_file YOUR_TEST.jsonl",
        highlight=False,
    )
    final = {f"best/{name}": value for name, value in flat_scores(best.scores).items()}
    if accelerator.is_main_process:
        card = write_card(best.directory, args.hub_model_id)
        report = card.read_text(encoding="utf-8")
        accelerator.log({**final, "best/epoch": best.epoch, "best/threshold": best.threshold, "report": report})
    accelerator.wait_for_everyone()
    accelerator.end_training()  # the other processes need not wait for an upload
    if args.push_to_hub and accelerator.is_main_process:
        verify_saved(best.directory, output_dir / VALIDATION, args.per_device_eval_batch_size)
        commit = publish(best.directory, args.hub_model_id, token=args.hub_token, tell=console.print)
        console.print(f"Hub      {commit.commit_url}", highlight=False)


@dataclass
class Best:
    """The best epoch so far."""

    directory: Path
    epoch: int = 0
    threshold: float = 0.5
    scores: Scores = field(default_factory=Scores)

    def to_dict(self) -> dict:
        """All but the directory, for a checkpoint."""
        return {"epoch": self.epoch, "threshold": self.threshold, "counts": self.scores.counts.tolist()}

    @classmethod
    def from_dict(cls, directory: Path, content: dict, labels: tuple[str, ...]) -> Best:
        scores = Scores.from_counts(content["counts"], labels) if content["epoch"] else Scores()
        return cls(directory, content["epoch"], content["threshold"], scores)

    def update(self, epoch: int, scores: Scores, threshold: float) -> None:
        # While nothing is found yet, every epoch is the best so far: patience starts with the first F1 above 0.
        if self.scores.overall.f1 == 0 or scores.overall.f1 > self.scores.overall.f1:
            self.epoch, self.threshold, self.scores = epoch, threshold, scores


def fit(
    accelerator: Accelerator,
    model: KoreanSpanExtractor,
    windows: Dataset,
    validation: Dataset,
    collator: WindowCollator,
    identity: dict,
    stop: StopRequest,
    args: TrainingArguments,
    console: Console,
) -> Best:
    """Train on ``windows``, score ``validation`` after every epoch; keep the best model and the last checkpoints."""
    output_dir, schema = Path(args.output_dir), collator.schema
    resumed = find_resumed(output_dir, args.resume_from_checkpoint, identity, args.resume_anyway, console)
    examples = [Example.from_row(row) for row in validation]
    predict = partial(predict_spans, model, validation, schema, batch_size=args.per_device_eval_batch_size)
    model.negative_masking = args.negative_masking
    model.to(accelerator.device)
    attention = enable_fast_attention(model.encoder, args.attention_backend, accelerator, model.train_with_flash)
    if accelerator.device.type == "cpu":
        cheapen_dropout(model)
        keep_freed_memory()
    unused = try_everything(accelerator, model, windows, schema, predict, args)
    if unused:
        console.print(f"Not trained, since entity data gives no gradient: {', '.join(unused)}")
    order, sampler = torch.Generator(), None
    if args.group_by_length:
        lengths = window_lengths(windows).tolist()
        sampler = LengthGroupedSampler(args.per_device_train_batch_size, lengths=lengths, generator=order)
    loader = DataLoader(
        windows,
        batch_size=args.per_device_train_batch_size,
        shuffle=sampler is None,
        sampler=sampler,
        collate_fn=collator,
        num_workers=args.dataloader_num_workers,
    )
    groups = parameter_groups(model, args.encoder_learning_rate, args.head_learning_rate, args.weight_decay)
    optimizer = torch.optim.AdamW(groups, fused=True)
    if args.weight_averaging:
        average_weights(optimizer, args.weight_averaging)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps_per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
    total_steps = args.max_train_steps or args.num_train_epochs * steps_per_epoch
    epochs = math.ceil(total_steps / steps_per_epoch)
    # The schedule counts optimizer steps, so it is not prepared: Accelerate would step it once a process.
    warmup_steps = math.ceil(args.warmup_ratio * total_steps)
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, warmup_steps, total_steps)
    accelerator.register_for_checkpointing(scheduler)

    batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    console.print(
        f"Training {epochs} epochs of {steps_per_epoch} steps of {batch_size} windows "
        f"on {accelerator.num_processes} × {accelerator.device.type}, precision {accelerator.mixed_precision}, "
        f"attention {attention}"
    )
    # Where the run is. `done` are batches of this epoch and `sums` its losses; weights and optimizer go on as they are.
    best, epoch, done, step = Best(output_dir / "best"), 1, 0, 0
    sums = torch.zeros(5, device=accelerator.device)
    history = output_dir / HISTORY
    if resumed:
        path, progress = resumed
        accelerator.load_state(str(path))
        best = Best.from_dict(best.directory, progress["best"], schema.labels)
        epoch, done, step = progress["epoch"], progress["done"], progress["step"]
        if accelerator.is_main_process:
            sums += torch.tensor(progress["sums"], device=accelerator.device)
        console.print(f"Going on from {path}: epoch {epoch}, step {step}", highlight=False)
    if accelerator.is_main_process:
        trim_history(history, epoch)

    def checkpoint() -> Path:
        progress = {"epoch": epoch, "done": done, "step": step, "best": best.to_dict()}
        content = {**progress, "sums": accelerator.reduce(sums, reduction="sum").tolist(), "identity": identity}
        return save_checkpoint(accelerator, output_dir, step, content, args.checkpoints_total_limit)

    logged, since = sums.clone(), time.monotonic()  # of this epoch, what the trackers were told
    every = int(args.checkpointing_steps) if args.checkpointing_steps.isdecimal() else 0
    bar = tqdm(total=total_steps, initial=step, desc="Training", unit="step", disable=not accelerator.is_main_process)
    stop.patient = True
    try:
        while epoch <= epochs:
            if epoch - 1 - best.epoch >= args.early_stopping_patience:
                accelerator.print(f"No better F1 for {args.early_stopping_patience} epochs: stopped early.")
                break
            collator.epoch = epoch
            loader.set_epoch(epoch)
            order.manual_seed(args.seed + epoch)
            model.train()
            batches = iter(skip_first_batches(loader, done) if done else loader)
            while step < total_steps and (group := list(islice(batches, args.gradient_accumulation_steps))):
                set_seed(args.seed + step, device_specific=True)
                losses, stopping = backward(accelerator, model, group, stop)
                norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                step += 1
                done += len(group)
                sums += losses
                rates = {f"{name}_lr": f"{rate:.1e}" for name, rate in learning_rates(optimizer).items()}
                mean, f1 = (losses[0] / losses[3]).item(), best.scores.overall.f1
                bar.set_postfix(loss=f"{mean:.2f}", **rates, f1=f"{f1:.3f}", refresh=False)
                bar.update()
                if accelerator.trackers and step % args.logging_steps == 0:
                    log_step(accelerator, sums - logged, time.monotonic() - since, norm, optimizer, step)
                    logged, since = sums.clone(), time.monotonic()
                if stopping:
                    raise Stopped(
                        f"{stop.reason} after step {step}: {checkpoint()} is complete; the same command with "
                        "--resume_from_checkpoint latest goes on from it"
                    )
                if every and step % every == 0:
                    checkpoint()

            extractor = accelerator.unwrap_model(model)
            with averaged_weights(optimizer):
                with whole_parameters(model):
                    predictions = predict_on_all_processes(accelerator, len(validation), predict)
                    scores, threshold = score(predictions, examples, schema, args.metric_for_best_model)
                    best.update(epoch, scores, threshold)
                    reference_scores = extractor.reference_scores() if best.epoch == epoch else None
                weights = accelerator.get_state_dict(model) if best.epoch == epoch else None
                if weights and accelerator.is_main_process:
                    save_best(extractor, weights, reference_scores, best, args, accelerator.mixed_precision)
            loss, structure, count, seen, _ = accelerator.reduce(sums, reduction="sum").tolist()
            if accelerator.is_main_process:
                losses = {"loss": loss / seen, "structure_loss": structure / seen, "count_loss": count / seen}
                rates = {f"{name}_learning_rate": rate for name, rate in learning_rates(optimizer).items()}
                scored = {"threshold": threshold, args.metric_for_best_model: scores.to_dict()}
                append_json(history, {"epoch": epoch, "step": step, **losses, **rates, **scored})
                bar.write(
                    f"epoch {epoch}: loss {loss / seen:.2f}, {args.metric_for_best_model} {scores.overall.f1:.4f} "
                    f"at threshold {threshold:.2f}{', best so far' if best.epoch == epoch else ''}"
                )
                if predictions.closed_gates:
                    bar.write(f"  count gate shut on {predictions.closed_gates} of {predictions.windows} windows")
            accelerator.wait_for_everyone()
            found = {f"validation/{name}": value for name, value in flat_scores(scores).items()}
            accelerator.log({**found, "validation/threshold": threshold, "epoch": epoch}, step=step)
            epoch, done = epoch + 1, 0
            sums.zero_()
            logged, since = sums.clone(), time.monotonic()
            if args.checkpointing_steps == "epoch":
                checkpoint()
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise out_of_memory(args) from error
        if "DataLoader worker" in str(error):
            raise TrainingError(f"a process that makes batches died ({first_line(error)})") from error
        raise
    except KeyboardInterrupt:
        saved = f"the best model so far, of epoch {best.epoch}, is in {best.directory}"
        raise KeyboardInterrupt(saved if best.epoch else "no epoch was complete, nothing is saved") from None
    finally:
        stop.patient = False
        bar.close()
    return best


def try_everything(
    accelerator: Accelerator,
    model: KoreanSpanExtractor,
    windows: Dataset,
    schema: LabelSchema,
    predict: Callable[..., Predictions],
    args: TrainingArguments,
) -> list[str]:
    """Do once what would otherwise fail after hours: a step, an evaluation, a save and a load, with room on the disk.

    The step is that of the longest windows, so that memory which is too small shows now. With --auto_find_batch_size
    the batch is halved until it fits, and the accumulation raised to keep the effective size.

    Returns:
        The modules that entity data gives no gradient, frozen from here on.

    Raises:
        TrainingError: what will not work, and what to do.
    """
    output_dir, wanted = Path(args.output_dir), args.per_device_train_batch_size
    check_disk_space(model, output_dir, args.checkpoints_total_limit, bool(args.weight_averaging))
    longest = longest_rows(windows, wanted)
    size = wanted
    while True:
        batch = model.processor.collate([window_from_row(windows[index]) for index in longest[:size]], schema)
        try:
            with accelerator.autocast():
                unused = freeze_unused(model, batch.to(accelerator.device))
            break
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if size == 1 or not args.auto_find_batch_size:
                raise out_of_memory(args) from error
            size //= 2
            clear_device_cache(garbage_collection=True)
    size = min(gather_object([size]))
    if size < wanted:
        args.per_device_train_batch_size = size
        args.gradient_accumulation_steps *= math.ceil(wanted / size)
        accelerator.print(f"{wanted} windows do not fit in memory: {args.gradient_accumulation_steps} × {size} a step")
    with accelerator.autocast():
        predict(indices=range(1))
    if accelerator.is_main_process:
        with tempfile.TemporaryDirectory(dir=output_dir, prefix="trial.") as directory:
            model.save_pretrained(directory)
            again = load_extractor(directory, map_location=accelerator.device)
            if score_difference(model.reference_scores(), again.reference_scores()) > SCORE_TOLERANCE:
                raise TrainingError("a model that was saved and loaded again gives other scores")
    accelerator.wait_for_everyone()
    return unused


def out_of_memory(args: TrainingArguments) -> TrainingError:
    return TrainingError(
        f"out of memory with {args.per_device_train_batch_size} windows a batch: lower --max_length, or lower "
        "--per_device_train_batch_size and raise --gradient_accumulation_steps as much (--auto_find_batch_size does)"
    )


def backward(
    accelerator: Accelerator, model: torch.nn.Module, group: list[dict], stop: StopRequest
) -> tuple[torch.Tensor, bool]:
    """Add up the gradients of the batches of one optimizer step.

    gliner2's loss is a sum over its windows: it is divided by those of the whole step, over all processes.

    Returns:
        This process's total, structure and count loss, each a sum over its windows, and the number of windows and of
        their pieces: [5]; and whether any process is asked to stop.
    """
    windows = sum(len(entry["batch"]) for entry in group)
    everywhere = accelerator.reduce(torch.tensor([windows, stop.asked], device=accelerator.device), reduction="sum")
    windows_everywhere, stopping = everywhere.tolist()
    sums = torch.zeros(5, device=accelerator.device)
    sums[3] = windows
    for entry in group:
        last = entry is group[-1]
        accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in `accelerator.backward`
        with nullcontext() if last else accelerator.no_sync(model):
            outputs = model(entry["batch"])
            check_step(outputs, accelerator.unwrap_model(model), entry["batch"], entry["ids"])
            # DistributedDataParallel takes the mean of the processes' gradients, hence their number.
            accelerator.backward(outputs["total_loss"] * accelerator.num_processes / windows_everywhere)
        sums[4] += entry["batch"].attention_mask.sum()
        sums[:3] += torch.stack([outputs[name].detach() for name in ("total_loss", "structure_loss", "count_loss")])
    return sums, bool(stopping)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The present rate of the encoder and of the heads."""
    return {group["name"].split(",")[0]: group["lr"] for group in optimizer.param_groups}


def log_step(
    accelerator: Accelerator,
    sums: torch.Tensor,
    seconds: float,
    norm: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Tell the trackers of the steps since the entry before: mean losses a window, rates, throughput and memory."""
    loss, structure, count, windows, pieces = accelerator.reduce(sums, reduction="sum").tolist()
    on_gpu = accelerator.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    values = {
        "loss": loss / windows,
        "structure_loss": structure / windows,
        "count_loss": count / windows,
        **{f"{name}_learning_rate": rate for name, rate in learning_rates(optimizer).items()},
        "gradient_norm": float(norm),
        "windows_per_second": windows / seconds,
        "tokens_per_second": pieces / seconds,
        "memory_gb": memory / 1e9,  # of this process: on a GPU the most so far
    }
    accelerator.log({f"train/{name}": value for name, value in values.items()}, step=step)


def flat_scores(scores: Scores) -> dict[str, float]:
    """Precision, recall and F1, and the F1 of each label, as trackers take them."""
    overall = scores.overall
    by_label = {f"f1/{label}": score.f1 for label, score in scores.labels.items()}
    return {"precision": overall.precision, "recall": overall.recall, "f1": overall.f1, **by_label}


def score(predictions: Predictions, examples: list[Example], schema: LabelSchema, metric: str) -> tuple[Scores, float]:
    """The scores at the threshold that is best for these documents, and that threshold."""
    by_threshold = sweep(metric, examples, predictions.at_threshold, schema.labels)
    threshold = best_threshold(by_threshold)
    return by_threshold[threshold], threshold


def save_best(
    model: KoreanSpanExtractor,
    weights: dict[str, torch.Tensor],
    reference_scores: list[list[float]] | None,
    best: Best,
    args: TrainingArguments,
    precision: str,
) -> None:
    """Write the model beside the one before it and put it in its place, so that `best/` is never half a model."""
    model.configure(
        threshold=best.threshold,
        validation={
            "epoch": best.epoch,
            "metric": args.metric_for_best_model,
            "f1": best.scores.overall.f1,
            "precision": precision,
            "reference_scores": reference_scores,
        },
    )
    fresh, old = best.directory.with_name("best.new"), best.directory.with_name("best.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(fresh, state_dict=weights)
    if best.directory.exists():
        best.directory.rename(old)
    fresh.rename(best.directory)
    shutil.rmtree(old, ignore_errors=True)


def load_data(
    data_args: DataArguments, seed: int, console: Console
) -> tuple[dict[str, Dataset], dict[str, str], dict[str, int]]:
    """The rows of training and validation, what to call their sources, and how many bad rows each left out."""
    files = {"training": data_args.train_file, "validation": data_args.validation_file}
    if data_args.dataset_name is None and data_args.train_file is None:
        files = {"training": str(SAMPLE / "train.jsonl"), "validation": str(SAMPLE / "validation.jsonl")}
        console.rule("[bold yellow]No --train_file: training on the bundled sample corpus, good for a demo only")
    options = {"labels": data_args.labels, "on_bad_row": data_args.on_bad_row}
    hub = {"dataset_name": data_args.dataset_name, "dataset_config_name": data_args.dataset_config_name}
    rows, bad = load_rows(files["training"], **hub, max_rows=data_args.max_train_samples, **options)
    source = files["training"] or data_args.dataset_name
    if files["validation"] is not None:
        validation, bad_validation = load_rows(files["validation"], **options)
        names = {"training": source, "validation": files["validation"]}
        return {"training": rows, "validation": validation}, names, {"training": bad, "validation": bad_validation}
    if not 0 < data_args.validation_split < 1:
        raise DataError(f"--validation_split must lie between 0 and 1, got {data_args.validation_split}")
    training, validation = split_rows(rows, data_args.validation_split, seed)
    names = {split: f"{source}, {split} split" for split in files}
    return {"training": training, "validation": validation}, names, {"training": bad, "validation": 0}


def report_all(annotated, processor, schema, sources, skipped, output_dir, console) -> None:
    """Print and write the data report, and list the mentions that cannot become targets."""
    reports = {}
    for split, part in annotated.items():
        reports[split] = report_data(part, schema, sources[split], output_dir / f"unreached_{split}.jsonl")
        reports[split].bad_rows_skipped = skipped[split]
    shared = shared_texts(annotated["training"], annotated["validation"])
    reports["validation"].texts_shared_with_training = len(shared)
    pieces = report_pieces(annotated["training"], processor)
    figures = {name: report.to_dict() for name, report in reports.items()}
    figures["pieces"] = {way: report.to_dict() for way, report in pieces.items()}
    write_json(output_dir / DATA_REPORT, figures)
    console.print(data_table(reports))
    console.print(piece_table(pieces, WAYS[processor.word_splitter.continuation is not None]))
    console.print(f"Mentions that are no target are listed in {output_dir}/unreached_*.jsonl", highlight=False)
    if shared:
        console.print(f"[yellow]{len(shared)} validation texts also stand in the training rows: their F1 flatters.")
    partial = reports["training"].documents - reports["training"].documents_with_all_labels
    if partial:
        console.print(
            f"[yellow]{partial} training rows do not name all of {', '.join(schema.labels)}, and so do not say that "
            "the others are absent; --labels says so for every row."
        )


def describe_environment(accelerator: Accelerator) -> dict:
    """Versions and device, for the card."""
    names = ("glinerko", "gliner2", "torch", "transformers", "accelerate", "kiwipiepy")
    on_gpu = accelerator.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(accelerator.device) if on_gpu else accelerator.device.type.upper(),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


def choose_trackers(wanted: str) -> str | None:
    """What to ask Accelerate for, which leaves out in silence what is not installed.

    Raises:
        GlinerkoError: it is not installed.
    """
    installed = [tracker.value for tracker in get_available_trackers()]
    if wanted not in ("none", "all", *installed):
        raise GlinerkoError(f"--report_to {wanted}: not installed; run `pip install {wanted}`")
    return None if wanted == "none" else wanted


if __name__ == "__main__":
    run(main)
