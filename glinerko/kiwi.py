"""The morphological analyser Kiwi, as the word splitters use it, and the words a user adds to it."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from glinerko.errors import DataError, LoadError, first_line

#: A word of a user dictionary: its form, its tag (Kiwi's), and how much likelier than its tag it is (log probability).
DictionaryEntry = tuple[str, str, float]

#: Where a saved model keeps its user dictionary.
USER_DICTIONARY = "user_dictionary.tsv"


@cache
def analyser(process_id: int, tuned: bool = True, user_dictionary: tuple[DictionaryEntry, ...] = ()):
    """A ``kiwipiepy.Kiwi``, made once a process: its threads do not survive a fork.

    The parent's stays in the cache, since to destroy it in a child would wait for threads that are not there.

    Args:
        process_id: The caller's own, ``os.getpid()``.
        tuned: Made for the most gold mentions reached; Kiwi's own defaults otherwise.

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
    # Dictionaries of titles and compounds hide what a mention ends in; a search with fewer paths is as good and faster;
    # and what is in no dictionary is rather several words than one.
    kiwi = Kiwi(model_type="cong", load_default_dict=False, load_multi_dict=False, load_typo_dict=False)
    kiwi.global_config.cutoff_threshold = 4
    kiwi.global_config.oov_chr_bias = 1.5
    return kiwi


def compound_cuts(kiwi, nouns: Iterable[str]) -> dict[str, list[int]]:
    """Where long nouns part into nouns, for those that do: ``급성림프모구백혈병`` into ``급성림프모구`` and ``백혈병``.

    Kiwi takes an unknown compound for one word. Analysed by itself, with a bias against unknown words, it comes apart.
    """
    config = dataclasses.replace(kiwi.global_config, cutoff_threshold=8, oov_chr_bias=6.0)
    nouns = sorted(set(nouns))
    parts = zip(nouns, kiwi.tokenize(nouns, override_config=config), strict=True)
    return {
        noun: [part.start for part in found[1:]]
        for noun, found in parts
        if len(found) > 1 and all(part.tag.startswith(("N", "X", "MM")) for part in found)
    }


def read_user_dictionary(file: str | Path) -> tuple[DictionaryEntry, ...]:
    """The words of a UTF-8 file, one a line: a form, by tabs its tag (``NNP`` if left out) and its score (0).

    Blank lines and lines that begin with ``#`` say nothing. A form may hold spaces.

    Raises:
        DataError: with file, line and reason.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    entries, trial = [], _new_kiwi(tuned=True)
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("\t")]
        try:
            if len(parts) > 3 or not all(parts):
                raise ValueError("expected `form`, `form<TAB>tag` or `form<TAB>tag<TAB>score`")
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
    """Write what :func:`read_user_dictionary` reads."""
    file.write_text("".join(f"{form}\t{tag}\t{score}\n" for form, tag, score in entries), encoding="utf-8")
