"""Recipes use options that the scripts have and say which stages can resume; their data is read as it was written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from importlib import import_module

import pytest
import yaml
from conftest import PYTHON, ROOT

from glinerko.common import DataError, GlinerkoError, Stopped
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example
from glinerko.training.checkpoints import REPORT_COUNTS, REPORT_FIGURES

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


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.syspath_prepend(ROOT / "recipes")


RECIPES = ["label_noise", "published", "read_korean", "real_corpus", "related_labels"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_options_that_its_scripts_have(recipe):
    for script, options in stages(recipe):
        assert options.keys() <= options_of(script)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_of_each_stage_that_can_resume_that_it_does(recipe):
    for script, options in stages(recipe):
        expected = "latest" if "resume_from_checkpoint" in options_of(script) else None
        assert options.get("resume_from_checkpoint") == expected


def stages(recipe):
    entries = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return [stage for entry in entries for stage in entry.items()]


def options_of(script):
    classes = [value for value in vars(import_module(script)).values() if is_dataclass(value)]
    return {field.name for each in classes for field in fields(each)}


def test_only_a_stage_that_can_resume_is_told_to_and_that_is_not_compared(tmp_path, monkeypatch):
    pipeline = import_module("cross_validate").Pipeline
    commands = []
    monkeypatch.setattr(pipeline, "call", lambda self, command: commands.append(command[2:]))
    resumable = {"output_dir": tmp_path / "{fold}", "resume_from_checkpoint": "latest", "train_file": ["{text}", "b"]}
    scored = {"model": "m", "report_dir": tmp_path / "dev"}

    def run_both(resumable, scored):
        both = pipeline({"{fold}": ["fold-0"], "{text}": ["a", "c"]}, ["digest"])
        both.run("pretrain_encoder", resumable, ["--seed", "1"])
        both.run("eval", scored)

    run_both(resumable, scored)
    flags = ["--output_dir", str(tmp_path / "fold-0"), "--train_file", "a", "c", "b", "--seed", "1"]
    assert commands == [
        [*flags, "--resume_from_checkpoint", "latest"],
        ["--model", "m", "--report_dir", str(tmp_path / "dev")],
    ]
    assert json.loads((tmp_path / "fold-0.done").read_text()) == ["digest", ["pretrain_encoder", flags]]
    del resumable["resume_from_checkpoint"]
    run_both(resumable, scored)
    assert len(commands) == 2  # both are done, whether they could resume or not
    with pytest.raises(GlinerkoError, match="dev was made of other files, options or earlier stages"):
        run_both(resumable, {**scored, "model": "other"})


def test_a_stage_is_done_only_with_the_files_that_it_had(tmp_path, monkeypatch):
    pipeline = import_module("cross_validate").Pipeline
    monkeypatch.setattr(pipeline, "call", lambda self, command: (tmp_path / "fold" / "out").mkdir(parents=True))
    words, model = tmp_path / "words.txt", tmp_path / "base"
    model.mkdir()

    def run(words_content, weights):
        words.write_text(words_content)
        (model / "model.safetensors").write_text(weights)
        import_module("cross_validate").digests_of_content.cache_clear()
        stage = pipeline({"{fold}": [str(tmp_path / "fold")]}, [])
        stage.run("train", {"output_dir": "{fold}/out", "base_model": str(model)}, ["--user_dictionary", str(words)])

    run("세마글루타이드", "1")
    run("세마글루타이드", "1")
    for changed in (("위고비", "1"), ("세마글루타이드", "2")):
        with pytest.raises(GlinerkoError, match="out was made of other files"):
            run(*changed)


@pytest.fixture
def commands(monkeypatch):
    """What cross_validate.py would run."""
    module, commands = import_module("cross_validate"), []
    monkeypatch.setattr(module.Pipeline, "call", lambda self, command: commands.append(command[1:]))
    return commands


def cross_validate(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["cross_validate.py", str(ROOT / "recipes" / "published.yaml"), *map(str, flags)])
    import_module("cross_validate").main()


def test_chosen_labels_are_those_that_are_scored(commands, monkeypatch, write_rows, tmp_path):
    rows = [{"text": f"당뇨병 {n}기", "entities": {"Disease": ["당뇨병"], "Drug": []}} for n in range(6)]
    flags = ["--train_file", write_rows(*rows), "--folds", 2, "--output_dir", tmp_path / "cv", "--", "--labels", "Drug"]
    with pytest.raises(GlinerkoError, match="no scores"):
        cross_validate(monkeypatch, *flags)
    scored = [command for command in commands if command[0].endswith("eval.py")]
    assert len(scored) == 2
    assert all(command[command.index("--labels") + 1] == "Drug" for command in scored)


def test_what_cannot_be_scored_is_refused_before_the_first_stage(commands, monkeypatch, write_rows, tmp_path):
    flags = ["--folds", 2, "--output_dir", tmp_path / "cv", "--train_file"]
    task = {"classifications": [{"task": "kind", "labels": ["a", "b"], "true_label": "a"}]}
    with pytest.raises(DataError, match="no labels of entities"):
        cross_validate(monkeypatch, *flags, write_rows(*({"text": f"글 {n}", **task} for n in range(4))))
    rows = [{"text": f"당뇨병 {n}기", "entities": {"Disease": ["당뇨병"]}} for n in range(4)]
    rare = {"text": "인슐린", "entities": {"Drug": ["인슐린"]}}
    with pytest.raises(DataError, match=r"no training document of fold . \(share 1\) names the label Drug"):
        cross_validate(monkeypatch, *flags, write_rows(*rows, rare))
    with pytest.raises(GlinerkoError, match="--average needs several variants"):
        cross_validate(monkeypatch, *flags, write_rows(*rows), "--average")
    with pytest.raises(GlinerkoError, match="each variant once"):
        cross_validate(monkeypatch, *flags, write_rows(*rows), "--compare", "default")
    with pytest.raises(GlinerkoError, match="no scores; run 'other' on this fold first"):
        cross_validate(monkeypatch, *flags, write_rows(*rows), "--compare", "other")
    with pytest.raises(GlinerkoError, match="models of a fold are not published"):
        cross_validate(monkeypatch, *flags, write_rows(*rows), "--", "--push_to_hub")
    (tmp_path / "cv" / "fold-0" / "default.done").touch()
    with pytest.raises(GlinerkoError, match=r"train\.jsonl holds other documents than this fold has now"):
        cross_validate(monkeypatch, *flags, write_rows(*rows[1:]))
    for number in (0, 1):
        write_scores(tmp_path / "cv" / f"fold-{number}" / "other" / "dev", "string_f1", {"Gene": [0, 1, 1]})
    with pytest.raises(GlinerkoError, match="--compare other: it was scored on other labels: Gene"):
        cross_validate(monkeypatch, *flags, write_rows(*rows), "--compare", "other")
    assert not commands


def test_related_documents_that_are_held_out_are_left_out(commands, monkeypatch, write_rows, tmp_path, capsys):
    words = " ".join(f"낱말{n}" for n in range(13))
    rows = [{"text": f"당뇨병 {n}기 {words}", "entities": {"Disease": ["당뇨병"]}} for n in range(4)]
    older = [{"text": text, "entities": {"병": [], "약": []}} for text in ("당뇨병 1 기", f"끝 {words}", "다른 글")]
    related = write_rows(rows[0] | {"text": rows[0]["text"].replace(" ", "  ")}, *older, name="related.jsonl")
    recipe = tmp_path / "recipe.yaml"
    stage = "- train_gliner2_korean_encoder: {{train_file: '{}', output_dir: '{}'}}\n"
    recipe.write_text(stage.format("{related}", "{shared}/related") + stage.format("{train}", "{fold}/x"))
    flags = ["--train_file", write_rows(*rows), "--related_file", related, "--folds", 2]
    monkeypatch.setattr(
        sys, "argv", ["cross_validate.py", *map(str, [recipe, *flags, "--output_dir", tmp_path / "cv"])]
    )
    with pytest.raises(GlinerkoError, match="no scores"):
        import_module("cross_validate").main()
    assert "2 of 4 related documents have words of the labelled ones: left out" in capsys.readouterr().out
    kept = tmp_path / "cv" / "related.jsonl"
    assert [json.loads(line)["text"] for line in kept.read_text(encoding="utf-8").splitlines()] == [
        "당뇨병 1 기",
        "다른 글",
    ]
    assert str(kept) in commands[0]


@pytest.mark.slow(1)
def test_a_stop_reaches_the_script_that_runs_and_no_other_starts(tmp_path):
    module, ready = import_module("cross_validate"), tmp_path / "ready"
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    pipeline = module.Pipeline({}, [])
    with ThreadPoolExecutor() as pool:
        running = pool.submit(pipeline.call, [sys.executable, "-c", code])
        while not ready.exists():
            assert not running.done()
            time.sleep(0.01)
        with pipeline.scripts.receive_signals():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped, match="run the same command again"):
            running.result()
    pipeline.run("eval", {"report_dir": tmp_path / "dev"})
    assert not (tmp_path / "dev.done").exists()


def make_related(directory, *more, python=PYTHON):
    script = [python, "recipes/related_labels_data.py", directory / "made"]
    command = [*script, "--klue_file", directory / "klue.tsv", *more]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow(6)
def test_klue_sentences_gazetteers_and_labelled_sentences_become_text_and_documents(tmp_path, write_rows):
    (tmp_path / "klue.tsv").write_text(KLUE, encoding="utf-8")
    entries = {name: {} for name in ("도뇨-간헐적", "산소 흡입[1일당]")}
    (tmp_path / "names.json").write_text(json.dumps({"entries": entries}), encoding="utf-8")
    labelled = write_rows({"text": "당뇨병과 당뇨병.", "entities": {"Disease": ["당뇨병"]}})
    more = ["--gazetteer", f"Procedure={tmp_path / 'names.json'}", "--labelled_file", labelled, "--lists", "1"]
    assert make_related(tmp_path, *more, python=sys.executable).returncode == 0
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


@pytest.mark.slow(2)
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
        import_module("related_labels_data").read_gazetteer(f"Procedure={file}")


def test_the_last_stage_trains_on_the_documents_of_the_fold(tmp_path):
    from cross_validate import read_recipe

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("- train_gliner2_korean_encoder: {base_model: base, korean_encoder: encoder}\n")
    with pytest.raises(GlinerkoError, match="the last stage trains on the documents of the fold"):
        read_recipe(recipe)


def write_scores(directory, metric, counts):
    directory.mkdir(parents=True)
    (directory / REPORT_FIGURES).write_text(json.dumps({metric: {"labels": dict.fromkeys(counts)}}))
    (directory / REPORT_COUNTS).write_text(json.dumps({metric: list(counts.values())}) + "\n")


@pytest.mark.parametrize(("labels", "refused"), [(["Disease", "Drug"], False), (["Disease", "Gene"], True)])
def test_folds_are_pooled_by_label_whatever_their_order(tmp_path, labels, refused):
    from cross_validate import pool_scores

    counts = {"Disease": [1, 1, 1], "Drug": [0, 2, 3], "Gene": [0, 2, 3]}  # correct, predicted, gold
    for number, own in enumerate([labels, ["Drug", "Disease"]]):
        write_scores(tmp_path / f"fold-{number}" / "a" / "dev", "m", {label: counts[label] for label in own})
    places = [tmp_path / f"fold-{number}" / "a" / "dev" for number in (0, 1)]
    if refused:
        with pytest.raises(GlinerkoError, match=r"other labels than in .*fold-0"):
            pool_scores(places, "m")
    else:
        pooled = pool_scores(places, "m").to_dict()["labels"]
        assert [pooled[label]["gold"] for label in labels] == [2, 6]
