"""Our training step next to that of gliner2's own trainer: same weights, documents, batches, words, prompts and rates.

    python benchmarks/train_throughput.py --train_file train.jsonl
    python benchmarks/train_throughput.py --train_file train.jsonl --mixed_precision bf16 --attention_backend eager

Both train the same class, so that the loss is the same, gliner2's trainer with gliner2's own scoring of spans; the
steps take turns, so that both meet the same machine. What is timed is a whole step: making the batch, forward,
backward, clipping and the optimizer. Before that, with dropout and the masking of negatives off, the two loss curves
are laid over one another. Without --base_model a pair of random weights is built, hidden size 256 with 4 layers.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator
from gliner2.inference.engine import SpanExtractor
from gliner2.processor import SchemaTransformer
from gliner2.training.trainer import ExtractorCollator, ExtractorTrainer, TrainingConfig, get_scheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from train_gliner2_korean_encoder import backward

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.data import label_schema, load_rows
from glinerko.errors import GlinerkoError
from glinerko.files import write_json
from glinerko.modeling import KoreanSpanExtractor, gliner2_schema
from glinerko.starter import StarterSize, build_starter_pair
from glinerko.swap import swap_encoder
from glinerko.targets import annotate, training_windows, window_from_row
from glinerko.training import (
    StopRequest,
    WindowCollator,
    cheapen_dropout,
    enable_fast_attention,
    freeze_unused,
    keep_freed_memory,
    parameter_groups,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"
TOLERANCE = 1e-3


@dataclass
class Arguments:
    train_file: str = field(default=str(SAMPLE), metadata={"help": "documents, JSON lines"})
    base_model: str | None = field(default=None, metadata={"help": "GLiNER2 to swap; a random one by default"})
    korean_encoder: str | None = field(default=None, metadata={"help": "encoder to install, with --base_model"})
    hidden_size: int = field(default=256, metadata={"help": "of the random pair"})
    layers: int = field(default=4, metadata={"help": "of the random pair"})
    batch_size: int = field(default=8, metadata={"help": "windows a step"})
    steps: int = field(default=12, metadata={"help": "steps of each that are timed, after two that are not"})
    curve_steps: int = field(default=6, metadata={"help": "steps over which the losses must agree"})
    learning_rate: float = field(
        default=2e-5,
        metadata={"help": "of encoder and heads, without warm-up; at high ones rounding soon parts the curves"},
    )
    mixed_precision: str = field(default="no", metadata={"help": "of both", "choices": ["no", "bf16"]})
    attention_backend: str = field(
        default="auto", metadata={"help": "of ours", "choices": ["auto", "eager", "disentangled_flash"]}
    )
    seed: int = 42
    output_file: str = field(default="outputs/benchmarks/train_throughput.json", metadata={"help": "the figures"})


class Ours:
    """The step of scripts/train_gliner2_korean_encoder.py."""

    def __init__(self, model: KoreanSpanExtractor, rows, schema, args: Arguments, accelerator: Accelerator):
        self.accelerator, self.stop = accelerator, StopRequest()
        model.to(accelerator.device)
        self.attention = enable_fast_attention(
            model.encoder, args.attention_backend, accelerator, model.train_with_flash
        )
        if accelerator.device.type == "cpu":
            cheapen_dropout(model)
            keep_freed_memory()  # of the process, so that the other way has it too
        collator = WindowCollator(model.processor, schema)
        freeze_unused(model, collator([rows[0]])["batch"].to(accelerator.device))
        groups = parameter_groups(model, args.learning_rate, args.learning_rate, 0.0)
        loader = DataLoader(rows, batch_size=args.batch_size, collate_fn=collator)
        self.model, self.optimizer, self.loader = accelerator.prepare(
            model, torch.optim.AdamW(groups, fused=True), loader
        )
        self.model.train()

    def steps(self) -> Iterator[tuple[float, int]]:
        """The structure loss and the pieces of each step."""
        for entry in self.loader:
            sums, _ = backward(self.accelerator, self.model, [entry], self.stop)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            yield sums[1].item(), int(sums[4])


class Theirs:
    """The step of gliner2's ExtractorTrainer, without its logging and saving."""

    def __init__(self, model: KoreanSpanExtractor, rows, schema, args: Arguments, directory: str):
        processor = model.processor
        model.processor = SchemaTransformer(
            tokenizer=processor.tokenizer,
            word_splitter=processor.word_splitter.splitter,
            token_pooling=processor.token_pooling,
        )
        for name in ("compute_span_scores_batched", "_compute_span_scores_core"):
            setattr(model, name, getattr(SpanExtractor, name).__get__(model))
        self.bf16 = args.mixed_precision == "bf16"
        config = TrainingConfig(
            output_dir=directory,
            batch_size=args.batch_size,
            encoder_lr=args.learning_rate,
            task_lr=args.learning_rate,
            weight_decay=0.0,
            scheduler_type="constant",
            fp16=False,
            bf16=self.bf16 and torch.cuda.is_available(),  # on a CPU it refuses, and autocasts all the same
            num_workers=0,
            seed=args.seed,
        )
        self.trainer = ExtractorTrainer(model=model, config=config)
        self.trainer.optimizer = self.trainer._create_optimizer()
        self.trainer.scheduler = get_scheduler(self.trainer.optimizer, "constant", 1000, 0, 0.5)
        self.trainer.scaler = torch.amp.GradScaler(self.trainer.device.type, enabled=False)
        windows = [window_from_row(row) for row in rows]
        records = [(window.text, gliner2_schema(window, schema)) for window in windows]
        # As it makes batches to evaluate, so that the prompts are not varied at random.
        collator = ExtractorCollator(model.processor, is_training=False, build_targets=True)
        self.loader = DataLoader(records, batch_size=args.batch_size, collate_fn=collator)
        model.train()

    def steps(self) -> Iterator[tuple[float, int]]:
        for number, batch in enumerate(self.loader):
            pieces = int(batch.attention_mask.sum())
            self.trainer._backward_one(batch, number, self.bf16, torch.bfloat16)
            self.trainer._optimizer_step()
            yield self.trainer._last_train_outputs["structure_loss"].item(), pieces


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    console = make_console()
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=args.mixed_precision)
    with tempfile.TemporaryDirectory() as directory:
        model, rows, schema = make_model(args, Path(directory))
        needed = (2 + max(args.steps, args.curve_steps)) * args.batch_size
        if len(rows) < needed:
            raise GlinerkoError(f"{args.train_file}: {len(rows)} windows, {needed} are needed: lower --steps")
        rows = rows.select(range(needed))

        def pair(switch_off) -> list[Ours | Theirs]:
            both = [copy.deepcopy(model), copy.deepcopy(model)]
            for each in both:
                switch_off(each)
            return [Ours(both[0], rows, schema, args, accelerator), Theirs(both[1], rows, schema, args, directory)]

        curves = lay_over(pair(without_dropout), args.curve_steps)
        both = pair(lambda each: None)
        seconds, pieces = time_in_turns(both, args.steps)
    ratios = [theirs / ours for ours, theirs in zip(*seconds, strict=True)]
    result = {
        "device": str(accelerator.device),
        "threads": torch.get_num_threads(),
        "precision": args.mixed_precision,
        "attention": both[0].attention,
        "batch_size": args.batch_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "ratio": sum(seconds[1]) / sum(seconds[0]),
        "ratio_of_steps": ratios,
        "windows_per_second": [args.steps * args.batch_size / sum(each) for each in seconds],
        "pieces_per_second": [pieces / sum(each) for each in seconds],
        "largest_difference_of_losses": curves,
    }
    console.print(
        f"{result['parameters'] / 1e6:.1f}M parameters, batches of {args.batch_size}, {result['threads']} threads on "
        f"{result['device']}, precision {args.mixed_precision}, attention {result['attention']}\n"
        f"  losses differ by at most {curves:.1e} of themselves in {args.curve_steps} steps\n"
        f"  {result['ratio']:.2f} × as fast as gliner2's trainer over {args.steps} steps; a step: median "
        f"{median(ratios):.2f}, {min(ratios):.2f} – {max(ratios):.2f}\n"
        f"  windows a second {result['windows_per_second'][0]:.2f} and {result['windows_per_second'][1]:.2f}, "
        f"pieces a second {result['pieces_per_second'][0]:,.0f} and {result['pieces_per_second'][1]:,.0f}",
        highlight=False,
    )
    write_json(Path(args.output_file), result)
    if curves > TOLERANCE:
        raise GlinerkoError(f"the losses differ by {curves:.1e}: the two do not train the same")


def make_model(args: Arguments, directory: Path):
    """The model, its training windows and its labels."""
    rows, _ = load_rows(args.train_file)
    if args.base_model is None:
        size = StarterSize(args.hidden_size, args.layers, 0, 0)
        base, encoder = map(str, build_starter_pair(rows, directory, size, args.seed))
    else:
        base, encoder = args.base_model, args.korean_encoder
    schema = label_schema(rows)
    model, _ = swap_encoder(base, encoder, schema=schema, seed=args.seed)
    annotated = annotate(rows, model.processor, schema, max_width=12, max_length=512, window_overlap=64)
    return model, training_windows(annotated, schema).shuffle(seed=args.seed), schema


def without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0


def lay_over(both: list[Ours | Theirs], steps: int) -> float:
    """The largest relative difference between the structure losses of both, negatives not masked at random."""
    draw = torch.rand_like
    torch.rand_like = lambda scores, **_: torch.ones_like(scores)  # nothing lies below gliner2's masking rate
    try:
        runs = zip(*(each.steps() for each in both), range(steps), strict=False)
        return max(abs(ours[0] - theirs[0]) / abs(theirs[0]) for ours, theirs, _ in runs)
    finally:
        torch.rand_like = draw


def time_in_turns(both: list[Ours | Theirs], steps: int) -> tuple[list[list[float]], int]:
    """Seconds of each step of both, after two steps to warm up, and the pieces in them."""
    runs, seconds, pieces = [each.steps() for each in both], [[], []], 0
    for step in tqdm(range(2 + steps), desc="Steps in turns", disable=None):
        for which in (0, 1) if step % 2 else (1, 0):
            begin = time.perf_counter()
            _, length = next(runs[which])
            if step >= 2:
                seconds[which].append(time.perf_counter() - begin)
                pieces += length if which == 0 else 0
    return seconds, pieces


if __name__ == "__main__":
    run(main)
