from __future__ import annotations

import pytest

from glinerko.corpus.rows import Example, Mention, Span
from glinerko.corpus.words import KoreanWordSplitter
from glinerko.scoring.analysis import ErrorClass, count_errors, judge_spans

LABELS = ("Disease", "Drug")
#       0123456789012345678901
TEXT = "당뇨병으로 인슐린을 투여하고 폐암이었다."
GOLD = ((0, 3, "Disease"), (6, 9, "Drug"))


def judge(*found: tuple[int, int, str], gold=GOLD, outcome="target", seen=frozenset()):
    mentions = tuple(Mention(label, TEXT[start:end], ((start, end),)) for start, end, label in gold)
    example = Example("a", TEXT, LABELS, mentions)
    predicted, particles = [[Span(*key, 0.9) for key in found]], KoreanWordSplitter().particles
    (judged,) = judge_spans([example], [dict.fromkeys(gold, outcome)], predicted, LABELS, seen, particles)
    return {(item.is_gold, item.span.key): item for item in judged}


def classes(*found, **options) -> dict:
    return {key: item.error for key, item in judge(*found, **options).items()}


def test_correct_missed_and_spurious():
    assert classes((0, 3, "Disease"), (11, 13, "Drug")) == {
        (False, (0, 3, "Disease")): ErrorClass.CORRECT,
        (False, (11, 13, "Drug")): ErrorClass.SPURIOUS,
        (True, (0, 3, "Disease")): ErrorClass.CORRECT,
        (True, (6, 9, "Drug")): ErrorClass.MISSED,
    }


@pytest.mark.parametrize(
    ("gold", "found", "error"),
    [
        ((0, 3), (0, 5), ErrorClass.PARTICLE_ATTACHED),  # 당뇨병으로
        ((6, 9), (6, 10), ErrorClass.PARTICLE_ATTACHED),  # 인슐린을
        ((16, 18), (16, 21), ErrorClass.PARTICLE_ATTACHED),  # 폐암이었다
        ((6, 10), (6, 9), ErrorClass.PARTICLE_CUT),
        ((6, 9), (6, 13), ErrorClass.WIDER),  # 인슐린을 투여
        ((6, 9), (7, 9), ErrorClass.NARROWER),
        ((6, 9), (7, 10), ErrorClass.SHIFTED),
    ],
)
def test_wrong_boundaries_by_kind(gold, found, error):
    result = classes((*found, "Drug"), gold=[(*gold, "Drug")])
    assert result == {(False, (*found, "Drug")): error, (True, (*gold, "Drug")): error}


def test_an_overlap_under_another_label_is_a_wrong_label():
    assert set(classes((0, 5, "Drug"), gold=[(0, 3, "Disease")]).values()) == {ErrorClass.WRONG_LABEL}


def test_what_no_model_could_find_is_unreachable_whatever_overlaps():
    result = classes((0, 5, "Disease"), gold=[(0, 3, "Disease")], outcome="ends inside a word")
    assert result[True, (0, 3, "Disease")] is ErrorClass.UNREACHABLE
    assert result[False, (0, 5, "Disease")] is ErrorClass.PARTICLE_ATTACHED


def test_every_span_is_counted_once_in_each_kind_of_group():
    judged = list(judge((0, 3, "Disease"), (16, 18, "Disease"), seen={("당뇨병", "Disease")}).values())
    counts = count_errors([judged])
    assert counts["gold"]["all"] == {"correct": 1, "missed": 1}
    assert counts["predicted"]["training: seen"] == {"correct": 1}
    assert counts["predicted"]["training: unseen"] == {"spurious": 1}
    assert counts["predicted"]["position: last third"] == {"spurious": 1}
    assert counts["gold"]["length: 3–5 characters"] == {"correct": 1, "missed": 1}
    for kind in ("label", "length", "training", "position"):
        groups = [sum(found.values()) for group, found in counts["gold"].items() if group.startswith(kind)]
        assert sum(groups) == 2
