"""Offsets that were counted in another form of the text than the export has.

The surface of each mention, its own text in the export, proves which form that was.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from glinerko.corpus.formats.documents import Annotation

LOST = "white space lost by the export"
"""The repair of offsets that count white space, or a byte order mark, which the export removed from the text."""
Pieces = Iterator[tuple[str, str]]
"""A text in pieces: each as the export has it, and as it was counted."""


def repair_offsets(text: str, annotations: Sequence[Annotation]) -> tuple[list[Annotation], str | None]:
    """The annotations with offsets into ``text``, and the kind of repair (``None``: none was needed).

    Nothing is changed if all surfaces stand at their offsets, or if the export has no surfaces. Otherwise there must be
    one way of counting for which every mention of the document has its surface.

    Raises:
        ValueError: There is none, or several that lead to different places.
    """
    placed = [each for each in annotations if each.start is not None]
    wrong = [a for a in placed if a.text is not None and not same(text[a.start : a.end], a.text)]
    if not wrong:
        return list(annotations), None
    what = f"a mention of {wrong[0].label!r}: the text at offsets [{wrong[0].start}, {wrong[0].end}) is not the mention"
    if any(each.text is None for each in placed):
        raise ValueError(f"{what}, and other mentions have no text to prove a repair: export again")
    found: dict[tuple[tuple[int, int], ...], str] = {}
    for form, cut in FORMS.items():
        pieces = list(cut(text))
        for unit, size in UNITS.items():
            if spans := _fit(text, placed, pieces, size):
                found.setdefault(spans, " and ".join(filter(None, (form, unit))))
    if not found and (spans := _fit_stretched(text, placed)):
        found[spans] = LOST
    if not found:
        raise ValueError(f"{what}, and no way of counting fits all mentions: export again")
    if len(found) > 1:
        raise ValueError(f"{what}, and it could be in several places ({'; '.join(found.values())}): export again")
    ((spans, kind),) = found.items()
    moved = dict(zip(map(id, placed), spans, strict=True))
    return [replace(a, start=moved[id(a)][0], end=moved[id(a)][1]) if id(a) in moved else a for a in annotations], kind


def same(piece: str, surface: str) -> bool:
    """Whether two strings differ at most in Unicode form, escapes of HTML, and white space.

    Label Studio writes a line end in a surface as a backslash and ``n``, and brat writes it as a blank.
    """
    return piece == surface or _loosely(piece) == _loosely(surface)


def _loosely(text: str) -> str:
    text = unicodedata.normalize("NFC", html.unescape(text))
    return re.sub(r"(?:\s|\\n)+", " ", text)


def _each(text: str, counted: Callable[[str], str]) -> Pieces:
    return ((character, counted(character)) for character in text)


def _matches(pattern: str, counted: Callable[[str], str]) -> Callable[[str], Pieces]:
    """Pieces that match are counted in another form, all other characters as they are."""
    return lambda text: (
        (match.group(), counted(match.group()) if match.lastgroup else match.group())
        for match in re.finditer(f"(?P<found>{pattern})|.", text, re.DOTALL)
    )


_collapse = _matches(r"\s+", lambda _: " ")


def _collapse_and_strip(text: str) -> Pieces:
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    yield text[:start], ""
    yield from _collapse(text[start:end])
    yield text[end:], ""


# A character and the characters that may compose with it, as in `matching.compose`.
_CLUSTER = r"[^\u1160-\u11ff\u0300-\u036f\u3099\u309a][\u1160-\u11ff\u0300-\u036f\u3099\u309a]+"
FORMS: dict[str, Callable[[str], Pieces]] = {
    "": lambda text: _each(text, str),
    "CRLF line ends counted": _matches(r"\r?\n", lambda _: "\r\n"),
    "LF line ends counted": _matches(r"\r\n", lambda _: "\n"),
    "NFC counted": _matches(_CLUSTER, lambda piece: unicodedata.normalize("NFC", piece)),
    "NFD counted": lambda text: _each(text, lambda character: unicodedata.normalize("NFD", character)),
    "HTML unescaped": _matches(r"&(?:#\d+|#[xX][0-9a-fA-F]+|\w+);", html.unescape),
    "HTML escaped": lambda text: _each(text, lambda character: html.escape(character, quote=False)),
    "HTML with quotes escaped": lambda text: _each(text, html.escape),
    "white space collapsed": _collapse,
    "white space collapsed and stripped": _collapse_and_strip,
}
"""The forms of a text that may have been counted, the simplest first."""
UNITS: dict[str, Callable[[str], int]] = {
    "": len,
    "UTF-16 units": lambda text: len(text.encode("utf-16-le", "surrogatepass")) // 2,
    "UTF-8 bytes": lambda text: len(text.encode("utf-8", "surrogatepass")),
}
"""The units that offsets may count: characters, UTF-16 units or bytes."""


def _fit(
    text: str, annotations: Sequence[Annotation], pieces: Sequence[tuple[str, str]], size: Callable[[str], int]
) -> tuple[tuple[int, int], ...] | None:
    """The offsets into ``text`` if its pieces were counted, or nothing if one surface does not stand there.

    Args:
        size: The length of a string in the unit that was counted.
    """
    starts, ends, counted, real = {0: 0}, {0: 0}, 0, 0
    for piece, as_counted in pieces:
        counted, real = counted + size(as_counted), real + len(piece)
        starts[counted] = real  # a piece that was not counted belongs to no mention
        ends.setdefault(counted, real)
    spans = tuple((starts.get(each.start, -1), ends.get(each.end, -1)) for each in annotations)
    fits = (0 <= s < e and same(text[s:e], a.text) for (s, e), a in zip(spans, annotations, strict=True))
    return spans if all(fits) else None


def _fit_stretched(text: str, annotations: Sequence[Annotation]) -> tuple[tuple[int, int], ...] | None:
    """The offsets into ``text`` if the annotated text had more white space, nobody knows how much and where.

    Then offsets can only be too high, the more so the further in the text, and only white space can add to them.
    """
    if re.search(r"\s\s", text):
        return None
    ordered = sorted(annotations, key=lambda each: (each.start, each.end))
    paths: list[tuple[int, ...]] = [()]
    for number, each in enumerate(ordered):
        surface = re.sub(r"\s+", " ", each.text)
        if len(each.text) != each.end - each.start:
            return None
        places = [match.start() for match in re.finditer(f"(?={re.escape(surface)})", text)]
        before = ordered[number - 1].start if number else 0
        paths = [
            (*path, place)
            for path in paths
            for place in places
            if _can_follow(text, path[-1] if path else 0, before, place, each.start, first=not path)
        ]
        if len(paths) > 1000:
            return None
    if len(paths) != 1:
        return None
    found = {
        id(a): (place, place + len(re.sub(r"\s+", " ", a.text))) for a, place in zip(ordered, paths[0], strict=True)
    }
    return tuple(found[id(each)] for each in annotations)


def _can_follow(text: str, place: int, offset: int, next_place: int, next_offset: int, first: bool) -> bool:
    """Whether white space between two mentions can explain that their offsets are further apart than their places."""
    added = (next_offset - offset) - (next_place - place)
    # White space at the start of a text is stripped, so it may explain the first difference.
    return added == 0 or (added > 0 and (first or re.search(r"\s", text[place:next_place]) is not None))
