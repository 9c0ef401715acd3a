"""The scripts as a user runs them, on the tiny pair."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import PYTHON, ROOT, SAMPLE
from hub_server import WRITE, serve
from layouts import build, gliner_v1
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_swap import edit_json, roberta

from glinerko.model.extractor import load_extractor
from glinerko.training.checkpoints import find_checkpoint, list_checkpoints

TRAIN = "scripts/train_gliner2_korean_encoder.py"
PUSH = "scripts/push_to_hub.py"
VERIFY = "scripts/verify_encoder_swap.py"
LAUNCH = [PYTHON, Path(sys.executable).with_name("accelerate"), "launch", "--quiet", "--config_file"]


def run(*command, **environment) -> subprocess.CompletedProcess:
    """Run a command to its end; it has ended by itself, and not at a time limit of torch.distributed (30 minutes)."""
    environment = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run([*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def one_line_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The last line says what is wrong, in one line and with no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    for part in parts:
        assert part in line


@pytest.fixture
def flags(pair, tmp_path):
    """Flags of a run that takes seconds."""
    options = {
        "base_model": pair[0],
        "korean_encoder": pair[1],
        "output_dir": tmp_path / "run",
        "train_file": SAMPLE / "train.jsonl",
        "max_train_samples": 64,
        "num_train_epochs": 2,
        "encoder_learning_rate": 5e-3,
        "head_learning_rate": 5e-3,
    }
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


@pytest.mark.slow(16)
@pytest.mark.parametrize(("config", "architecture"), [("cpu", "span"), ("cpu_multi", "span"), ("cpu", "boundary")])
def test_train_then_eval(flags, bases, pair, tmp_path, config, architecture):
    flags = [*flags, "--base_model", bases[architecture]]
    result = run(*LAUNCH, f"accelerate_configs/{config}.yaml", TRAIN, *flags)
    assert result.returncode == 0, result.stderr
    directory = tmp_path / "run"
    for expected in ("kept bit for bit", "reach of mentions", "Not trained", "scripts/eval.py --model"):
        assert expected in result.stdout
    assert "epoch 2: loss" in result.stdout + result.stderr
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[1]["loss"] < history[0]["loss"]
    processes = 2 if config == "cpu_multi" else 1
    assert history[1]["step"] == 2 * -(-58 // (16 * processes))
    report = json.loads((directory / "data_report.json").read_text())
    assert report["training"]["mentions"] == sum(report["training"]["mentions_by_outcome"].values())
    assert "환자" not in (directory / "data_report.json").read_text()
    model = load_extractor(directory / "best")
    assert model.threshold is not None
    assert model.label_schema.labels == ("Disease", "Drug", "Procedure", "Biomarker")

    others = [pair[0]]
    if importlib.util.find_spec("gliner"):
        others.append(gliner_v1(pair[1], tmp_path / "gliner_v1"))
    trained_on = ["--train_file", SAMPLE / "train.jsonl"]
    precision = {"ACCELERATE_MIXED_PRECISION": "bf16" if architecture == "boundary" else "no"}
    command = [PYTHON, "scripts/eval.py", "--model", directory / "best", *trained_on, "--compare", *others]
    scored = run(*command, **precision)
    assert scored.returncode == 0, scored.stderr
    assert "dictionary of training mentions" in scored.stdout
    result = json.loads((directory / "report" / "report.json").read_text())
    assert result["threshold"] == model.threshold
    assert result["dictionary"]["overall"]["gold"] == result["string_f1"]["overall"]["gold"]
    assert len(result["sweep"]) == 19
    assert result["targets"]["overall"]["target"] == 0.5
    assert result["targets"]["overall"]["f1_interval"][0] <= result["string_f1"]["overall"]["f1"]
    assert result["ceiling"]["string_f1"]["overall"]["f1"] > 0.9
    assert [model["model"] for model in result["comparisons"]] == [*map(str, (directory / "best", *others))]
    gold = sum(result["errors"]["gold"]["all"].values())
    assert gold == result["span_f1"]["overall"]["gold"]
    assert "환자" not in (directory / "report" / "report.json").read_text()  # figures alone; texts are in the page
    assert "환자" in (directory / "report" / "index.html").read_text()
    assert (directory / "report" / "labels.png").stat().st_size > 0
    too_low = run(PYTHON, "scripts/eval.py", "--model", directory / "best", "--min_f1", "1.1")
    assert too_low.returncode == 1


@pytest.mark.slow(21)
@pytest.mark.parametrize("architecture", ["span", "boundary"])
def test_two_processes_train_as_one(flags, bases, tmp_path, architecture):
    """The same losses and F1 from one process with batches of 8, or twice as many of 4, and two with batches of 4."""
    base = shutil.copytree(bases[architecture], tmp_path / "base")
    alone, epochs, tolerance, f1_tolerance = (8, 2), 8, 1e-4, 1e-4
    if architecture == "boundary":  # its loss is a mean over a batch; labels without mentions are drawn at random
        alone, epochs, tolerance, f1_tolerance = (4, 4), 3, 1e-3, 1e-2  # a candidate more or less, and that grows
        head = json.loads((base / "config.json").read_text())["boundary_head"]
        edit_json(base / "config.json", boundary_head={**head, "negative_query_ratio": 0.0})
    flags = [
        *flags,
        "--validation_file",
        SAMPLE / "validation.jsonl",
        "--num_train_epochs",
        epochs,
        "--base_model",
        base,
    ]
    histories = []
    for config, (size, accumulated) in (("cpu", alone), ("cpu_multi", (4, 2))):
        own = ["--output_dir", tmp_path / config, "--per_device_train_batch_size", size]
        own += ["--gradient_accumulation_steps", accumulated]
        result = run(*LAUNCH, f"accelerate_configs/{config}.yaml", "tests/without_chance.py", TRAIN, *flags, *own)
        assert result.returncode == 0, result.stderr
        lines = (tmp_path / config / "history.jsonl").read_text().splitlines()
        histories.append([json.loads(line) for line in lines])
    for one, two in zip(*histories, strict=True):
        assert one["step"] == two["step"]
        for loss in (name for name in one if name.endswith("loss")):
            assert one[loss] == pytest.approx(two[loss], rel=tolerance)
        assert one["threshold"] == two["threshold"]
        assert one["string_f1"]["overall"]["f1"] == pytest.approx(two["string_f1"]["overall"]["f1"], abs=f1_tolerance)
    assert architecture == "boundary" or histories[0][-1]["string_f1"]["overall"]["f1"] > 0


@pytest.mark.slow(28)
@pytest.mark.parametrize("architecture", ["span", "boundary"])
def test_sharded_by_fsdp_it_trains_resumes_and_saves_as_one_process_does(flags, bases, tmp_path, architecture):
    """Under accelerate_configs/fsdp.yaml, on two CPU processes: losses, F1, checkpoints, and one whole model file."""
    flags = [
        *flags,
        "--base_model",
        bases[architecture],
        "--validation_file",
        SAMPLE / "validation.jsonl",
        "--per_device_train_batch_size",
        4,
    ]
    flags += ["--attention_backend", "eager", "--num_train_epochs", 4, "--weight_averaging", 2]
    sharded = ["tests/sharded_on_cpu.py", "accelerate_configs/fsdp.yaml"]
    histories = {}
    for name, runner, more in (
        ("whole", [], []),
        ("sharded", sharded, ["--checkpointing_steps", 6]),
    ):
        command = [*LAUNCH, "accelerate_configs/cpu_multi.yaml", *runner, "tests/without_chance.py", TRAIN, *flags]
        result = run(*command, "--output_dir", tmp_path / name, *more)
        assert result.returncode == 0, result.stderr
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        histories[name] = [json.loads(line) for line in lines]
    for one, other in zip(*histories.values(), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["threshold"] == other["threshold"]
        assert one["string_f1"]["overall"]["f1"] == pytest.approx(other["string_f1"]["overall"]["f1"], abs=1e-4)
    weights = [load_extractor(tmp_path / name / "best").state_dict() for name in histories]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4 if architecture == "span" else 5e-3)

    checkpoint = tmp_path / "sharded" / "checkpoint-6"
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir()  # sharded, and not the whole model by chance
    for newer in set(list_checkpoints(tmp_path / "sharded")) - {checkpoint}:
        shutil.rmtree(newer)
    result = run(*command, "--output_dir", tmp_path / name, *more, "--resume_from_checkpoint", checkpoint)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "sharded" / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] == pytest.approx(histories["sharded"][-1]["loss"], rel=1e-5)


@pytest.mark.slow(11)
def test_a_process_that_fails_alone_ends_the_run_and_says_why(flags):
    result = run(*LAUNCH, "accelerate_configs/cpu_multi.yaml", "tests/one_rank_fails.py", TRAIN, *flags)
    assert result.returncode != 0
    assert "error in process 1: the loss is not finite (document 7: loss nan)" in result.stderr
    assert "error in process 0: another process ended" in result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    config = load_config_from_file(str(path))
    plugins = {"fsdp": "fsdp_config", "deepspeed_zero2": "deepspeed_config"}
    assert bool(getattr(config, "fsdp_config", None)) == (plugins.get(path.stem) == "fsdp_config")
    assert bool(getattr(config, "deepspeed_config", None)) == (plugins.get(path.stem) == "deepspeed_config")
    assert config.num_processes >= 1
    assert (config.mixed_precision == "bf16") == (not config.use_cpu)
    assert config.mixed_precision == ("no" if path.stem.startswith("cpu") else "bf16")
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.slow(17)
def test_lora_is_trained_and_scored_like_any_model(flags, pair, tmp_path):
    result = run(PYTHON, TRAIN, *flags, "--lora")
    one_line_error(result, "--korean_encoder none")
    result = run(PYTHON, TRAIN, *flags, "--lora", "--korean_encoder", "none", "--overwrite_output_dir")
    assert result.returncode == 0, result.stderr
    assert "The rest is frozen" in " ".join(result.stdout.split())
    best = tmp_path / "run" / "best"
    assert (best / "adapter_model.safetensors").exists()
    scored = run(sys.executable, "scripts/eval.py", "--model", best, "--compare", pair[0])
    assert scored.returncode == 0, scored.stderr


@pytest.mark.slow(11)
def test_predict_reads_text_files_and_standard_input(model, schema, tmp_path):
    model.configure(threshold=0.0, window={"max_length": 128, "window_overlap": 16})
    model.save_pretrained(tmp_path / "model")
    predict = ["scripts/predict.py", "--model", tmp_path / "model"]
    command = [PYTHON, *predict]
    text = "당뇨병으로 인슐린을 투여함"
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "text": text}) + "\n")
    (tmp_path / "in.txt").write_text(f"{text}\n\n고혈압\n")
    files = ["--input_file", tmp_path / "in.jsonl", "--output_file", tmp_path / "out.jsonl"]
    assert run(sys.executable, *predict, *files).returncode == 0
    (document,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (document["id"], document["text"]) == ("a", text)
    assert all(found["text"] == text[found["start"] : found["end"]] for found in document["entities"])
    assert {found["label"] for found in document["entities"]} <= set(schema.labels)
    lines = run(*command, "--input_file", tmp_path / "in.txt").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1", "3"]
    assert json.loads(lines[0])["entities"] == document["entities"]
    spoken = run(*command, "--text", text, "--threshold", "1").stdout
    assert json.loads(spoken)["entities"] == []
    (tmp_path / "in.jsonl").write_text('{"text": 1}\n')
    one_line_error(run(*command, "--input_file", tmp_path / "in.jsonl"), "in.jsonl, line 1", 'a "text"')


@pytest.mark.slow(4)
def test_trackers_are_told_of_steps_and_epochs(flags, tmp_path):
    told = ["--report_to", "all", "--logging_steps", "2", "--output_dir", tmp_path / "ward-3"]
    result = run(PYTHON, TRAIN, *flags, *told, TRACKIO_DIR=str(tmp_path / "trackio"), WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    steps = {"loss", "structure_loss", "count_loss", "encoder_learning_rate", "heads_learning_rate", "gradient_norm",
             "windows_per_second", "tokens_per_second", "memory_gb"}  # fmt: skip
    board = EventAccumulator(str(tmp_path / "ward-3" / "logs" / "glinerko")).Reload()
    tags = set(board.Tags()["scalars"])
    assert {f"train/{name}" for name in steps} | {"validation/f1", "validation/f1/Drug", "best/f1"} <= tags
    assert [event.step for event in board.Scalars("train/loss")] == [2, 4, 6, 8]
    history = [json.loads(line) for line in (tmp_path / "ward-3" / "history.jsonl").read_text().splitlines()]
    found = [event.value for event in board.Scalars("validation/f1")]
    assert found == pytest.approx([entry["string_f1"]["overall"]["f1"] for entry in history])
    assert all(event.value > 0 for event in board.Scalars("train/tokens_per_second"))
    with sqlite3.connect(tmp_path / "trackio" / "glinerko.db") as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {name for name, _ in rows} == {"ward-3"}
    assert steps <= {key.removeprefix("train/") for _, metrics in rows for key in json.loads(metrics)}


@pytest.mark.slow(4)
def test_a_yaml_file_works_in_place_of_flags(flags, tmp_path):
    options = {name.strip("-"): value for name, value in zip(flags[::2], flags[1::2], strict=True)}
    numbers = {
        "max_train_samples": 32,
        "num_train_epochs": 1,
        "encoder_learning_rate": 1e-3,
        "head_learning_rate": 1e-3,
    }
    path = tmp_path / "run.yaml"
    switches = {"prompt_augmentation": True, "label_descriptions": False}
    path.write_text(yaml.safe_dump({**options, **numbers, **switches}))
    assert run(PYTHON, TRAIN, path).returncode == 0
    assert load_extractor(Path(options["output_dir"]) / "best").label_schema.descriptions == {}
    path.write_text("no_such_option: 1\n")
    one_line_error(run(PYTHON, TRAIN, path), "run.yaml", "no_such_option")


@pytest.mark.slow(1)
def test_corrupt_data_is_one_line(flags, write_rows):
    path = write_rows({"text": "당뇨병", "entities": {}}, '{"text": ')
    one_line_error(run(PYTHON, TRAIN, *flags, "--train_file", path), f"{path}, line 2", "malformed JSON")


@pytest.mark.slow(2)
def test_a_trained_model_is_not_overwritten_unasked(flags, tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    one_line_error(run(PYTHON, TRAIN, *flags), "holds a trained model", "--overwrite_output_dir")
    (tmp_path / "file").touch()
    one_line_error(run(PYTHON, TRAIN, *flags, "--output_dir", tmp_path / "file"), "cannot be written")


@pytest.mark.slow(2)
def test_a_roberta_is_one_line(flags, pair, tmp_path):
    encoder = roberta(tmp_path / "roberta", pair)
    result = run(PYTHON, TRAIN, *flags, "--korean_encoder", encoder)
    one_line_error(result, "RobertaConfig", "--head_init reinit")


@pytest.mark.slow(8)
def test_an_unreachable_hub_is_one_line_with_what_to_do():
    result = run(PYTHON, TRAIN, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    one_line_error(result, "fastino/gliner2-base-v1", "pass a local directory")
    assert "sample corpus" in result.stdout


@pytest.mark.slow(6)
def test_verify_judges_the_swap_and_writes_its_report(pair, tmp_path):
    flags = ["--base_model", pair[0], "--report_dir", tmp_path / "report"]
    result = run(PYTHON, VERIFY, *flags, "--korean_encoder", pair[1])
    assert result.returncode == 0, result.stderr
    assert "The swap works" in result.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["passed"]
    assert len(report["checks"]) == 13
    assert "| PASS | gate | count gate 100% open" in (tmp_path / "report" / "report.md").read_text()
    result = run(PYTHON, VERIFY, *flags, "--korean_encoder", roberta(tmp_path / "roberta", pair, 64))
    assert result.returncode == 1
    assert "Fails: architecture, hidden size, forward pass" in result.stdout
    one_line_error(run(PYTHON, VERIFY, "--base_model", tmp_path), "no config.json")


@pytest.mark.slow(10)
def test_verify_lays_all_candidates_side_by_side(pair, tmp_path, sample_rows):
    texts = sample_rows["text"][:200]
    names = ("klue/roberta-base", "microsoft/deberta-v3-base")
    entries = [{"id": str(build(name, tmp_path / name, texts)), "domain": "stated"} for name in names]
    entries.append({"id": "not/reachable"})
    (tmp_path / "candidates.yaml").write_text(yaml.safe_dump(entries))
    flags = ["--all_candidates", "--candidates_file", tmp_path / "candidates.yaml", "--report_dir", tmp_path / "report"]
    result = run(sys.executable, VERIFY, "--base_model", pair[0], *flags)
    assert result.returncode == 0, result.stderr
    candidates = json.loads((tmp_path / "report" / "report.json").read_text())["candidates"]
    verdicts = ["swap with new heads only", "do not swap", "not reached"]
    assert [candidate["verdict"] for candidate in candidates] == verdicts
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert all(verdict in markdown for verdict in verdicts)
    assert candidates[0]["relative_time"] > 1  # twelve layers of 768 next to one of 32
    (tmp_path / "candidates.yaml").write_text("[{id: not/reachable}]")
    one_line_error(run(PYTHON, VERIFY, "--base_model", pair[0], *flags), "no candidate", "could be reached")


def start(*command) -> subprocess.Popen:
    command = [sys.executable, *map(str, command)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(pattern: str, directory: Path, process: subprocess.Popen, seconds: float = 600) -> bool:
    """Whether a file that matches comes to be while the process lives."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if any(directory.glob(pattern)):
            return True
        time.sleep(0.001)
    return False


@pytest.mark.slow(13)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(flags, tmp_path, sent):
    many = ["--num_train_epochs", "500", "--early_stopping_patience", "500"]
    process = start(TRAIN, *flags, *many)
    wait_for("best/config.json", tmp_path / "run", process)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 75
    assert "Traceback" not in errors
    said = errors.splitlines()[-1]
    assert said.startswith(f"stopped by {sent.name}, after step")
    assert "--resume_from_checkpoint latest" in said
    (newest, *_) = list_checkpoints(tmp_path / "run")
    assert f"{newest} is complete" in said
    load_extractor(tmp_path / "run" / "best")
    if sent is signal.SIGTERM:
        return
    one_line_error(run(PYTHON, TRAIN, *flags, *many), "holds a trained model", "--resume_from_checkpoint latest")
    go_on = [PYTHON, TRAIN, *flags, "--resume_from_checkpoint", "latest"]
    one_line_error(run(*go_on, "--seed", "7"), "num_train_epochs (500 → 2)", "seed (42 → 7)", "swapped model")
    other = ["--max_train_samples", "32", "--resume_from_checkpoint", newest]
    one_line_error(run(PYTHON, TRAIN, *flags, *many, *other), "training documents", "max_train_samples (64 → 32)")


@pytest.mark.slow(37)
@pytest.mark.parametrize("architecture", ["span", "boundary"])
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(flags, bases, tmp_path, architecture):
    flags = [*flags, "--num_train_epochs", "3", "--checkpointing_steps", "3", "--weight_averaging", "2"]
    flags += ["--base_model", bases[architecture]]
    whole = run(PYTHON, TRAIN, *flags, "--output_dir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    broken = tmp_path / "broken"
    go_on = [TRAIN, *flags, "--output_dir", broken, "--resume_from_checkpoint", "latest"]
    # Killed while the best model is written (the first epoch always is), while a checkpoint is, and after one.
    for pattern in ("best.new", "checkpoint.partial/*", "checkpoint-6"):
        process = start(*go_on)
        assert wait_for(pattern, broken, process), process.communicate()[1]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    with (list_checkpoints(broken)[0] / "optimizer.bin").open("r+b") as file:
        file.write(b"damaged")
    last = run(PYTHON, *go_on)
    assert last.returncode == 0, last.stderr
    assert "is damaged" in last.stdout.replace("\n", "")
    assert "Going on from" in last.stdout
    for name in ("best/model.safetensors", "history.jsonl", f"{list_checkpoints(broken)[0].name}/model.safetensors"):
        assert (broken / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(broken.glob("*.partial"))


@pytest.mark.slow(7)
def test_memory_that_is_too_small_shows_before_the_first_epoch(flags):
    result = run(PYTHON, "tests/little_memory.py", TRAIN, *flags)
    one_line_error(result, "out of memory with 8 windows a batch", "--auto_find_batch_size")
    result = run(PYTHON, "tests/little_memory.py", TRAIN, *flags, "--auto_find_batch_size")
    assert result.returncode == 0, result.stderr
    assert "8 windows do not fit in memory: 8 × 2 a step" in result.stdout
    assert "steps of 16 windows" in result.stdout


@pytest.mark.slow(9)
def test_a_worker_that_dies_ends_the_run_with_one_line(flags, tmp_path):
    process = start(TRAIN, *flags, "--dataloader_num_workers", "1", "--num_train_epochs", "500")
    assert wait_for("checkpoint-*", tmp_path / "run", process), process.communicate()[1]
    worker = None
    while worker is None and process.poll() is None:  # there is none between two epochs
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        worker = next((int(child) for child in children if b"train_gliner2" in read_command(child)), None)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert "error: a process that makes batches died" in errors
    assert find_checkpoint(tmp_path / "run", "latest", print) is not None


def read_command(process_id: str) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow(10)
def test_a_full_disk_is_one_line_and_older_checkpoints_stay_whole(flags, model, tmp_path):
    # A limit on the size of files stands in for the disk: the model fits, and its optimizer, twice as large, does not.
    model.save_pretrained(tmp_path / "model")
    kilobytes = (tmp_path / "model" / "model.safetensors").stat().st_size * 3 // 2 // 1024
    command = shlex.join([sys.executable, TRAIN, *flags, "--checkpointing_steps", "2"])
    result = run("bash", "-c", f"ulimit -f {kilobytes} && exec {command}")
    one_line_error(result, "checkpoint-2: the checkpoint cannot be written", "GB are free", "There is no older one")
    assert not list((tmp_path / "run").glob("*.partial"))


LOAD_AS_THE_CARD_SAYS = """
import json, re, sys
from pathlib import Path
from huggingface_hub import hf_hub_download
from glinerko import load_extractor
name, local, text = sys.argv[1:]
for snippet in re.findall("```python\\n(.*?)```", Path(hf_hub_download(name, "README.md")).read_text(), re.S):
    exec(snippet, {})
found = [load_extractor(where).extract_entities(text, include_confidence=True) for where in (name, local)]
assert found[0] == found[1], found
assert any(found[0]["entities"].values())
"""


@pytest.mark.slow(60)
def test_a_run_is_published_and_its_card_tells_how_to_load_it(flags, tmp_path, sample_rows):
    with serve() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "",
            "HF_HOME": str(tmp_path / "home"),
        }
        push = ["--push_to_hub", "--hub_model_id", "korean-ner", "--hub_private_repo", "true", "--hub_token"]
        one_line_error(run(PYTHON, TRAIN, *flags, *push, "hf_wrong", **environment), "no valid token")
        result = run(*LAUNCH, "accelerate_configs/cpu_multi.yaml", TRAIN, *flags, *push, WRITE, **environment)
        assert result.returncode == 0, result.stderr
        repository = hub.repositories["ada/korean-ner"]
        assert repository.private
        assert hub.count("POST", "/commit/") == 1
        assert f"ada/korean-ner/commit/{repository.refs['main']}" in result.stdout.replace("\n", "")
        assert WRITE not in result.stdout + result.stderr
        written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert not any(WRITE.encode() in content for content in written)
        environment |= {"HF_HOME": str(tmp_path / "another_home"), "HF_TOKEN": WRITE}
        best, text = tmp_path / "run" / "best", sample_rows["text"][0]
        loaded = run(PYTHON, "-c", LOAD_AS_THE_CARD_SAYS, "ada/korean-ner", best, text, **environment)
        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout.count("entities") == 2

        again = run(PYTHON, PUSH, best, "--hub_model_id", "ada/korean-ner", **environment)
        assert again.returncode == 0, again.stderr
        assert hub.count("POST", "/commit/") == 1
        one_line_error(run(PYTHON, PUSH, tmp_path, "--hub_model_id", "a/b"), "no config.json")
