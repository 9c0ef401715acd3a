"""Pre-train a Korean DeBERTa-v2 on raw text, or adapt a published one to a domain.

    accelerate launch scripts/pretrain_encoder.py --train_file notes.txt notices.jsonl --output_dir outputs/encoder
    accelerate launch scripts/pretrain_encoder.py --init_from team-lucid/deberta-v3-base-korean \\
        --train_file notes.txt --learning_rate 5e-5 --num_train_epochs 3 --output_dir outputs/hospital-encoder

Masked language modelling with whole words masked. The text is plain, one document a line, or JSON lines with a "text";
no labels are read. Without --init_from a small encoder is trained from nothing, with a WordPiece vocabulary of the
corpus. OUTPUT_DIR/encoder holds the result in the layout of a published encoder: pass it as --korean_encoder to
train_gliner2_korean_encoder.py. A run that is stopped leaves a checkpoint; --resume_from_checkpoint latest goes on.
"""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.utils import set_seed
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import DebertaV2ForMaskedLM, PreTrainedTokenizerFast, get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from glinerko.checkpoints import dataset_digest, find_resumed, prepare_output_dir, save_checkpoint
from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import read_texts
from glinerko.errors import DataError, Stopped, TrainingError
from glinerko.files import append_json, trim_history, write_json
from glinerko.pretraining import (
    SPECIAL_TOKENS,
    MaskedLanguageModel,
    WholeWordCollator,
    cut_texts,
    encoder_config,
    load_masked_language_model,
    save_encoder,
    word_piece_tokenizer,
)
from glinerko.training import (
    NOT_OF_THE_RESULT,
    RunArguments,
    StopRequest,
    cheapen_dropout,
    choose_precision,
    enable_fast_attention,
    keep_freed_memory,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"


@dataclass
class Arguments(RunArguments):
    train_file: list[str] | None = field(
        default=None,
        metadata={"help": "JSON lines (*.jsonl), or one document a line; the bundled sample corpus by default"},
    )
    output_dir: str = field(default="outputs/encoder-pretraining", metadata={"help": "where everything goes"})
    init_from: str | None = field(
        default=None,
        metadata={
            "help": "a DeBERTa-v2 to adapt, or a GLiNER2 that has one: Hub id or directory; from nothing by default"
        },
    )
    hidden_size: int = field(default=256, metadata={"help": "width of an encoder from nothing"})
    num_hidden_layers: int = field(default=4, metadata={"help": "its layers"})
    attention_dropout: float = field(
        default=0.1, metadata={"help": "of an encoder from nothing; without any a step on a CPU is a fifth shorter"}
    )
    common_pieces: int = field(default=8000, metadata={"help": "pieces of its vocabulary beside single characters"})
    min_frequency: int = field(default=3, metadata={"help": "how often such a piece occurs in the text, at least"})
    max_length: int = field(default=256, metadata={"help": "pieces in a row; longer documents are cut"})
    mlm_probability: float = field(default=0.15, metadata={"help": "share of the words that is masked"})
    validation_split: float = field(default=0.05, metadata={"help": "share of the documents that only measures"})
    learning_rate: float = field(default=5e-4, metadata={"help": "peak learning rate"})
    num_train_epochs: int = field(default=20, metadata={"help": "passes over the text"})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "rows a process takes at a time"})
    checkpointing_steps: int = field(default=500, metadata={"help": "optimizer steps between two checkpoints"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=choose_precision(args.mixed_precision),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    quieten(accelerator.is_main_process)
    stop = StopRequest(args.max_train_minutes)
    set_seed(args.seed)
    console = make_console(accelerator.is_main_process)
    output_dir = prepare_output_dir(
        accelerator, Path(args.output_dir), "encoder", args.resume_from_checkpoint, args.overwrite_output_dir
    )

    # 1. The text, the model, and its tokenizer.
    if args.train_file is None:
        console.rule("[bold yellow]No --train_file: training on the bundled sample corpus, good for a demo only")
    texts = Dataset.from_dict({"text": [t for file in args.train_file or [str(SAMPLE)] for t in read_texts(file)[1]]})
    if not 0 < args.validation_split < 1 or len(texts) < 2:
        raise DataError(
            f"--validation_split must lie between 0 and 1, and leave a document on either side of {len(texts)}"
        )
    parts = texts.train_test_split(args.validation_split, seed=args.seed)
    model, tokenizer = make_model(args, parts["train"], console)
    with accelerator.main_process_first():
        rows, held_out = (cut_texts(parts[name], tokenizer, args.max_length) for name in ("train", "test"))
    console.print(
        f"{len(texts) - len(parts['test']):,} documents, {sum(rows['length']):,} pieces in {len(rows):,} rows; "
        f"{len(parts['test']):,} documents held out; {model.num_parameters() / 1e6:.1f}M parameters, "
        f"{len(tokenizer):,} tokens",
        highlight=False,
    )
    if accelerator.is_main_process:
        write_json(output_dir / "training_args.json", asdict(args))

    # 2. What a step is made of.
    masked = MaskedLanguageModel(model)
    model.to(accelerator.device)
    attention = enable_fast_attention(
        model.deberta,
        args.attention_backend,
        accelerator,
        lambda backend: importlib.import_module("disentangled_flash").optimize_deberta(
            model.deberta, backend=backend, inference=False
        ),
    )
    if accelerator.device.type == "cpu":
        cheapen_dropout(model)
        keep_freed_memory()
    collator = WholeWordCollator(tokenizer, args.mlm_probability, args.seed)
    order = torch.Generator()
    size = args.per_device_train_batch_size
    sampler = LengthGroupedSampler(size, lengths=rows["length"][:], generator=order)
    loader = DataLoader(rows, batch_size=size, sampler=sampler, collate_fn=collator)
    decaying = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decaying, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    masked, optimizer, loader = accelerator.prepare(
        masked, torch.optim.AdamW(groups, lr=args.learning_rate, fused=True), loader
    )
    total = args.num_train_epochs * len(loader)
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, math.ceil(args.warmup_ratio * total), total)
    accelerator.register_for_checkpointing(scheduler)
    identity = {name: value for name, value in asdict(args).items() if name not in NOT_OF_THE_RESULT | {"init_from"}}
    identity |= {"text": dataset_digest(rows), "processes": accelerator.num_processes}
    resumed = find_resumed(output_dir, args.resume_from_checkpoint, identity, args.resume_anyway, console)
    step, sums = 0, torch.zeros(3, device=accelerator.device)  # of loss, right guesses and masked pieces of this epoch
    if resumed:
        path, progress = resumed
        accelerator.load_state(str(path))
        step, sums = progress["step"], torch.tensor(progress["sums"], device=accelerator.device)
        console.print(f"Going on from {path}", highlight=False)
    console.print(
        f"Training {args.num_train_epochs} epochs of {len(loader)} steps of {size * accelerator.num_processes} rows "
        f"on {accelerator.num_processes} × {accelerator.device.type}, precision {accelerator.mixed_precision}, "
        f"attention {attention}"
    )

    # 3. The training.
    # An epoch whose last step was the last one done is entered once more, for its evaluation.
    history, done_epochs = output_dir / "history.jsonl", max(step - 1, 0) // len(loader)
    if accelerator.is_main_process:
        trim_history(history, done_epochs + 1)
    bar = tqdm(total=total, initial=step, desc="Pre-training", unit="step", disable=not accelerator.is_main_process)
    stop.patient = True
    for epoch in range(done_epochs + 1, args.num_train_epochs + 1):
        collator.epoch = epoch
        order.manual_seed(args.seed + epoch)
        begin, seen = time.monotonic(), 0
        masked.train()
        done = step - (epoch - 1) * len(loader)
        for batch in skip_first_batches(loader, done) if done else loader:
            set_seed(args.seed + step, device_specific=True)
            figures = torch.stack([figure.float() for figure in masked(**batch)])
            everywhere = accelerator.reduce(torch.cat([figures.detach(), figures.new_tensor([stop.asked])]))
            if not torch.isfinite(everywhere).all():
                raise TrainingError(f"the loss is not finite at step {step}: lower --learning_rate")
            # DistributedDataParallel takes the mean of the processes' gradients, hence their number.
            accelerator.backward(figures[0] * accelerator.num_processes / everywhere[2].clamp(min=1))
            accelerator.clip_grad_norm_(masked.parameters(), args.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
            sums += everywhere[:3]
            seen += int(batch["attention_mask"].sum())
            bar.set_postfix(loss=f"{everywhere[0] / everywhere[2]:.3f}", refresh=False)
            bar.update()
            stopping = bool(everywhere[3])
            if stopping or step % args.checkpointing_steps == 0:
                content = {"step": step, "sums": sums.tolist(), "identity": identity}
                path = save_checkpoint(accelerator, output_dir, step, content, args.checkpoints_total_limit)
            if stopping:
                raise Stopped(
                    f"{stop.reason} after step {step}: {path} is complete; the same command with "
                    "--resume_from_checkpoint latest goes on from it"
                )
        figures = evaluate(accelerator, masked, held_out, collator, size)
        if accelerator.is_main_process:
            loss, right, words = sums.tolist()
            scores = {"loss": loss / max(words, 1), "accuracy": right / max(words, 1), **figures}
            append_json(history, {"epoch": epoch, "step": step, **scores})
            speed = seen * accelerator.num_processes / (time.monotonic() - begin)
            bar.write(
                f"epoch {epoch}: "
                + ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
                + f", {speed:,.0f} pieces a second"
            )
        sums.zero_()
    bar.close()
    if accelerator.is_main_process:
        save_encoder(model, tokenizer, output_dir / "encoder")
        console.print(
            f"Encoder  {output_dir / 'encoder'}\nHistory  {history}\nNext     accelerate launch "
            f"scripts/train_gliner2_korean_encoder.py --korean_encoder {output_dir / 'encoder'} ...",
            highlight=False,
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


def make_model(args: Arguments, texts: Dataset, console) -> tuple[DebertaV2ForMaskedLM, PreTrainedTokenizerFast]:
    """The published model to go on with, or a new one with a vocabulary of ``texts``."""
    if args.init_from:
        model, tokenizer, new_head = load_masked_language_model(args.init_from)
        if new_head:
            console.print(f"[yellow]{args.init_from} ships no language model head: it starts anew")
        return model, tokenizer
    pieces = word_piece_tokenizer(texts["text"][:], args.common_pieces, args.min_frequency)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=512, **SPECIAL_TOKENS)
    config = encoder_config(args.hidden_size, args.num_hidden_layers, len(tokenizer), args.attention_dropout)
    return DebertaV2ForMaskedLM(config), tokenizer


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, masked: torch.nn.Module, rows: Dataset, collator: WholeWordCollator, size: int
) -> dict[str, float]:
    """Loss and accuracy on ``rows``, the same words masked every time; each process takes its share of the batches."""
    masked.eval()
    epoch, collator.epoch = collator.epoch, 0
    sums = torch.zeros(3, device=accelerator.device)
    starts = range(accelerator.process_index * size, len(rows), size * accelerator.num_processes)
    for start in starts:
        batch = collator(rows.select(range(start, min(start + size, len(rows)))).to_list())
        with accelerator.autocast():
            figures = accelerator.unwrap_model(masked)(**{k: v.to(accelerator.device) for k, v in batch.items()})
        sums += torch.stack([figure.float() for figure in figures])
    collator.epoch = epoch
    loss, right, words = accelerator.reduce(sums).tolist()
    return {"validation_loss": loss / max(words, 1), "validation_accuracy": right / max(words, 1)}


if __name__ == "__main__":
    run(main)
