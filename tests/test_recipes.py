"""The recipes name what the scripts have, and what they learn from is read as it was written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module

import pytest
import yaml
from conftest import ROOT

from glinerko.data import Example, load_rows, read_gazetteer
from glinerko.errors import DataError

KLUE = """## a comment
## klue-ner-v1_dev_00000\t<경찰:OG>은 <박:PS>씨
경\tB-OG
찰\tI-OG
은\tO
 \tO
박\tB-PS
씨\tO

김\tB-PS
모\tO
"""


@pytest.mark.parametrize("recipe", ["real_corpus", "related_labels"])
def test_a_recipe_names_options_that_its_scripts_have(recipe, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for stage in yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")):
        for script, options in stage.items():
            classes = [value for value in vars(import_module(script)).values() if is_dataclass(value)]
            assert options.keys() <= {field.name for each in classes for field in fields(each)}


def make_related(directory, *more):
    script = [sys.executable, "recipes/related_labels_data.py", directory / "made"]
    command = [*script, "--klue_file", directory / "klue.tsv", *more]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)


def test_klue_sentences_gazetteers_and_labelled_sentences_become_text_and_documents(tmp_path, write_rows):
    (tmp_path / "klue.tsv").write_text(KLUE, encoding="utf-8")
    entries = {name: {} for name in ("도뇨-간헐적", "산소 흡입[1일당]")}
    (tmp_path / "names.json").write_text(json.dumps({"entries": entries}), encoding="utf-8")
    labelled = write_rows({"text": "당뇨병과 당뇨병.", "entities": {"Disease": ["당뇨병"]}})
    more = ["--gazetteer", f"Procedure={tmp_path / 'names.json'}", "--labelled_file", labelled, "--lists", "1"]
    assert make_related(tmp_path, *more).returncode == 0
    text = (tmp_path / "made" / "text.txt").read_text(encoding="utf-8")
    assert text == "경찰은 박씨\n김모\n당뇨병과 당뇨병.\n도뇨-간헐적, 산소 흡입[1일당]\n"
    rows, _ = load_rows(str(tmp_path / "made" / "related.jsonl"))
    klue, sample, names = map(Example.from_row, rows)
    assert klue.text == "경찰은 박씨\n김모"
    assert klue.gold_spans == {(0, 2, "OG"), (4, 5, "PS"), (7, 8, "PS")}
    assert klue.labels == ("PS", "LC", "OG", "DT", "TI", "QT", "Procedure", "Disease")
    assert (sample.text, sample.gold_spans) == ("당뇨병과 당뇨병.", {(0, 3, "Disease"), (5, 8, "Disease")})
    assert sorted(names.text.split(", ")) == ["경찰", "김", "도뇨", "박", "산소 흡입"]
    assert names.gold_strings >= {("도뇨", "Procedure"), ("산소 흡입", "Procedure"), ("김", "PS")}


@pytest.mark.parametrize("content", ["캐릭터", "가\tX", "가\tI-PS"])
def test_a_klue_file_of_another_form_is_refused_with_its_line(content, tmp_path):
    (tmp_path / "klue.tsv").write_text(f"## 머리\n{content}\n", encoding="utf-8")
    ended = make_related(tmp_path)
    assert ended.returncode == 2
    assert "klue.tsv, line 2: expected CHARACTER<TAB>TAG" in ended.stderr


@pytest.mark.parametrize("content", [None, "[]", "{}"])
def test_a_gazetteer_of_another_form_is_refused(content, tmp_path):
    file = tmp_path / "names.json"
    if content:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="expected label=file"):
        read_gazetteer(f"Procedure={file}")
