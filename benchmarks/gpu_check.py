"""Everything that only a GPU can show, in one table: speed, memory, numerics, reading, distribution, resuming.

    make gpu-check
    make gpu-check SIZE=tiny                                     # a rehearsal, also on a CPU
    python benchmarks/gpu_check.py --only step throughput --minutes 3

It needs no network and no published weights: benchmarks/full_size.py makes the pair and the documents. What is compared
takes turns in one run. The goals of speed are for a GPU and --size full; the bounds of numerics hold everywhere. A
measurement that fails, or takes too long, is reported with the reason, and the others go on. The exit status is 1 if
one failed or was left out, or if a goal was missed.
"""

from __future__ import annotations

import copy
import os
import resource
import shlex
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from eval_sweep import load_gliner2, timed
from full_size import SIZES, Check, OtherTrainer, OurTrainer, build
from gliner2.training.sampler import LengthGroupedSampler
from launched_runs import last_loss, train
from measurements import (
    MEASUREMENTS,
    Measurement,
    Row,
    TimeIsUp,
    in_turns,
    make_table,
    measure,
    measurement,
    ratio,
    time_limit,
)
from step_anatomy import count_flops, matrix_rate, time_parts
from train_throughput import OURS

from glinerko.cli import make_console, option, parse_arguments
from glinerko.cli import run as run_script
from glinerko.common import TrainingError, write_json
from glinerko.corpus.words import word_splitter_names
from glinerko.model.attention import read_faster
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.model.prediction import predict_spans
from glinerko.training.batches import WindowCollator, find_batch_size, longest_rows
from glinerko.training.checkpoints import list_checkpoints
from glinerko.training.speed import speed_up
from glinerko.training.trial import wait

TIMES_AS_FAST, MATRIX_SHARE = 2.0, 0.35
"""The goals of speed: against gliner2's trainer, and of the measured matrix rate."""
LOSS, GRADIENT, ROUNDING = 1e-2, 5e-2, 2
"""The largest relative error of a loss and of its gradient in bf16, or, if that is more, this multiple of the error of
eager attention in bf16."""
TIE = 0.02
"""How near the threshold a score is a tie."""
RESUMED, SHARDED = 1e-2, 5e-2
"""The largest relative difference of the losses of two runs: with the same attention and dropout, and with others."""


@dataclass
class Arguments:
    size: str = option("full", "size: full, or tiny for a rehearsal", choices=lambda: SIZES)
    minutes: float = option(8.0, "minutes after which it stops, and names what was left out", above=0)
    only: list[str] | None = option(None, "measurements to do (default: all)", choices=lambda: MEASUREMENTS)
    word_splitter: str | None = option(
        None, "words (default: korean; whitespace if Kiwi or its model is missing)", choices=word_splitter_names
    )
    seed: int = option(42, "random seed", at_least=0)
    output_file: str = option("outputs/gpu_check.json", "file for the figures")


def main() -> None:
    begin = time.monotonic()
    (args,) = parse_arguments(Arguments, description=__doc__)
    for name, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)  # for the processes that are started
    console, end = make_console(), begin + 60 * args.minutes
    chosen = {name: each for name, each in MEASUREMENTS.items() if args.only is None or name in args.only}
    records: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
        console.print(f"Building the pair and the documents, size {args.size}")
        check = None
        with suppress(TimeIsUp), time_limit(end - time.monotonic()):
            check = build(SIZES[args.size], Path(directory), args.word_splitter, args.seed)
        result = {"command": shlex.join(sys.argv), "size": args.size, **(describe(check) if check else {})}
        for number, (name, each) in enumerate(chosen.items(), 1):
            console.print(f"[{number}/{len(chosen)}] {each.title}")
            records[name] = measure(each, check, end)
            if records[name]["reason"]:
                console.print("    {status}: {reason}".format_map(records[name]), style="yellow")
            for row in records[name]["rows"]:
                console.print("    " + ", ".join(filter(None, Row(**row).cells())), soft_wrap=True)
            result |= {"minutes": round((time.monotonic() - begin) / 60, 2), "measurements": records}
            write_json(Path(args.output_file), result)  # also complete if the next one ends the process
    console.print(make_table(f"{result.get('device', 'nothing was built')}, size {args.size}", records))
    for status in ("failed", "left out"):
        if names := [name for name, each in records.items() if each["status"] == status]:
            console.print(f"{status}: {', '.join(names)}", style="red")
    console.print(f"{result['minutes']:.1f} minutes; figures: {args.output_file}")
    if any(each["status"] in ("failed", "left out") or "MISS" in each["verdicts"] for each in records.values()):
        sys.exit(1)


def describe(check: Check) -> dict[str, Any]:
    """The card, the versions, and what is measured."""
    about = check.run.describe()
    for name in ("disentangled-flash", "triton"):
        with suppress(PackageNotFoundError):
            about["versions"][name] = version(name)
    if check.on_gpu:
        about["memory_gb"] = round(torch.cuda.get_device_properties(check.device).total_memory / 1e9, 1)
    return {
        **about,
        "threads": torch.get_num_threads(),
        "word_splitter": check.model.settings.word_splitter,
        "parameters": sum(parameter.numel() for parameter in check.model.parameters()),
        "tokens": len(check.model.processor.tokenizer),
        "documents": len(check.rows),
        "windows": len(check.windows),
    }


@measurement("a training step of ours and of gliner2's own trainer", 120)
def step(check: Check) -> list[Row]:
    """In bf16, each with its best attention."""
    size = check.size.batch_size
    ours, theirs = check.trainer(batch_size=size), check.trainer(OtherTrainer, size)
    seconds = in_turns({"ours": ours.once, "gliner2": theirs.once}, check.size.rounds)
    rates = [f"{size / median(each):.1f} windows/s" for each in seconds.values()]
    figures, goal = {"seconds": seconds, "attention": ours.attention}, TIMES_AS_FAST if check.judged else None
    return [Row(f"training step, {size} windows", *rates, ratio(*seconds.values()), "×", goal, figures=figures)]


@measurement("memory against batch, and the largest batch that fits", 75)
def memory(check: Check) -> list[Row]:
    """With the longest windows. The batch with the highest throughput is that of the measurements after this one."""
    trainer, rows, speeds, limit = check.trainer(batch_size=2), [], {}, "no larger one was tried"
    for size in (each for each in check.size.batches if each <= len(check.windows)):
        if check.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        try:
            find_batch_size(trainer.extractor, check.windows, check.schema, size, check.run.accelerator)
            trainer.read(check.windows.select(4 * longest_rows(check.windows, size)), size)
            speed = size / trainer.once()
        except (TrainingError, RuntimeError) as error:
            if not isinstance(error, TrainingError) and not should_reduce_batch_size(error):
                raise
            limit = f"{size} do not fit"
            break
        of_process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak, speeds[size] = torch.cuda.max_memory_allocated() if check.on_gpu else of_process, speed
        shown, figures = f"{speed:.1f} windows/s", {"windows_per_second": speed}
        rows.append(Row(f"memory, {size} longest windows", shown, value=peak / 1e6, unit="MB", figures=figures))
    check.best_batch = max(speeds, key=speeds.get)
    rows.append(Row("largest batch that fits", other=limit, value=max(speeds), unit="windows"))
    return [*rows, Row("batch of the highest throughput", value=check.best_batch, unit="windows")]


@measurement("model FLOPs against the measured matrix rate, and the parts of a step", 75)
def throughput(check: Check) -> list[Row]:
    """With the batch of the highest throughput. FLOPs are counted of windows by themselves, so without padding."""
    accelerator, size = check.run.accelerator, check.best_batch
    some, collator = list(check.some(size)), WindowCollator(check.model.processor, check.schema)
    flops = count_flops(copy.deepcopy(check.model).to(check.device), collator, some[:12])
    flops_per_piece = flops / sum(count_pieces(collator, [row])[0] for row in some[:12])
    seconds = median(in_turns({"": check.base.once}, check.size.rounds)[""])
    batches = [some[first : first + size] for first in range(0, len(some), size)]
    pieces, padded = zip(*(count_pieces(collator, batch) for batch in batches), strict=True)
    speed = sum(pieces[1:]) / len(pieces[1:]) / seconds  # the first step is not timed
    parts = time_parts(check.base, collator, [*batches[:2], *batches], accelerator)
    rate, reached = matrix_rate(accelerator), flops_per_piece * speed
    figures = {"pieces_per_second": speed, "flops_per_second": reached, "matrix_flops_per_second": rate}
    rates, goal = [f"{each / 1e12:,.3g} TFLOP/s" for each in (reached, rate)], MATRIX_SHARE if check.judged else None
    return [
        Row(f"share of the matrix rate, {size} windows", *rates, reached / rate, "%", goal, figures=figures),
        *(Row(f"  {part}", value=spent / sum(parts.values()), unit="%") for part, spent in parts.items()),
        Row("  padding in a batch", value=1 - sum(pieces) / sum(padded), unit="%"),
    ]


def count_pieces(collator: WindowCollator, rows: Sequence[dict]) -> tuple[int, int]:
    """The pieces of a batch, without and with padding."""
    mask = collator(rows)["batch"].attention_mask
    return int(mask.sum()), mask.numel()


@measurement("where a step waits for the device", 45, needs_gpu=True)
def waits(check: Check) -> list[Row]:
    """The calls in our step that wait, with their places; and the share of a step in which the device works."""
    steps = check.base.steps()
    next(steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        wait()
        begin = time.perf_counter()
        next(steps)
        wait()
        seconds = time.perf_counter() - begin
    for _ in steps:  # Accelerate keeps count of loaders that are not at their end
        pass
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds
    most = ", ".join(f"{Path(place).name} ({number})" for place, number in places.most_common(3))
    figures = {"places": dict(places.most_common())}
    return [
        Row("waits for the device in a step", most, value=places.total(), unit="calls", figures=figures),
        Row("share of a step in which the device works", value=busy, unit="%"),
    ]


def variant(
    name: str, what: str, make: Callable[[Check], OurTrainer], lacks: bool = True, needs_gpu: bool = False
) -> None:
    """Register the measurement of how many times as fast a step is with something.

    Args:
        make: The step that differs from ours in it.
        lacks: Whether that step does not have it; otherwise ours does not.
    """

    def gain(check: Check) -> list[Row]:
        base, words = check.base, ("with", "without") if lacks else ("without", "with")
        try:
            seconds = in_turns({"ours": base.once, "other": make(check).once}, max(1, check.size.rounds - 1))
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            return [Row(f"gain: {what}", "fits in memory", f"does not fit {words[1]}")]
        times = ratio(*seconds.values())
        speeds = [f"{1e3 * median(each):,.0f} ms {word}" for each, word in zip(seconds.values(), words, strict=True)]
        return [Row(f"gain: {what}", *speeds, times if lacks else 1 / times, "×", figures={"seconds": seconds})]

    MEASUREMENTS[name] = Measurement(f"what is gained by {what}", gain, 45, needs_gpu)


def group_by_length(check: Check) -> OurTrainer:
    """The same windows, with those of similar length in a batch."""
    trainer, rows = check.trainer(), check.some(check.best_batch)
    order = LengthGroupedSampler([len(words) for words in rows["words"]], check.best_batch)
    trainer.read(rows.select(list(order)), check.best_batch)
    return trainer


def pad(model: KoreanExtractor) -> None:
    model.train().enable_disentangled_flash(packed=False)


def score_as_gliner2(model: KoreanExtractor) -> None:
    for name in OURS["span"]:
        setattr(model, name, getattr(model.plain, name).__get__(model))


def unfuse(check: Check) -> OurTrainer:
    trainer = check.trainer()
    for group in trainer.optimizer.param_groups:
        group |= {"fused": False, "foreach": True}
    return trainer


def compile_eager(check: Check) -> OurTrainer:
    trainer = check.trainer(attention_backend="eager")
    trainer.extractor.compile()  # gliner2's own method
    return trainer


variant("fast_attention", "fast attention", lambda check: check.trainer(attention_backend="eager"))
variant("packing", "packing", lambda check: check.trainer(prepare=pad, attention_backend="eager"))
variant("grouping", "length grouping", group_by_length, lacks=False)
variant("by_width", "spans scored width by width", lambda check: check.trainer(prepare=score_as_gliner2))
variant("fused", "fused AdamW", unfuse)
variant("workers", "batches made by workers", lambda check: check.trainer(workers=0))


@measurement("bf16 and fast attention against float32 and eager attention: loss and gradient", 60)
def numerics(check: Check) -> list[Row]:
    """Of a batch with the longest windows, with all chance off; beside it, bf16 with eager attention."""
    torch.set_float32_matmul_precision("highest")  # gliner2's trainer sets another one
    rows = check.windows.select([*longest_rows(check.windows, 4), *range(4)])
    batch = WindowCollator(check.model.processor, check.schema)(list(rows))["batch"]

    def compute(attention: str, autocast: Any) -> tuple[float, torch.Tensor]:
        model = copy.deepcopy(check.model).to(check.device)
        speed_up(model, model.encoder, attention, check.run.accelerator)
        model.eval()
        with autocast:
            loss = model.summed_losses(model(batch), len(batch))[0]
        loss.backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        return loss.item(), torch.cat(gradients)

    right = compute("eager", nullcontext())
    errors = []
    for attention in ("disentangled_flash", "eager"):
        loss, gradient = compute(attention, check.run.accelerator.autocast())
        away = (gradient - right[1]).norm() / right[1].norm()
        errors.append((abs(loss - right[0]) / abs(right[0]), away.item()))
    bounds = [max(bound, ROUNDING * slow) for bound, slow in zip((LOSS, GRADIENT), errors[1], strict=True)]
    return [
        Row(f"error of the {name} in bf16", f"{fast:.1e} fast", f"{slow:.1e} eager", fast, "error", bound, at_most=True)
        for name, bound, fast, slow in zip(("loss", "gradient"), bounds, *errors, strict=True)
    ]


@measurement("evaluation in bf16 against float32: the same spans at the threshold", 60)
def evaluation(check: Check) -> list[Row]:
    torch.set_float32_matmul_precision("highest")
    threshold = check.scored.threshold
    documents = check.scored.split(check.rows.select(range(check.size.read)))

    def scores(attention: str, autocast: Any) -> dict[tuple, float]:
        model = copy.deepcopy(check.scored)
        speed_up(model, model.encoder, attention, check.run.accelerator)
        with autocast:
            found = predict_spans(model, documents, check.schema, floor=threshold - TIE).candidates
        return {(index, *span.key): span.score for index, spans in enumerate(found) for span in spans}

    exact = scores("eager", nullcontext())
    fast = scores("disentangled_flash", check.run.accelerator.autocast())
    found = [{key for key, score in each.items() if score >= threshold} for each in (exact, fast)]
    differ = found[0] ^ found[1]
    ties = [key for key in differ if abs(exact.get(key, 0.0) - threshold) <= TIE]
    figures = {"threshold": threshold, "ties": len(ties), "spans": [len(each) for each in found]}
    figures["largest_difference"] = max((abs(exact[key] - fast[key]) for key in exact.keys() & fast), default=0.0)
    shown = f"{len(found[1])} spans in bf16, {len(ties)} ties", f"{len(found[0])} spans in float32"
    return [Row("spans that differ and are no tie", *shown, len(differ) - len(ties), "spans", 0, True, figures)]


@measurement("documents a second, as predict.py reads, and in gliner2's batches", 75)
def reading(check: Check) -> list[Row]:
    torch.set_float32_matmul_precision("highest")
    check.scored.save_pretrained(check.directory / "read")
    return [read_in_turns(check, dtype) for dtype in (torch.float32, torch.bfloat16)]


def read_in_turns(check: Check, dtype: torch.dtype) -> Row:
    directory, threshold = check.directory / "read", check.scored.threshold
    ours = load_extractor(directory, map_location=check.device).to(dtype)
    theirs = load_gliner2(str(directory), ours).to(dtype)
    read_faster(ours)
    labels, texts = ours.label_schema.descriptions, check.rows["text"][: check.size.read]
    ways = {
        "ours": lambda: list(ours.stream_entities(texts, batch_size=16)),
        "gliner2": lambda: theirs.batch_extract_entities(texts, labels, 16, threshold=threshold),
    }
    if check.on_gpu:  # predict.py has it on a CPU only, where it was measured
        fast = load_extractor(directory, map_location=check.device).to(dtype).eval()
        fast.enable_disentangled_flash()
        ways["ours, fast attention"] = lambda: list(fast.stream_entities(texts, batch_size=16))
    seconds = in_turns({name: lambda way=way: timed(way)[1] for name, way in ways.items()}, check.size.rounds)
    rates = {name: len(texts) / median(each) for name, each in seconds.items()}
    shown = [f"{rates[name]:.1f} documents/s" for name in ("ours", "gliner2")]
    gain, what = rates["ours"] / rates["gliner2"], f"reading, {str(dtype).removeprefix('torch.')}"
    return Row(what, *shown, gain, "×", figures={"documents_per_second": rates})


@measurement("training under DistributedDataParallel, one process", 75)
def ddp(check: Check) -> list[Row]:
    train(check, "ddp", "multi_gpu" if check.on_gpu else "cpu_multi")
    check.loss = last_loss(check, "ddp")
    return [Row("DDP, an epoch", f"loss {check.loss:.6g}", figures={"loss": check.loss})]


@measurement("a checkpoint, SIGTERM, and the run resumed", 120)
def resume(check: Check) -> list[Row]:
    config = "single_gpu" if check.on_gpu else "cpu"
    train(check, "resumed", config, stop=True)
    (newest,) = list_checkpoints(check.directory / "resumed")
    train(check, "resumed", config, f"--resume_from_checkpoint={newest}")
    return [compare_loss(check, "resumed after SIGTERM, an epoch", "resumed", RESUMED)]


def compare_loss(check: Check, what: str, name: str, bound: float) -> Row:
    """The loss of a run beside that under DDP, if there is one."""
    loss = last_loss(check, name)
    row = Row(what, f"loss {loss:.6g}", unit="error", figures={"loss": loss})
    if check.loss is not None:
        row.other, row.value = f"{check.loss:.6g} under DDP", abs(loss - check.loss) / check.loss
        row.goal, row.at_most = bound, True
    return row


@measurement("training under FSDP2, one process", 75, needs_gpu=True)
def fsdp(check: Check) -> list[Row]:
    train(check, "fsdp", "fsdp")
    return [compare_loss(check, "FSDP2, an epoch", "fsdp", SHARDED)]


variant("compile", "torch.compile, not fast attention", compile_eager, lacks=False, needs_gpu=True)

if __name__ == "__main__":
    run_script(main)
