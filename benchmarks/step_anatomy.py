"""Time of each part of a training step, and the share of the device's matrix speed that the step reaches.

    python benchmarks/step_anatomy.py --train_file train.jsonl
    python benchmarks/step_anatomy.py --train_file train.jsonl --base_model fastino/gliner2-base-v1 \\
        --korean_encoder team-lucid/deberta-v3-base-korean --mixed_precision bf16 --batch_size 32

The step is our step of benchmarks/train_throughput.py. On a GPU each part waits for the device, so the whole step is a
little slower than in training. torch counts the model FLOPs, forward and backward, for eager attention and without
padding. The matrix speed is that of a large square matrix product, measured in the same run.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from train_throughput import Arguments as ThroughputArguments
from train_throughput import Ours, make_model

from glinerko.cli import make_console, parse_arguments, run, set_log_levels
from glinerko.common import GlinerkoError, write_json
from glinerko.training.batches import WindowCollator
from glinerko.training.trial import wait

PARTS = ("collation", "transfer", "encoder forward", "heads forward", "backward", "clipping and optimizer")


@dataclass
class Arguments(ThroughputArguments):
    steps: int = field(default=8, metadata={"help": "number of timed steps, after two that are not timed"})
    output_file: str = field(default="outputs/benchmarks/step_anatomy.json", metadata={"help": "file for the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=args.mixed_precision)
    with tempfile.TemporaryDirectory() as directory:
        model, rows, schema = make_model(args, Path(directory))
    batches = make_batches(rows, args)
    collator = WindowCollator(model.processor, schema)
    flops = sum(count_flops(model, collator, batch) for batch in batches[2:])
    ours = Ours(model, rows, schema, args, accelerator)
    seconds = time_parts(ours, collator, batches, accelerator)
    total = sum(seconds.values())
    rate = matrix_rate(accelerator)
    masks = [collator(batch)["batch"].attention_mask for batch in batches[2:]]
    result = {
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else str(accelerator.device),
        "threads": torch.get_num_threads(),
        "precision": args.mixed_precision,
        "attention": ours.attention,
        "batch_size": args.batch_size,
        "shares": {part: seconds[part] / total for part in PARTS},
        "padding_share": 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks),
        "model_flops_per_step": flops / args.steps,
        "model_flops_per_second": flops / total,
        "matrix_flops_per_second": rate,
        "share_of_matrix_rate": flops / total / rate,
    }
    print_result(result, args.steps)
    write_json(Path(args.output_file), result)


def make_batches(rows: Dataset, args: Arguments) -> list[list[dict]]:
    """The windows of each step, the two steps before the timed ones included.

    Raises:
        GlinerkoError: there are too few windows.
    """
    size, steps = args.batch_size, 2 + args.steps
    if len(rows) < steps * size:
        raise GlinerkoError(f"{args.train_file}: too few windows for {steps} steps: lower --steps")
    return [list(rows.select(range(start, start + size))) for start in range(0, steps * size, size)]


def time_parts(ours: Ours, collator: WindowCollator, batches: list, accelerator: Accelerator) -> dict[str, float]:
    """The seconds of each part, summed over all batches except the first two."""
    seconds: dict[str, float] = defaultdict(float)
    inside: list[float] = []  # start and end of the encoder's forward pass
    extractor = accelerator.unwrap_model(ours.model)
    hooks = [
        extractor.encoder.register_forward_pre_hook(lambda *_: inside.append(clock())),
        extractor.encoder.register_forward_hook(lambda *_: inside.append(clock())),
    ]

    def clock() -> float:
        wait()
        return time.perf_counter()

    for number, rows in enumerate(batches):
        inside.clear()
        times = [clock()]
        batch = collator(rows)["batch"]
        times.append(clock())
        batch = batch.to(accelerator.device)
        times.append(clock())
        loss = ours.model(batch)["total_loss"] / len(batch)
        times.append(clock())
        accelerator.backward(loss)
        times.append(clock())
        accelerator.clip_grad_norm_(ours.model.parameters(), 1.0)
        ours.optimizer.step()
        ours.optimizer.zero_grad()
        times.append(clock())
        if number < 2:
            continue
        collation, transfer, forward, backward, optimizer = (later - earlier for earlier, later in pairwise(times))
        encoder = inside[1] - inside[0]
        parts = (collation, transfer, encoder, forward - encoder, backward, optimizer)
        for part, spent in zip(PARTS, parts, strict=True):
            seconds[part] += spent
    for hook in hooks:
        hook.remove()
    return seconds


def count_flops(model: torch.nn.Module, collator: WindowCollator, rows: list) -> int:
    """The FLOPs of a forward and a backward pass. Each window is a batch of its own, so padding is not counted."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        for row in rows:
            model(collator([row])["batch"].to(model.device))["total_loss"].backward()
    model.zero_grad()
    return counter.get_total_flops()


def matrix_rate(accelerator: Accelerator, rounds: int = 10) -> float:
    """The FLOPs per second of a large matrix product in the precision of the run."""
    on_gpu = accelerator.device.type == "cuda"
    size = 8192 if on_gpu else 2048
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    left = torch.randn(size, size, device=accelerator.device, dtype=dtype)
    rates, first = [], time.perf_counter()
    while len(rates) < rounds and time.perf_counter() < first + 5:  # a CPU without bf16 needs many seconds for one
        begin = time.perf_counter()
        left @ left
        if on_gpu:
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - begin))
    return max(rates)


def print_result(result: dict, steps: int) -> None:
    shares = "".join(f"  {part:24} {share:6.1%}\n" for part, share in result["shares"].items())
    make_console().print(
        f"{steps} steps of {result['batch_size']} windows on {result['device']}, {result['threads']} threads, "
        f"precision {result['precision']}, attention {result['attention']}\n{shares}"
        f"  padding is {result['padding_share']:.1%} of a batch; {result['model_flops_per_step'] / 1e9:,.1f} GFLOP a "
        f"step, {result['share_of_matrix_rate']:.1%} of the measured matrix speed of "
        f"{result['matrix_flops_per_second'] / 1e12:,.2f} TFLOP/s",
        highlight=False,
    )


if __name__ == "__main__":
    run(main)
