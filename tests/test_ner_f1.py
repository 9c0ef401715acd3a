from __future__ import annotations

import unicodedata

import evaluate
import pytest
from conftest import ROOT
from datasets import Dataset

from glinerko.common import DataError
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


def test_entities_of_predict_go_straight_in(ner_f1):
    found = [[{**span(0, 3, "Disease", "당뇨병"), "score": 0.9861}], [], [{**span(0, 2, "Drug", "철분"), "score": 0.5}]]
    gold = [[{**span(0, 3, "Disease", "당뇨병"), "id": 7, "note": None}], [], [span(0, 3, "Drug", "철분제")]]
    expected = ner_f1.compute(
        predictions=[[span(0, 3, "Disease", "당뇨병")], [], [span(0, 2, "Drug", "철분")]],
        references=[[span(0, 3, "Disease", "당뇨병")], [], [span(0, 3, "Drug", "철분제")]],
    )
    assert expected["string_f1"]["overall"]["f1"] == 0.5
    assert ner_f1.compute(predictions=found, references=gold) == expected
    columns = Dataset.from_dict({"found": found, "gold": gold})
    assert ner_f1.compute(predictions=columns["found"], references=columns["gold"]) == expected
    ner_f1.add(prediction=found[0], reference=gold[0])
    ner_f1.add_batch(predictions=found[1:], references=gold[1:])
    assert ner_f1.compute() == expected


def test_a_span_without_a_needed_key_and_a_label_given_twice_are_named(ner_f1):
    with pytest.raises(ValueError, match="a span has no label and no text: it needs start, end, label, text"):
        ner_f1.compute(predictions=[[{"start": 0, "end": 3, "score": 0.9}]], references=[[]])
    with pytest.raises(DataError, match="'Drug' is given twice"):
        ner_f1.compute(predictions=[[]], references=[[]], labels=["Drug", "Drug"])


def test_gold_written_otherwise_than_the_text_is_compared_by_the_text_at_its_place(ner_f1):
    decomposed, absent = unicodedata.normalize("NFD", "질병"), span(-1, -1, "Drug", "없음")
    found = [
        [span(0, 3, "Drug", "약 물"), span(4, 9, decomposed, unicodedata.normalize("NFD", "감기"))],
        [span(0, 2, "Drug", "약물")],
    ]
    gold = [
        [span(0, 3, "Drug", "약물"), span(4, 9, "질병", "감기"), span(10, 12, "Drug", "두  통"), absent],
        [span(0, 2, "Drug", "약물"), span(4, 7, "Drug", "약물"), absent],
    ]
    result = ner_f1.compute(predictions=found, references=gold)
    assert set(result["string_f1"]["labels"]) == {"Drug", "질병"}
    for metric, gold in (("string_f1", 6), ("span_f1", 5)):
        overall = result[metric]["overall"]
        assert (overall["true_positives"], overall["predicted"], overall["gold"]) == (3, 3, gold)
