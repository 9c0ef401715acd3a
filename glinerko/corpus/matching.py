"""Finding a mention in a text that is spaced differently or in another Unicode form; strings that count as the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from glinerko.common import check_unicode, kind_of

# White space, and the invisible characters that come with text from web pages and word processors.
_SPACE = r"[\s\u00ad\u200b-\u200d\u2060\ufeff]"
_SPACES = re.compile(f"{_SPACE}+")
# The rest of a Korean word after a noun: particles, the copula, verbs made of the noun, `후`, `등` ... and no other.
_AFTER_NOUN = re.compile(
    "(?:은|는|이|가|을|를|과|와|의|에|도|만|로|으로|에서|에게|께|께서|한테|서|써|부터|까지|보다|처럼|같이|마다|조차|마저|밖에|뿐"
    "|대로|나|이나|이나마|든지|며|이며|고|이고|라|이라|란|이란|는지|인|인지|이다|다|입니다|이었다|였다|임|이므로|이면|이자"
    "|들|등|후|전|시|중|(?:하|한|할|함|해|했|되|된|될|됨|돼|됐|시키|시킨|시켰|받)[가-힣]*){0,4}(?![가-힣])"
)


@lru_cache(maxsize=8)
def compose(text: str) -> tuple[str, Sequence[int]]:
    """``text`` in NFC, and for each of its characters (and its end) the offset in ``text`` where it begins."""
    if unicodedata.is_normalized("NFC", text):
        return text, range(len(text) + 1)
    composed, origins, start = [], [], 0
    while start < len(text):
        end = start + 1
        # What follows a starter and may compose with it: combining marks, and vowels and codas of Hangul.
        while end < len(text) and (unicodedata.combining(text[end]) or "\u1160" <= text[end] <= "\u11ff"):
            end += 1
        cluster = unicodedata.normalize("NFC", text[start:end])
        composed.append(cluster)
        # A cluster that stays several characters keeps one boundary: its start.
        origins.extend([start] * len(cluster))
        start = end
    return "".join(composed), [*origins, len(text)]


def strip(text: str) -> str:
    """``text`` without the white space and the invisible characters around it."""
    return re.sub(rf"\A{_SPACE}+|{_SPACE}+\Z", "", text)


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The offsets of ``strip(text[start:end])``; unchanged if nothing is left of it."""
    inner = strip(text[start:end])
    begin = text.index(inner, start)
    return (begin, begin + len(inner)) if inner else (start, end)


def plain(text: str) -> str:
    """The form in which mention strings are compared: NFC, with single spaces and none around."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")


def without_spaces(text: str) -> str:
    """The form in which whole texts are compared: NFC, without white space."""
    return _SPACES.sub("", unicodedata.normalize("NFC", text))


def find_mention(text: str, mention: str) -> list[tuple[int, int]]:
    """All occurrences of ``mention`` in ``text``: exact ones, or otherwise loose ones. Both may be in any Unicode form.

    White space around the mention does not count. A loose occurrence has the same characters in the same order, and
    white space at other places. Where only the mention has it, the characters stand together in the text, as in an
    exact occurrence. If only the text has a blank (a line end is none), it may separate two words. Then the occurrence

    - must begin and end at word boundaries: no letter of the same script before it, and after a single last letter
      only what Korean attaches to a noun. ``간이식`` is in ``간 이식을``, and not in ``간 이 식별되지``;
    - must not join two numbers: ``10`` is not in ``1 0``;
    - must not be spaced letter by letter, unless it has at least four letters: ``약물`` is not in ``이 약 물과``.
    """
    composed, origins = compose(text)
    mention = strip(unicodedata.normalize("NFC", mention))
    exact = [match.span() for match in re.finditer(re.escape(mention), composed)] if mention else []
    spans = [(origins[start], origins[end]) for start, end in exact or _find_loose(composed, mention)]
    # A sequence that NFC composes only in part has no boundary inside.
    return [(start, end) for start, end in spans if without_spaces(text[start:end]) == without_spaces(mention)]


def _find_loose(text: str, mention: str) -> Iterator[tuple[int, int]]:
    """The loose occurrences; see :func:`find_mention`."""
    letters, own_breaks = _SPACES.sub("", mention), _breaks(mention, any_space=True)
    for match in re.finditer(f"{_SPACE}*".join(map(re.escape, letters)), text) if letters else ():
        added = _breaks(match.group()) - own_breaks
        # Beside a sign, and where the script changes, white space parts no word.
        cuts = [cut for cut in sorted(added) if _script(letters[cut - 1]) == _script(letters[cut]) != ""]
        longest = max(end - start for start, end in pairwise([0, *cuts, len(letters)]))
        if any(re.search(r"[\d.,]$", letters[:cut]) and letters[cut].isdigit() for cut in added):
            continue  # two numbers are not one
        whole = _is_whole(text, *match.span(), hangul=bool(added), tail=len(letters) - max(cuts, default=0))
        if whole and (not added or longest > 1 or len(letters) > 3):
            yield match.span()


def _breaks(text: str, any_space: bool = False) -> set[int]:
    """After how many letters of ``text`` a blank stands. Line ends and invisible characters part no word."""
    counts = accumulate(map(len, _SPACES.split(text)[:-1]))
    spaces = _SPACES.findall(text)
    return {n for n, space in zip(counts, spaces, strict=True) if any_space or re.search(r"^[^\S\r\n]+$", space)}


def _is_whole(text: str, start: int, end: int, hangul: bool, tail: int) -> bool:
    """Whether no word and no number reaches over the start or the end of ``text[start:end]``.

    Args:
        hangul: Whether Hangul words count too: in an exact occurrence they do not.
        tail: The number of letters after the last blank. What follows only one letter could be a word with it.
    """
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    first, last = _script(text[start]), _script(text[end - 1])
    if first == "Hangul" and not hangul:
        first = ""
    if first and before and (_script(before[-1]) == first or (first == "digit" and re.search(r"\d[.,]$", before))):
        return False
    if last == "Hangul":
        return not hangul or tail > 1 or _AFTER_NOUN.match(text, end) is not None
    return not (last and after and (_script(after[0]) == last or (last == "digit" and re.match(r"[.,]\d", after))))


def _script(character: str) -> str:
    """The script of a letter (a word ends where it changes); empty for a sign."""
    if "가" <= character <= "힣":
        return "Hangul"
    return "digit" if character.isdigit() else "letter" if character.isalpha() else ""


def parse_mention(text: str, where: str, value: Any) -> tuple[str, list[tuple[int, int]]]:
    """A mention as a user writes it, a string or ``{"text", "start", "end"}``: its string and where it stands.

    White space around it does not count, because annotators select it by accident.

    Args:
        where: Names the mention in messages.

    Raises:
        ValueError: With the reason.
    """
    if isinstance(value, str):
        check_unicode(where, value)
        if not strip(value):
            raise ValueError(f"{where} is empty")
        return value, find_mention(text, value)
    if not isinstance(value, Mapping) or not {"text", "start", "end"} <= value.keys():
        raise ValueError(
            f"{where} must be a string or an object with 'text', 'start' and 'end', found {kind_of(value)}"
        )
    surface, start, end = value["text"], value["start"], value["end"]
    if not isinstance(surface, str) or type(start) is not int or type(end) is not int:
        raise ValueError(f"{where}: 'text' must be a string, 'start' and 'end' whole numbers")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: offsets [{start}, {end}) lie outside the text of {len(text)} characters")
    if compose(text[start:end])[0] != compose(surface)[0]:
        raise ValueError(f"{where}: the text at offsets [{start}, {end}) is not the mention")
    if not strip(surface):
        raise ValueError(f"{where} is empty")
    return surface, [trim(text, start, end)]
