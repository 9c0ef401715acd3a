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


def test_klue_sentences_and_gazetteers_become_text_and_documents(tmp_path):
    (tmp_path / "klue.tsv").write_text(KLUE, encoding="utf-8")
    entries = {name: {} for name in ("도뇨", "산소 흡입")}
    (tmp_path / "names.json").write_text(json.dumps({"entries": entries}), encoding="utf-8")
    command = [
        sys.executable,
        "recipes/related_labels_data.py",
        tmp_path / "made",
        "--klue_file",
        tmp_path / "klue.tsv",
    ]
    subprocess.run([*command, "--gazetteer_file", tmp_path / "names.json"], cwd=ROOT, check=True)
    assert (tmp_path / "made" / "text.txt").read_text(encoding="utf-8") == "경찰은 박씨\n김모\n도뇨, 산소 흡입\n"
    rows, _ = load_rows(str(tmp_path / "made" / "klue.jsonl"))
    (example,) = map(Example.from_row, rows)
    assert example.text == "경찰은 박씨\n김모"
    assert example.gold_spans == {(0, 2, "OG"), (4, 5, "PS"), (7, 8, "PS")}
    assert example.labels == ("PS", "LC", "OG", "DT", "TI", "QT")
