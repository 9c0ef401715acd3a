"""How long a run will take on this machine, and how much memory it needs, from a few steps."""

from __future__ import annotations

import copy
import random
import resource
import time
from dataclasses import asdict, dataclass
from typing import Any

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


@dataclass
class RunPlan:
    """What a run of the training script takes on this machine: measured on some steps, an evaluation, a checkpoint."""

    device: str
    processes: int
    precision: str
    attention: str
    windows_per_batch: int
    batches_per_step: int
    steps_per_epoch: int
    epochs: int
    seconds_per_step: float
    seconds_per_evaluation: float
    """Of all validation documents, with saving the model."""
    seconds_per_checkpoint: float
    memory_gb: float
    """See :class:`RunEstimate`."""
    model_gb: float
    checkpoint_gb: float
    disk_gb: float
    """Of all that is kept."""
    price_per_hour: float | None = None

    @property
    def minutes_per_epoch(self) -> float:
        steps = self.steps_per_epoch * self.seconds_per_step
        return (steps + self.seconds_per_evaluation + self.seconds_per_checkpoint) / 60

    @property
    def minutes(self) -> float:
        """Of all epochs; a run that stops early takes less."""
        return self.epochs * self.minutes_per_epoch

    @property
    def price(self) -> float | None:
        """In the currency of ``price_per_hour``."""
        return None if self.price_per_hour is None else self.price_per_hour * self.minutes / 60

    def to_dict(self) -> dict[str, Any]:
        totals = {name: getattr(self, name) for name in ("minutes_per_epoch", "minutes", "price")}
        return {**asdict(self), **totals}


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has used so far: of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait() -> None:
    """Wait until the device has done what it was asked to."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


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
            wait()
            begin = time.perf_counter()
        rows = [windows[index] for index in drawn.choices(range(len(windows)), k=batch_size)]
        batch = send_to_device(collate(rows)["batch"], accelerator.device)
        with accelerator.autocast():
            outputs = model(batch)
        accelerator.backward(model.summed_losses(outputs, len(batch))[0])
        optimizer.step()
        optimizer.zero_grad()
    wait()
    speed = STEPS * batch_size / (time.perf_counter() - begin)
    peak = peak_memory(accelerator.device)
    return RunEstimate(str(accelerator.device), len(windows), speed, len(windows) / speed / 60, peak / 1e9)
