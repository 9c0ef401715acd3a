from __future__ import annotations

import pickle
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glinerko.data import Example, load_rows
from glinerko.errors import LoadError
from glinerko.words import CarriedWordSplitter, KoreanWordSplitter, SplitText, load_word_splitter

splitter = KoreanWordSplitter()


def tokens(text: str) -> list[str]:
    return [text[start:end] for start, end in splitter.split(text)]


def test_particles_and_endings_come_off():
    assert tokens("당뇨병으로 인슐린을 투여") == ["당뇨병", "으로", "인슐린", "을", "투여"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5mg", ["5", "mg"]),
        ("CT촬영", ["CT", "촬영"]),
        ("HbA1c 7.2%", ["HbA", "1", "c", "7.2", "%"]),
        ("", []),
        (" \n", []),
    ],
)
def test_scripts_and_digits_split_where_they_meet(text, expected):
    assert tokens(text) == expected


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_offsets_are_into_the_text_as_it_was_given(form):
    text = unicodedata.normalize(form, "당뇨병으로\n혈당이 😀 높음")
    composed = [unicodedata.normalize("NFC", token) for token in tokens(text)]
    assert composed[:4] == ["당뇨병", "으로", "혈당", "이"]


# Hangul in both forms, jamo alone, Latin, digits, marks, emoji, control characters.
texts = st.text(
    st.one_of(
        st.sampled_from("가나다각ᄀ\u1161\u11a8ㄱㅏ aZé5.,\n\t\u0301\u200d😀漢"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_words_are_ordered_do_not_overlap_and_cover_all_but_white_space(text):
    words = splitter.split(text)
    end_before = 0
    for start, end in words:
        assert start < end
        assert not text[end_before:start].strip()
        end_before = end
    assert not text[end_before:].strip()
    assert splitter.split_batch([text, "당뇨병"])[0] == words


def test_case_is_kept_unless_asked():
    assert [token for token, _, _ in splitter("MRI 검사", lower=True)] == ["MRI", "검사"]
    assert [token for token, _, _ in KoreanWordSplitter(lower_case=True)("MRI")] == ["mri"]


def test_splitter_can_be_pickled():
    assert pickle.loads(pickle.dumps(splitter)).split("당뇨병으로") == splitter.split("당뇨병으로")


def test_carried_words_are_not_split_again():
    def never(text, lower=True):
        raise AssertionError("split again")

    carried = CarriedWordSplitter(never)
    assert list(carried(SplitText("가나다", [(0, 1), (1, 3)]))) == [("가", 0, 1), ("나다", 1, 3)]
    assert [token for token, _, _ in CarriedWordSplitter(splitter)("당뇨병으로")] == ["당뇨병", "으로"]


def test_unknown_splitter_is_refused_with_the_choices():
    with pytest.raises(LoadError, match="char, whitespace"):
        load_word_splitter("mecab")


def test_missing_kiwipiepy_is_said_clearly(monkeypatch):
    monkeypatch.setattr("glinerko.words.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("glinerko.words._kiwi", __import__("glinerko.words", fromlist=["_kiwi"])._kiwi.__wrapped__)
    with pytest.raises(LoadError, match="pip install kiwipiepy"):
        load_word_splitter("korean")


def test_reach_on_the_real_corpus(real_corpus):
    """Mentions present in the text that lie on word boundaries and are at most 12 words wide."""
    examples = [Example.from_row(row) for row in load_rows(real_corpus)[0]]
    present = reached = 0
    for example, words in zip(examples, splitter.split_batch([e.text for e in examples]), strict=True):
        starts = {start: index for index, (start, _) in enumerate(words)}
        ends = {end: index for index, (_, end) in enumerate(words)}
        for mention in example.mentions:
            present += bool(mention.spans)
            reached += any(s in starts and e in ends and ends[e] - starts[s] < 12 for s, e in mention.spans)
    assert present == 4390
    assert reached / present >= 0.984
