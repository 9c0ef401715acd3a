"""Tags of words, ``B-Disease I-Disease O`` or ``Disease-B Disease-I O``, and the runs of words that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Run = tuple[int, int, str]
"""The number of the first word, the number after that of the last word, and the label."""
_TAG = re.compile(r"O|([BIESLU])-(.+)|(.+)-([BIESLU])")


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def decode_tags(tags: Iterable[str]) -> tuple[list[Run], int]:
    """The mentions that tags in BIO, IOB1, BIOES or BILOU stand for, and how many begin with ``I``, ``E`` or ``L``.

    These are regular in IOB1, and a mistake in the other schemes.

    Raises:
        ValueError: Something is no tag. The message does not show it, because it may be a word of the text.
    """
    runs, begun, start, current, number = [], 0, 0, "", 0
    for number, tag in enumerate(tags, 1):
        match = _TAG.fullmatch(tag)
        if not match:
            raise ValueError(f"tag {number} is no tag: expected O, B-LABEL, I-LABEL ... or LABEL-B, LABEL-I ...")
        kind, label = match[1] or match[4] or "O", match[2] or match[3] or ""
        goes_on = kind in "IEL" and label == current
        if current and not goes_on:
            runs.append((start, number - 1, current))
        if not goes_on:
            start, current = number - 1, label
            begun += kind in "IEL"
        if current and kind in "ELSU":
            runs.append((start, number, current))
            current = ""
    return runs + ([(start, number, current)] if current else []), begun


def encode_tags(length: int, runs: Sequence[Run]) -> list[str]:
    """The BIO tags of ``length`` words for ``runs`` that do not overlap."""
    tags = ["O"] * length
    for start, end, label in runs:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags
