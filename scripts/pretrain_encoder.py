"""Pre-train a Korean DeBERTa-v2 on raw text, or adapt a published one to a domain.

    accelerate launch scripts/pretrain_encoder.py --train_file notes.txt notices.jsonl --output_dir outputs/encoder
    accelerate launch scripts/pretrain_encoder.py --init_from team-lucid/deberta-v3-base-korean \\
        --train_file notes.txt --learning_rate 5e-5 --num_train_epochs 3 --output_dir outputs/hospital-encoder

Masked language modelling with whole words masked. The text is plain, one document a line, or JSON lines with a "text";
labels are not read. Files can be compressed (.gz, .xz, .zst, .bz2). The text is read and tokenized once, into files of
the `datasets` cache, and not held in memory. A document that occurs again is left out.
Without --init_from a small encoder is trained from random weights, with a WordPiece vocabulary of the corpus.
OUTPUT_DIR/encoder has the layout of a published encoder: pass it as --korean_encoder to
train_gliner2_korean_encoder.py. A run that is stopped writes a checkpoint; --resume_from_checkpoint latest continues.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import skip_first_batches
from accelerate.utils import set_seed
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import DebertaV2ForMaskedLM, PreTrainedTokenizerFast, get_scheduler

from glinerko.cli import CONTENT, RESULT, option, parse_arguments
from glinerko.cli import run as run_script
from glinerko.common import Stopped, TrainingError, write_json, write_text
from glinerko.model.swap import weight_checksum
from glinerko.training.arguments import RunArguments
from glinerko.training.checkpoints import (
    HISTORY,
    TRAINING_ARGUMENTS,
    find_resumed,
    replace_directory,
    run_identity,
    save_checkpoint,
    trim_history,
)
from glinerko.training.optimizer import MAX_GRADIENT_NORM, check_disk_space, check_gradient, whole_parameters
from glinerko.training.pretraining import (
    MaskedLanguageModel,
    WholeWordCollator,
    encoder_config,
    load_masked_language_model,
    save_encoder,
)
from glinerko.training.run import Run, start_run
from glinerko.training.speed import score_fewer_positions, speed_up
from glinerko.training.texts import (
    DUPLICATE,
    HELD_OUT,
    SPECIAL_TOKENS,
    choose_validation,
    load_documents,
    pack_texts,
    rows_digest,
    word_piece_tokenizer,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"
ENCODER = "encoder"
VALIDATION_DOCUMENTS = 2_000
PREPARATION = timedelta(hours=24)
"""How long the other processes wait for the one that reads and tokenizes the text."""


@dataclass
class Arguments(RunArguments):
    train_file: list[str] | None = option(None, "JSON lines or a document a line (default: the sample)", CONTENT)
    dataset_name: str | None = option(None, "data set with a column 'text', on the Hub or a directory", CONTENT)
    held_out_file: list[str] = option(
        [], "documents to keep out; also texts that equal one of their lines or share 13 words in a row", CONTENT
    )
    output_dir: str = option("outputs/encoder-pretraining", "directory for everything that the run writes")
    init_from: str | None = option(None, "DeBERTa-v2, or a GLiNER2 with one (default: random weights)", CONTENT)
    hidden_size: int = option(256, "width of an encoder with random weights", RESULT, at_least=32, multiple_of=32)
    num_hidden_layers: int = option(4, "layers of an encoder with random weights", RESULT, at_least=1)
    attention_dropout: float = option(
        0.1, "attention dropout of an encoder with random weights", RESULT, at_least=0, below=1
    )
    common_pieces: int = option(8000, "pieces of a new vocabulary, besides single characters", RESULT, at_least=0)
    min_frequency: int = option(3, "occurrences in the text that a piece of a new vocabulary needs", RESULT, at_least=1)
    max_length: int = option(
        256, "pieces in a row; documents are joined, and go on in the next row", RESULT, at_least=16, at_most=32768
    )
    mlm_probability: float = option(0.15, "share of the words that are masked", RESULT, above=0, at_most=1)
    validation_split: float = option(
        0.05, "share of the documents that is only used to measure, 2,000 at most", RESULT, above=0, below=1
    )
    learning_rate: float = option(5e-4, "peak learning rate", RESULT, above=0, below=1)
    num_train_epochs: int = option(20, "passes over the text", RESULT, at_least=1)
    per_device_train_batch_size: int = option(16, "rows per batch and process", RESULT, at_least=1)
    checkpointing_steps: int = option(500, "optimizer steps between two checkpoints", at_least=1)


@dataclass
class Pretraining:
    """What the loop works with, and where it is."""

    run: Run
    args: Arguments
    masked: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: DataLoader
    collator: WholeWordCollator
    identity: dict[str, Any]
    step: int = 0
    sums: torch.Tensor = None
    """Of this epoch and all processes: loss, masked pieces predicted right, masked pieces."""
    bar: tqdm = None


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    run = start_run(args, ENCODER, timeout=PREPARATION)
    accelerator, console = run.accelerator, run.console

    # 1. The text, the model and its tokenizer.
    if args.train_file is None and args.dataset_name is None:
        console.rule("No --train_file: training on the bundled sample corpus, good for a demo only", style="yellow")
        args.train_file = [str(SAMPLE)]
    with accelerator.main_process_first():
        documents, left_out = load_documents(args.train_file or [], args.dataset_name, args.held_out_file)
        drawn = choose_validation(documents, args.validation_split, VALIDATION_DOCUMENTS, args.seed)
        model, tokenizer = make_model(args, documents, drawn, run)
        if model.config.position_biased_input and args.max_length > model.config.max_position_embeddings:
            raise TrainingError(f"--max_length: the encoder has {model.config.max_position_embeddings} positions")
        rows = pack_texts(documents, tokenizer, args.max_length, drawn)
        held_out = pack_texts(documents.select(drawn), tokenizer, args.max_length)
    console.print(
        f"{len(documents) - left_out.total():,} documents, {len(rows):,} rows of {args.max_length} pieces; "
        f"{len(drawn):,} of them to measure; left out: {left_out[DUPLICATE]:,} duplicates, {left_out[HELD_OUT]:,} with "
        "words of held-out documents\n"
        f"{model.num_parameters() / 1e6:.1f}M parameters, {len(tokenizer):,} tokens",
    )
    if accelerator.is_main_process:
        write_json(run.output_dir / TRAINING_ARGUMENTS, asdict(args))

    # 2. Optimizer, batches and schedule.
    model.to(accelerator.device)
    attention = speed_up(model, model.deberta, args.attention_backend, accelerator)
    separate = attention.startswith("eager")
    if separate:
        score_fewer_positions(model.deberta, args.max_length)
    rehearse(model, tokenizer, run, args)
    training = prepare(MaskedLanguageModel(model, separate), tokenizer, rows, args, run)
    resume(training)
    console.print(
        f"Training {args.num_train_epochs} epochs of {len(training.loader)} steps of "
        f"{args.per_device_train_batch_size * accelerator.num_processes} rows on {accelerator.num_processes} × "
        f"{accelerator.device.type}, precision {accelerator.mixed_precision}, attention {attention}, "
        f"{'inside documents' if separate else 'across the documents of a row'}"
    )

    # 3. The training.
    fit(training, held_out)
    weights = accelerator.get_state_dict(training.masked)
    if accelerator.is_main_process:
        weights = {name.replace("_orig_mod.", "").removeprefix("model."): tensor for name, tensor in weights.items()}
        replace_directory(run.output_dir / ENCODER, partial(save_encoder, model, tokenizer, weights=weights))
        console.print(
            f"Encoder  {run.output_dir / ENCODER}\nHistory  {run.output_dir / HISTORY}\nNext     accelerate launch "
            f"scripts/train_gliner2_korean_encoder.py --korean_encoder {run.output_dir / ENCODER} ...",
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


def rehearse(model: DebertaV2ForMaskedLM, tokenizer: PreTrainedTokenizerFast, run: Run, args: Arguments) -> None:
    """Save once what would otherwise be saved after hours, and check that there is room for the checkpoints.

    Raises:
        TrainingError: The disk is too small.
    """
    check_disk_space(model, run.output_dir, args.checkpoints_total_limit, averaging=False, result=ENCODER)
    if run.accelerator.is_main_process:
        with TemporaryDirectory(dir=run.output_dir, prefix="trial.") as directory:
            save_encoder(model, tokenizer, Path(directory))
    run.accelerator.wait_for_everyone()


def fit(training: Pretraining, held_out: Dataset) -> None:
    """Do the epochs that are not done yet, and evaluate after each."""
    run, total = training.run, training.args.num_train_epochs * len(training.loader)
    # An epoch whose last step is done is entered once more, for its evaluation.
    done_epochs = max(training.step - 1, 0) // len(training.loader)
    if run.accelerator.is_main_process:
        trim_history(run.output_dir / HISTORY, done_epochs + 1)
    silent = not run.accelerator.is_main_process
    training.bar = tqdm(total=total, initial=training.step, desc="Pre-training", unit="step", disable=silent)
    run.stop.patient = True
    for epoch in range(done_epochs + 1, training.args.num_train_epochs + 1):
        begin = time.monotonic()
        seen = train_epoch(training, epoch)
        speed = seen / (time.monotonic() - begin)
        figures = evaluate(training, held_out)
        if run.accelerator.is_main_process:
            record_epoch(training, epoch, figures, speed)
        training.sums.zero_()
    training.bar.close()


def train_epoch(training: Pretraining, epoch: int) -> int:
    """Do the steps of an epoch that are not done yet.

    Returns:
        The number of pieces that all processes have read.

    Raises:
        Stopped: A stop was requested; a checkpoint is written.
        TrainingError: The loss or the gradient is not finite.
    """
    args, run, accelerator, loader = training.args, training.run, training.run.accelerator, training.loader
    training.collator.epoch = epoch
    loader.set_epoch(epoch)
    training.masked.train()
    seen, done = 0, training.step - (epoch - 1) * len(loader)
    for batch in skip_first_batches(loader, done) if done else loader:
        set_seed(args.seed + training.step, device_specific=True)
        figures = torch.stack([figure.float() for figure in training.masked(**batch)])
        pieces = (batch["documents"] > 0).sum()
        everywhere = torch.stack([*figures.detach(), pieces, torch.tensor(run.stop.asked, device=accelerator.device)])
        everywhere = accelerator.reduce(everywhere)
        # DDP averages gradients over processes, so multiply by num_processes to get the sum.
        accelerator.backward(figures[0] * accelerator.num_processes / everywhere[2].clamp(min=1))
        norm = accelerator.clip_grad_norm_(training.masked.parameters(), MAX_GRADIENT_NORM)
        check_gradient(norm, accelerator.mixed_precision, f"step {training.step}: lower --learning_rate")
        loss, _, masked, pieces, stopping = everywhere.tolist()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is not finite at step {training.step}: lower --learning_rate")
        training.optimizer.step()
        training.scheduler.step()
        training.optimizer.zero_grad()
        training.step += 1
        training.sums += everywhere[:3]
        seen += pieces
        training.bar.set_postfix(loss=f"{loss / max(masked, 1):.3f}", refresh=False)
        training.bar.update()
        if stopping:
            raise Stopped(
                f"{run.stop.reason} after step {training.step}: {checkpoint(training)} is complete; the same command "
                "with --resume_from_checkpoint latest continues from it"
            )
        if training.step % args.checkpointing_steps == 0 or training.step == training.bar.total:
            checkpoint(training)  # also after the last step, so that a failure of what follows costs none
    return seen


def checkpoint(training: Pretraining) -> Path:
    content = {"step": training.step, "sums": training.sums.tolist(), "identity": training.identity}
    run, limit = training.run, training.args.checkpoints_total_limit
    return save_checkpoint(run.accelerator, run.output_dir, training.step, content, limit)


def resume(training: Pretraining) -> None:
    """Load the checkpoint that is requested, if there is one."""
    args, run = training.args, training.run
    resumed = find_resumed(
        run.output_dir, args.resume_from_checkpoint, training.identity, args.resume_anyway, run.console
    )
    if resumed:
        path, content = resumed
        run.accelerator.load_state(str(path))
        training.step = content["step"]
        training.sums += torch.tensor(content["sums"], device=run.accelerator.device)
        run.console.print(f"Going on from {path}")


def prepare(
    model: MaskedLanguageModel, tokenizer: PreTrainedTokenizerFast, rows: Dataset, args: Arguments, run: Run
) -> Pretraining:
    """Make the optimizer, the batches and the schedule, and let Accelerate prepare them."""
    accelerator, initial_weights = run.accelerator, weight_checksum(model.model)
    collator = WholeWordCollator(tokenizer, args.mlm_probability, args.seed)
    loader = DataLoader(
        rows.with_format("numpy"), batch_size=args.per_device_train_batch_size, shuffle=True, collate_fn=collator
    )
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decaying, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    masked, optimizer, loader = accelerator.prepare(
        model, torch.optim.AdamW(groups, lr=args.learning_rate, fused=True), loader
    )
    total = args.num_train_epochs * len(loader)
    scheduler = get_scheduler("linear", optimizer, math.ceil(args.warmup_ratio * total), total)
    accelerator.register_for_checkpointing(scheduler)
    content = {"text": rows_digest(rows), "initial_weights": initial_weights, "separate_documents": model.separate}
    identity = run_identity(accelerator, args, **content)
    sums = torch.zeros(3, device=accelerator.device)
    return Pretraining(run, args, masked, optimizer, scheduler, loader, collator, identity, sums=sums)


def make_model(
    args: Arguments, documents: Dataset, drawn: np.ndarray, run: Run
) -> tuple[DebertaV2ForMaskedLM, PreTrainedTokenizerFast]:
    """The published model to adapt, or a new one with a vocabulary of the ``documents`` that are not ``drawn``."""
    if args.init_from:
        model, tokenizer, new_head = load_masked_language_model(args.init_from)
        if new_head:
            run.console.print(f"{args.init_from} has no language model head: a new one is trained", style="yellow")
        return model, tokenizer
    content = (documents._fingerprint, drawn.tobytes(), args.common_pieces, args.min_frequency)
    file = run.output_dir / f"vocabulary-{Hasher.hash(content)}.json"
    if not file.is_file():  # the main process comes first, and a resumed run has it
        measured = set(drawn.tolist())
        texts = (row["text"] for index, row in enumerate(documents) if index not in measured)
        shown = tqdm(texts, "Counting words", len(documents) - len(drawn), unit="document", disable=None, leave=False)
        write_text(file, word_piece_tokenizer(shown, args.common_pieces, args.min_frequency).to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=512, **SPECIAL_TOKENS)
    config = encoder_config(args.hidden_size, args.num_hidden_layers, len(tokenizer), args.attention_dropout)
    return DebertaV2ForMaskedLM(config), tokenizer


@torch.no_grad()
def evaluate(training: Pretraining, rows: Dataset) -> dict[str, float]:
    """Loss and accuracy on ``rows``, with the same words masked every time; the processes share the batches."""
    accelerator, collator = training.run.accelerator, training.collator
    size = training.args.per_device_train_batch_size
    training.masked.eval()
    epoch, collator.epoch = collator.epoch, 0
    sums = torch.zeros(3, device=accelerator.device)
    starts = range(accelerator.process_index * size, len(rows), size * accelerator.num_processes)
    masked = accelerator.unwrap_model(training.masked)
    with whole_parameters(training.masked), accelerator.autocast():
        for start in starts:
            batch = collator(rows.select(range(start, min(start + size, len(rows)))).to_list())
            figures = masked(**{k: v.to(accelerator.device) for k, v in batch.items()})
            sums += torch.stack([figure.float() for figure in figures])
    collator.epoch = epoch
    return {f"validation_{name}": value for name, value in means(accelerator.reduce(sums)).items()}


def means(sums: torch.Tensor) -> dict[str, float]:
    loss, right, words = sums.tolist()
    return {"loss": loss / max(words, 1), "accuracy": right / max(words, 1)}


def record_epoch(training: Pretraining, epoch: int, figures: dict[str, float], speed: float) -> None:
    scores = {**means(training.sums), **figures}
    entry = {"epoch": epoch, "step": training.step, **scores}
    trim_history(training.run.output_dir / HISTORY, epoch, entry)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    training.bar.write(f"epoch {epoch}: {shown}, {speed:,.0f} pieces a second")


if __name__ == "__main__":
    run_script(main)
