"""Words for the user dictionary: where Kiwi cuts a mention, and what a new word would gain and lose."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from glinerko.corpus.alignment import Outcome, classify_spans
from glinerko.corpus.rows import Example, Offsets, SpanKey
from glinerko.corpus.words import DictionaryEntry, KoreanWordSplitter, analyser

FOLDS = 5
"""A word is tried on the documents of a fold only if another fold suggests it too."""
MOST = 40
"""The number of words that are tried at most. Each costs half a second, and the time to split its documents again."""
_FORM = re.compile("[가-힣]{2,}")


@dataclass
class Suggestion:
    """A word for the user dictionary, tried on documents that did not suggest it.

    Args:
        gained: The number of mentions that it makes reachable: they become a run of words.
        lost: The number of mentions that it makes unreachable.
        documents: The number of documents that it was tried on.
    """

    form: str
    gained: int
    lost: int
    documents: int


class _TrialSplitter(KoreanWordSplitter):
    """A splitter with more words in its dictionary, whose Kiwi is not cached."""

    def __init__(self, splitter: KoreanWordSplitter, forms: Iterable[str]):
        self.lower_case = splitter.lower_case
        entries: list[DictionaryEntry] = [(form, "NNP", 0.0) for form in forms]
        self.user_dictionary = (*splitter.user_dictionary, *entries)
        self._kiwi = analyser.__wrapped__(0, self._tuned, self.user_dictionary)

    def _analyser(self):
        return self._kiwi


def suggest_words(
    examples: Sequence[Example],
    words: Sequence[Sequence[Offsets]],
    splitter: KoreanWordSplitter,
    max_width: int,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[Suggestion]:
    """The words that gain more mentions than they lose, the best first.

    If a mention begins or ends inside a word, the two parts of the word are suggested. Whole mentions are not: as words
    of the dictionary they would hide shorter mentions.

    Args:
        words: The words of each document as ``splitter`` gives them.
        max_width: The widest mention, in words.
        progress: Wraps the words that are tried, to show a bar.
    """
    before = [_reached(example, own, max_width) for example, own in zip(examples, words, strict=True)]
    folds_of: dict[str, set[int]] = defaultdict(set)
    support: dict[str, int] = defaultdict(int)
    for index, (example, own, reached) in enumerate(zip(examples, words, before, strict=True)):
        forms = {form for mention, yes in reached.items() if not yes for form in _cut_parts(example.text, own, mention)}
        for form in forms:
            folds_of[form].add(index % FOLDS)
            support[form] += 1
    known = {form for form, _, _ in splitter.user_dictionary}
    tried = sorted(
        (form for form in support if support[form] > 1 and form not in known), key=lambda f: (-support[f], f)
    )
    suggestions = []
    for form in progress(tried[:MOST]):
        chosen = [
            index for index, each in enumerate(examples) if form in each.text and folds_of[form] - {index % FOLDS}
        ]
        after = _TrialSplitter(splitter, [form]).split_batch([examples[index].text for index in chosen])
        gained = lost = 0
        for index, own in zip(chosen, after, strict=True):
            now = _reached(examples[index], own, max_width)
            gained += sum(now[mention] and not was for mention, was in before[index].items())
            lost += sum(was and not now[mention] for mention, was in before[index].items())
        suggestions.append(Suggestion(form, gained, lost, len(chosen)))
    good = (each for each in suggestions if each.gained > each.lost)
    return sorted(good, key=lambda each: (each.lost - each.gained, each.form))


def _reached(example: Example, words: Sequence[Offsets], max_width: int) -> dict[SpanKey, bool]:
    """Whether each gold span is a run of at most ``max_width`` whole words."""
    outcomes = classify_spans(example, words, [(0, len(words))], max_width)
    spans = chain.from_iterable(
        zip(((*span, mention.label) for span in mention.spans), results, strict=True)
        for mention, results in zip(example.mentions, outcomes, strict=True)
    )
    return {span: outcome in (Outcome.TARGET, Outcome.NESTED) for span, outcome in spans}


def _cut_parts(text: str, words: Sequence[Offsets], mention: SpanKey) -> Iterable[str]:
    """The two parts of each word that a mention cuts."""
    start, end, _ = mention
    for first, last in words:
        for cut in (start, end):
            if first < cut < last:
                yield from filter(_FORM.fullmatch, (text[first:cut], text[cut:last]))
