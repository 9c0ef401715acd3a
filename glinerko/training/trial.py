"""How long a run will take on this machine, and how much memory it needs, from a few steps."""

from __future__ import annotations

import copy
import random
import resource
import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset

from glinerko.corpus.schema import LabelSchema
from glinerko.model.extractor import KoreanExtractor
from glinerko.training.batches import WindowCollator, find_batch_size
from glinerko.training.optimizer import parameter_groups
from glinerko.training.speed import speed_up

STEPS = 4
"""Timed steps, after one that is not."""


@dataclass
class RunEstimate:
    """What a run costs on this machine, without evaluation and checkpoints."""

    device: str
    windows: int
    """Training windows of an epoch."""
    windows_per_second: float
    minutes_per_epoch: float
    memory_gb: float
    """The peak of this process with a batch of the longest windows: memory of the GPU, or of the machine."""


def estimate_run(
    model: KoreanExtractor, windows: Dataset, schema: LabelSchema, accelerator: Accelerator, batch_size: int
) -> RunEstimate:
    """Train a copy of ``model`` for a few steps of random windows.

    Args:
        windows: Of :func:`glinerko.corpus.windows.training_windows`.
        batch_size: Windows in a batch.

    Raises:
        TrainingError: A batch does not fit in memory.
    """
    model = copy.deepcopy(model).to(accelerator.device)
    speed_up(model, model.encoder, "auto", accelerator)
    find_batch_size(model.train(), windows, schema, batch_size, accelerator)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0, 0.0, 0.0), fused=True)
    collate, drawn = WindowCollator(model.processor, schema), random.Random(0)
    begin = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            _wait(accelerator)
            begin = time.perf_counter()
        rows = [windows[index] for index in drawn.choices(range(len(windows)), k=batch_size)]
        batch = send_to_device(collate(rows)["batch"], accelerator.device)
        with accelerator.autocast():
            outputs = model(batch)
        accelerator.backward(model.summed_losses(outputs, len(batch))[0])
        optimizer.step()
        optimizer.zero_grad()
    _wait(accelerator)
    speed = STEPS * batch_size / (time.perf_counter() - begin)
    on_gpu = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return RunEstimate(str(accelerator.device), len(windows), speed, len(windows) / speed / 60, peak / 1e9)


def _wait(accelerator: Accelerator) -> None:
    """Wait until the device has done what it was asked to."""
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize()
