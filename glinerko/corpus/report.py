"""What a corpus holds, and how much of it survives splitting, windows and tokenization: the data report."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from glinerko.common import LoadError, write_json_lines
from glinerko.corpus.alignment import Outcome, classify_spans
from glinerko.corpus.processor import KoreanSchemaTransformer
from glinerko.corpus.rows import ENTITIES, Example
from glinerko.corpus.schema import CLASSIFICATIONS, RELATIONS, LabelSchema
from glinerko.corpus.splits import contradicting_texts
from glinerko.corpus.tokens import pieces_of
from glinerko.corpus.words import WordSplitter, load_word_splitter

_ORDER = {outcome.value: rank for rank, outcome in enumerate(Outcome)}


@dataclass
class TaskReport:
    """What a corpus holds of a task beside entities."""

    documents: int = 0
    """Those that were annotated for it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Documents by class; or relations and instances, documents without one, and values by field and outcome."""


@dataclass
class DataReport:
    """What a corpus holds, and what of it can be learned with this splitter, width and window."""

    source: str
    documents: int = 0
    bad_rows_skipped: int = 0
    windows: int = 0
    words: int = 0
    labels: list[str] = field(default_factory=list)
    documents_with_all_labels: int = 0
    documents_without_labels: int = 0
    """Documents in which nothing was found; they count as annotated for all labels."""
    mentions: int = 0
    mentions_by_outcome: dict[str, int] = field(default_factory=dict)
    mentions_by_label: dict[str, dict[str, int]] = field(default_factory=dict)
    spans: int = 0
    spans_by_outcome: dict[str, int] = field(default_factory=dict)
    texts_shared_with_training: int = 0
    mentions_left_out: int = 0
    """Those of labels that were not asked for."""
    mentions_matched_loosely: int = 0
    """Those that the text has with other white space or in another Unicode form."""
    contradicting_texts: list[list[str]] = field(default_factory=list)
    """See :func:`glinerko.corpus.splits.contradicting_texts`."""
    tasks: dict[str, TaskReport] = field(default_factory=dict)
    """The tasks beside entities."""
    unused_keys: dict[str, int] = field(default_factory=dict)
    """The rows that have each key which is not used here."""

    @property
    def reach(self) -> float | None:
        """The share of the mentions present in their text that can be learned, and so found, at least once."""
        present = self.mentions - self.mentions_by_outcome.get(Outcome.ABSENT.value, 0)
        learnable = sum(self.mentions_by_outcome.get(o.value, 0) for o in (Outcome.TARGET, Outcome.NESTED))
        return learnable / present if present else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reach": self.reach}


def report_data(aligned: Dataset, schema: LabelSchema, source: str, listing: Path | None = None) -> DataReport:
    """Account for every mention, class and value.

    A mention counts by its best occurrence: it is a target if any occurrence is.

    Args:
        aligned: Rows of :func:`glinerko.corpus.windows.align_gold`.
        source: The name of the corpus.
        listing: A file of JSON lines for the mentions that are no target.
    """
    report = DataReport(source, documents=len(aligned), labels=list(schema.labels))
    report.contradicting_texts = contradicting_texts(aligned)
    mentions, spans, unused = Counter(), Counter(), Counter()
    by_label = {label: Counter() for label in schema.labels}
    unreached = []
    for row in aligned:
        report.windows += len(row["windows"])
        report.words += len(row["words"])
        report.documents_without_labels += not row["labels"] and ENTITIES in row["annotated"]
        report.documents_with_all_labels += not row["labels"] or set(schema.labels) <= set(row["labels"])
        report.mentions_left_out += row["left_out"]
        unused.update(row["unused"])
        example = Example.from_row(row)
        unreached += _report_tasks(report.tasks, example, row["record_outcomes"], schema)
        for mention, outcomes in zip(example.mentions, row["outcomes"], strict=True):
            report.mentions_matched_loosely += any(
                row["text"][start:end] != mention.text for start, end in mention.spans
            )
            best = max(outcomes, key=_ORDER.__getitem__, default=Outcome.ABSENT.value)
            mentions[best] += 1
            spans.update(outcomes)
            by_label[mention.label][best] += 1
            if best != Outcome.TARGET.value:
                where = {"id": row["id"], "label": mention.label, "mention": mention.text, "cause": best}
                unreached.append({**where, "spans": [list(span) for span in mention.spans]})
    report.mentions, report.mentions_by_outcome = mentions.total(), dict(mentions)
    report.mentions_by_label = {label: dict(counts) for label, counts in by_label.items()}
    report.spans, report.spans_by_outcome = spans.total(), dict(spans)
    report.unused_keys = dict(unused)
    if listing is not None:
        write_json_lines(listing, unreached)
    return report


def _report_tasks(
    tasks: dict[str, TaskReport], example: Example, outcomes: Sequence[Sequence[str]], schema: LabelSchema
) -> list[dict[str, Any]]:
    """Count the classes, relations and instances of a document; returns its values that are no target."""
    unreached = []
    for task in schema.tasks:
        report = tasks.setdefault(task.name, TaskReport())
        counts = Counter(report.counts)
        if task.kind == CLASSIFICATIONS:
            report.documents += task.name in example.classes
            counts.update(example.classes.get(task.name, ()))
        elif task.kind in example.annotated:
            of_task = [
                (record, of_values)
                for record, of_values in zip(example.records, outcomes, strict=True)
                if record.task == task.name
            ]
            report.documents += 1
            counts["documents with none"] += not of_task
            counts["relations" if task.kind == RELATIONS else "instances"] += len(of_task)
            for record, of_values in of_task:
                for value, outcome in zip(record.values, of_values, strict=True):
                    counts[f"{value.label}: {outcome}"] += 1
                    if outcome != Outcome.TARGET.value:
                        where = {"id": example.id, "label": f"{task.name}.{value.label}", "mention": value.text}
                        unreached.append({**where, "cause": outcome, "spans": [list(span) for span in value.spans]})
        report.counts = {name: count for name, count in counts.items() if count}
    return unreached


def measure_reach(
    rows: Dataset, splitters: Mapping[str, WordSplitter], widths: Sequence[int | None]
) -> dict[str, dict[int | None, float | None]]:
    """The share of the mentions present in their text that are runs of whole words, by splitter and greatest width.

    It is ``None`` if no mention is present.

    Args:
        rows: Of :func:`glinerko.corpus.reading.load_rows`.
        splitters: The splitters by name.
    """
    examples = [Example.from_row(row) for row in rows]
    present = sum(bool(mention.spans) for example in examples for mention in example.mentions)
    reach = {}
    for name, splitter in splitters.items():
        split = splitter.split_batch([example.text for example in examples])
        reached = dict.fromkeys(widths, 0)
        for example, words in zip(examples, split, strict=True):
            for width in widths:
                outcomes = classify_spans(example, words, [(0, len(words))], width)
                reached[width] += sum(Outcome.TARGET in spans or Outcome.NESTED in spans for spans in outcomes)
        reach[name] = {width: count / present if present else None for width, count in reached.items()}
    return reach


@dataclass
class Segmentation:
    """How a tokenizer cuts Korean text."""

    single_syllable_share: float
    """The share of single syllables among the pieces with Hangul."""
    unknown_share: float
    pieces_per_word: float
    """Words are those between white space."""
    boundary_agreement: float
    """F1 of the piece boundaries inside such words against the morpheme boundaries."""
    worst: list[tuple[str, list[str]]]
    """The terms that are cut worst, and their pieces."""


def measure_segmentation(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], terms: Sequence[str], worst: int = 5
) -> Segmentation:
    """Tokenize Korean ``texts`` and ``terms``.

    Args:
        worst: The number of terms to show: those with most unknown pieces, then with most pieces per character.
    """
    pieces, korean, words = [], [], 0
    boundaries, morphemes = set(), set()
    for index, (text, split) in enumerate(zip(texts, load_word_splitter("korean").split_batch(texts), strict=True)):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        own = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        pieces += own
        # What a piece covers, not its name: in a byte-level vocabulary, names are bytes and none is Korean.
        for piece, (start, end) in zip(own, encoded["offset_mapping"], strict=True):
            covered = text[start:end].strip()
            if re.search("[가-힣]", covered) and piece not in (tokenizer.unk_token, "▁"):  # "▁" covers the next piece
                korean.append(covered)
        words += len(text.split())
        # A piece may begin with the white space before it.
        starts = (end - len(text[start:end].lstrip()) for start, end in encoded["offset_mapping"])
        inside = {position for position in range(1, len(text)) if not text[position - 1].isspace()}
        boundaries |= {(index, start) for start in starts if start in inside}
        morphemes |= {(index, start) for start, _ in split if start in inside}
    cut = {term: pieces_of(tokenizer, term) for term in dict.fromkeys(terms)}
    order = sorted(cut, key=lambda term: (-cut[term].count(tokenizer.unk_token), -len(cut[term]) / len(term), term))
    return Segmentation(
        single_syllable_share=sum(len(piece) == 1 for piece in korean) / max(len(korean), 1),
        unknown_share=pieces.count(tokenizer.unk_token) / max(len(pieces), 1),
        pieces_per_word=len(pieces) / max(words, 1),
        boundary_agreement=2 * len(boundaries & morphemes) / max(len(boundaries) + len(morphemes), 1),
        worst=[(term, cut[term]) for term in order[:worst]],
    )


WAYS = ("word by word", "with continuation")
"""The two ways to tokenize words: as gliner2 does, and with continuation pieces."""


@dataclass
class PieceReport:
    """The pieces of some documents, tokenized in one of the :data:`WAYS`."""

    documents: int = 0
    characters: int = 0
    """Without white space."""
    pieces: int = 0
    unknown: int = 0
    identical: int = 0
    """Pieces that the tokenizer itself makes of the raw text between the same white space."""
    fallbacks: int = 0
    """Different words that continue another one, and for which the vocabulary has no continuation."""

    @property
    def identical_share(self) -> float:
        return self.identical / self.pieces if self.pieces else 1.0

    @property
    def unknown_share(self) -> float:
        return self.unknown / self.pieces if self.pieces else 0.0

    @property
    def pieces_per_character(self) -> float:
        return self.pieces / self.characters if self.characters else 0.0

    def to_dict(self) -> dict[str, Any]:
        shares = ("identical_share", "unknown_share", "pieces_per_character")
        return {**asdict(self), **{share: getattr(self, share) for share in shares}}


def report_pieces(
    documents: Dataset, processor: KoreanSchemaTransformer, max_documents: int = 200
) -> dict[str, PieceReport]:
    """The pieces of the first ``max_documents`` rows of :func:`glinerko.corpus.windows.split_into_windows`.

    Returns:
        A report for each of the :data:`WAYS` that the tokenizer supports.
    """
    tokenizer, splitter = processor.tokenizer, processor.word_splitter.splitter
    tokenize, vocabulary = cache(tokenizer.tokenize), tokenizer.get_vocab()
    rows = documents.select(range(min(max_documents, len(documents))))
    reports = {}
    for way, continuation in zip(WAYS, (False, True), strict=True):
        try:
            ours = KoreanSchemaTransformer(tokenizer, splitter, continuation_pieces=continuation)
        except LoadError:
            continue
        report = reports[way] = PieceReport(len(rows))
        for row in rows:
            text, words = row["text"], row["words"]
            given: dict[int, Counter[str]] = defaultdict(Counter)
            runs = {run.start(): run.group() for run in re.finditer(r"\S+", text)}
            starts = list(runs)
            for (start, _), pieces in zip(words, ours.word_pieces(text, words), strict=True):
                given[starts[bisect_right(starts, start) - 1]].update(pieces)
            for start, run in runs.items():
                own, pieces = Counter(tokenize(run)), given[start]
                report.characters += len(run)
                report.pieces += pieces.total()
                # A Unigram tokenizer shows an unknown piece as it is written.
                known = sum(n for piece, n in pieces.items() if piece in vocabulary and piece != tokenizer.unk_token)
                report.unknown += pieces.total() - known
                report.identical += (own & pieces).total()
        if continuation:
            report.fallbacks = len(ours.word_splitter.continuation.fallbacks)
    return reports
