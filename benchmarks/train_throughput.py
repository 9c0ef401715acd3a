"""Speed of our training step, compared with the step of gliner2's own trainer.

    python benchmarks/train_throughput.py --train_file train.jsonl
    python benchmarks/train_throughput.py --train_file train.jsonl --mixed_precision bf16 --attention_backend eager

Both start from the same weights and use the same documents, batches, words, prompts and learning rates. Both train the
same class, so the loss is the same, but gliner2's trainer scores spans with gliner2's own code. Without --base_model,
--architecture boundary compares the two on a GLiNER2.5. The two take turns
step by step, so a change of the machine's load affects both. A timed step makes the batch and runs forward, backward,
gradient clipping and the optimizer. Before that, the script checks that the losses of both agree, without dropout and
without masking of negatives. gliner2's trainer has eager attention, its default, unless --gliner2_attention says
otherwise. Without --base_model it builds a pair with random weights, hidden size 256 and 4 layers.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator
from gliner2.processor import SchemaTransformer
from gliner2.training.trainer import ExtractorCollator, ExtractorTrainer, TrainingConfig, get_scheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from train_gliner2_korean_encoder import backward

from glinerko.cli import make_console, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, write_json
from glinerko.corpus.processor import gliner2_schema
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.model.extractor import KoreanExtractor
from glinerko.model.swap import swap_encoder
from glinerko.training.batches import WindowCollator
from glinerko.training.optimizer import freeze_unused, parameter_groups
from glinerko.training.run import StopRequest
from glinerko.training.speed import speed_up
from glinerko.training.starter import StarterSize, build_starter_pair
from glinerko.training.trial import wait

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"
TOLERANCE = {"no": 1e-3, "bf16": 5e-3}
"""The largest relative difference of two losses, by precision."""
COMPARED = {"span": "structure_loss", "boundary": "total_loss"}
"""The loss that gliner2 computes as well: it trains no count of entities in the span architecture."""
OURS = {"span": ("compute_span_scores_batched", "_compute_span_scores_core"), "boundary": ("_head_touch",)}
"""The methods of the step that are not gliner2's own."""


@dataclass
class Arguments:
    train_file: str = field(default=str(SAMPLE), metadata={"help": "training documents, JSON lines"})
    base_model: str | None = field(default=None, metadata={"help": "GLiNER2 to swap (default: random weights)"})
    korean_encoder: str | None = field(default=None, metadata={"help": "encoder to install into --base_model"})
    architecture: str = field(default="span", metadata={"help": "of the random pair", "choices": ["span", "boundary"]})
    hidden_size: int = field(default=256, metadata={"help": "hidden size of the random pair"})
    layers: int = field(default=4, metadata={"help": "number of layers of the random pair"})
    batch_size: int = field(default=8, metadata={"help": "windows in a step"})
    steps: int = field(default=12, metadata={"help": "number of timed steps of each trainer, after two not timed"})
    curve_steps: int = field(default=6, metadata={"help": "number of steps in which the losses must agree"})
    learning_rate: float = field(  # constant; a high one makes rounding errors grow, and the losses differ
        default=2e-5, metadata={"help": "learning rate of encoder and heads, without warm-up"}
    )
    mixed_precision: str = field(
        default="no", metadata={"help": "precision of both trainers", "choices": ["no", "bf16"]}
    )
    attention_backend: str = field(
        default="auto",
        metadata={"help": "attention of our trainer", "choices": ["auto", "eager", "disentangled_flash"]},
    )
    gliner2_attention: str = field(
        default="eager",
        metadata={"help": "attention of gliner2's trainer", "choices": ["eager", "disentangled_flash"]},
    )
    workers: int = field(default=0, metadata={"help": "number of processes of each trainer that make batches"})
    seed: int = field(default=42, metadata={"help": "random seed"})
    output_file: str = field(
        default="outputs/benchmarks/train_throughput.json", metadata={"help": "file for the figures"}
    )


class Ours:
    """The step of scripts/train_gliner2_korean_encoder.py."""

    def __init__(self, model: KoreanExtractor, rows, schema, args: Arguments, accelerator: Accelerator):
        self.accelerator, self.stop, self.extractor = accelerator, StopRequest(), model
        model.to(accelerator.device)
        # On a CPU this also keeps freed memory, for the whole process: gliner2's trainer has it too.
        self.attention = speed_up(model, model.encoder, args.attention_backend, accelerator)
        self.collator, self.workers = WindowCollator(model.processor, schema), args.workers
        with accelerator.autocast():
            freeze_unused(model, [self.collator([rows[0]])["batch"].to(accelerator.device)])
        groups = parameter_groups(model, args.learning_rate, args.learning_rate, 0.0)
        self.model, self.optimizer = accelerator.prepare(model, torch.optim.AdamW(groups, fused=True))
        self.read(rows, args.batch_size)
        self.model.train()

    def read(self, rows, batch_size: int) -> None:
        """Train on these windows from now on, in this order."""
        self.loader = self.accelerator.prepare(make_loader(rows, batch_size, self.collator, self.workers))

    def steps(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Train, and yield the loss that both know and the number of pieces of each step, still on the device."""
        known = COMPARED[self.extractor.architecture]
        place = 2 + ("total_loss", *self.extractor.loss_parts).index(known)
        for step, entry in enumerate(self.loader):
            self.extractor.anneal(step, len(self.loader))
            sums, _ = backward(self.accelerator, self.model, [entry], self.stop)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            yield sums[place], sums[1]


class Theirs:
    """The step of gliner2's ExtractorTrainer, without logging and saving."""

    def __init__(self, model: KoreanExtractor, rows, schema, args: Arguments, directory: str):
        processor = model.processor
        model.processor = SchemaTransformer(
            tokenizer=processor.tokenizer,
            word_splitter=processor.word_splitter.splitter,
            token_pooling=processor.token_pooling,
        )
        for name in OURS[model.architecture]:
            setattr(model, name, getattr(model.plain, name).__get__(model))
        self.extractor = model
        self.bf16 = args.mixed_precision == "bf16"
        config = TrainingConfig(
            output_dir=directory,
            batch_size=args.batch_size,
            encoder_lr=args.learning_rate,
            task_lr=args.learning_rate,
            weight_decay=0.0,
            scheduler_type="constant",
            fp16=False,
            bf16=self.bf16 and torch.cuda.is_available(),  # refused on a CPU, where it uses bf16 anyway
            num_workers=0,
            seed=args.seed,
        )
        self.trainer = ExtractorTrainer(model=model, config=config)
        if args.gliner2_attention == "disentangled_flash":  # after the trainer has moved the model to its device
            model.train().enable_disentangled_flash()
        self.trainer.optimizer = self.trainer._create_optimizer()
        self.trainer.scheduler = get_scheduler(self.trainer.optimizer, "constant", 1000, 0, 0.5)
        self.trainer.scaler = torch.amp.GradScaler(self.trainer.device.type, enabled=False)
        windows = [window_from_row(row) for row in rows]
        records = [(window.text, gliner2_schema(window, schema)) for window in windows]
        # is_training would change the prompts at random.
        collator = ExtractorCollator(
            model.processor, is_training=False, build_targets=True, architecture=model.architecture
        )
        self.loader = make_loader(records, args.batch_size, collator, args.workers)
        self.trainer._planned_max_steps = len(self.loader)
        model.train()

    def steps(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See :meth:`Ours.steps`."""
        known, summed = COMPARED[self.extractor.architecture], self.extractor.architecture == "span"
        for number, batch in enumerate(self.loader):
            pieces = batch.attention_mask.sum()  # not on the device
            self.trainer._backward_one(batch, number, self.bf16, torch.bfloat16)
            self.trainer._optimizer_step()
            yield self.trainer._last_train_outputs[known].detach() * (1 if summed else len(batch)), pieces


def make_loader(rows, batch_size: int, collator: Callable, workers: int) -> DataLoader:
    """Batches of ``rows`` in order; with ``workers`` processes they are made ahead."""
    return DataLoader(rows, batch_size, collate_fn=collator, num_workers=workers, persistent_workers=workers > 0)


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=args.mixed_precision)
    with tempfile.TemporaryDirectory() as directory:
        model, rows, schema = make_model(args, Path(directory))
        needed = (2 + max(args.steps, args.curve_steps)) * args.batch_size
        if len(rows) < needed:
            raise GlinerkoError(f"{args.train_file}: {len(rows)} windows, but {needed} are needed: lower --steps")
        rows = rows.select(range(needed))

        def make_both(start: KoreanExtractor) -> tuple[Ours, Theirs]:
            ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
            return Ours(ours, rows, schema, args, accelerator), Theirs(theirs, rows, schema, args, directory)

        difference = loss_difference(make_both(without_dropout(model)), args.curve_steps)
        both = make_both(model)
        seconds, pieces = time_in_turns(both, args.steps)
    result = {
        "device": str(accelerator.device),
        "threads": torch.get_num_threads(),
        "precision": args.mixed_precision,
        "attention": both[0].attention,
        "batch_size": args.batch_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "ratio": sum(seconds[1]) / sum(seconds[0]),
        "ratio_of_steps": [theirs / ours for ours, theirs in zip(*seconds, strict=True)],
        "windows_per_second": [args.steps * args.batch_size / sum(each) for each in seconds],
        "pieces_per_second": [pieces / sum(each) for each in seconds],
        "largest_difference_of_losses": difference,
    }
    print_result(result, args)
    write_json(Path(args.output_file), result)
    if difference > TOLERANCE[args.mixed_precision]:
        raise GlinerkoError(f"the losses differ by {difference:.1e}: the two do not train in the same way")


def make_model(args: Arguments, directory: Path):
    """The swapped model, its training windows in random order, and its labels."""
    rows, _ = load_rows(args.train_file)
    if args.base_model is None:
        size = StarterSize(args.hidden_size, args.layers, 0, 0)
        base, encoder = map(str, build_starter_pair(rows, directory, size, args.seed, architecture=args.architecture))
    else:
        base, encoder = args.base_model, args.korean_encoder
    schema = label_schema(rows)
    model, _ = swap_encoder(base, encoder, schema=schema, seed=args.seed)
    return model, training_windows(model.align(rows, schema), schema).shuffle(seed=args.seed), schema


def without_dropout(model: KoreanExtractor) -> KoreanExtractor:
    """A copy of ``model`` that has no dropout."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    if model.architecture == "boundary":  # labels without mentions are drawn at random
        model.boundary_head.settings = replace(model.boundary_settings, negative_query_ratio=0.0)
    return model


def loss_difference(both: tuple[Ours, Theirs], steps: int) -> float:
    """The largest relative difference between the losses of both, with chance off."""
    rand_like, rand = torch.rand_like, torch.rand
    torch.rand_like = lambda scores, **_: torch.ones_like(scores)  # never below gliner2's masking rate: nothing masked
    torch.rand = lambda shape, **options: torch.zeros(shape, device=options.get("device"))  # all gold is injected
    try:
        runs = zip(*(each.steps() for each in both), range(steps), strict=False)
        return max((abs(ours[0] - theirs[0]) / abs(theirs[0])).item() for ours, theirs, _ in runs)
    finally:
        torch.rand_like, torch.rand = rand_like, rand


def time_in_turns(both: tuple[Ours, Theirs], steps: int) -> tuple[list[list[float]], int]:
    """The seconds of each step of both, after two steps that are not timed, and the number of pieces in them."""
    runs, seconds, pieces = [each.steps() for each in both], [[], []], 0
    for step in tqdm(range(2 + steps), desc="Steps in turns", disable=None):
        for which in (0, 1) if step % 2 else (1, 0):
            begin = time.perf_counter()
            _, length = next(runs[which])
            wait()
            if step >= 2:
                seconds[which].append(time.perf_counter() - begin)
                pieces += int(length) if which == 0 else 0
    return seconds, pieces


def print_result(result: dict, args: Arguments) -> None:
    ratios, windows, pieces = (result[name] for name in ("ratio_of_steps", "windows_per_second", "pieces_per_second"))
    make_console().print(
        f"{result['parameters'] / 1e6:.1f}M parameters, batches of {args.batch_size}, {result['threads']} threads on "
        f"{result['device']}, precision {args.mixed_precision}, attention {result['attention']}\n"
        f"  the losses differ by {result['largest_difference_of_losses']:.1e} at most, relatively, in "
        f"{args.curve_steps} steps\n"
        f"  {result['ratio']:.2f} × as fast as gliner2's trainer over {args.steps} steps; a step: median "
        f"{median(ratios):.2f}, {min(ratios):.2f} – {max(ratios):.2f}\n"
        f"  {windows[0]:.2f} and {windows[1]:.2f} windows a second, {pieces[0]:,.0f} and {pieces[1]:,.0f} pieces a "
        "second",
        highlight=False,
    )


if __name__ == "__main__":
    run(main)
