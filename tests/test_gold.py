"""Gold that is spaced otherwise than its text, or in another Unicode form, counts as what the text has."""

from __future__ import annotations

import json
import unicodedata

import pytest
from conftest import split_and_align
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glinerko.common import DataError
from glinerko.corpus import reading
from glinerko.corpus.matching import find_mention, plain
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.report import report_data
from glinerko.corpus.rows import Example, Span
from glinerko.corpus.splits import contradicting_texts, fold_rows, shared_texts, split_rows
from glinerko.scoring.metrics import match_dictionary, score_strings

TEXT = "급성 신부전과 당뇨병으로 인슐린을 투여한다."
SPACES = ["", " ", "  ", "\n", "\t", "\r\n", "\xa0", "\u3000", "\u2009", "\u200b", "\ufeff"]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def read(path) -> list[Example]:
    return [Example.from_row(row) for row in load_rows(str(path))[0]]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("이 약 물과", "약물"),
        ("간 이 식별되지", "간이식"),
        ("최고 혈압이", "고혈압"),  # begins inside a word
        ("신부 전문의", "신부전"),  # ends inside a word
        ("만성 신부 전시회", "만성신부전"),
        ("CRP 5.2", "CRP5"),
        ("CRP 52", "CRP5"),
        ("1.5 mg", "5mg"),
        ("Type IIa", "TypeII"),
        ("CRP 1 0", "CRP10"),  # two numbers
        ("CRP52", "CRP 5"),  # only the mention has the white space: a number is whole all the same
        ("두통", ""),
    ],
)
def test_words_that_only_look_like_a_mention_are_none(text, mention):
    assert find_mention(text, mention) == []


@pytest.mark.parametrize(
    ("text", "mention", "expected"),
    [
        ("간 이식을 시행", "간이식", "간 이식"),
        ("간 이식후", "간이식", "간 이식"),
        ("간 이식하였다", "간이식", "간 이식"),
        ("모니터링 보 고서를", "모니터링 보고서", "모니터링 보 고서"),
        ("활 성 형 혈 전", "활성형 혈전", "활 성 형 혈 전"),
        ("급성허리통증이", "허리 통증", "허리통증"),  # in one run, like an exact mention
        ("약물과", "약 물", "약물"),
        ("A 형 간염", "A형 간염", "A 형 간염"),
        ("CRP 5 이상", "CRP5", "CRP 5"),
        ("jejunoileal\nbypass)", "jejunoileal bypass", "jejunoileal\nbypass"),
        ("당뇨\n병적 변화", "당뇨병", "당뇨\n병"),  # a line end parts no word
        ("급성 췌\u200b장염이", "췌장염", "췌\u200b장염"),
    ],
)
def test_mentions_that_are_spaced_otherwise_are_found_where_a_word_begins_and_ends(text, mention, expected):
    assert [text[start:end] for start, end in find_mention(text, mention)] == [expected]


def test_no_mention_of_the_real_corpus_is_lost(real_corpus):
    found = [
        any(example.text[start:end] != mention.text for start, end in mention.spans)
        for example in read(real_corpus)
        for mention in example.mentions
        if mention.spans
    ]
    assert (len(found), sum(found)) == (4390, 12)


@given(st.data(), st.sampled_from(["신부전", "급성 신부전", "당뇨병", "인슐린"]))
def test_a_mention_with_any_white_space_in_and_around_it_is_found(data, mention):
    gaps = data.draw(st.lists(st.sampled_from(SPACES), min_size=len(mention) + 1, max_size=len(mention) + 1))
    written = gaps[0] + "".join(character + gap for character, gap in zip(mention, gaps[1:], strict=True))
    assert [TEXT[start:end] for start, end in find_mention(TEXT, written)] == [mention]


pieces = st.sampled_from(
    ["당뇨병", "é", "e\u0301", "각", "ㄱ", "\u1100", "\u1161", "\u11a8", " ", "인슐린", "Å", "\u0301"]
)
texts = st.lists(pieces, min_size=1, max_size=8).map("".join)


@given(texts, st.sampled_from(["NFC", "NFD"]), st.sampled_from(["NFC", "NFD"]), st.sampled_from(["당뇨병", "é", "각"]))
def test_offsets_lie_in_the_text_as_it_is_whatever_the_unicode_forms(text, form, other, mention):
    text = unicodedata.normalize(form, text)
    spans = find_mention(text, unicodedata.normalize(other, mention))
    assert all(plain(text[start:end]) == plain(mention) for start, end in spans)
    if form == "NFC":
        assert len(spans) == text.count(unicodedata.normalize("NFC", mention))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_gold_and_scores_are_the_same_in_every_unicode_form(write_rows, form, other):
    text = unicodedata.normalize(form, TEXT)
    start = text.index(unicodedata.normalize(form, "인슐린"))
    offsets = {"text": unicodedata.normalize(other, "인슐린"), "start": start}
    offsets["end"] = start + len(unicodedata.normalize(form, "인슐린"))
    entities = {"Disease": [unicodedata.normalize(other, "당뇨병")], "Drug": [offsets]}
    (example,) = read(write_rows({"text": text, "entities": entities}))
    assert example.gold_strings == {("당뇨병", "Disease"), ("인슐린", "Drug")}
    spans = [Span(*key, score=1.0) for key in example.gold_spans]
    assert score_strings([example], [spans], ("Disease", "Drug")).overall.f1 == 1.0
    (found,) = match_dictionary([example], [nfd(TEXT)], ("Disease", "Drug"))
    assert {plain(nfd(TEXT)[span.start : span.end]) for span in found} == {"당뇨병", "인슐린"}


@pytest.mark.parametrize("written", ["당뇨병 ", "당뇨 병", "\n당뇨병", "당\u3000뇨병", nfd("당뇨병")])
def test_a_correct_prediction_of_loosely_matched_gold_is_correct(write_rows, model, written):
    path = write_rows({"text": TEXT, "entities": {"Disease": [written, "신부전", "없는 병 "], "Drug": ["인슐린"]}})
    rows, _ = load_rows(path)
    (example,) = read(path)
    assert example.mentions[0].text == written
    assert example.gold_strings == {
        ("당뇨병", "Disease"), ("신부전", "Disease"), ("없는 병", "Disease"), ("인슐린", "Drug"),
    }  # fmt: skip
    spans = [Span(*key, score=1.0) for key in example.gold_spans]
    assert score_strings([example], [spans], ("Disease", "Drug")).overall.true_positives == 3
    seen = example.gold_strings
    assert score_strings([example], [spans], ("Disease", "Drug"), leave_out=seen).overall.gold == 0
    report = report_data(
        split_and_align(rows, model.processor, label_schema(rows), max_width=12), label_schema(rows), ""
    )
    assert report.to_dict()["mentions_matched_loosely"] == 1


def test_a_mention_of_white_space_is_refused_with_offsets_too(write_rows):
    for mention in (" ", {"text": " ", "start": 3, "end": 4}):
        with pytest.raises(DataError, match="is empty"):
            load_rows(write_rows({"text": "당뇨병 약", "entities": {"Drug": [mention]}}))


@pytest.mark.parametrize(("start", "end"), [(0, 7), (3, 8), (4, 8), (4, 7)])
def test_white_space_around_a_mention_with_offsets_does_not_count(write_rows, start, end):
    text = "   \n당뇨병 약"
    mention = {"text": text[start:end], "start": start, "end": end}
    rows, _ = load_rows(write_rows({"text": text, "entities": {"Disease": [mention]}}))
    assert Example.from_row(rows[0]).gold_spans == {(4, 7, "Disease")}


def test_offsets_whose_text_is_another_word_are_still_refused(write_rows):
    wrong = {"text": nfd("인슐린"), "start": 0, "end": 3}
    with pytest.raises(DataError, match="is not the mention"):
        load_rows(write_rows({"text": TEXT, "entities": {"Drug": [wrong]}}))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(SPACES), st.sampled_from(["NFC", "NFD"]), st.booleans()), min_size=1, max_size=6)
)
def test_gold_that_is_written_is_read_as_the_same_gold(tmp_path, kinds):
    rows = []
    for space, form, exact in kinds:
        text = unicodedata.normalize(form, f"당뇨병{space}으로 당뇨병을 앓는다")
        end = len(unicodedata.normalize(form, "당뇨병"))
        mention = {"text": "당뇨병", "start": 0, "end": end} if exact else f"{space}당뇨{space}병"
        rows.append({"text": text, "entities": {"Disease": [mention, "없음"], "Drug": []}})
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    reading.write_rows(load_rows(str(first))[0], second)
    before, after = read(first), read(second)
    assert [(e.text, e.labels, e.gold_spans, e.gold_strings) for e in before] == [
        (e.text, e.labels, e.gold_spans, e.gold_strings) for e in after
    ]


@pytest.mark.parametrize("other", [TEXT.replace(" ", "\n"), f"{TEXT} ", nfd(TEXT), TEXT.replace(" ", "")])
def test_texts_that_differ_in_white_space_or_unicode_form_are_one_text(write_rows, other):
    rows, _ = load_rows(
        write_rows(*({"text": text, "entities": {}} for text in (TEXT, "두통", "복통", other, "요통", "치통")))
    )
    assert shared_texts(rows.select([0]), rows.select([3])) == [rows[3]["id"]]
    for seed in range(5):
        for first, second in (split_rows(rows, 0.4, seed), fold_rows(rows, 2, seed)):
            assert not shared_texts(first, second)
            assert len(first) + len(second) == len(rows)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"Disease": ["당뇨병"]}, {"Disease": ["당뇨병"]}, 0),
        ({"Disease": ["당뇨병"]}, {"Disease": ["신부전"]}, 1),
        ({"Disease": ["당뇨병"]}, {"Disease": []}, 1),
        ({"Disease": ["당뇨병"]}, {}, 1),  # nothing was found
        ({"Disease": ["당뇨병"]}, {"Drug": ["인슐린"]}, 0),  # annotated for other labels
        ({"Disease": ["당뇨병"], "Drug": []}, {"Drug": ["당뇨병"]}, 1),
    ],
)
@pytest.mark.parametrize("spaced", [TEXT, TEXT.replace(" ", "\n "), nfd(TEXT)])
def test_one_text_that_is_labelled_in_two_ways_is_counted(write_rows, first, second, expected, spaced):
    path = write_rows({"text": TEXT, "entities": first}, {"text": spaced, "entities": second})
    assert len(contradicting_texts(load_rows(path)[0])) == expected
