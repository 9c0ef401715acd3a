from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glinerko.corpus.rows import Example, Mention, Span
from glinerko.model.prediction import Predictions
from glinerko.scoring.metrics import (
    Score,
    best_threshold,
    compare_f1,
    difference_error,
    f1_interval,
    match_dictionary,
    micro_f1,
    precision_recall,
    score_modes,
    score_spans,
    score_strings,
    sweep,
)

LABELS = ("Disease", "Drug")
#       0123456789012345
TEXT = "암과 위암에 암약을 투여함"


def example(*mentions: Mention) -> Example:
    return Example("a", TEXT, LABELS, mentions)


def test_score_by_hand():
    score = Score(true_positives=2, predicted=3, gold=4)
    assert (score.precision, score.recall) == (2 / 3, 0.5)
    assert score.f1 == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert Score().f1 == Score().precision == Score().recall == 0.0


def test_spans_count_every_occurrence_and_strings_each_pair_once():
    gold = example(Mention("Disease", "암", ((0, 1), (4, 5))), Mention("Drug", "암약", ((7, 9),)))
    found = [[Span(0, 1, "Disease", 0.9), Span(7, 9, "Disease", 0.8)]]
    spans, strings = score_spans([gold], found, LABELS), score_strings([gold], found, LABELS)
    assert spans.overall == Score(1, 2, 3)
    assert spans.labels == {"Disease": Score(1, 2, 2), "Drug": Score(0, 0, 1)}
    assert strings.overall == Score(1, 2, 2)


def test_a_gold_string_absent_from_the_text_still_counts():
    assert score_strings([example(Mention("Drug", "없음", ()))], [[]], LABELS).overall == Score(0, 0, 1)
    assert score_spans([example(Mention("Drug", "없음", ()))], [[]], LABELS).overall == Score(0, 0, 0)


def test_documents_are_not_mixed():
    gold = [example(Mention("Disease", "암", ((0, 1),))), example()]
    assert score_strings(gold, [[], [Span(0, 1, "Disease", 1.0)]], LABELS).overall == Score(0, 1, 1)


def test_unseen_mentions_leave_out_seen_gold_and_seen_predictions():
    gold = example(Mention("Disease", "암", ((0, 1),)), Mention("Disease", "위암", ((3, 5),)))
    found = [[Span(0, 1, "Disease", 1.0), Span(3, 5, "Disease", 1.0), Span(7, 9, "Drug", 1.0)]]
    assert score_strings([gold], found, LABELS, leave_out={("암", "Disease")}).overall == Score(1, 2, 1)


def test_labels_not_asked_for_do_not_count():
    gold = example(Mention("Disease", "암", ((0, 1),)), Mention("Drug", "암약", ((7, 9),)))
    assert score_spans([gold], [[]], ("Drug",)).overall == Score(0, 0, 1)


def test_sweep_and_best_threshold():
    gold = example(Mention("Disease", "암", ((0, 1),)))
    found = [[Span(0, 1, "Disease", 0.6), Span(3, 5, "Disease", 0.3)]]
    scores = sweep("span_f1", [gold], Predictions(found).at_threshold, LABELS, [0.2, 0.4, 0.5, 0.6, 0.7])
    assert [round(s.overall.f1, 3) for s in scores.values()] == [0.667, 1.0, 1.0, 1.0, 0.0]
    assert best_threshold(scores) == 0.5  # the nearest to 0.5 of those that tie


@pytest.mark.parametrize(("sure", "expected"), [(6, 0.5), (12, 0.7)])
def test_best_threshold_leaves_one_half_where_more_than_chance_speaks_for_another(sure, expected):
    """At 0.7 some of 20 documents lose a wrong span and four lose a right one."""
    gold = example(Mention("Disease", "암", ((0, 1),)))
    wrong = [Span(0, 1, "Disease", 0.9), Span(3, 5, "Disease", 0.6)]
    found = [wrong] * sure + [[Span(0, 1, "Disease", 0.6)]] * 4 + [[Span(0, 1, "Disease", 0.9)]] * (16 - sure)
    scores = sweep("span_f1", [gold] * 20, Predictions(found).at_threshold, LABELS, [0.5, 0.7])
    assert scores[0.7].overall.f1 > scores[0.5].overall.f1
    assert best_threshold(scores) == expected


def test_the_standard_error_of_a_difference_is_that_of_a_bootstrap():
    draw = np.random.default_rng(0)
    gold = draw.integers(1, 12, 200)
    first, second = (np.stack([draw.binomial(gold, share), gold + 1, gold], axis=-1) for share in (0.6, 0.5))
    chosen = draw.integers(0, 200, (4000, 200))
    differences = micro_f1(first[chosen]) - micro_f1(second[chosen])
    assert difference_error(first, second) == pytest.approx(differences.std(), rel=0.05)
    assert difference_error(first, first) == 0.0


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), max_size=20),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
)
def test_a_higher_threshold_keeps_a_subset(scores, first, second):
    spans = [[Span(index, index + 1, "Disease", score) for index, score in enumerate(scores)]]
    low, high = sorted((first, second))
    at_threshold = Predictions(spans).at_threshold
    assert set(at_threshold(high)[0]) <= set(at_threshold(low)[0])


def test_dictionary_takes_the_longest_match_and_the_usual_label():
    training = [
        example(Mention("Disease", "암", ()), Mention("Drug", "암약", ())),
        example(Mention("Drug", "암", ()), Mention("Disease", "암", ())),
    ]
    (found,) = match_dictionary(training, [TEXT], LABELS)
    assert [(TEXT[s.start : s.end], s.label) for s in found] == [("암", "Disease"), ("암", "Disease"), ("암약", "Drug")]


def test_semeval_modes_by_hand():
    gold = example(Mention("Disease", "위암", ((3, 5),)), Mention("Drug", "암약", ((7, 9),)))
    boundary = [[Span(3, 4, "Disease", 1.0)]]  # half of the boundary, the right label
    modes = {mode: score["f1"] for mode, score in score_modes([gold], boundary, LABELS).items()}
    assert modes == pytest.approx({"strict": 0, "exact": 0, "partial": 1 / 3, "ent_type": 2 / 3})
    label = [[Span(3, 5, "Drug", 1.0), Span(9, 11, "Drug", 1.0)]]  # a wrong label; next to a gold span is no overlap
    modes = {mode: score["f1"] for mode, score in score_modes([gold], label, LABELS).items()}
    assert modes == pytest.approx({"strict": 0, "exact": 0.5, "partial": 0.5, "ent_type": 0})


def test_precision_recall_curve_and_average_precision_by_hand():
    gold = example(Mention("Disease", "위암", ((3, 5),)), Mention("Drug", "암약", ((7, 9),)))
    found = [[Span(3, 5, "Disease", 0.9), Span(0, 1, "Disease", 0.8), Span(7, 9, "Drug", 0.7), Span(0, 1, "Drug", 0.7)]]
    curve, average = precision_recall([gold], found, LABELS)
    assert curve == [(0.9, 1.0, 0.5), (0.8, 0.5, 0.5), (0.7, 0.5, 1.0)]
    assert average == 0.5 * 1.0 + 0.5 * 0.5


def test_macro_f1_leaves_out_labels_that_do_not_occur():
    gold = example(Mention("Disease", "위암", ((3, 5),)))
    scores = score_spans([gold], [[Span(3, 5, "Disease", 1.0)]], (*LABELS, "Procedure"))
    assert scores.macro_f1 == 1.0
    assert score_spans([gold], [[Span(3, 5, "Drug", 1.0)]], LABELS).macro_f1 == 0.0


def test_interval_holds_the_f1_and_narrows_with_more_documents():
    document = np.array([[1, 2, 2], [2, 2, 3], [0, 1, 1], [3, 3, 4]])
    low, high = f1_interval(document)
    assert low < micro_f1(document) == 12 / 18 < high
    many_low, many_high = f1_interval(np.tile(document, (50, 1)))
    assert many_high - many_low < (high - low) / 3
    assert f1_interval(document[:1]) == (0.5, 0.5)


def test_paired_test_sees_a_steady_lead_that_the_intervals_hide():
    rng = np.random.default_rng(0)
    gold = rng.integers(8, 30, 60)
    hits = (gold * rng.random(60)).astype(int)
    worse, better = (np.stack([np.minimum(hits + lead, gold), gold, gold], axis=1) for lead in (0, 1))
    assert f1_interval(worse)[1] > f1_interval(better)[0]
    lead = compare_f1(better, worse)
    assert lead.low > 0
    assert lead.p_value <= 0.001
    assert lead.f1 == pytest.approx(float(micro_f1(better) - micro_f1(worse)))
    none = compare_f1(worse, worse)
    assert (none.f1, none.p_value) == (0, 1.0)
    with pytest.raises(ValueError, match="60 and of 2 documents"):
        compare_f1(better, worse[:2])
