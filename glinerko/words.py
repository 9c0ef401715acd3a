"""Words: the units whose runs GLiNER2 scores as spans.

An entity that ends inside a word can be neither learned nor predicted, and Korean glues particles to nouns, so the
splitter decides what can be found at all. Every splitter here is a callable that fits gliner2's ``word_splitter``:
``splitter(text, lower=True)`` yields ``(token, start, end)`` with end-exclusive offsets into the original text.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gliner2.processing.word_splitter import WORD_SPLITTERS, WordSplitter, resolve_word_splitter

from glinerko.continuation import MARK, ContinuationTokenizer
from glinerko.errors import DataError, LoadError
from glinerko.kiwi import analyser, compound_cuts, read_user_dictionary

# Words end at these seams (`5mg`, `CT촬영`), wherever else Kiwi cuts: Hangul; another script with the digits after it;
# a number, a date or a section number (`1,000.5`, `2023.7.1`); any other character by itself.
_RUNS = re.compile(r"[가-힣]+|(?:(?![가-힣])[^\W\d_])(?:(?![가-힣])[^\W_])*|\d+(?:[.,]\d+)*|\S")


def _compose(text: str) -> tuple[str, list[int]]:
    """``text`` in NFC, and for each of its characters (and its end) the offset in ``text`` where it begins."""
    if unicodedata.is_normalized("NFC", text):
        return text, list(range(len(text) + 1))
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


class KiwiWordSplitter:
    """Splits Korean text into morphemes as Kiwi gives them by default; :class:`KoreanWordSplitter` improves on it.

    The words cover every character that is not white space, in order and without overlap.

    Args:
        lower_case: Lower-case the tokens. Off by default: Korean vocabularies are cased, and ``MRI`` is not ``mri``.
            gliner2's own ``lower`` argument, which is always true, is not obeyed.
    """

    name = "kiwi"
    user_dictionary = ()
    _tuned = False
    _runs = re.compile(r"\S+")

    def __init__(self, lower_case: bool = False):
        self.lower_case = lower_case

    @property
    def version(self) -> str:
        """Changes when the words of a text may: with these rules (first number) or with Kiwi."""
        return f"4, kiwipiepy {importlib.metadata.version('kiwipiepy')}"

    def __call__(self, text: str, lower: bool = True) -> Iterator[tuple[str, int, int]]:
        for start, end in self.split(text):
            yield _token(text[start:end], self.lower_case), start, end

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word of ``text``."""
        return self.split_batch([text])[0]

    def split_batch(self, texts: Iterable[str]) -> list[list[tuple[int, int]]]:
        """``split`` of many texts, on Kiwi's own threads."""
        composed = [_compose(text) for text in texts]
        analyses = list(self._analyser.tokenize([text for text, _ in composed]))
        compounds = self._compounds(analyses)
        return [
            self._words(text, morphemes, origins, compounds)
            for (text, origins), morphemes in zip(composed, analyses, strict=True)
        ]

    @property
    def _analyser(self):
        return analyser(os.getpid(), self._tuned, self.user_dictionary)

    def _compounds(self, analyses) -> dict[str, list[int]]:
        """Where nouns among the morphemes are cut once more."""
        return {}

    def _words(
        self, composed: str, morphemes, origins: list[int], compounds: dict[str, list[int]]
    ) -> list[tuple[int, int]]:
        """Cut every run at the morpheme boundaries inside it; offsets are mapped through ``origins``."""
        cuts, glued, inner = set(), set(), set()
        before, tag_before = -1, ""
        for morpheme in morphemes:  # whose attributes cost more to read than all else here
            form, tag, start = morpheme.form, morpheme.tag, morpheme.start
            if start == before and self._stay_together(tag_before, tag, form):
                glued.add(start)
            if form in compounds and _is_noun(morpheme):
                inner.update(start + cut for cut in compounds[form])
            before, tag_before = morpheme.end, tag
            cuts.add(start)
            cuts.add(before)
        ends = iter(sorted(cuts - glued | inner))
        words, cut = [], next(ends, len(composed))
        for run in self._runs.finditer(composed):
            start, end = run.span()
            while cut < end:
                if cut > start:
                    words.append((origins[start], origins[cut]))
                    start = cut
                cut = next(ends, len(composed))
            words.append((origins[start], origins[end]))
        return [(start, end) for start, end in words if start < end]

    @staticmethod
    def _stay_together(first: str, second: str, form: str) -> bool:
        """Whether two morphemes that touch make one word, by their tags and the form of the second."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lower_case={self.lower_case})"


class KoreanWordSplitter(KiwiWordSplitter):
    """Splits Korean text so that particles, endings and affixes come off the noun, and nothing more than that.

    Scripts and digits split where they meet. Plain gliner2 takes it too:
    ``AutoExtractor.from_pretrained(..., word_splitter=KoreanWordSplitter())``.

    Args:
        lower_case: Lower-case the tokens; see :class:`KiwiWordSplitter`.
        user_dictionary: A file of words that Kiwi should know; see :func:`glinerko.kiwi.read_user_dictionary`.
    """

    name = "korean"
    _tuned = True
    _runs = _RUNS

    def __init__(self, lower_case: bool = False, user_dictionary: str | Path | None = None):
        super().__init__(lower_case)
        self.user_dictionary = read_user_dictionary(user_dictionary) if user_dictionary else ()

    def _compounds(self, analyses) -> dict[str, list[int]]:
        nouns = {m.form for morphemes in analyses for m in morphemes if len(m.form) >= 6 and _is_noun(m)}
        return compound_cuts(self._analyser, nouns - {form for form, _, _ in self.user_dictionary})

    @staticmethod
    def _stay_together(first: str, second: str, form: str) -> bool:
        """Entities hardly ever end between these two.

        Tags are Kiwi's: a verb (V*, XSV, XSA) or ending with the ending (E*) after it, a root (XR) with what it needs
        to stand, and a noun with the suffixes that make it describe another (XSN: 악성, 흡입용, 지속형).
        """
        if second.startswith("E"):
            return first.startswith(("V", "E", "XSV", "XSA"))
        return first == "XR" or (second == "XSN" and form in ("성", "용", "형") and first == "NNG")


def _is_noun(morpheme) -> bool:
    """Whether a morpheme is a noun that stands in the text as it is."""
    return morpheme.tag in ("NNG", "NNP") and morpheme.len == len(morpheme.form)


def _token(word: str, lower_case: bool) -> str:
    """The word as the tokenizer gets it: composed, since vocabularies are, and in lower case where asked."""
    word = unicodedata.normalize("NFC", word)
    return word.lower() if lower_case else word


class SplitText(str):
    """A text that carries its words, so that a document is split once and not once an epoch."""

    words: list[tuple[int, int]]

    def __new__(cls, text: str, words: list[tuple[int, int]]):
        self = super().__new__(cls, text)
        self.words = words
        return self

    def __reduce__(self):
        # Between processes only the text travels: the words have done their work when a batch is made.
        return str, (str(self),)


class CarriedWordSplitter:
    """Yields the words a :class:`SplitText` carries; splits any other text with ``splitter``.

    Args:
        splitter: Any word splitter.
        continuation: Where given, tokens of words that continue one are marked for it.
    """

    def __init__(self, splitter: WordSplitter, continuation: ContinuationTokenizer | None = None):
        self.splitter = splitter
        self.continuation = continuation
        # gliner2's own splitters obey `lower`, and gliner2 always asks for it.
        self.lower_case = getattr(splitter, "lower_case", True)

    def __call__(self, text: str, lower: bool = True) -> Iterator[tuple[str, int, int]]:
        words = text.words if isinstance(text, SplitText) else split_batch(self.splitter, [text])[0]
        for token, (start, end) in zip(self.tokens(text, words), words, strict=True):
            yield token, start, end

    def tokens(self, text: str, words: Sequence[tuple[int, int]]) -> list[str]:
        """What the tokenizer is given for each word of ``text``."""
        tokens = [_token(text[start:end], self.lower_case) for start, end in words]
        if self.continuation is None:
            return tokens
        flags = self.continuation.continuing(text, words)
        return [MARK * marked + token.replace(MARK, "") for token, marked in zip(tokens, flags, strict=True)]


def load_word_splitter(name: str, lower_case: bool = False, user_dictionary: str | Path | None = None) -> WordSplitter:
    """The splitter called ``name``: ``korean``, ``kiwi``, or one of gliner2's own (``whitespace``, ``char``).

    Raises:
        LoadError: an unknown name, or kiwipiepy is not installed.
        DataError: the user dictionary is malformed, or the splitter takes none.
    """
    if name == KoreanWordSplitter.name:
        splitter = KoreanWordSplitter(lower_case, user_dictionary)
        splitter.split("")
        return splitter
    if user_dictionary:
        raise DataError(f"{user_dictionary}: only the word splitter 'korean' takes a user dictionary, not {name!r}")
    if name == KiwiWordSplitter.name:
        return KiwiWordSplitter(lower_case)
    if name not in WORD_SPLITTERS:
        known = ", ".join([KoreanWordSplitter.name, KiwiWordSplitter.name, *sorted(WORD_SPLITTERS)])
        raise LoadError(f"unknown word splitter {name!r}; choose one of: {known}")
    return resolve_word_splitter(name)


def split_batch(splitter: WordSplitter, texts: list[str]) -> list[list[tuple[int, int]]]:
    """The words of each text by any splitter; see :meth:`KiwiWordSplitter.split_batch`."""
    if isinstance(splitter, KiwiWordSplitter):
        return splitter.split_batch(texts)
    return [[(start, end) for _, start, end in splitter(text, lower=False)] for text in texts]
