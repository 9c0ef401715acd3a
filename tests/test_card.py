"""The card states what was measured, and nothing that must stay private."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, fields

import pytest
from accelerate import Accelerator
from conftest import ROOT
from huggingface_hub import ModelCard

from glinerko.cli import RESULT, option, options_that_affect
from glinerko.sharing import card
from glinerko.sharing.card import write_card
from glinerko.sharing.publishing import published_files
from glinerko.training.arguments import DataArguments, ModelArguments, TrainingArguments
from glinerko.training.checkpoints import run_identity

EXAMPLE = ROOT / "docs" / "model_card"
TOKEN, PATIENT, HOME = "hf_aSecretToken", "김철수 환자는 당뇨병으로", "/home/ada/patients"


@pytest.fixture
def run(tmp_path):
    """The directory of a run with facts and, among them, what must not be published."""
    best = tmp_path / "ward" / "best"
    best.mkdir(parents=True)
    (best / "model.safetensors").write_bytes(b"weights")

    def read(name: str) -> dict:
        return json.loads((EXAMPLE / name).read_text())

    def write(path: str, content: dict) -> None:
        (tmp_path / "ward" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "ward" / path).write_text(json.dumps(content, ensure_ascii=False))

    secrets = {"hub_token": TOKEN, "train_file": f"{HOME}/train.jsonl", "output_dir": HOME, "dataset_name": str(best),
               "user_dictionary": f"{HOME}/words.tsv", "note": PATIENT}  # fmt: skip
    write("training_args.json", {**read("training_args.json"), **secrets})
    data = read("data_report.json")
    private = {"source": f"{HOME}/train.jsonl", "contradicting_texts": [[PATIENT, "b"]], "unused_keys": {PATIENT: 1}}
    write("data_report.json", {name: {**part, **private} for name, part in data.items()})
    for name in ("environment.json", "swap_report.json"):
        write(name, read(name))
    lines = (json.loads(line) for line in (EXAMPLE / "history.jsonl").read_text().splitlines())
    history = (json.dumps({**entry, "worst_document": PATIENT}) for entry in lines)
    (tmp_path / "ward" / "history.jsonl").write_text("\n".join(history))
    report = {**read("evaluation.json"), "model": HOME, "test_file": f"{HOME}/test.jsonl", "worst": PATIENT}
    report |= {"texts_shared_with_training": [PATIENT], "weights": card.weights_digest(best)}
    write("report/report.json", report)
    for name in card.IMAGES:
        shutil.copy(EXAMPLE / "images" / f"{name}.png", tmp_path / "ward" / "report")
    write("best/config.json", read("config.json"))
    return tmp_path / "ward"


def test_no_text_no_path_and_no_token_is_published(run):
    write_card(run / "best", "ada/korean-ner")
    files = published_files(run / "best")
    assert len(files) >= 11
    for path in files:
        content = (run / "best" / path).read_bytes()
        for secret in (TOKEN, PATIENT, PATIENT.split()[0], HOME, str(run)):
            assert secret.encode() not in content, path
            assert json.dumps(secret).strip('"').encode() not in content, path


def test_metadata_is_what_the_hub_expects(run):
    swap = json.loads((run / "swap_report.json").read_text())
    parents = {"fastino/gliner2-base-v1": "apache-2.0", "team-lucid/deberta-v3-base-korean": "apache-2.0"}
    base_model, encoder = parents
    (run / "swap_report.json").write_text(
        json.dumps({**swap, "base_model": base_model, "encoder": encoder, "licences": parents})
    )
    data = ModelCard.load(write_card(run / "best", "ada/korean-ner")).data
    assert (data.language, data.library_name, data.pipeline_tag) == ("ko", "gliner2", "token-classification")
    assert (data.base_model, data.base_model_relation, data.license) == (list(parents), "finetune", "apache-2.0")
    assert data.model_name == "korean-ner"
    evaluation = json.loads((EXAMPLE / "evaluation.json").read_text())
    results = {result.metric_name: result.metric_value for result in data.eval_results}
    assert results["string F1"] == round(evaluation["string_f1"]["overall"]["f1"], 4)
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    parents[encoder] = "cc-by-sa-4.0"
    (run / "swap_report.json").write_text(json.dumps({**swap, "licences": parents}))
    path = write_card(run / "best", "ada/korean-ner")
    assert ModelCard.load(path).data.license is None
    assert "(cc-by-sa-4.0)" in path.read_text()


def test_the_common_ancestor_of_a_swap_is_named_in_both_languages(run):
    swap = json.loads((run / "swap_report.json").read_text())
    assert "task arithmetic" not in write_card(run / "best").read_text()
    (run / "swap_report.json").write_text(json.dumps({**swap, "common_ancestor": "microsoft/mdeberta-v3-base"}))
    assert write_card(run / "best").read_text().count("(https://huggingface.co/microsoft/mdeberta-v3-base)") == 2


def test_what_was_not_measured_is_absent(run):
    text = write_card(run / "best").read_text()
    assert "test documents" in text
    assert "gliner2, `word_splitter=char`" in text
    report = json.loads((run / "report" / "report.json").read_text())
    (run / "report" / "report.json").write_text(json.dumps({**report, "weights": "of another epoch"}))
    (run / "best" / "evaluation.json").unlink()
    text = write_card(run / "best").read_text()
    assert "Not yet scored on test documents" in text
    assert "word_splitter=char" not in text
    assert ModelCard.load(run / "best" / "README.md").data.eval_results[0].dataset_split == "validation"
    for name in ("history.jsonl", "training_args.json", "data_report.json", "environment.json", "swap_report.json"):
        (run / name).unlink()
        (run / "best" / name).unlink()
    shutil.rmtree(run / "best" / "images")
    text = write_card(run / "best").read_text()
    assert "## Scores" not in text
    assert "Trained on" not in text
    assert not re.search(r"0\.0{2,}|None|nan|Undefined|\[\]|\{\}", text)
    assert ModelCard.load(run / "best" / "README.md").data.eval_results is None


def test_a_plot_that_was_not_drawn_is_not_shown(run):
    assert "](images/labels.png)" in write_card(run / "best").read_text(encoding="utf-8")
    (run / "report" / "labels.png").unlink()
    text = write_card(run / "best").read_text(encoding="utf-8")
    assert "](images/labels.png)" not in text
    assert "](images/errors.png)" in text
    assert not (run / "best" / "images" / "labels.png").exists()  # that of an earlier evaluation


def test_the_install_command_is_of_an_address_that_somebody_stated(monkeypatch):
    """A name on a package index could be anybody's."""
    assert card.requirement() is None
    assert card.requirement("glinerko==0.1.0", "demo") == "glinerko[demo]==0.1.0"
    monkeypatch.setattr(card, "metadata", lambda _: Message(["Homepage, https://a.org", "Repository, https://b.org/x"]))
    assert card.requirement(extra="spacy") == "glinerko[spacy] @ git+https://b.org/x"
    assert card.requirement("https://c.org/glinerko.whl") == "glinerko @ https://c.org/glinerko.whl"


class Message(list):
    """Of importlib.metadata, with the urls of a project."""

    def get_all(self, name: str) -> list[str] | None:
        return list(self) if name == "Project-URL" else None


def test_the_example_in_the_documentation_is_what_the_code_writes(tmp_path, monkeypatch):
    copy = shutil.copytree(EXAMPLE, tmp_path / "model_card")
    weights = json.loads((EXAMPLE / "evaluation.json").read_text())["weights"]
    monkeypatch.setattr(card, "weights_digest", lambda _: weights)
    monkeypatch.setattr(card, "save_plots", lambda *_: None)
    written = write_card(copy, "USER/korean-medical-ner", "git+https://github.com/USER/glinerko")
    assert written.read_text() == (EXAMPLE / "README.md").read_text(), "python scripts/push_to_hub.py --card_only"


def test_a_data_set_on_a_disk_is_not_published_wherever_the_card_is_written(run):
    arguments = json.loads((run / "training_args.json").read_text())
    for name, published in ((f"{HOME}/rows", False), ("./rows", False), ("user/notes", True)):
        (run / "training_args.json").write_text(json.dumps({**arguments, "dataset_name": name}))
        assert (name in write_card(run / "best").read_text()) == published
        assert (name in (run / "best" / "training_args.json").read_text()) == published


def test_an_option_reaches_run_identity_and_card_by_its_declaration(run):
    @dataclass
    class WithMore(TrainingArguments):
        label_smoothing: float = option(0.1, "share of the loss spread over all spans", RESULT)
        scratch_dir: str = option("/mnt/scratch", "directory for temporary files")

    identity = run_identity(Accelerator(cpu=True), ModelArguments(), DataArguments(), WithMore())
    assert identity["label_smoothing"] == 0.1
    assert identity["word_dropout"] == 0.0
    assert not {"scratch_dir", "train_file", "base_model", "hub_token", "output_dir"} & set(identity)

    arguments = json.loads((run / "training_args.json").read_text())
    (run / "training_args.json").write_text(json.dumps({**arguments, **asdict(WithMore())}))
    text = write_card(run / "best", argument_classes=(ModelArguments, DataArguments, WithMore)).read_text()
    for shown in ("| label_smoothing | 0.1 |", "| weight_averaging | 0.0 |", "| encoder_learning_rate |"):
        assert shown in text
    assert "scratch_dir" not in text
    assert "/mnt/scratch" not in (run / "best" / "training_args.json").read_text()


@pytest.mark.parametrize("arguments", [ModelArguments, DataArguments, TrainingArguments])
def test_every_option_says_what_it_affects_and_no_path_is_published(arguments):
    assert all("affects" in field.metadata for field in fields(arguments))
    public = set(options_that_affect(RESULT, arguments))
    assert not {name for name in public if name.endswith(("_file", "_dir", "_name", "_model", "_id", "_token"))} - {
        "metric_for_best_model"
    }
