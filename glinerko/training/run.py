"""The start of a training run, and requests to stop it."""

from __future__ import annotations

import math
import os
import platform
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, set_seed
from rich.console import Console

from glinerko.cli import make_console, set_log_levels
from glinerko.common import GlinerkoError
from glinerko.training.arguments import RunArguments
from glinerko.training.checkpoints import prepare_output_dir


class StopRequest:
    """Whether a run should stop after the current step: because of SIGINT, SIGTERM, or its time limit.

    A second signal interrupts at once. SIGINT also works in the background, where shells make a process ignore it.

    Args:
        minutes: Time limit of the run, from now; none if ``None``.
    """

    def __init__(self, minutes: float | None = None):
        self.reason: str | None = None
        self._minutes, self._end = minutes, math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.patient = False
        """Whether a signal waits for the end of a step. If not, it interrupts at once."""
        self._handle(self._receive)
        os.register_at_fork(after_in_child=self._enter_child)

    @property
    def asked(self) -> bool:
        """Whether the run should stop."""
        if self.reason is None and time.monotonic() >= self._end:
            self.reason = f"stopped after {self._minutes:g} minutes,"
        return self.reason is not None

    def _enter_child(self) -> None:
        # Processes that tokenize end at once, because datasets waits for ever for one that does not. Those that make
        # batches go on to the end of the step.
        if not self.patient:
            self._handle(signal.SIG_DFL)

    @staticmethod
    def _handle(handler: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or self.reason is not None:
            raise KeyboardInterrupt
        self.reason = f"stopped by {signal.Signals(number).name},"


@dataclass
class Run:
    """What every part of a training script uses."""

    accelerator: Accelerator
    console: Console
    """Silent except on the main process."""
    stop: StopRequest
    output_dir: Path

    def describe(self) -> dict[str, Any]:
        """Device, processes, precision and versions, for the model card."""
        names = ("glinerko", "gliner2", "torch", "transformers", "accelerate", "kiwipiepy")
        device = self.accelerator.device
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
            "processes": self.accelerator.num_processes,
            "precision": self.accelerator.mixed_precision,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        }

    def start_trackers(self, arguments: dict[str, Any]) -> None:
        """Tell the experiment trackers the options of the run; its name is that of the output directory."""
        config = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in arguments.items()
        }
        names = {tracker: {"name": self.output_dir.resolve().name} for tracker in ("wandb", "trackio")}
        self.accelerator.init_trackers("glinerko", config=config, init_kwargs=names)


def start_run(args: RunArguments, result: str, report_to: str = "none", timeout: timedelta | None = None) -> Run:
    """Set up processes, precision, console, signals, seed, trackers and output directory.

    Args:
        result: The name under ``output_dir`` of what the run produces.
        report_to: The experiment trackers; see :func:`choose_trackers`.
        timeout: How long processes wait for each other (default: torch's, ten minutes on GPUs).

    Raises:
        GlinerkoError: A tracker is not installed; the output directory holds an earlier run or cannot be written.
    """
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # `accelerate launch` does not tell this to several processes
        mixed_precision=choose_precision(args.mixed_precision),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        log_with=choose_trackers(report_to),
        project_dir=str(Path(args.output_dir) / "logs"),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)] if timeout else None,
    )
    set_log_levels(accelerator.is_main_process)
    stop = StopRequest(args.max_train_minutes)
    set_seed(args.seed)
    output_dir = prepare_output_dir(
        accelerator, Path(args.output_dir), result, args.resume_from_checkpoint, args.overwrite_output_dir
    )
    return Run(accelerator, make_console(accelerator.is_main_process), stop, output_dir)


def choose_trackers(wanted: str) -> str | None:
    """The trackers for Accelerate, which would ignore one that is not installed.

    Args:
        wanted: The name of a tracker, ``all`` or ``none``.

    Raises:
        GlinerkoError: It is not installed.
    """
    installed = [tracker.value for tracker in get_available_trackers()]
    if wanted not in ("none", "all", *installed):
        raise GlinerkoError(f"--report_to {wanted}: not installed; run `pip install {wanted}`")
    return None if wanted == "none" else wanted


def choose_precision(wanted: str) -> str | None:
    """The precision for Accelerate; ``None`` leaves it to Accelerate's configuration.

    Raises:
        GlinerkoError: There is no GPU, and it works only there.
    """
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if "fp16" in (wanted, configured) and wanted in ("auto", "fp16") and not torch.accelerator.is_available():
        raise GlinerkoError("--mixed_precision fp16: needs a GPU, and there is none; bf16 works on a CPU")
    if wanted != "auto":
        return wanted
    return "bf16" if configured == "no" and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else None
