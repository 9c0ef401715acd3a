"""Cutting a long document into windows that an encoder can read, so that nothing is truncated in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from glinerko.data import Span


@dataclass(frozen=True)
class Window:
    """A stretch of a document as the model reads it; all offsets are into ``text``.

    ``labels`` are those asked for in the prompt, in prompt order; ``targets`` are aligned to the words.
    """

    text: str
    words: list[tuple[int, int]]
    labels: tuple[str, ...]
    targets: list[Span] = field(default_factory=list)


def cut_windows(
    words: Sequence[tuple[int, int]], pieces: Sequence[int], max_pieces: int, overlap: int
) -> list[tuple[int, int]]:
    """Cover all words with windows of at most ``max_pieces`` pieces that overlap by up to ``overlap`` pieces.

    Windows begin and end at white space; only a stretch without white space that is longer than a window is cut
    between two words. A single word of more than ``max_pieces`` pieces makes a window of its own.

    Args:
        words: ``(start, end)`` of each word; two words are parted by white space where these do not touch.
        pieces: How many pieces the tokenizer makes of each word.

    Returns:
        ``(first, last)`` word of each window, ``last`` exclusive, in order.

    Raises:
        ValueError: no room, or an overlap that leaves no room for new words.
    """
    if max_pieces < 1 or not 0 <= overlap < max_pieces:
        raise ValueError(f"need 0 <= overlap < max_pieces, got overlap={overlap}, max_pieces={max_pieces}")
    before = [0, *accumulate(pieces)]
    after_space = [True, *(end < start for (_, end), (start, _) in pairwise(words)), True]

    windows: list[tuple[int, int]] = []
    first, covered = 0, 0
    while covered < len(words):
        last = covered + 1
        while last < len(words) and before[last + 1] - before[first] <= max_pieces:
            last += 1
        if before[last] - before[first] > max_pieces and first < covered:
            first = covered  # the overlap leaves no room for the next word
            continue
        if last < len(words):
            at_space = next((cut for cut in range(last, covered, -1) if after_space[cut]), None)
            if at_space is None and first < covered:
                first = covered  # try the long stretch again, with a whole window for it
                continue
            last = at_space or last
        windows.append((first, last))
        covered = last
        first = last
        for cut in range(last - 1, windows[-1][0], -1):
            if before[last] - before[cut] > overlap:
                break
            if after_space[cut]:
                first = cut
    return windows
