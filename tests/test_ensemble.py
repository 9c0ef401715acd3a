"""Several models as one: the same spans in prediction and in evaluation."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from statistics import mean

import pytest
from accelerate import Accelerator
from conftest import PYTHON, ROOT, SAMPLE, swap_and_spread
from rich.console import Console
from test_scripts import one_line_error, run
from test_swap import edit_json

from glinerko.common import DataError
from glinerko.corpus.rows import Span
from glinerko.corpus.schema import Task
from glinerko.hub import read_config
from glinerko.model.ensemble import average_spans, stream_average
from glinerko.model.extractor import load_extractor
from glinerko.model.prediction import FLOOR, Predictions, predict_spans


@pytest.fixture(scope="session")
def saved(bases, pair, schema, tmp_path_factory):
    """Two models that differ in architecture, word splitter and threshold."""
    directories = []
    for architecture, splitter, threshold in (("span", "korean", 0.4), ("boundary", "whitespace", 0.6)):
        model = swap_and_spread(bases, pair, architecture, schema)
        model.set_word_splitter(splitter)
        model.configure(threshold=threshold)
        directories.append(tmp_path_factory.mktemp(architecture) / "best")
        model.save_pretrained(directories[-1])
    return directories


@pytest.fixture
def models(saved):
    return list(map(load_extractor, saved))


def test_a_span_has_the_mean_score_and_none_where_a_model_lacks_it():
    first = [Span(0, 4, "Drug", 0.6), Span(0, 2, "Drug", 0.9)]
    assert average_spans([first, [Span(0, 4, "Drug", 0.2), Span(0, 4, "Disease", 0.5)]]) == [
        Span(0, 2, "Drug", 0.45),
        Span(0, 4, "Disease", 0.25),
        Span(0, 4, "Drug", 0.4),
    ]
    assert average_spans([first, first, first]) == sorted(first)


def test_texts_are_read_as_documents_are_scored(models, sample_rows, schema):
    rows = sample_rows.select(range(12))
    candidates = [predict_spans(model, model.split(rows), schema).candidates for model in models]
    averaged = Predictions(list(map(average_spans, zip(*candidates, strict=True))))
    for threshold, asked in ((0.5, None), (0.3, 0.3)):  # the mean of their own, and a requested one
        found = list(stream_average(models, iter(rows["text"][:]), threshold=asked, batch_size=3))
        expected = averaged.at_threshold(threshold)
        assert [[span.key for span in spans] for spans in found] == [[s.key for s in spans] for spans in expected]
        assert sum(map(len, found)) > 0
        scores, wanted = ([span.score for spans in each for span in spans] for each in (found, expected))
        assert scores == pytest.approx(wanted, abs=1e-4)


def test_each_model_is_asked_in_the_order_that_it_was_trained_on(models, sample_rows, schema):
    rows = sample_rows.select(range(12))
    models[1].configure(labels=schema.labels[::-1])
    candidates = [predict_spans(each, each.split(rows), each.label_schema).candidates for each in models]
    expected = Predictions(list(map(average_spans, zip(*candidates, strict=True)))).at_threshold(0.5)
    found = list(stream_average(models, rows["text"][:]))
    assert [[span.key for span in spans] for spans in found] == [[span.key for span in spans] for spans in expected]
    scores, wanted = ([span.score for spans in each for span in spans] for each in (found, expected))
    assert scores == pytest.approx(wanted, abs=1e-4)


def test_a_model_and_its_copy_find_what_it_finds_alone(models, sample_rows):
    (model, _), texts = models, sample_rows["text"][:6]
    alone = list(model.stream_entities(texts))
    assert [[s.key for s in spans] for spans in stream_average([model, model], texts)] == [
        [s.key for s in spans] for spans in alone
    ]


def test_models_that_do_not_belong_together_are_named(models):
    models[1].configure(labels=("Disease", "Drug"), descriptions={})
    with pytest.raises(DataError, match="another Disease, Drug: name labels"):
        next(stream_average(models, ["글"]))
    assert next(stream_average(models, ["글"], ["Drug"])) is not None
    models[1].configure(tasks=(Task("kind", "classifications", ("a", "b")),))
    with pytest.raises(DataError, match="find entities only"):
        next(stream_average(models, ["글"]))


def test_a_requested_threshold_below_the_floor_is_the_floor(saved, sample_rows, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module, floors = import_module("eval"), []

    def predict(*positional, floor, **options):
        floors.append(floor)
        return predict_spans(*positional, floor=floor, **options)

    monkeypatch.setattr(module, "predict_spans", predict)
    for threshold in (None, 0.02, 0.3):
        requested = module.Arguments(threshold=threshold)
        module.evaluate(
            Accelerator(cpu=True), str(saved[0]), sample_rows.select(range(4)), requested, Console(quiet=True)
        )
    assert floors == [FLOOR, 0.02, FLOOR]


@pytest.mark.slow(30)
def test_the_scripts_read_and_score_with_several_models(saved, tmp_path):
    lines = (SAMPLE / "test.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    few, output = tmp_path / "few.jsonl", tmp_path / "spans.jsonl"
    few.write_text("\n".join(lines), encoding="utf-8")
    predict = [PYTHON, "scripts/predict.py", "--input_file", few, "--output_file", output, "--model", *saved]
    assert run(*predict).returncode == 0
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    texts = [row["text"] for row in found]
    expected = list(stream_average(list(map(load_extractor, saved)), texts))
    assert [[(s["start"], s["end"], s["label"]) for s in row["entities"]] for row in found] == [
        [span.key for span in spans] for spans in expected
    ]
    (tmp_path / "schema.yaml").write_text("entities: [Drug]")
    one_line_error(run(*predict, "--schema", tmp_path / "schema.yaml"), "--schema: one model only")
    score = [PYTHON, "scripts/eval.py", "--model", saved[0], "--test_file", few, "--report_dir", tmp_path / "report"]
    one_line_error(run(*score, "--average"), "--average needs several models")
    assert run(*score, "--compare", saved[1], "--average").returncode == 0
    compared = json.loads((tmp_path / "report" / "report.json").read_text())["comparisons"]
    assert [entry["model"] for entry in compared] == [*map(str, saved), "mean of these 2"]
    assert compared[2]["threshold"] == pytest.approx(mean(entry["threshold"] for entry in compared[:2]))
    assert compared[2]["predicted"] > 0
    other = shutil.copytree(saved[1], tmp_path / "other")
    edit_json(other / "config.json", glinerko={**read_config(other)["glinerko"], "labels": ["Disease"]})
    one_line_error(run(*score, "--compare", other, "--average"), "have different labels; name some")
    edit_json(other / "config.json", glinerko={**read_config(other)["glinerko"], "labels": []})
    few.write_text('{"text": "인슐린", "entities": {"Drug": ["인슐린"]}}')
    one_line_error(run(*score, "--compare", other, "--average"), "have different labels; name some")
