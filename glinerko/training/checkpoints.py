"""The files of a run: checkpoints that are complete or absent, and resuming from them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from datasets.fingerprint import Hasher
from rich.console import Console

from glinerko.cli import Affects, options_that_affect
from glinerko.common import (
    GlinerkoError,
    TrainingError,
    check_writable,
    file_digest,
    first_line,
    read_json_lines,
    write_json,
    write_json_lines,
)

TRAINING_ARGUMENTS, ENVIRONMENT, SWAP_REPORT = "training_args.json", "environment.json", "swap_report.json"
"""What a run writes into its output directory. Published copies have the same names."""
DATA_REPORT, HISTORY, VALIDATION = "data_report.json", "history.jsonl", "validation.jsonl"
BEST, REPORT, PLAN = "best", "report", "plan.json"
"""The directory of its best model, and that of an evaluation of it with the figures and the counts of each document."""
REPORT_FIGURES, REPORT_COUNTS = "report.json", "counts.jsonl"
REPORT_CANDIDATES = "candidates.jsonl"
"""Every span with a score of at least 0.05, overlapping or not: ``{"id", "spans": [[start, end, label, score]]}``."""


_MANIFEST = "checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in directory.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def save_checkpoint(
    accelerator: Accelerator,
    directory: Path,
    step: int,
    content: Mapping[str, Any],
    total_limit: int,
) -> Path:
    """Write model, optimizer, all registered objects and ``content``; then remove all but the newest checkpoints.

    The files are written under another name and flushed to the disk before the directory gets its own. So a checkpoint
    that can be seen is complete, even if the machine stops at any moment. Every process calls this.

    Args:
        directory: The directory of the run.
        content: What :func:`read_checkpoint` returns; JSON.
        total_limit: The number of checkpoints to keep.

    Raises:
        TrainingError: The disk is full or cannot be written; older checkpoints are unchanged.
    """
    aside, path = directory / "checkpoint.partial", directory / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(aside))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _complete(aside, path, content)
            for old in list_checkpoints(directory)[total_limit:]:
                shutil.rmtree(old)
    except Exception as error:  # torch, safetensors and the system each raise their own on a full disk
        shutil.rmtree(aside, ignore_errors=True)
        intact = [old.name for old in list_checkpoints(directory)]
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({first_line(error)}; "
            f"{shutil.disk_usage(directory).free / 1e9:.1f} GB are free). "
            + (f"Intact: {', '.join(intact)}" if intact else "There is no older one")
        ) from error
    accelerator.wait_for_everyone()
    return path


def _complete(aside: Path, path: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest, flush everything to the disk and give the checkpoint its name."""
    files = {str(file.relative_to(aside)): file for file in sorted(aside.rglob("*")) if file.is_file()}
    entries = {name: {"size": file.stat().st_size, "sha256": file_digest(file)} for name, file in files.items()}
    write_json(aside / _MANIFEST, {"content": content, "files": entries})
    for file in (*files.values(), aside / _MANIFEST, aside):
        _flush(file)
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)
    _flush(path.parent)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content that was saved with a checkpoint, after a check of all its files.

    Raises:
        TrainingError: It is no checkpoint, or one of its files is missing or damaged.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            file = path / name
            if file.stat().st_size != entry["size"] or file_digest(file) != entry["sha256"]:
                raise ValueError(f"{name} is damaged")
        return manifest["content"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: not a whole checkpoint ({first_line(error)})") from error


def find_checkpoint(directory: Path, wanted: str, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to resume from and its content; ``None`` if ``wanted`` is ``latest`` and there is none.

    Args:
        wanted: ``latest``, which falls back past damaged ones, or a path.

    Raises:
        TrainingError: The checkpoint at the path, or every checkpoint, is damaged.
    """
    if wanted != "latest":
        return Path(wanted), read_checkpoint(Path(wanted))
    found = list_checkpoints(directory)
    for path in found:
        try:
            return path, read_checkpoint(path)
        except TrainingError as error:
            warn(f"{error}; going back to the one before")
    if found:
        raise TrainingError(f"{directory}: every checkpoint is damaged; start again with --overwrite_output_dir")
    return None


def run_identity(accelerator: Accelerator, *arguments: Any, **content: Any) -> dict[str, Any]:
    """What a resumed run must have in common with the run that was stopped.

    Args:
        accelerator: Its number of processes and its precision count.
        arguments: Dataclasses; their options that affect the trained weights count.
        content: More values by name, for example digests of the data.
    """
    compared = {name: getattr(each, name) for each in arguments for name in options_that_affect(Affects.RESULT, each)}
    machine = {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
    return {**compared, **machine, **content}


def find_resumed(
    directory: Path, wanted: str | None, identity: Mapping[str, Any], anyway: bool, console: Console
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to resume from and its content, if one is requested and exists.

    Args:
        wanted: See :func:`find_checkpoint`; ``None`` for none.
        identity: See :func:`run_identity`; must be equal unless ``anyway``.

    Raises:
        TrainingError: It belongs to another run; the message names the differences. Or the directory has a newer one,
            which would be taken for the newest of the resumed run.
    """
    if not wanted:
        return None
    warn = partial(console.print, style="yellow")
    resumed = find_checkpoint(directory, wanted, warn)
    if resumed is None:
        warn(f"No checkpoint in {directory}: starting from the beginning")
        return None
    path, content = resumed
    newer = [each for each in list_checkpoints(directory) if _step(each) > content["step"]]
    if newer and wanted != "latest":
        raise TrainingError(
            f"{newer[-1]} is newer than {path}: resume from latest, or remove the newer ones, or choose another "
            "--output_dir"
        )
    changed = differences(content["identity"], identity)
    if changed and not anyway:
        raise TrainingError(
            f"{path} belongs to a run with other {', '.join(changed)}; --resume_anyway resumes it anyway"
        )
    return resumed


def trim_history(path: Path, epoch: int, *more: Mapping[str, Any]) -> None:
    """Keep the entries of the epochs before ``epoch``, and add ``more``; the file is whole at any moment."""
    write_json_lines(path, [*(entry for entry in read_json_lines(path) if entry["epoch"] < epoch), *more])


def prepare_output_dir(
    accelerator: Accelerator, directory: Path, result: str, resume_from: str | None, overwrite: bool
) -> Path:
    """Make the directory of a run; the result of an earlier run is not replaced unless requested.

    Args:
        result: The name under ``directory`` of what the run produces.

    Raises:
        GlinerkoError: It holds an earlier run, or cannot be written.
    """
    checkpoints = list_checkpoints(directory)
    own_checkpoint = resume_from and Path(resume_from).resolve() in [path.resolve() for path in checkpoints]
    resuming = checkpoints if resume_from == "latest" else own_checkpoint
    if ((directory / result).exists() or checkpoints) and not (resuming or overwrite):
        going_on = "--resume_from_checkpoint latest continues it, or " if checkpoints else ""
        raise GlinerkoError(
            f"{directory} holds a trained model: {going_on}choose another --output_dir or --overwrite_output_dir"
        )
    accelerator.wait_for_everyone()
    check_writable(directory)
    if not resuming and accelerator.is_main_process:
        for left in checkpoints:  # a later run must not resume from these
            shutil.rmtree(left)
    return directory


def replace_directory(directory: Path, write: Callable[[Path], object]) -> None:
    """Write a directory under another name and rename it, so that ``directory`` is always whole."""
    fresh, old = (directory.with_name(f"{directory.name}.{age}") for age in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write(fresh)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def dataset_digest(rows: Dataset) -> str:
    """A hash of the content of the rows, independent of their file."""
    batches = rows.with_format("arrow").iter(1000)
    return Hasher.hash_bytes(json.dumps(batch.to_pylist()).encode() for batch in batches)


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What two runs do not have in common, each as ``name (before → now)``; for digests only the name."""
    changed = []
    for name in {**saved, **present}:
        before, now = saved.get(name), present.get(name)
        if before != now:
            changed.append(f"{name} ({before} → {now})" if not _is_digest(before) and not _is_digest(now) else name)
    return changed


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{16,}", value))


def _step(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


def _flush(path: Path) -> None:
    """Make sure that a file or a directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
