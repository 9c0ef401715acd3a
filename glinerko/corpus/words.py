"""Words: the units whose runs GLiNER2 scores as spans.

An entity that ends inside a word can be neither learned nor predicted, and Korean attaches particles to nouns, so the
splitter decides what can be found at all. All splitters derive from :class:`WordSplitter` and are registered by name;
``docs/extending.md`` shows how to add one for another language.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import inspect
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from gliner2.processing.word_splitter import WORD_SPLITTERS as GLINER2_SPLITTERS
from gliner2.processing.word_splitter import resolve_word_splitter

from glinerko.common import DataError, LoadError, first_line, read_lines, write_text
from glinerko.corpus.matching import compose
from glinerko.corpus.rows import Offsets

DictionaryEntry = tuple[str, str, float]
"""A word of a user dictionary: its form, its tag (Kiwi's), and a bonus in log probability."""
USER_DICTIONARY = "user_dictionary.tsv"
"""The file in which a saved model keeps its user dictionary."""
LONGEST = 10_000
"""The most characters that Kiwi reads at once."""
_LOCANTS = re.compile("(?<![A-Za-z0-9])(?:[0-9]+'?|[NOS])(?:,(?:[0-9]+'?|[NOS]))+(?![A-Za-z0-9])")


class WordSplitter:
    """Splits texts into words. Fits the ``word_splitter`` argument of plain gliner2 as well.

    A subclass sets ``name`` and ``version`` and implements :meth:`split_batch`.
    """

    name: str
    version: str = ""
    """Changes when the words of a text may change: cached words depend on it."""
    lower_case: bool = False
    """Whether the model reads the words in lower case."""
    user_dictionary: tuple[DictionaryEntry, ...] = ()
    """Words of the user, saved with a model."""

    def split_batch(self, texts: Iterable[str]) -> list[list[Offsets]]:
        """The words of each text as ``(start, end)`` offsets, in order and without overlap."""
        raise NotImplementedError

    def split(self, text: str) -> list[Offsets]:
        """The words of one text; see :meth:`split_batch`."""
        return self.split_batch([text])[0]

    def particles(self, text: str) -> list[Offsets]:
        """What the language attaches to the end of an entity, in order; the error analysis names such boundaries."""
        return []

    def token(self, word: str) -> str:
        """A word as the tokenizer gets it: composed (NFC) like its vocabulary, and in lower case if requested."""
        word = unicodedata.normalize("NFC", word)
        return word.lower() if self.lower_case else word

    def __call__(self, text: str, lower: bool = True) -> Iterator[tuple[str, int, int]]:
        """gliner2's interface. Its argument ``lower`` is always true and is ignored; see ``lower_case``."""
        for start, end in self.split(text):
            yield self.token(text[start:end]), start, end


_REGISTRY: dict[str, Callable[..., WordSplitter]] = {}


def register_word_splitter(
    factory: Callable[..., WordSplitter], name: str | None = None
) -> Callable[..., WordSplitter]:
    """Make a splitter available by its name, in every script and for models saved with it. Works as a decorator.

    Args:
        factory: A subclass of :class:`WordSplitter`, or a function that makes one. It is called without arguments,
            with ``lower_case=True`` for a model saved with it, and with ``user_dictionary=file`` if it has that
            parameter and the user passes a file.
        name: Its name; ``factory.name`` by default.
    """
    _REGISTRY[name or factory.name] = factory
    return factory


def word_splitter_names() -> list[str]:
    """The names of all registered splitters."""
    return list(_REGISTRY)


def splitter_modules() -> list[str]:
    """The modules of the user that define registered splitters: a fresh process must import them."""
    modules = {getattr(factory, "__module__", "") for factory in _REGISTRY.values()}
    return sorted(name for name in modules if name.partition(".")[0] not in ("", "functools", "glinerko", "__main__"))


def load_word_splitter(name: str, lower_case: bool = False, user_dictionary: str | Path | None = None) -> WordSplitter:
    """The splitter registered as ``name``.

    Raises:
        LoadError: The name is unknown, or a package that the splitter needs is not installed.
        DataError: The user dictionary is malformed, or the splitter takes none.
    """
    if name not in _REGISTRY:
        raise LoadError(f"unknown word splitter {name!r}; choose one of: {', '.join(_REGISTRY)}")
    factory = _REGISTRY[name]
    options = {"lower_case": True} if lower_case else {}
    if user_dictionary:
        if "user_dictionary" not in inspect.signature(factory).parameters:
            raise DataError(f"{user_dictionary}: 'korean' takes a user dictionary, not {name!r}")
        options["user_dictionary"] = user_dictionary
    splitter = factory(**options)
    splitter.split("")  # a missing package is reported now
    return splitter


class Gliner2WordSplitter(WordSplitter):
    """A splitter of gliner2's interface: one of its own, by name, or any callable.

    Its words are read in lower case, as gliner2 does. It knows no language; particles are found in Korean text.
    """

    lower_case = True

    def __init__(self, splitter: str | Callable[[str, bool], Iterable[tuple[str, int, int]]]):
        self.name = splitter if isinstance(splitter, str) else type(splitter).__name__
        self._split = resolve_word_splitter(splitter)

    def split_batch(self, texts: Iterable[str]) -> list[list[Offsets]]:
        return [[(start, end) for _, start, end in self._split(text, lower=False)] for text in texts]

    def particles(self, text: str) -> list[Offsets]:
        return korean_particles(text) if re.search("[가-힣]", text) else []


def as_word_splitter(splitter: Callable) -> WordSplitter:
    """Any callable of gliner2's interface as a :class:`WordSplitter`."""
    return splitter if isinstance(splitter, WordSplitter) else Gliner2WordSplitter(splitter)


# Words end where these runs end (`5mg`, `CT촬영`), besides where Kiwi cuts: Hangul; another script with the digits that
# follow it; a number, a date or a section number (`1,000.5`, `2023.7.1`); any other character by itself.
_RUNS = re.compile(r"[가-힣]+|(?:(?![가-힣])[^\W\d_])(?:(?![가-힣])[^\W_])*|\d+(?:[.,]\d+)*|\S")


@register_word_splitter
class KoreanWordSplitter(WordSplitter):
    """Splits Korean text so that particles, endings and affixes come off the noun, and long compounds come apart.

    The words are Kiwi's morphemes, tuned, and cover every character that is not white space. Scripts and digits split
    where they meet.

    Args:
        lower_case: Whether the model reads the words in lower case. Off by default: Korean vocabularies are cased, and
            ``MRI`` is not ``mri``.
        user_dictionary: A file of words that Kiwi should know; see :func:`read_user_dictionary`.
    """

    name = "korean"
    _tuned = True
    _runs = _RUNS

    def __init__(self, lower_case: bool = False, user_dictionary: str | Path | None = None):
        self.lower_case = lower_case
        self.user_dictionary = read_user_dictionary(user_dictionary) if user_dictionary else ()

    @property
    def version(self) -> str:
        """The version of these rules, and of Kiwi."""
        return f"5, kiwipiepy {importlib.metadata.version('kiwipiepy')}"

    def split_batch(self, texts: Iterable[str]) -> list[list[Offsets]]:
        """See :meth:`WordSplitter.split_batch`; runs on Kiwi's own threads."""
        composed = [compose(text) for text in texts]
        places = [(number, part) for number, (text, _) in enumerate(composed) for part in stretches(text)]
        parts = [composed[number][0][part] for number, part in places]
        kiwi = self._analyser()
        analyses = list(kiwi.tokenize(parts))
        compounds = self._compounds(kiwi, analyses)
        words: list[list[Offsets]] = [[] for _ in composed]
        for (number, part), text, morphemes in zip(places, parts, analyses, strict=True):
            words[number] += self._words(text, morphemes, composed[number][1][part.start : part.stop + 1], compounds)
        return words

    def particles(self, text: str) -> list[Offsets]:
        return korean_particles(text)

    def _analyser(self):
        return analyser(os.getpid(), self._tuned, self.user_dictionary)

    def _compounds(self, kiwi, analyses) -> dict[str, list[int]]:
        """Where nouns among the morphemes are cut once more."""
        nouns = {m.form for morphemes in analyses for m in morphemes if len(m.form) >= 6 and _is_noun(m)}
        return compound_cuts(kiwi, nouns - {form for form, _, _ in self.user_dictionary})

    def _words(
        self, composed: str, morphemes, origins: Sequence[int], compounds: dict[str, list[int]]
    ) -> list[Offsets]:
        """Cut every run at the morpheme boundaries inside it; offsets are mapped through ``origins``."""
        cuts, joined, inner = set(), set(), set()
        before, tag_before = -1, ""
        for morpheme in morphemes:
            # Each attribute is read once: reading them is the slowest part of the loop.
            form, tag, start = morpheme.form, morpheme.tag, morpheme.start
            if start == before and self._stay_together(tag_before, tag, form):
                joined.add(start)
            if form in compounds and _is_noun(morpheme):
                inner.update(start + cut for cut in compounds[form])
            before, tag_before = morpheme.end, tag
            cuts.add(start)
            cuts.add(before)
        ends = iter(sorted(cuts - joined | inner))
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
        """Whether two adjacent morphemes are one word, because entities hardly ever end between them.

        Args:
            first: The tag of the first, Kiwi's. A verb (V*, XSV, XSA) or an ending takes the ending (E*) after it, and
                a root (XR) what it needs to stand.
            second: The tag of the second. A noun takes the suffix (XSN) that makes it describe another noun.
            form: The form of the second.
        """
        if second.startswith("E"):
            return first.startswith(("V", "E", "XSV", "XSA"))
        return first == "XR" or (second == "XSN" and form in ("성", "용", "형") and first == "NNG")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lower_case={self.lower_case})"


@register_word_splitter
class KiwiWordSplitter(KoreanWordSplitter):
    """Splits Korean text into morphemes as Kiwi gives them by default, to compare with :class:`KoreanWordSplitter`."""

    name = "kiwi"
    _tuned = False
    _runs = re.compile(r"\S+")

    def __init__(self, lower_case: bool = False):
        super().__init__(lower_case)

    def _compounds(self, kiwi, analyses) -> dict[str, list[int]]:
        return {}

    @staticmethod
    def _stay_together(first: str, second: str, form: str) -> bool:
        return False


for _name in sorted(GLINER2_SPLITTERS):
    register_word_splitter(partial(Gliner2WordSplitter, _name), _name)


def stretches(text: str) -> Iterator[slice]:
    """``text`` in parts that Kiwi reads at once: all of it, unless it is longer than :data:`LONGEST`.

    A longer one is cut after a line, or else a sentence, or else a word: Kiwi would need more than twice the time for
    twice the text.
    """
    start = 0
    while len(text) - start > LONGEST:
        window = text[start : start + LONGEST]
        ends = window.rfind("\n"), window.rfind(". "), window.rfind(" ")
        cut = next((end + 1 for end in ends if end >= LONGEST // 2), LONGEST)
        yield slice(start, start + cut)
        start += cut
    yield slice(start, len(text))


def _is_noun(morpheme) -> bool:
    """Whether a morpheme is a noun whose form is exactly its text."""
    return morpheme.tag in ("NNG", "NNP") and morpheme.len == len(morpheme.form)


def korean_particles(text: str) -> list[Offsets]:
    """The particles (josa) of ``text``, and the copula with its ending, in order."""
    copula, particles = False, []
    for token in analyser(os.getpid()).tokenize(text):
        copula = token.tag == "VCP" or (copula and token.tag.startswith("E"))
        if token.tag.startswith("J") or copula:
            particles.append((token.start, token.end))
    return particles


@cache
def analyser(process_id: int, tuned: bool = True, user_dictionary: tuple[DictionaryEntry, ...] = ()):
    """The ``kiwipiepy.Kiwi`` of a process, made once: its threads do not survive a fork.

    A forked child leaves its parent's Kiwi in the cache: destroying it would wait for threads that do not exist there.

    Args:
        process_id: The caller's own, ``os.getpid()``.
        tuned: Use the settings with which most gold mentions are reached, not Kiwi's defaults.

    Raises:
        LoadError: kiwipiepy is not installed.
    """
    kiwi = _new_kiwi(tuned)
    for entry in user_dictionary:
        kiwi.add_user_word(*entry)
    return kiwi


def _new_kiwi(tuned: bool):
    if importlib.util.find_spec("kiwipiepy") is None:
        raise LoadError("the Korean word splitter needs kiwipiepy: run `pip install kiwipiepy`")
    from kiwipiepy import Kiwi

    if not tuned:
        return Kiwi()
    # The dictionaries of titles and compounds hide the end of a mention. A search over fewer paths is as good and
    # faster. What is in no dictionary is split rather than kept as one word.
    kiwi = Kiwi(model_type="cong", load_default_dict=False, load_multi_dict=False, load_typo_dict=False)
    kiwi.global_config.cutoff_threshold = 4
    kiwi.global_config.oov_chr_bias = 1.5
    return kiwi


def compound_cuts(kiwi, nouns: Iterable[str]) -> dict[str, list[int]]:
    """Where long nouns divide into nouns: ``급성림프모구백혈병`` into ``급성림프모구`` and ``백혈병``.

    Kiwi keeps an unknown compound as one word. Analysed by itself, with a bias against unknown words, it is divided.
    """
    config = dataclasses.replace(kiwi.global_config, cutoff_threshold=8, oov_chr_bias=6.0)
    nouns = sorted(set(nouns))
    analyses = zip(nouns, kiwi.tokenize(nouns, override_config=config), strict=True)
    return {
        noun: [part.start for part in parts[1:]]
        for noun, parts in analyses
        if len(parts) > 1 and all(part.tag.startswith(("N", "X", "MM")) for part in parts)
    }


def read_user_dictionary(file: str | Path) -> tuple[DictionaryEntry, ...]:
    """The words of a UTF-8 file, one a line: a form, optionally a tag (``NNP``) and a score (0), separated by tabs.

    Blank lines and lines that begin with ``#`` are skipped. A form may contain spaces.

    Raises:
        DataError: With file, line and reason.
    """
    entries, trial = [], _new_kiwi(tuned=True)
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("\t")]
        try:
            # A comma of a chemical name, as in `1,25-디히드록시비타민`, parts no columns.
            if len(parts) > 3 or not all(parts) or (len(parts) == 1 and re.search("[,;]", _LOCANTS.sub("", line))):
                raise ValueError("expected `form`, `form<TAB>tag` or `form<TAB>tag<TAB>score`, with tabs, not commas")
            form, tag, score = parts + ["NNP", "0"][len(parts) - 1 :]
            entry = unicodedata.normalize("NFC", form), tag, float(score)
            if not math.isfinite(entry[2]):
                raise ValueError(f"the score {score} is not finite")
            trial.add_user_word(*entry)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {first_line(error)}") from error
        entries.append(entry)
    if not entries:
        raise DataError(f"{file}: no words in it")
    return tuple(entries)


def write_user_dictionary(file: Path, entries: Iterable[DictionaryEntry]) -> None:
    """Write the file that :func:`read_user_dictionary` reads."""
    write_text(file, "".join(f"{form}\t{tag}\t{score}\n" for form, tag, score in entries))
