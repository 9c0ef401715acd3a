"""Real training runs that gpu_check.py starts with ``accelerate launch``, and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from full_size import ROOT, Check

from glinerko.common import GlinerkoError, read_json_lines
from glinerko.training.checkpoints import HISTORY

TRAIN = "scripts/train_gliner2_korean_encoder.py"
LAUNCH = "from accelerate.commands.launch import main; main()"


def train(check: Check, name: str, config: str, *flags: str, stop: bool = False) -> None:
    """Train the pair of launched runs for an epoch, in one process that accelerate starts.

    Args:
        name: Of the output directory.
        config: A file of accelerate_configs.
        stop: Whether to send SIGTERM as soon as the first step begins.

    Raises:
        GlinerkoError: It failed, or a run to be stopped was not.
    """
    output, log, pair = check.directory / name, check.directory / f"{name}.log", check.directory / "launched"
    options = {
        "base_model": pair / "base", "korean_encoder": pair / "korean-encoder", "output_dir": output,
        "train_file": check.directory / "train.jsonl", "validation_file": check.directory / "validation.jsonl",
        "max_train_samples": check.size.trained, "word_splitter": check.model.settings.word_splitter,
        "num_train_epochs": 1, "per_device_train_batch_size": 2, "checkpointing_steps": "no",
    }  # fmt: skip
    launcher = [sys.executable, "-c", LAUNCH, "--quiet", "--config_file", f"accelerate_configs/{config}.yaml"]
    options = [f"--{option}={value}" for option, value in options.items()]
    command = [*launcher, "--num_processes", "1", TRAIN, *options, *flags]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
        try:
            if stop:
                stop_when_training(process, log, f"--output_dir={output}")
            process.wait()
        finally:
            if process.poll() is None:  # the time is up
                os.killpg(process.pid, signal.SIGKILL)
    said = log.read_text(encoding="utf-8", errors="replace")
    if "stopped by SIGTERM, after step" not in said if stop else process.returncode:
        raise GlinerkoError(f"{config}.yaml{', SIGTERM' if stop else ''}: {said.strip().rpartition(chr(10))[2]}")


def stop_when_training(launcher: subprocess.Popen, log: Path, flag: str) -> None:
    """Send SIGTERM to the process that trains, known by its flag, and not to its launcher, which would not wait."""
    trainer = None
    while launcher.poll() is None:
        for process in () if trainer else psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if flag in words and LAUNCH not in words:
                trainer = process
        if trainer and "Training:" in log.read_text(encoding="utf-8", errors="replace"):  # its progress bar
            trainer.terminate()
            return
        time.sleep(0.01 if trainer else 0.2)


def last_loss(check: Check, name: str) -> float:
    """The mean loss of the epoch of a run."""
    return read_json_lines(check.directory / name / HISTORY)[-1]["loss"]
