"""What is doubtful in a corpus before anything is trained: labels that disagree, near-duplicates, personal data."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from datasets import Dataset
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glinerko.corpus.matching import plain, without_spaces
from glinerko.corpus.rows import Example, Offsets

SIMILAR = 0.8
"""Two documents are near-duplicates if they share this part of their shingles (Jaccard index)."""
SHINGLE = 5
"""Characters in a shingle, white space left out."""
EXAMPLES = 5
"""The number of document ids that are named for a finding, at most."""
PERSONAL_DATA = {
    "resident registration number": r"(?<!\d)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?: ?- ?| ?)[1-8]\d{6}(?!\d)",
    "phone number": r"(?<!\d)(?:\+82[- ]?|0)(?:(?:1[016789]|2|[3-6][1-5]|70|50\d)[-. )]{0,2}\d{3,4}[-. ]\d{4}"
    r"|10\d{8})(?!\d)",
    "e-mail address": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "card number": r"(?<!\d)(?:\d{4}[- ]){3}\d{4}(?!\d)",
}
"""What looks like personal data, as regular expressions by kind; add your own."""


@dataclass
class StringUse:
    """A mention string, and the documents with each way to label it."""

    string: str
    labelled: dict[str, list[str]] = field(default_factory=dict)
    """The ids of the documents in which it is a mention, by label."""
    unlabelled: list[str] = field(default_factory=list)
    """The ids of the documents that have it as whole words, outside of all mentions."""

    @property
    def doubtful(self) -> int:
        """The number of documents that do not label it as most do: at least so many have to be looked at."""
        readings = [*map(len, self.labelled.values()), len(self.unlabelled)]
        return sum(readings) - max(readings)

    @property
    def share_labelled(self) -> float:
        """From 0 to 1. Low for a common word that is seldom a mention, such as a surname of one letter."""
        labelled = sum(map(len, self.labelled.values()))
        return labelled / (labelled + len(self.unlabelled))

    def to_dict(self) -> dict[str, Any]:
        labelled = {label: len(ids) for label, ids in self.labelled.items()}
        examples = {label: ids[:EXAMPLES] for label, ids in self.labelled.items()}
        return {
            "string": self.string,
            "doubtful_documents": self.doubtful,
            "labelled": labelled,
            "unlabelled": len(self.unlabelled),
            "examples": {**examples, "": self.unlabelled[:EXAMPLES]},
        }


def find_disagreements(
    examples: Sequence[Example], words: Iterable[Sequence[Offsets]], max_width: int
) -> list[StringUse]:
    """The mention strings that are not labelled in the same way everywhere.

    Those with many doubtful documents and a high share of labelled ones come first. A document that was not annotated
    for the labels of a string does not count.

    Args:
        words: The words of each document: a string is found where it is a run of at most ``max_width`` of them.
    """
    uses: dict[str, StringUse] = {}
    for example in examples:
        for mention in example.mentions:
            for string in example.strings(mention) if mention.spans else ():
                ids = uses.setdefault(string, StringUse(string)).labelled.setdefault(mention.label, [])
                ids += [] if example.id in ids[-1:] else [example.id]
    for example, of_document in zip(examples, words, strict=True):
        covered = sorted((start, end) for start, end, _ in example.gold_spans)
        for string in {*runs(example.text, of_document, max_width, covered)} & uses.keys():
            if not example.labels or uses[string].labelled.keys() <= {*example.labels}:
                uses[string].unlabelled.append(example.id)
    doubtful = (use for use in uses.values() if use.doubtful)
    return sorted(doubtful, key=lambda use: (-use.doubtful * use.share_labelled, use.string))


def runs(text: str, words: Sequence[Offsets], max_width: int, covered: Sequence[Offsets]) -> Iterator[str]:
    """The strings of all runs of at most ``max_width`` words that overlap none of the ``covered`` stretches."""
    free = [not any(start < end_c and start_c < end for start_c, end_c in covered) for start, end in words]
    for first, (start, _) in enumerate(words):
        for last in range(first, min(first + max_width, len(words))):
            if not free[last]:
                break
            yield plain(text[start : words[last][1]])


def near_duplicates(texts: Mapping[str, str]) -> list[list[str]]:
    """The ids of documents with nearly the same text, in groups.

    The shingles of a text are taken in NFC and without white space. MinHash (Broder 1997) with locality-sensitive
    hashing, at a lower threshold so that few pairs are missed, finds pairs; each of them is then compared exactly.

    Args:
        texts: The text of each document, by id.
    """
    index, names, pairs = MinHashLSH(threshold=SIMILAR - 0.2, num_perm=64), list(texts), []
    shingles = [_shingles(text) for text in texts.values()]
    for number, own in enumerate(shingles):
        if own != {""}:
            sketch = MinHash(num_perm=64, seed=1)
            sketch.update_batch([shingle.encode() for shingle in own])
            near = (other for other in index.query(sketch) if _jaccard(own, shingles[other]) >= SIMILAR)
            pairs += [(number, other) for other in near]
            index.insert(number, sketch)
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    graph = coo_array(([True] * len(pairs), (first, second)), shape=(len(names), len(names)))
    groups: dict[int, list[str]] = defaultdict(list)
    for name, group in zip(names, connected_components(graph, directed=False)[1].tolist(), strict=True):
        groups[group].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def _shingles(text: str) -> set[str]:
    bare = without_spaces(text)
    return {bare[at : at + SHINGLE] for at in range(max(1, len(bare) - SHINGLE + 1))}


def personal_data(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """The ids of the documents with text that looks like personal data, by kind. The text itself is not returned."""
    patterns = {kind: re.compile(pattern, re.ASCII) for kind, pattern in PERSONAL_DATA.items()}
    found = {kind: [name for name, text in texts.items() if p.search(text)] for kind, p in patterns.items()}
    return {kind: ids for kind, ids in found.items() if ids}


@dataclass
class LabelBalance:
    """How often a label occurs, and how long its mentions are."""

    documents: int
    """Documents with at least one mention."""
    mentions: int
    strings: int
    """Different mention strings."""
    median_length: float
    """In characters."""
    longest: int


def balance(examples: Sequence[Example]) -> dict[str, LabelBalance]:
    """The figures of each label, the most frequent first."""
    strings: dict[str, list[str]] = defaultdict(list)
    documents: Counter = Counter()
    for example in examples:
        documents.update({mention.label for mention in example.mentions})
        for mention in example.mentions:
            strings[mention.label].append(plain(mention.text))
    return {
        label: LabelBalance(documents[label], len(of), len({*of}), median(map(len, of)), max(map(len, of)))
        for label, of in sorted(strings.items(), key=lambda entry: -len(entry[1]))
    }


@dataclass
class Diagnosis:
    """All findings about the splits of a corpus."""

    documents: dict[str, int]
    repeated_ids: dict[str, int]
    """The number of documents whose id an earlier one has."""
    without_a_mention: dict[str, int]
    balance: dict[str, LabelBalance]
    disagreements: list[StringUse]
    near_duplicates: list[list[str]]
    """Within a split and across splits; an id is ``split/id``."""
    personal_data: dict[str, list[str]]
    seen: dict[str, float]
    """The share of the mention strings of each other split that training has with the same label."""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "disagreements": [use.to_dict() for use in self.disagreements]}


def diagnose(
    splits: Mapping[str, Dataset], words: Mapping[str, Iterable[Sequence[Offsets]]], max_width: int
) -> Diagnosis:
    """Look for everything that is doubtful in the splits of a corpus; ``training`` is one of them.

    Args:
        splits: Rows of :func:`glinerko.corpus.reading.load_rows`.
        words: The words of each document of each split.
        max_width: The widest mention, in words.
    """
    examples = {split: [Example.from_row(row) for row in rows] for split, rows in splits.items()}
    texts = {}
    for split, part in examples.items():
        for row, each in enumerate(part, 1):
            name = f"{split}/{each.id}"
            texts[name if name not in texts else f"{name} (row {row})"] = each.text
    known = set().union(*(example.gold_strings for example in examples["training"]))
    others = {split: [s for each in part for s in each.gold_strings] for split, part in examples.items()}
    return Diagnosis(
        documents={split: len(part) for split, part in examples.items()},
        repeated_ids={split: len(part) - len({each.id for each in part}) for split, part in examples.items()},
        without_a_mention={split: sum(not each.mentions for each in part) for split, part in examples.items()},
        balance=balance(examples["training"]),
        disagreements=find_disagreements(examples["training"], words["training"], max_width),
        near_duplicates=near_duplicates(texts),
        personal_data=personal_data(texts),
        seen={
            split: sum(string in known for string in strings) / len(strings)
            for split, strings in others.items()
            if strings and split != "training"
        },
    )
