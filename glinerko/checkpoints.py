"""Checkpoints that are complete or not there, and what a run must have in common with the one it goes on from."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from datasets.fingerprint import Hasher
from rich.console import Console

from glinerko.errors import GlinerkoError, TrainingError, first_line
from glinerko.files import file_digest, write_json

_MANIFEST = "checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in directory.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def save_checkpoint(
    accelerator: Accelerator, directory: Path, step: int, content: Mapping[str, Any], total_limit: int
) -> Path:
    """Write model, optimizer and all that is registered, and ``content``; then remove all but the newest few.

    The files are written aside and flushed to the disk before the directory gets its name, so that a checkpoint that
    can be seen is complete, whenever the machine stops. Every process calls this.

    Args:
        directory: Of the run.
        content: What :func:`read_checkpoint` gives back; JSON.

    Raises:
        TrainingError: the disk is full or cannot be written; older checkpoints are as they were.
    """
    aside, path = directory / "checkpoint.partial", directory / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(aside))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            files = {str(file.relative_to(aside)): file for file in sorted(aside.rglob("*")) if file.is_file()}
            entries = {name: {"size": file.stat().st_size, "sha256": file_digest(file)} for name, file in files.items()}
            write_json(aside / _MANIFEST, {"content": content, "files": entries})
            for file in (*files.values(), aside / _MANIFEST, aside):
                _flush(file)
            shutil.rmtree(path, ignore_errors=True)
            aside.rename(path)
            _flush(directory)
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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content that was saved with a checkpoint, after its files were found to be those that were written.

    Raises:
        TrainingError: it is no checkpoint, or a file of it is missing or damaged.
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
    """The checkpoint to go on from and its content; ``None`` where ``wanted`` is ``latest`` and there is none.

    Args:
        wanted: ``latest``, which goes back past damaged ones, or a path.

    Raises:
        TrainingError: the one at the path, or every one there is, is damaged.
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
        raise TrainingError(f"{directory}: every checkpoint is damaged; start anew with --overwrite_output_dir")
    return None


def find_resumed(
    directory: Path, wanted: str | None, identity: Mapping[str, Any], anyway: bool, console: Console
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from and its content, where one is asked for and there is one.

    Args:
        wanted: See :func:`find_checkpoint`; ``None`` for none.
        identity: What the run that goes on must have in common with the one that was stopped, unless ``anyway``.

    Raises:
        TrainingError: it is of another run; the message names what differs.
    """
    if not wanted:
        return None
    warn = partial(console.print, style="yellow", highlight=False)
    resumed = find_checkpoint(directory, wanted, warn)
    if resumed is None:
        warn(f"No checkpoint in {directory}: starting from the beginning")
        return None
    changed = differences(resumed[1]["identity"], identity)
    if changed and not anyway:
        raise TrainingError(
            f"{resumed[0]}: of a run with other {', '.join(changed)}; --resume_anyway goes on all the same"
        )
    return resumed


def prepare_output_dir(
    accelerator: Accelerator, directory: Path, result: str, resume_from: str | None, overwrite: bool
) -> Path:
    """Make the directory of a run, and keep what an earlier run left there unless told otherwise.

    Args:
        result: The name under ``directory`` of what a run ends in.

    Raises:
        GlinerkoError: it holds an earlier run's, or cannot be written.
    """
    checkpoints = list_checkpoints(directory)
    resuming = resume_from and (checkpoints or resume_from != "latest")
    if ((directory / result).exists() or checkpoints) and not (resuming or overwrite):
        raise GlinerkoError(
            f"{directory} holds a trained model: --resume_from_checkpoint latest goes on with it, or choose another "
            "--output_dir or --overwrite_output_dir"
        )
    accelerator.wait_for_everyone()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not resuming and accelerator.is_main_process:
            for left in checkpoints:  # a later run must not go on from these
                shutil.rmtree(left)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise GlinerkoError(f"{directory}: cannot be written ({error.strerror})") from error
    return directory


def dataset_digest(rows: Dataset) -> str:
    """A hash of the rows themselves, wherever their file lies."""
    batches = rows.with_format("arrow").iter(1000)
    return Hasher.hash_bytes(json.dumps(batch.to_pylist()).encode() for batch in batches)


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What two runs do not have in common, each as ``name (before → now)``; of digests the name alone."""
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
    """See to it that a file or a directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
