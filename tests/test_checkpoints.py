from __future__ import annotations

import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console

from glinerko.common import GlinerkoError, TrainingError
from glinerko.training import checkpoints
from glinerko.training.checkpoints import (
    dataset_digest,
    differences,
    find_checkpoint,
    find_resumed,
    list_checkpoints,
    prepare_output_dir,
    read_checkpoint,
    save_checkpoint,
)
from glinerko.training.optimizer import check_disk_space, disk_space


@pytest.fixture
def accelerator():
    accelerator = Accelerator(cpu=True)
    yield accelerator
    accelerator.free_memory()


@pytest.fixture
def run(accelerator, tmp_path):
    """A run's directory with the checkpoints of steps 9, 10 and 11, of which two are kept."""
    model = accelerator.prepare(torch.nn.Linear(4, 2))
    for step in (9, 10, 11):
        torch.nn.init.constant_(model.weight, step)
        save_checkpoint(accelerator, tmp_path, step, {"step": step}, total_limit=2)
    return tmp_path, model


def test_the_newest_are_kept_and_come_back(accelerator, run):
    directory, model = run
    assert [path.name for path in list_checkpoints(directory)] == ["checkpoint-11", "checkpoint-10"]
    path, content = find_checkpoint(directory, "latest", print)
    assert (path.name, content) == ("checkpoint-11", {"step": 11})
    accelerator.load_state(str(directory / "checkpoint-10"))
    assert model.weight.eq(10).all()


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no manifest"])
def test_a_damaged_one_is_passed_over_for_the_one_before(run, damage):
    directory, _ = run
    weights = directory / "checkpoint-11" / "model.safetensors"
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[:-1])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        weights.unlink()
    else:
        (directory / "checkpoint-11" / "checkpoint.json").write_text("{")
    warnings = []
    path, content = find_checkpoint(directory, "latest", warnings.append)
    assert path.name == "checkpoint-10"
    assert len(warnings) == 1
    assert "checkpoint-11: not a whole checkpoint" in warnings[0]
    with pytest.raises(TrainingError, match="checkpoint-11: not a whole"):
        find_checkpoint(directory, str(directory / "checkpoint-11"), print)
    (directory / "checkpoint-10" / "checkpoint.json").unlink()
    with pytest.raises(TrainingError, match="every checkpoint is damaged"):
        find_checkpoint(directory, "latest", warnings.append)


def test_where_there_is_none_the_run_starts_anew(tmp_path):
    assert find_checkpoint(tmp_path, "latest", print) is None
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        find_checkpoint(tmp_path, str(tmp_path), print)


def test_a_run_goes_on_from_its_newest_checkpoint_or_from_one_without_newer_ones(run):
    directory, _ = run
    content = {"step": 10, "identity": {}}
    path = directory / "checkpoint-10" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "content": content}))
    resume = partial(find_resumed, identity={}, anyway=False, console=Console())
    with pytest.raises(TrainingError, match=r"checkpoint-11 is newer than .*checkpoint-10: .*remove the newer ones"):
        resume(directory, str(path.parent))
    assert resume(directory / "other", str(path.parent)) == (path.parent, content)
    shutil.rmtree(directory / "checkpoint-11")
    assert resume(directory, str(path.parent)) == resume(directory, "latest") == (path.parent, content)


def test_the_checkpoint_of_another_run_is_no_leave_to_replace_a_model(accelerator, run, tmp_path):
    directory, _ = run
    other = tmp_path / "other"
    (other / "best").mkdir(parents=True)
    prepare = partial(prepare_output_dir, accelerator, result="best", overwrite=False)
    with pytest.raises(GlinerkoError, match="holds a trained model"):
        prepare(other, resume_from=str(directory / "checkpoint-11"))
    assert prepare(directory, resume_from=str(directory / "checkpoint-11")) == directory
    assert prepare(directory, resume_from="latest") == directory
    assert prepare(tmp_path / "new", resume_from=str(directory / "checkpoint-11")) == tmp_path / "new"


def test_a_run_that_resumes_counts_the_room_that_its_files_take(run, monkeypatch):
    directory, model = run
    *_, needed = disk_space(model, 2, False)
    check = partial(check_disk_space, model, directory, 2, False, "best")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    check()
    for path in list_checkpoints(directory):
        shutil.rmtree(path)
    with pytest.raises(TrainingError, match="make room"):
        check()


def test_a_failed_write_leaves_the_older_ones_and_nothing_half(accelerator, run, monkeypatch):
    directory, _ = run

    def no_space(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "file_digest", no_space)
    with pytest.raises(TrainingError, match=r"No space left on device.*Intact: checkpoint-11, checkpoint-10"):
        save_checkpoint(accelerator, directory, 12, {}, total_limit=2)
    monkeypatch.undo()
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    assert read_checkpoint(directory / "checkpoint-11") == {"step": 11}


def test_what_differs_is_named():
    digest = "0123456789abcdef"
    saved = {"seed": 42, "rate": 0.1, "documents": digest, "gone": 1}
    present = {"seed": 7, "rate": 0.1, "documents": digest[::-1], "new": True}
    assert differences(saved, present) == ["seed (42 → 7)", "documents", "gone (1 → None)", "new (None → True)"]
    assert not differences(saved, saved)


def test_a_data_set_is_known_by_its_rows(sample_rows):
    rows = sample_rows.select(range(20))
    assert dataset_digest(rows) == dataset_digest(sample_rows.select(range(30)).select(range(20)))
    assert dataset_digest(rows) != dataset_digest(sample_rows.select(range(1, 21)))
