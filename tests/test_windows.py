from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glinerko.corpus.windows import cut_windows


def words_of(text: str) -> list[tuple[int, int]]:
    """One word a letter, so that white space alone parts groups of words."""
    return [(index, index + 1) for index, character in enumerate(text) if character != " "]


def cut(text: str, max_pieces: int, overlap: int = 0) -> list[str]:
    words = words_of(text)
    windows = cut_windows(words, [1] * len(words), max_pieces, overlap)
    return [text[words[first][0] : words[last - 1][1]] for first, last in windows]


def test_a_short_document_is_one_window():
    assert cut("ab cd", 4) == ["ab cd"]


def test_windows_end_at_white_space():
    assert cut("abc de fgh", 5) == ["abc de", "fgh"]


def test_overlap_repeats_whole_stretches_only():
    assert cut("ab cd ef gh", 4, overlap=2) == ["ab cd", "cd ef", "ef gh"]
    assert cut("ab cd ef gh", 4, overlap=1) == ["ab cd", "ef gh"]


def test_a_stretch_longer_than_a_window_is_cut_between_words():
    assert cut("ab cdefghijk lm", 4) == ["ab", "cdef", "ghij", "k lm"]


def test_no_text_no_window():
    assert cut_windows([], [], 4, 0) == []


@pytest.mark.parametrize(("max_pieces", "overlap"), [(0, 0), (4, 4), (4, -1)])
def test_impossible_limits_are_refused(max_pieces, overlap):
    with pytest.raises(ValueError, match="overlap"):
        cut_windows([(0, 1)], [1], max_pieces, overlap)


@given(st.text("ab ", max_size=80), st.lists(st.integers(1, 9), min_size=80, max_size=80), st.data())
@settings(max_examples=300, deadline=None)
def test_windows_cover_every_word_within_the_limit(text, pieces, data):
    words = words_of(text)
    max_pieces = data.draw(st.integers(1, 30))
    overlap = data.draw(st.integers(0, max_pieces - 1))
    windows = cut_windows(words, pieces[: len(words)], max_pieces, overlap)
    assert {word for first, last in windows for word in range(first, last)} == set(range(len(words)))
    for (first, last), (next_first, next_last) in pairwise(windows):
        assert first < next_first <= last < next_last
        assert sum(pieces[next_first:last]) <= overlap
    for first, last in windows:
        assert last - first == 1 or sum(pieces[first:last]) <= max_pieces
