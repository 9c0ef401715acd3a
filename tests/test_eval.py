"""What ``scripts/eval.py`` decides before a model is loaded."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
from conftest import ROOT

from glinerko.common import DataError, GlinerkoError, LoadError
from glinerko.corpus.schema import LabelSchema
from glinerko.sharing.tables import evaluation_warnings

_spec = importlib.util.spec_from_file_location("eval_script", ROOT / "scripts" / "eval.py")
script = sys.modules["eval_script"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

SCHEMA = LabelSchema(("Disease", "Drug"), {"Disease": "질병"})


def test_label_names_go_by_model_before_kind(tmp_path):
    names = tmp_path / "names.yaml"
    names.write_text("gliner: {Disease: disease}\nuser/ko: {Disease: 질병}\n")
    assert script.read_label_names(names, ("user/other", "gliner")) == {"Disease": "disease"}
    assert script.read_label_names(names, ("user/ko", "gliner")) == {"Disease": "질병"}
    assert script.read_label_names(names, ("user/other", "gliner2")) == {}
    bundled = script.read_label_names(ROOT / "data" / "label_names.yaml", ("gliner",))
    assert set(bundled) == {"Disease", "Drug", "Procedure", "Biomarker"}


@pytest.mark.parametrize("content", ["- a", "gliner: 1", "gliner: [a]", "gliner: {a: 1}", "gliner: {", None])
def test_label_names_of_another_form_are_one_line(tmp_path, content):
    names = tmp_path / "names.yaml"
    if content is not None:
        names.write_text(content)
    with pytest.raises(DataError, match=r"names\.yaml: expected `kind: \{label: name\}`"):
        script.read_label_names(names, ("gliner",))


def test_labels_must_be_those_that_the_model_was_trained_for():
    assert script.choose_schema(SCHEMA, None) == SCHEMA
    assert script.choose_schema(SCHEMA, ["Drug"]).labels == ("Drug",)
    with pytest.raises(LoadError, match="not trained for Gene; it knows Disease, Drug"):
        script.choose_schema(SCHEMA, ["Drug", "Gene"])


def test_targets_are_judged_only_where_there_is_gold():
    targets = script.parse_targets(["overall=0.5", "Drug=0.9", "Disease=0.1"])
    score = {"f1": 0.6, "f1_interval": [0.5, 0.7], "gold": 3}
    judged = script.judge_targets(
        {"overall": score, "labels": {"Drug": score, "Disease": {**score, "gold": 0}}}, {}, targets
    )
    assert [entry["verdict"] for entry in judged.values()] == ["PASS", "MISS", ""]
    with pytest.raises(DataError, match="like overall"):
        script.parse_targets(["overall"])


def test_documents_that_do_not_name_all_labels_are_a_warning():
    result = {"gate": "count gate", "gates": 3, "closed_gates": 0}
    result["data"] = {"documents": 5, "documents_with_all_labels": 3}
    (warning,) = map(str, evaluation_warnings(result))
    assert warning == "2 documents do not name all labels: what is predicted of the others there counts as wrong."
    assert not evaluation_warnings({**result, "data": {"documents": 5, "documents_with_all_labels": 5}})


def test_the_latest_model_is_the_one_saved_last(tmp_path):
    with pytest.raises(GlinerkoError, match="no trained model"):
        script.latest_model(tmp_path)
    for age, name in enumerate(("new", "old")):
        path = tmp_path / name / "best" / "config.json"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (100 - age, 100 - age))
    assert script.latest_model(tmp_path) == tmp_path / "new" / "best"
