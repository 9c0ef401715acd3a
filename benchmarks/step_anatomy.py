"""Where a training step goes, and how much of the device's matrix rate it uses.

    python benchmarks/step_anatomy.py --train_file train.jsonl
    python benchmarks/step_anatomy.py --train_file train.jsonl --base_model fastino/gliner2-base-v1 \\
        --korean_encoder team-lucid/deberta-v3-base-korean --mixed_precision bf16 --batch_size 32

Our step as benchmarks/train_throughput.py times it, cut into its parts; on a GPU each part waits for the device, and
so the whole takes a little longer than in training. Model FLOPs are those of eager attention on the pieces without
padding, forward and backward, counted by torch; the device's rate is that of a large square matrix product, measured
in the run.
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
from torch.utils.flop_counter import FlopCounterMode
from train_throughput import Arguments as ThroughputArguments
from train_throughput import Ours, make_model

from glinerko.cli import make_console, parse_arguments, quieten, run
from glinerko.errors import GlinerkoError
from glinerko.files import write_json
from glinerko.training import WindowCollator

PARTS = ("collation", "transfer", "encoder forward", "heads forward", "backward", "clipping and optimizer")


@dataclass
class Arguments(ThroughputArguments):
    steps: int = field(default=8, metadata={"help": "steps that are timed, after two that are not"})
    output_file: str = field(default="outputs/benchmarks/step_anatomy.json", metadata={"help": "the figures"})


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    quieten(is_main_process=False)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=args.mixed_precision)
    with tempfile.TemporaryDirectory() as directory:
        model, rows, schema = make_model(args, Path(directory))
    batches = [
        list(rows.select(range(start, start + args.batch_size)))
        for start in range(0, min(len(rows), (2 + args.steps) * args.batch_size), args.batch_size)
    ]
    if len(batches) < 2 + args.steps or len(batches[-1]) < args.batch_size:
        raise GlinerkoError(f"{args.train_file}: too few windows for {2 + args.steps} steps: lower --steps")
    collator = WindowCollator(model.processor, schema)
    flops = sum(count_flops(model, collator, batch) for batch in batches[2:])
    ours = Ours(model, rows, schema, args, accelerator)
    seconds = take_apart(ours, collator, batches, accelerator)
    total = sum(seconds.values())
    rate = matrix_rate(accelerator)
    pieces = [collator(batch)["batch"].attention_mask for batch in batches[2:]]
    padding = 1 - sum(int(mask.sum()) for mask in pieces) / sum(mask.numel() for mask in pieces)
    result = {
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else str(accelerator.device),
        "threads": torch.get_num_threads(),
        "precision": args.mixed_precision,
        "attention": ours.attention,
        "batch_size": args.batch_size,
        "shares": {part: seconds[part] / total for part in PARTS},
        "padding_share": padding,
        "model_flops_per_step": flops / args.steps,
        "model_flops_per_second": flops / total,
        "matrix_flops_per_second": rate,
        "share_of_matrix_rate": flops / total / rate,
    }
    console = make_console()
    console.print(
        f"{args.steps} steps of {args.batch_size} windows on {result['device']}, {result['threads']} threads, "
        f"precision {args.mixed_precision}, attention {ours.attention}",
        highlight=False,
    )
    for part in PARTS:
        console.print(f"  {part:24} {seconds[part] / total:6.1%}", highlight=False)
    console.print(
        f"  padding is {padding:.1%} of a batch; {flops / args.steps / 1e9:,.1f} GFLOP a step, "
        f"{result['share_of_matrix_rate']:.1%} of the measured matrix rate of {rate / 1e12:,.2f} TFLOP/s",
        highlight=False,
    )
    write_json(Path(args.output_file), result)


def take_apart(ours: Ours, collator: WindowCollator, batches: list, accelerator: Accelerator) -> dict[str, float]:
    """Seconds of each part over all batches but the first two."""
    seconds: dict[str, float] = defaultdict(float)
    inside: list[float] = []  # when the encoder began and ended
    extractor = accelerator.unwrap_model(ours.model)
    extractor.encoder.register_forward_pre_hook(lambda *_: inside.append(clock()))
    extractor.encoder.register_forward_hook(lambda *_: inside.append(clock()))

    def clock() -> float:
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
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
    return seconds


def count_flops(model: torch.nn.Module, collator: WindowCollator, rows: list) -> int:
    """Of a forward and a backward pass, window by window, so that padding does not count."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        for row in rows:
            model(collator([row])["batch"].to(model.device))["total_loss"].backward()
    model.zero_grad()
    return counter.get_total_flops()


def matrix_rate(accelerator: Accelerator, rounds: int = 10) -> float:
    """FLOP a second of a large matrix product in the precision of the run."""
    on_gpu = accelerator.device.type == "cuda"
    size = 8192 if on_gpu else 2048
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    left = torch.randn(size, size, device=accelerator.device, dtype=dtype)
    rates = []
    for _ in range(rounds):
        begin = time.perf_counter()
        left @ left
        if on_gpu:
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - begin))
    return max(rates)


if __name__ == "__main__":
    run(main)
