from __future__ import annotations

import sys
import warnings

import pytest
import torch
from layouts import gliner_v1

from glinerko.common import LoadError
from glinerko.hub import is_gliner_v1
from glinerko.scoring.gliner import load_gliner, predict_with_gliner

ASKED = ("disease", "drug")


@pytest.fixture(scope="session")
def directory(pair, tmp_path_factory):
    pytest.importorskip("gliner", reason="the optional package: make gliner")
    return gliner_v1(pair[1], tmp_path_factory.mktemp("v1") / "model", max_len=20)


def test_short_texts_get_what_gliner_itself_returns(directory):
    assert is_gliner_v1(directory)
    model = load_gliner(directory)
    texts = ["당뇨병 환자에게 인슐린을 투여한다", "고혈압", " "]
    found = predict_with_gliner(model, texts, ASKED, floor=0.3)
    expected = model.inference(texts, list(ASKED), threshold=0.3)
    assert sum(map(len, expected)) > 0
    for spans, entities in zip(found.candidates, expected, strict=True):
        theirs = {(e["start"], e["end"], e["label"]): e["score"] for e in entities}
        assert {span.key: span.score for span in spans} == pytest.approx(theirs, abs=1e-5)
    (last,) = predict_with_gliner(model, texts, ASKED, indices=[1], floor=0.3).candidates
    assert [span.key for span in last] == [span.key for span in found.candidates[1]]


def test_a_long_text_is_read_to_its_end(directory):
    model = load_gliner(directory)
    text = "고혈압 환자 " * 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # gliner warns if it truncates
        predictions = predict_with_gliner(model, [text], ASKED, floor=0.3)
    assert len(text.split()) >= 3 * model.config.max_len  # so there are several windows
    (spans,) = predictions.candidates
    assert max(span.end for span in spans) > len(text) * 0.9
    assert all(text[span.start : span.end] == text[span.start : span.end].strip() for span in spans)


def test_texts_of_one_length_are_read_in_bf16(directory):
    """PyTorch hands an LSTM without padding to oneDNN, which refuses it on a CPU without bf16 instructions."""
    with torch.autocast("cpu", torch.bfloat16):
        found = predict_with_gliner(load_gliner(directory), ["고혈압 환자", "당뇨병 환자"], ASKED, floor=0.01)
    assert all(found.candidates)


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(LoadError, match="make gliner"):
        load_gliner(tmp_path)


def test_damaged_files_are_one_line(directory, tmp_path):
    (tmp_path / "gliner_config.json").write_text("{}")
    with pytest.raises(LoadError, match="cannot be loaded"):
        load_gliner(tmp_path)
