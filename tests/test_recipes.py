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

from glinerko.data import Example, load_rows

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


def test_klue_sentences_gazetteers_and_labelled_sentences_become_text_and_documents(tmp_path, write_rows):
    (tmp_path / "klue.tsv").write_text(KLUE, encoding="utf-8")
    entries = {name: {} for name in ("도뇨-간헐적", "산소 흡입[1일당]")}
    (tmp_path / "names.json").write_text(json.dumps({"entries": entries}), encoding="utf-8")
    labelled = write_rows({"text": "당뇨병과 당뇨병.", "entities": {"Disease": ["당뇨병"]}})
    command = [
        sys.executable,
        "recipes/related_labels_data.py",
        tmp_path / "made",
        "--klue_file",
        tmp_path / "klue.tsv",
    ]
    command += ["--gazetteer", f"Procedure={tmp_path / 'names.json'}", "--labelled_file", labelled, "--lists", "1"]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
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
