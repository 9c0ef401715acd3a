"""A stranger's code, outside the package: a splitter for another language, a metric and an overlap policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import PYTHON, ROOT

STRANGER = '''
"""Japanese words for glinerko, a metric of whole documents, and a rule for overlaps. None of it is in the package."""

import re

from glinerko import WordSplitter, register_word_splitter
from glinerko.scoring.metrics import METRICS, Metric, score_sets
from glinerko.model.prediction import OVERLAP_POLICIES


@register_word_splitter
class JapaneseWordSplitter(WordSplitter):
    """Runs of one script: kanji, hiragana, katakana, or anything else that is not white space."""

    name = "japanese"
    version = "1"

    def split_batch(self, texts):
        runs = re.compile("[一-龯]+|[ぁ-ん]+|[ァ-ヴー]+|[^\\\\s一-龯ぁ-んァ-ヴー]+")
        return [[match.span() for match in runs.finditer(text)] for text in texts]

    def particles(self, text):
        return [match.span() for match in re.finditer("[はがをにで]", text)]


def score_presence(examples, predicted, labels):
    """Whether a document has a label at all."""
    gold = [{(m.label,) for m in example.mentions if m.label in labels} for example in examples]
    return score_sets(gold, [{(span.label,) for span in spans} for spans in predicted], labels)


def keep_best(spans):
    """The best span of each label."""
    best = {span.label: span for span in sorted(spans, key=lambda span: span.score)}
    return sorted(best.values())


METRICS["presence_f1"] = Metric("presence F1", score_presence)
OVERLAP_POLICIES["best"] = keep_best
'''
LAUNCHER = """
import runpy, sys
import stranger
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CHECK = """
import sys
from pathlib import Path
from glinerko.sharing.publishing import verify_saved
if __name__ == "__main__":
    verify_saved(Path(sys.argv[1]), Path(sys.argv[2]))
"""
ROWS = [
    ("糖尿病でインスリンを投与した", "糖尿病", "インスリン"),
    ("高血圧にアムロジピンを処方した", "高血圧", "アムロジピン"),
]


@pytest.mark.slow(17)
def test_a_splitter_a_metric_and_a_policy_from_outside_go_through_training_evaluation_and_publishing(
    pair, tmp_path, write_rows
):
    (tmp_path / "stranger.py").write_text(STRANGER, encoding="utf-8")
    (tmp_path / "launch.py").write_text(LAUNCHER, encoding="utf-8")
    data = write_rows(
        *({"text": text, "entities": {"Disease": [disease], "Drug": [drug]}} for text, disease, drug in ROWS * 4)
    )

    def run(*command) -> str:
        command = [PYTHON, tmp_path / "launch.py", *command]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        done = subprocess.run(
            [*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    models = ["--base_model", pair[0], "--korean_encoder", pair[1], "--output_dir", tmp_path / "run"]
    own = ["--word_splitter", "japanese", "--metric_for_best_model", "presence_f1", "--max_train_steps", "1"]
    files = ["--train_file", data, "--validation_file", data]
    trained = run("scripts/train_gliner2_korean_encoder.py", *models, *files, *own)
    assert "whitespace → japanese" in trained
    assert "100.0%" in next(line for line in trained.splitlines() if "reach of mentions" in line)
    best = tmp_path / "run" / "best"
    config = json.loads((best / "config.json").read_text(encoding="utf-8"))["glinerko"]
    assert (config["word_splitter"], config["validation"]["metric"]) == ("japanese", "presence_f1")
    assert "presence F1" in (best / "README.md").read_text(encoding="utf-8")

    scored = ["--test_file", data, "--train_file", data, "--metric", "presence_f1", "--overlap_policy", "best"]
    shown = run("scripts/eval.py", "--model", best, *scored, "--threshold", "0")
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["presence_f1"]["overall"]["gold"] == 2 * len(ROWS) * 4
    assert report["span_f1"]["overall"]["predicted"] == 2 * len(ROWS) * 4  # at threshold 0, one for each label
    assert report["targets"]["overall"]["f1"] == report["presence_f1"]["overall"]["f1"] == 1.0
    assert report["ceiling"]["presence_f1"]["overall"]["f1"] == 1.0
    for place in (shown, (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")):
        assert "presence F1" in place

    (tmp_path / "check.py").write_text(CHECK, encoding="utf-8")
    run(tmp_path / "check.py", best, tmp_path / "run" / "validation.jsonl")  # loads it in a fresh process

    # Without the stranger's module the saved model is refused by name, not read with other words.
    plain = subprocess.run(
        [sys.executable, "scripts/predict.py", "--model", str(best), "--text", ROWS[0][0]],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert plain.returncode == 2
    assert "unknown word splitter 'japanese'" in plain.stderr
