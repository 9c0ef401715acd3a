"""The scripts on a corpus with the other tasks of GLiNER2's schema, as a user runs them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from conftest import PYTHON, SAMPLE
from safetensors.torch import load_file
from test_scripts import LAUNCH, TRAIN, one_line_error, run
from test_task_training import BOTH, EVERYTHING, corpus

from glinerko.common import read_json_lines
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.model.extractor import load_extractor
from glinerko.model.swap import swap_encoder
from glinerko.training.checkpoints import list_checkpoints

NAMES = ["경과", "경과 내용", "치료", "처방"]
EVAL, PREDICT = [PYTHON, "scripts/eval.py"], [PYTHON, "scripts/predict.py"]
TEXT = "당뇨병으로 인슐린 10mg 경구 투여하고 호전됨."


@pytest.fixture
def flags(bases, pair, tmp_path, write_rows):
    """Makes the flags of a run that takes seconds, on some documents."""

    def make(architecture, rows, **changes):
        options = {
            "base_model": bases[architecture],
            "korean_encoder": pair[1],
            "output_dir": tmp_path / "run",
            "train_file": write_rows(*rows, name="train.jsonl"),
            "validation_file": write_rows(*rows[:9], name="validation.jsonl"),
            "num_train_epochs": 2,
            "per_device_train_batch_size": 3,
            "encoder_learning_rate": 5e-3,
            "head_learning_rate": 5e-3,
        } | changes
        return [str(part) for name, value in options.items() for part in (f"--{name}", value)]

    return make


def succeed(*command):
    """Run a command that ends well."""
    result = run(*command)
    assert result.returncode == 0, result.stderr
    return result


STOPS = "boundary"


@pytest.mark.slow(40)
@pytest.mark.parametrize("architecture", ["span", STOPS])
def test_all_tasks_are_trained_evaluated_and_predicted(flags, bases, tmp_path, write_rows, architecture):
    trained = succeed(PYTHON, TRAIN, *flags(architecture, corpus(18)))
    for shown in ("처방: documents annotated for it", "documents with none", "경과 내용"):
        assert shown in trained.stdout
    history = read_json_lines(tmp_path / "run" / "history.jsonl")
    assert [list(entry["tasks"]) for entry in history] == [NAMES, NAMES]
    f1 = [history[-1]["string_f1"]["overall"]["f1"], *(each["overall"]["f1"] for each in history[-1]["tasks"].values())]
    assert history[-1]["mean_f1"] == pytest.approx(sum(f1) / 5)
    assert history[-1]["classification_loss"] > 0
    counts = json.loads((tmp_path / "run" / "data_report.json").read_text())["training"]["tasks"]
    assert counts["처방"]["counts"]["documents with none"] == 6
    assert counts["경과"] == {"documents": 18, "counts": {"호전": 9, "악화": 9}}
    best = tmp_path / "run" / "best"
    model = load_extractor(best)
    assert [task.name for task in model.label_schema.tasks] == NAMES
    assert list(model.settings.thresholds) == sorted(NAMES)

    test = write_rows(*corpus(12), {"text": "열이 났다.", "entities": {}}, name="test.jsonl")
    command = [*EVAL, "--model", best, "--test_file", test, "--compare", bases[architecture]]
    scored = succeed(*command, "--targets", "overall=0.99", "처방=0.0", "경과=1.0")
    for shown in ("exact-instance F1", "count accuracy", "found where there is none", "macro F1", "Models (치료)"):
        assert shown in scored.stdout
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert {name: record["documents"] for name, record in report["tasks"].items()} == dict.fromkeys(NAMES, 12)
    assert [sum(map(sum, report["tasks"]["경과"]["confusion"])), report["tasks"]["처방"]["invented"][1]] == [12, 4]
    assert report["tasks"]["처방"]["threshold"] == model.settings.thresholds["처방"]
    assert report["targets"]["처방"]["verdict"] == "PASS"
    assert report["targets"]["overall"]["verdict"] == "MISS"
    assert report["targets"]["경과"]["target"] == 1.0
    for name, compared in report["task_comparisons"].items():
        assert [each["model"] for each in compared] == [str(best), str(bases[architecture])], name
        low, high = (compared[1]["difference"][side] for side in ("low", "high"))
        assert low <= compared[1]["difference"]["f1"] <= high
    one_line_error(run(*command[:6], "--targets", "처방전=0.5"), "no score is named 처방전", "처방")

    (answer,) = map(json.loads, succeed(*PREDICT, "--model", best, "--text", TEXT).stdout.splitlines())
    assert set(answer["tasks"]) == {*NAMES, "relation_extraction"} - {"치료"}
    assert answer["tasks"]["경과"]["label"] in ("호전", "악화")
    assert {span["label"] for span in answer["entities"]} <= {"Disease", "Drug"}
    (alone,) = map(
        json.loads, succeed(*PREDICT, "--model", best, "--text", TEXT, "--labels", "Drug").stdout.splitlines()
    )
    assert alone.keys() == {"id", "text", "entities"}


@pytest.mark.slow(25)
def test_a_run_with_all_tasks_is_resumed_and_ends_in_the_same_weights(flags, tmp_path):
    whole, broken = tmp_path / "run", tmp_path / "broken"
    changes = {"num_train_epochs": 3, "checkpoints_total_limit": 3}
    succeed(PYTHON, TRAIN, *flags("span", corpus(12), **changes))
    shutil.copytree(whole, broken)
    *later, _ = list_checkpoints(broken)
    assert len(later) == 2
    for path in later:
        shutil.rmtree(path)
    go_on = flags("span", corpus(12), **changes, output_dir=broken, resume_from_checkpoint="latest")
    assert "Going on from" in succeed(PYTHON, TRAIN, *go_on).stdout
    for name in ("best/model.safetensors", "history.jsonl", f"{later[0].name}/model.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow(20)
@BOTH
def test_two_processes_wait_for_no_head_where_rows_have_different_tasks(flags, bases, pair, tmp_path, architecture):
    """A batch of a process has one task, and that of the other process another one."""
    rows = corpus(16, (("entities",), ("classifications",), ("relation",), ("json",)))
    if architecture == "boundary":  # gliner2 stops at the choices of a short text
        for structure in (structure for row in rows for structure in row.get("json_structures", ())):
            structure["처방"].pop("경로", None)
    own = flags(architecture, rows, num_train_epochs=1, per_device_train_batch_size=1, gradient_accumulation_steps=1)
    succeed(*LAUNCH, "accelerate_configs/cpu_multi.yaml", TRAIN, *own)
    (entry,) = read_json_lines(tmp_path / "run" / "history.jsonl")
    assert entry["step"] == 8
    assert list(entry["tasks"]) == NAMES
    assert entry["classification_loss"] > 0
    before, after = (load_file(path / "model.safetensors") for path in (bases[architecture], tmp_path / "run" / "best"))
    heads = ["classifier", *(["count_pred"] if architecture == "span" else ["record_decoder", "relation_scorer"])]
    for head in heads:
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(head)), head


@pytest.mark.slow(12)
@pytest.mark.parametrize("architecture", ["span", STOPS])
def test_a_corpus_of_classes_only_is_trained_and_evaluated(flags, tmp_path, architecture):
    own = flags(architecture, corpus(12, ("classifications",)), num_train_epochs=1)
    succeed(PYTHON, TRAIN, *own)
    scored = succeed(*EVAL, "--model", tmp_path / "run" / "best", "--test_file", own[own.index("--train_file") + 1])
    assert "accuracy" in scored.stdout
    assert "Disease" not in scored.stdout


@pytest.mark.slow(12)
def test_what_other_tasks_were_worth_before_the_training_is_measured(model, pair, tmp_path, write_rows):
    model.save_pretrained(tmp_path / "best")
    files = ["--test_file", SAMPLE / "test.jsonl", "--probe_file", write_rows(*corpus(9))]
    scored = succeed(*EVAL, "--model", tmp_path / "best", "--probe_base", pair[0], *files)
    assert "Tasks that were not trained, on 9 small documents" in scored.stdout
    probe = json.loads((tmp_path / "report" / "report.json").read_text())["probe"]
    assert list(probe["scores"]) == [str(pair[0]), str(tmp_path / "best")]
    for scores in probe["scores"].values():
        assert list(scores) == NAMES
        assert all(record["documents"] == 9 for record in scores.values())


@pytest.mark.slow(8)
@pytest.mark.parametrize("option", ["--probe_base", "--plain_gliner2"])
def test_options_that_a_model_leaves_nothing_to_do_are_no_traceback(bases, pair, tmp_path, write_rows, option):
    file = write_rows(*corpus(6, ("classifications",) if option == "--plain_gliner2" else EVERYTHING))
    swap_encoder(*pair, schema=label_schema(load_rows(file)[0]))[0].save_pretrained(tmp_path / "best")
    base = [pair[0]] if option == "--probe_base" else []
    result = run(*EVAL, "--model", tmp_path / "best", "--test_file", file, option, *base)
    assert "Traceback" not in result.stderr


@pytest.mark.slow(2)
def test_rows_are_converted_with_all_tasks_or_it_is_said_that_they_are_left_out(tmp_path, write_rows):
    converted = succeed(
        PYTHON,
        "scripts/convert.py",
        write_rows(*corpus(6)),
        "--output_file",
        tmp_path / "new.jsonl",
        "--from",
        "gliner2",
    )
    rows = read_json_lines(tmp_path / "new.jsonl")
    assert all("json_structures" in row for row in rows) or "structures are not converted" in converted.stdout


SCHEMA = """\
entities: {Drug: {description: 약물}}
classifications: [{task: 경과, labels: [호전, 악화]}]
structures: {처방: {fields: [{name: 약물, dtype: str}, {name: 경로, dtype: str, choices: [경구, 정맥]}]}}
"""
BAD_SCHEMAS = {
    "entities: [": "expected the entities and tasks of a schema",
    "- Drug": "expected the entities and tasks of a schema",
    "entitys: [Drug]": "it has no key 'entitys'",
    "classifications: [{task: 경과, labels: [호전]}]": "classifications.0.labels",
    "structures: {처방: {fields: []}}": "structures.처방.fields",
    "{}": "it asks for nothing",
}


@pytest.mark.slow(20)
def test_a_schema_file_asks_for_other_tasks_and_a_bad_one_is_one_line(model, tmp_path):
    model.save_pretrained(tmp_path / "best")
    answers = []
    for name, content in {"a.yaml": SCHEMA, "b.json": json.dumps(yaml.safe_load(SCHEMA), ensure_ascii=False)}.items():
        (tmp_path / name).write_text(content)
        command = [*PREDICT, "--model", tmp_path / "best", "--text", TEXT, "--threshold", "0.3"]
        answers.append(json.loads(succeed(*command, "--schema", tmp_path / name).stdout))
    assert answers[0] == answers[1]
    assert set(answers[0]["tasks"]) == {"경과", "처방"}
    assert {span["label"] for span in answers[0]["entities"]} <= {"Drug"}
    for content, reason in BAD_SCHEMAS.items():
        (tmp_path / "bad.yaml").write_text(content)
        one_line_error(run(*command, "--schema", tmp_path / "bad.yaml"), "bad.yaml", reason)
    one_line_error(run(*command, "--schema", tmp_path / "none.yaml"), "none.yaml")
    one_line_error(run(*command, "--schema", tmp_path / "a.yaml", "--labels", "Drug"), "--labels or --schema, not both")
    plain = json.loads(succeed(*command).stdout)
    assert "tasks" not in plain  # the model was trained for entities only
