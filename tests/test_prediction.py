from __future__ import annotations

from itertools import pairwise

import pytest
from conftest import shut_gate, swap_and_spread
from hypothesis import given, settings
from hypothesis import strategies as st

from glinerko.common import DataError
from glinerko.corpus import windows
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Span
from glinerko.corpus.windows import split_into_windows
from glinerko.model.prediction import Predictions, predict_spans, resolve_greedily


@pytest.fixture(params=["span", "boundary"])
def spread_model(request, bases, pair, schema):
    return swap_and_spread(bases, pair, request.param, schema)


@pytest.fixture
def documents(spread_model, sample_rows, schema):
    return split_into_windows(sample_rows.select(range(24)), spread_model.processor, schema)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8])
def test_one_pass_gives_what_gliner2_extracts_at_every_threshold(spread_model, documents, schema, threshold):
    predictions = predict_spans(spread_model, documents, schema)
    entities = spread_model.create_schema().entities(schema.descriptions)
    theirs = spread_model.batch_extract(
        documents["text"][:], entities, batch_size=24, threshold=threshold, include_spans=True, include_confidence=True
    )
    found = 0
    for text, spans, result in zip(documents["text"], predictions.at_threshold(threshold), theirs, strict=True):
        expected = {
            (mention["start"], mention["end"], label)
            for label, mentions in result["entities"].items()
            for mention in mentions
            if mention["end"] <= len(text)
        }
        assert {span.key for span in spans} == expected
        found += len(expected)
    assert found > 0


def test_prediction_never_sees_gold(spread_model, sample_rows, schema, documents, monkeypatch):
    expected = predict_spans(spread_model, documents, schema).candidates
    bare = documents.select_columns(["text", "words", "windows"])  # nothing else can be read
    monkeypatch.setattr(windows, "aligned_windows", lambda *_: pytest.fail("targets were built"))
    assert predict_spans(spread_model, bare, schema).candidates == expected
    aligned = spread_model.align(sample_rows.select(range(24)), schema)
    assert predict_spans(spread_model, aligned, schema).candidates == expected


def test_a_shut_gate_returns_nothing_and_is_counted(spread_model, documents, schema):
    shut_gate(spread_model)
    predictions = predict_spans(spread_model, documents, schema, floor=0.0)
    each = 1 if spread_model.architecture == "span" else len(schema.labels)
    assert predictions.closed_gates == predictions.gates == each * len(documents)
    assert not any(predictions.spans)


def test_full_stop_that_gliner2_adds_is_never_predicted(spread_model, write_rows, schema):
    rows, _ = load_rows(write_rows({"text": "당뇨병", "entities": {}}))
    documents = split_into_windows(rows, spread_model.processor, schema)
    (spans,) = predict_spans(spread_model, documents, schema, floor=0.0).spans
    assert spans
    assert all(span.end <= 3 for span in spans)


def test_spans_of_overlapping_windows_are_merged(spread_model, write_rows):
    text = "환자는 당뇨병으로 인슐린을 투여하였다.\n" * 20
    rows, _ = load_rows(write_rows({"text": text, "entities": {"Disease": [], "Drug": []}}))
    schema = label_schema(rows)
    documents = split_into_windows(rows, spread_model.processor, schema, max_length=120, window_overlap=60)
    predictions = predict_spans(spread_model, documents, schema, floor=0.3)
    assert predictions.gates > 3
    (spans,) = predictions.spans
    for label in schema.labels:
        own = sorted(span for span in spans if span.label == label)
        assert all(before.end <= after.start for before, after in pairwise(own))
    assert max(span.end for span in spans) > len(text) * 0.8


def test_batching_and_order_do_not_change_predictions(spread_model, documents, schema):
    one, many = (predict_spans(spread_model, documents, schema, batch_size=size).spans for size in (1, 24))
    chosen = predict_spans(spread_model, documents, schema, indices=[5, 2]).spans
    for first, second in zip([*one, one[5], one[2]], [*many, *chosen], strict=True):
        assert [span.key for span in first] == [span.key for span in second]
        assert [span.score for span in first] == pytest.approx([span.score for span in second], abs=1e-5)


spans = st.builds(
    lambda start, width, label, score: Span(start, start + width, label, score),
    st.integers(0, 20),
    st.integers(1, 6),
    st.sampled_from(["A", "B"]),
    st.floats(0, 1, allow_subnormal=False),
)


@given(st.lists(spans, max_size=30))
@settings(deadline=None)
def test_greedy_resolution_is_the_plain_one(candidates):
    """Against the quadratic way: keep a span unless it overlaps a kept one of its label."""
    kept: list[Span] = []
    for span in sorted(candidates, key=lambda span: (-span.score, span.start, span.end)):
        if not any(s.label == span.label and span.start < s.end and s.start < span.end for s in kept):
            kept.append(span)
    assert resolve_greedily(candidates) == sorted(kept)


def test_other_overlap_policies_are_resolved_again_at_every_threshold():
    """The best span of `flat` at 0.3 is no part of it at 0.5, so that filtering would be wrong."""
    spans = [Span(0, 2, "Drug", 0.5), Span(0, 1, "Drug", 0.4), Span(1, 2, "Drug", 0.4), Span(0, 2, "Disease", 0.2)]
    predictions = Predictions([spans])

    def keys(threshold: float, policy: str) -> list[tuple]:
        return [span.key for span in predictions.at_threshold(threshold, policy)[0]]

    assert keys(0.3, "flat") == [(0, 1, "Drug"), (1, 2, "Drug")]
    assert keys(0.5, "flat") == [(0, 2, "Drug")]
    assert keys(0.3, "greedy") == keys(0.3, "longest") == [(0, 2, "Drug")]
    assert len(keys(0.1, "allow")) == 4
    assert keys(0.3, "nested") == [(0, 1, "Drug"), (0, 2, "Drug"), (1, 2, "Drug")]
    with pytest.raises(DataError, match="unknown overlap_policy"):
        predictions.at_threshold(0.3, "none of these")


@pytest.mark.parametrize("policy", ["flat", "nested", "longest", "allow"])
def test_overlap_policies_are_those_of_gliner2(spread_model, documents, schema, policy):
    found = predict_spans(spread_model, documents, schema, floor=0.3).at_threshold(0.3, policy)
    entities = spread_model.create_schema().entities(schema.descriptions)
    theirs = spread_model.batch_extract(
        documents["text"][:], entities, batch_size=24, threshold=0.3, include_spans=True, overlap_policy=policy
    )
    compared = 0
    for text, spans, result in zip(documents["text"], found, theirs, strict=True):
        expected = {(m["start"], m["end"], label) for label, ms in result["entities"].items() for m in ms}
        if not any(end > len(text) for _, end, _ in expected):  # unless gliner2's full stop takes part
            assert {span.key for span in spans} == expected
            compared += bool(expected)
    assert compared > 5
