"""Pieces: what the encoder is given of a Korean text, next to what it saw of such text in pre-training."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from datasets import Dataset

from glinerko.errors import LoadError
from glinerko.modeling import KoreanSchemaTransformer

#: How words are tokenized: as gliner2 does, or with continuation pieces.
WAYS = ("word by word", "with continuation")


@dataclass
class PieceReport:
    """The pieces of some documents, tokenized word by word as gliner2 does, or with continuation pieces."""

    documents: int = 0
    characters: int = 0
    """Without white space."""
    pieces: int = 0
    unknown: int = 0
    identical: int = 0
    """Pieces that the tokenizer itself makes of the raw text between the same white space."""
    fallbacks: int = 0
    """Distinct words that continue one, and for which the vocabulary has no continuation."""

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
    annotated: Dataset, processor: KoreanSchemaTransformer, max_documents: int = 200
) -> dict[str, PieceReport]:
    """The pieces of the first ``max_documents`` rows of :func:`glinerko.targets.annotate`.

    Returns:
        A report for ``word by word`` and, where the tokenizer can, one for ``with continuation``.
    """
    tokenizer, splitter = processor.tokenizer, processor.word_splitter.splitter
    tokenize = cache(tokenizer.tokenize)
    rows = annotated.select(range(min(max_documents, len(annotated))))
    reports = {}
    for way, continuation in zip(WAYS, (False, True), strict=True):
        try:
            ours = KoreanSchemaTransformer(tokenizer, splitter, continuation_pieces=continuation)
        except LoadError:
            continue
        report = reports[way] = PieceReport(len(rows))
        for row in rows:
            text = ours.normalize_text(row["text"])
            words = [(word["start"], word["end"]) for word in row["words"]]
            given: dict[int, Counter[str]] = defaultdict(Counter)
            runs = {run.start(): run.group() for run in re.finditer(r"\S+", text)}
            starts = list(runs)
            for (start, _), pieces in zip(words, ours.word_pieces(text, words), strict=True):
                given[starts[bisect_right(starts, start) - 1]].update(pieces)
            for start, run in runs.items():
                own, pieces = Counter(tokenize(run)), given[start]
                report.characters += len(run)
                report.pieces += pieces.total()
                report.unknown += pieces[tokenizer.unk_token]
                report.identical += (own & pieces).total()
        if continuation:
            report.fallbacks = len(ours.word_splitter.continuation.fallbacks)
    return reports
