"""The values that an option may have belong to its declaration, for flags, files and the Python API alike."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from contextlib import nullcontext
from typing import get_type_hints

import pytest
import torch
import yaml
from conftest import PYTHON, ROOT
from hypothesis import given
from hypothesis import strategies as st
from test_scripts import one_line_error, run

from glinerko.cli import check_options, option, parse_arguments
from glinerko.common import DataError, GlinerkoError, LoadError
from glinerko.hub import fetch, read_config
from glinerko.model.swap import SwapArguments, SwapOptions
from glinerko.training.arguments import DataArguments, ModelArguments, RunArguments, TrainingArguments
from glinerko.training.run import choose_precision

SCRIPTS = {}
for _name in (
    "convert", "cross_validate", "demo", "doctor", "eval", "make_starter_pair", "predict", "pretrain_encoder",
    "verify_encoder_swap",
):  # fmt: skip
    _spec = importlib.util.spec_from_file_location(f"options_of_{_name}", ROOT / "scripts" / f"{_name}.py")
    SCRIPTS[_name] = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(SCRIPTS[_name])
CLASSES = {name: [script.Arguments] for name, script in SCRIPTS.items()}
CLASSES["train_gliner2_korean_encoder"] = [ModelArguments, DataArguments, TrainingArguments]


def parse(monkeypatch, *flags, classes=(DataArguments, TrainingArguments)):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, flags)])
    return parse_arguments(*classes, description="")


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_has_its_range(name):
    for each in CLASSES[name]:
        hints = get_type_hints(each)
        for field in dataclasses.fields(each):
            is_number = any(kind in str(hints[field.name]) for kind in ("int", "float"))
            assert is_number == bool(field.metadata["limits"]), field.name


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("word_dropout", "2", "at least 0 and below 1"),
        ("word_dropout", "nan", "at least 0 and below 1"),
        ("warmup_ratio", "5", "at least 0 and at most 1"),
        ("encoder_learning_rate", "-1", "at least 0 and below 1"),
        ("head_learning_rate", "inf", "at least 0 and below 1"),
        ("seed", "-1", "at least 0 and below 2,147,483,648"),
        ("gradient_accumulation_steps", str(10**400), "at least 1 and below 2,147,483,648"),
        ("validation_split", "1", "above 0 and below 1"),
        ("weight_averaging", "-0.5", "at least 0"),
        *((name, "0", "at least 1") for name in (
            "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "max_train_samples",
            "early_stopping_patience", "max_train_steps", "logging_steps", "checkpoints_total_limit",
        )),
        *(("checkpointing_steps", value, "epoch, no or a whole number, at least 1")
          for value in ("epochs", "foo", "0", "-1", "1.5", "")),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_in_flags_and_files(monkeypatch, tmp_path, flag, value, allowed):
    with pytest.raises(GlinerkoError, match=f"^--{flag} .*: must be {allowed}"):
        parse(monkeypatch, f"--{flag}", value)
    (tmp_path / "run.YAML").write_text(f"{flag}: '{value}'\n")
    with pytest.raises(GlinerkoError, match=f"^--{flag} .*: must be {allowed}"):
        parse(monkeypatch, tmp_path / "run.YAML")


@pytest.mark.parametrize(("given", "expected"), [("epoch", "epoch"), ("no", "no"), ("7", 7)])
def test_checkpoints_are_written_by_epoch_by_step_or_never(monkeypatch, given, expected):
    assert parse(monkeypatch, "--checkpointing_steps", given)[1].checkpointing_steps == expected


@dataclasses.dataclass
class Numbers:
    share: float = option(0.5, "a share", at_least=0, below=1)
    several: list[int] = option([64], "some sizes", above=0, multiple_of=32)


@given(st.floats(allow_subnormal=False), st.lists(st.integers(), max_size=3))
def test_a_number_is_accepted_exactly_in_its_range(share, several):
    fits = 0 <= share < 1 and all(0 < size < 2**31 and size % 32 == 0 for size in several)
    with (
        nullcontext() if fits else pytest.raises(GlinerkoError, match=r"must be at least 0 and below 1|must be above 0")
    ):
        check_options(Numbers(share, several))


def test_help_says_the_range(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parse(monkeypatch, "--help", classes=[Numbers])
    shown = " ".join(capsys.readouterr().out.split())
    assert "a share; at least 0 and below 1 (default: 0.5)" in shown
    assert "some sizes; above 0 and a multiple of 32 (default: [64])" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_lenght", "9"], "there is no option --max_lenght; --max_length is close"),
        (["notes.txt"], "there is no option notes.txt"),
        (["--seed", "many"], "--seed: invalid int value: 'many'"),
        (["--seed"], "--seed: expected one argument"),
        (["--on_bad_row", "ignore"], "--on_bad_row: invalid choice: 'ignore'"),
    ],
)
def test_what_is_no_option_is_one_line(monkeypatch, flags, message):
    with pytest.raises(GlinerkoError, match=message) as caught:
        parse(monkeypatch, *flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"checkpointing_steps": False}, "checkpointing_steps is a truth value in YAML; put what is meant in quotes"),
        ({"labels": [["a"], "b"]}, "labels must be a value or a list of values"),
        ({"seed": {"a": 1}}, "seed must be a value or a list of values"),
        ({"sead": 1}, "there is no option sead"),
    ],
)
def test_a_file_holds_what_the_option_can_take(monkeypatch, tmp_path, content, message):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=rf"run\.yaml: {message}"):
        parse(monkeypatch, tmp_path / "run.yaml")


@pytest.mark.parametrize("options", [{"max_width": 0}, {"max_width": math.nan}, {"head_init": "new"}])
def test_the_python_api_has_the_same_ranges(options):
    with pytest.raises(GlinerkoError, match="must be"):
        SwapOptions(**options)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_half_precision_without_a_gpu_is_refused(monkeypatch):
    assert choose_precision("bf16") == "bf16"
    with pytest.raises(GlinerkoError, match="needs a GPU"):
        choose_precision("fp16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(GlinerkoError, match="needs a GPU"):
        choose_precision("auto")


def test_the_default_of_every_option_is_allowed():
    for each in (SwapArguments, RunArguments, DataArguments, TrainingArguments):
        check_options(each())


@pytest.mark.parametrize(
    "targets", [["overall"], ["overall=nan"], ["Drug=50"], ["Drug=-1"], ["=0.5"], ["Drug=0.1", "Drug=0.2"], ["Drug="]]
)
def test_a_target_is_a_name_and_an_f1(targets):
    with pytest.raises(DataError, match="like overall="):
        SCRIPTS["eval"].parse_targets(targets)


def test_a_target_names_a_score_that_there_is():
    targets = SCRIPTS["eval"].parse_targets(["overall=0.5", "a=b=0.25"])
    assert targets == {"overall": 0.5, "a=b": 0.25}
    SCRIPTS["eval"].check_targets(targets, ["a=b"])
    with pytest.raises(DataError, match="no score is named a=b; there are overall, Drug"):
        SCRIPTS["eval"].check_targets(targets, ["Drug"])


def test_the_directory_of_a_run_or_checkpoint_points_to_its_model(pair, tmp_path):
    run_directory = tmp_path / "run"
    (run_directory / "checkpoint-3").mkdir(parents=True)
    (run_directory / "best").symlink_to(pair[0])
    for directory in (run_directory, run_directory / "checkpoint-3"):
        with pytest.raises(LoadError, match=f"no config.json.*pass {run_directory / 'best'}$"):
            read_config(directory)
    with pytest.raises(LoadError, match=r"this is no model$"):
        read_config(tmp_path)
    with pytest.raises(LoadError, match="a file; pass its directory"):
        fetch(pair[0] / "config.json")


@pytest.mark.slow(40)
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("train_gliner2_korean_encoder", ["--gradient_accumulation_steps", 0]),
        ("pretrain_encoder", ["--hidden_size", 100]),
        ("eval", ["--min_f1", "nan"]),
        ("predict", ["--model", "m", "--text", "t", "--threshold", 50]),
        ("verify_encoder_swap", ["--seed", -1]),
        ("make_starter_pair", ["--layers", 0]),
        ("cross_validate", ["recipes/real_corpus.yaml", "--train_file", "t", "--folds", 1]),
    ],
)
def test_every_script_refuses_in_one_line(script, flags):
    one_line_error(run(PYTHON, f"scripts/{script}.py", *flags), f"{flags[-2]} {flags[-1]}: must be")


@pytest.mark.slow(15)
def test_a_target_that_is_no_score_stops_before_the_model_is_loaded(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_text("never read")
    score = [PYTHON, "scripts/eval.py", "--model", tmp_path / "model", "--report_dir", tmp_path / "report", "--targets"]
    one_line_error(run(*score, "overal=0.99"), "overal", "there are overall, Disease, Drug, Procedure, Biomarker")
    one_line_error(run(*score, "overall=0.9"), "the weights cannot be loaded")
