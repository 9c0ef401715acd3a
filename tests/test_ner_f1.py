from __future__ import annotations

import evaluate
import pytest
from conftest import ROOT

from glinerko.corpus.rows import Example, Mention, Span
from glinerko.scoring.metrics import score_spans, score_strings


@pytest.fixture
def ner_f1(tmp_path):
    return evaluate.load(str(ROOT / "glinerko" / "scoring" / "ner_f1.py"), cache_dir=str(tmp_path))


def span(start: int, end: int, label: str, text: str) -> dict:
    return {"start": start, "end": end, "label": label, "text": text}


def test_the_metric_gives_the_scores_of_the_package(ner_f1):
    text = "당뇨병으로 인슐린을 투여"
    gold = [[span(0, 3, "Disease", "당뇨병"), span(6, 9, "Drug", "인슐린"), span(-1, -1, "Drug", "없음")], []]
    found = [[span(0, 3, "Disease", "당뇨병"), span(6, 10, "Drug", "인슐린을")], [span(0, 2, "Drug", "정상")]]
    result = ner_f1.compute(predictions=found, references=gold)

    mentions = (
        Mention("Disease", "당뇨병", ((0, 3),)), Mention("Drug", "인슐린", ((6, 9),)), Mention("Drug", "없음", ())
    )  # fmt: skip
    examples = [Example("a", text, ("Disease", "Drug"), mentions), Example("b", "정상", ("Disease", "Drug"), ())]
    spans = [[Span(s["start"], s["end"], s["label"], 1.0) for s in document] for document in found]
    assert result["string_f1"] == score_strings(examples, spans, ["Disease", "Drug"]).to_dict()
    assert result["span_f1"] == score_spans(examples, spans, ["Disease", "Drug"]).to_dict()
    assert result["string_f1"]["overall"]["f1"] == pytest.approx(2 * 1 / (3 + 3))
    assert result["modes"]["partial"]["f1"] == pytest.approx(1.5 * 2 / (3 + 2))


def test_labels_choose_what_is_scored(ner_f1):
    gold = [[span(0, 3, "Disease", "당뇨병"), span(6, 9, "Drug", "인슐린")]]
    result = ner_f1.compute(predictions=gold, references=gold, labels=["Drug"])
    assert result["span_f1"]["overall"]["gold"] == 1
