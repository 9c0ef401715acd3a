"""benchmarks/gpu_check.py: rehearsed on the CPU, and what it does when a measurement fails or the time is up."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from conftest import PYTHON, ROOT
from datasets import Dataset

from glinerko.common import TrainingError
from glinerko.corpus import words
from glinerko.training.texts import word_piece_tokenizer

NEED_A_GPU = {"waits", "fsdp", "compile"}


@pytest.fixture(scope="session")
def gpu_check():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import gpu_check

    return gpu_check


@pytest.mark.slow(45)
def test_everything_is_rehearsed_on_a_cpu(gpu_check, tmp_path):
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{PYTHON}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / ".installed").touch()
    file = tmp_path / "figures.json"
    command = ["make", "gpu-check", "SIZE=tiny", f"BIN={tmp_path}", f"ARGS=--output_file {file}"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["device"] == "CPU"
    assert content["precision"] == "bf16"
    assert content["versions"].keys() >= {"glinerko", "gliner2", "torch", "accelerate"}
    assert "--size tiny" in content["command"]
    assert content["tokens"] == 6010  # with those of GLiNER2

    records = content["measurements"]
    assert list(records) == list(gpu_check.MEASUREMENTS)
    assert {name for name, each in records.items() if each["status"] != "done"} == NEED_A_GPU
    assert {records[name]["reason"] for name in NEED_A_GPU} == {"needs a GPU"}
    for number, each in enumerate(records.values(), 1):
        assert f"[{number}/{len(records)}] {each['title']}" in result.stdout
    rows = {row["what"].strip(): row for each in records.values() for row in each["rows"]}
    for what, row in rows.items():
        assert row["value"] is None or (math.isfinite(row["value"]) and row["value"] >= 0), what
        assert what[:20] in result.stdout
    value = {what: row["value"] for what, row in rows.items()}
    assert 0.1 < value["training step, 2 windows"] < 20
    assert 0 < value["memory, 1 longest windows"] <= value["memory, 2 longest windows"] < 20_000
    assert value["largest batch that fits"] == 2
    (share,) = (row for what, row in rows.items() if what.startswith("share of the matrix rate"))
    # Without bf16 instructions, the large product is slower than the step, much of which stays in float32.
    assert 0 < share["value"] < (1 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 20)
    parts = [value[part] for part in ("collation", "transfer", "encoder forward", "heads forward", "backward")]
    assert sum(parts) + value["clipping and optimizer"] == pytest.approx(1)
    assert value["padding in a batch"] < 1
    assert (value["padding in a batch"] > 0) == (value["batch of the highest throughput"] > 1)
    assert sum(what.startswith("gain: ") and 0.1 < row["value"] < 20 for what, row in rows.items()) == 6
    assert 0.1 < value["reading, float32"] < 20
    assert "spans in bf16" in rows["spans that differ and are no tie"]["ours"]
    assert value["resumed after SIGTERM, an epoch"] < 1e-4
    assert rows["DDP, an epoch"]["figures"]["loss"] > 0
    verdicts = [verdict for each in records.values() for verdict in each["verdicts"] if verdict]
    assert verdicts == ["PASS"] * 4  # two of numerics, one of evaluation, one of resuming; none of speed


@pytest.fixture
def run(gpu_check, monkeypatch, tmp_path, capsys):
    """Run the script with the measurements of a test, each with its limit in seconds, and with nothing built."""

    def run(minutes: float = 1, **measurements) -> tuple[int, dict, str]:
        found = {name: gpu_check.Measurement(f"the {name} one", *each) for name, each in measurements.items()}
        monkeypatch.setattr(gpu_check, "MEASUREMENTS", found)
        accelerator = SimpleNamespace(free_memory=lambda: None)
        check = SimpleNamespace(run=SimpleNamespace(accelerator=accelerator), on_gpu=False)
        monkeypatch.setattr(gpu_check, "build", lambda *_: check)
        monkeypatch.setattr(gpu_check, "describe", lambda _: {"device": "none"})
        file, status = tmp_path / "figures.json", 0
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--minutes", str(minutes), "--output_file", str(file)])
        try:
            gpu_check.main()
        except SystemExit as end:
            status = end.code
        return status, json.loads(file.read_text(encoding="utf-8"))["measurements"], capsys.readouterr().out

    return run


def quick(check):
    from measurements import Row

    return [
        Row("a step", "1 ms", "2 ms", 2.0, "×", 1.5),
        Row("an error", value=0.01, unit="error", goal=0.1, at_most=True),
    ]


def endless(check):
    while True:
        try:
            time.sleep(60)
        except Exception:  # as gliner2 does in a training step
            continue


def test_a_measurement_that_fails_is_reported_and_the_others_go_on(run):
    def broken(check):
        raise ValueError("no such kernel\nand a long explanation")

    status, records, said = run(broken=(broken, 60), quick=(quick, 60))
    assert status == 1
    assert (records["broken"]["status"], records["broken"]["reason"]) == ("failed", "ValueError: no such kernel")
    assert (records["quick"]["status"], records["quick"]["verdicts"]) == ("done", ["PASS", "PASS"])
    assert "failed: broken" in said
    assert "the broken one" in said


def test_a_measurement_that_takes_too_long_is_stopped_and_the_others_go_on(run):
    status, records, said = run(endless=(endless, 0.2), quick=(quick, 60))
    assert status == 1
    assert (records["endless"]["status"], records["endless"]["reason"]) == ("failed", "not done after 0.2 seconds")
    assert records["quick"]["status"] == "done"
    assert "failed: endless" in said


def test_what_there_is_no_time_for_is_left_out_and_named(run):
    begin = time.monotonic()
    status, records, said = run(minutes=0.02, quick=(quick, 60), endless=(endless, 60), late=(quick, 60))
    assert status == 1
    assert [each["status"] for each in records.values()] == ["done", "left out", "left out"]
    assert "left out: endless, late" in said
    assert time.monotonic() - begin < 30


def test_what_needs_a_gpu_is_named_and_is_no_failure(run):
    status, records, said = run(quick=(quick, 60), kernels=(quick, 60, True))
    assert status == 0
    assert (records["kernels"]["status"], records["kernels"]["reason"]) == ("not measured", "needs a GPU")
    assert "not measured: needs a GPU" in said


@pytest.mark.parametrize(("value", "at_most"), [(1.4, False), (1.6, True), (math.nan, False), (math.nan, True)])
def test_a_goal_that_is_missed_is_said_by_the_verdict_and_the_status(run, value, at_most):
    from measurements import Row

    status, records, said = run(step=(lambda check: [Row("a step", "", "", value, "×", 1.5, at_most)], 60))
    assert (status, records["step"]["verdicts"]) == (1, ["MISS"])
    assert "MISS" in said


def test_the_largest_batch_that_fits_is_found(gpu_check, monkeypatch):
    def find_batch_size(model, windows, schema, wanted, accelerator):
        if wanted > 4:
            raise TrainingError("out of memory")

    monkeypatch.setattr(gpu_check, "find_batch_size", find_batch_size)
    seconds = {2: 1.0, 4: 4.0}
    trainer = SimpleNamespace(extractor=None, batch=0)
    trainer.read = lambda rows, size: vars(trainer).update(batch=size)
    trainer.once = lambda: seconds[trainer.batch]
    check = SimpleNamespace(
        windows=Dataset.from_dict({"words": [[[0, 1]] * number for number in range(1, 20)]}),
        size=SimpleNamespace(batches=(2, 4, 8, 16)),
        trainer=lambda **_: trainer,
        run=SimpleNamespace(accelerator=None),
        schema=None,
        on_gpu=False,
    )
    *_, largest, best = gpu_check.memory(check)
    assert (largest.value, largest.other) == (4, "8 do not fit")
    assert check.best_batch == best.value == 2


def test_documents_are_as_long_as_real_ones_and_their_mentions_stand_where_they_say(gpu_check):
    from full_size import make_documents

    rows = list(make_documents(300, 4270, 7))
    assert rows == list(make_documents(300, 4270, 7))
    assert rows != list(make_documents(300, 4270, 8))
    mentions = [(row["text"], mention) for row in rows for each in row["entities"].values() for mention in each]
    assert all(text[mention["start"] : mention["end"]] == mention["text"] for text, mention in mentions)
    assert 4 < len(mentions) / len(rows) < 10
    lengths = [len(row["text"]) for row in rows]
    assert 250 < median(lengths) < 420
    assert max(lengths) > 2000
    assert max(len(row["text"]) for row in make_documents(50, 400, 7)) < 500


def test_without_the_model_of_kiwi_words_are_those_of_white_space(gpu_check, monkeypatch):
    import full_size

    assert full_size.choose_splitter(None) == "korean"
    monkeypatch.setattr(words, "_new_kiwi", lambda tuned: importlib.import_module("no_model_of_kiwi"))
    words.analyser.cache_clear()
    assert full_size.choose_splitter(None) == "whitespace"
    assert full_size.choose_splitter("char") == "char"


def test_an_encoder_can_have_as_many_tokens_as_a_published_one(sample_rows):
    texts = sample_rows["text"][:50]
    small, large = word_piece_tokenizer(texts), word_piece_tokenizer(texts, min_size=9000)
    assert small.get_vocab_size() < large.get_vocab_size() == 9000
    assert [small.encode(text).ids for text in texts] == [large.encode(text).ids for text in texts]
