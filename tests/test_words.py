from __future__ import annotations

import multiprocessing
import pickle
import re
import unicodedata

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from glinerko.common import DataError, LoadError
from glinerko.corpus.processor import CarriedWordSplitter, SplitText
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.words import KoreanWordSplitter, analyser, load_word_splitter

splitter = KoreanWordSplitter()


def tokens(text: str) -> list[str]:
    return [text[start:end] for start, end in splitter.split(text)]


def test_particles_and_endings_come_off():
    assert tokens("당뇨병으로 인슐린을 투여") == ["당뇨병", "으로", "인슐린", "을", "투여"]


def test_what_no_entity_ends_inside_stays_together():
    assert tokens("혈당을 조사하였으며") == ["혈당", "을", "조사", "하였으며"]
    assert tokens("흡입용 제제") == ["흡입용", "제제"]


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


@pytest.mark.slow(8)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_splitter_gives_the_same_words_in_another_process(method):
    here = splitter.split("당뇨병으로 5mg CT촬영")  # Kiwi's threads are running when the fork happens
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(splitter.split, ("당뇨병으로 5mg CT촬영",)) == here
        assert pool.apply(splitter.split_batch, (["당뇨병으로 5mg CT촬영"] * 3,)) == [here] * 3


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
    monkeypatch.setattr("glinerko.corpus.words.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("glinerko.corpus.words.analyser", analyser.__wrapped__)
    with pytest.raises(LoadError, match="pip install kiwipiepy"):
        load_word_splitter("korean")


def test_user_dictionary_changes_the_words_it_names(tmp_path):
    text = "자누비아도 투여"
    assert tokens(text)[0] != "자누비아"
    (tmp_path / "words.tsv").write_text("# drugs\n\n자누비아\nHER2\tSL\n엔히어투 주\tNNP\t3.5\n", encoding="utf-8")
    known = KoreanWordSplitter(user_dictionary=tmp_path / "words.tsv")
    assert known.user_dictionary == (("자누비아", "NNP", 0.0), ("HER2", "SL", 0.0), ("엔히어투 주", "NNP", 3.5))
    assert [text[slice(*word)] for word in known.split(text)][:2] == ["자누비아", "도"]
    assert pickle.loads(pickle.dumps(known)).split(text) == known.split(text) != splitter.split(text)


def test_long_unknown_nouns_come_apart_unless_the_user_knows_them(tmp_path):
    text = "급성림프모구백혈병으로 진단"
    assert tokens(text)[-3:] == ["백혈병", "으로", "진단"]
    (tmp_path / "words.tsv").write_text("급성림프모구백혈병\n", encoding="utf-8")
    known = KoreanWordSplitter(user_dictionary=tmp_path / "words.tsv")
    assert [text[slice(*word)] for word in known.split(text)] == ["급성림프모구백혈병", "으로", "진단"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("당뇨병\tNNG\n가\tNNG\t0\t1\n", "line 2: expected `form`"),
        ("가\t\t1\n", "line 1: expected `form`"),
        ("# x\n가\tNOUN\n", "line 2: Unknown tag value 'NOUN'"),
        ("가\tNNG\thigh\n", "line 1: could not convert string to float: 'high'"),
        ("가\tNNG\tinf\n", "line 1: the score inf is not finite"),
        ("# nothing\n", "no words in it"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_malformed_user_dictionary_is_refused_with_its_line(tmp_path, content, message):
    file = tmp_path / "words.tsv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"words.tsv.*{re.escape(message)}"):
        load_word_splitter("korean", user_dictionary=file)


def test_only_the_korean_splitter_takes_a_user_dictionary(tmp_path):
    with pytest.raises(DataError, match="not 'whitespace'"):
        load_word_splitter("whitespace", user_dictionary=tmp_path / "words.tsv")


def test_kiwi_as_it_comes_cuts_every_morpheme():
    text = "혈당을 조사하였으며"
    assert [text[slice(*word)] for word in load_word_splitter("kiwi").split(text)] == [
        "혈당",
        "을",
        "조사",
        "하",
        "였",
        "으며",
    ]


@pytest.mark.slow(3)
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
    assert reached / present >= 0.990


@pytest.mark.slow(2)
def test_reach_on_klue():
    """On all 4,000 sentences; KLUE-NER is general text, so this also guards against tuning to one corpus."""
    path = SHARED / "klue_ner" / "klue-ner-v1.1_dev_first4000.tsv"
    if not path.is_file():
        pytest.skip(f"KLUE-NER is not at {path}")
    sentences = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        pairs = [line.split("\t") for line in block.splitlines() if not line.startswith("##")]
        if pairs:
            sentences.append(("".join(character for character, _ in pairs), [tag for _, tag in pairs]))
    gold = reached = 0
    for (text, tags), words in zip(sentences, splitter.split_batch([text for text, _ in sentences]), strict=True):
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        for start in (index for index, tag in enumerate(tags) if tag.startswith("B-")):
            end = next((i for i in range(start + 1, len(text)) if not tags[i].startswith("I-")), len(text))
            gold += 1
            reached += start in starts and end in ends
    assert reached / gold >= 0.980


@pytest.mark.slow(3)
def test_words_are_at_most_one_and_a_half_times_those_of_white_space(real_corpus):
    texts = load_rows(real_corpus)[0]["text"][:]
    words, white_space = (sum(map(len, s.split_batch(texts))) for s in (splitter, load_word_splitter("whitespace")))
    assert words / white_space <= 1.5
