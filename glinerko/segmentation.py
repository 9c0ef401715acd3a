"""Pieces: how a tokenizer cuts Korean, and what the encoder is given of a text next to what it saw in pre-training."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from glinerko.errors import LoadError
from glinerko.modeling import KoreanSchemaTransformer
from glinerko.tokenization import pieces_of
from glinerko.words import KoreanWordSplitter

#: Above this share of single syllables among its Korean pieces, a tokenizer knows no Korean words.
MAX_SINGLE_SYLLABLE_SHARE = 0.7


@dataclass
class Segmentation:
    """How a tokenizer cuts Korean text."""

    single_syllable_share: float
    """Of the pieces with Hangul, those that are a single syllable."""
    unknown_share: float
    pieces_per_word: float
    """Words as white space has them."""
    boundary_agreement: float
    """F1 of the boundaries between pieces inside words against those between morphemes."""
    worst: list[tuple[str, list[str]]]
    """The terms cut worst, and their pieces."""


def measure_segmentation(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], terms: Sequence[str], worst: int = 5
) -> Segmentation:
    """Cut ``texts`` and ``terms``.

    Args:
        worst: How many terms to show: those with most unknown pieces, then with most pieces a character.
    """
    pieces, words = [], 0
    boundaries, morphemes = set(), set()
    for index, (text, split) in enumerate(zip(texts, KoreanWordSplitter().split_batch(texts), strict=True)):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces += tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        words += len(text.split())
        # A piece may begin with the white space before it.
        starts = (end - len(text[start:end].lstrip()) for start, end in encoded["offset_mapping"])
        inside = {position for position in range(1, len(text)) if not text[position - 1].isspace()}
        boundaries |= {(index, start) for start in starts if start in inside}
        morphemes |= {(index, start) for start, _ in split if start in inside}
    bare = [re.sub(r"^(##|▁)", "", piece) for piece in pieces]
    korean = [piece for piece in bare if re.search("[가-힣]", piece)]
    cut = {term: pieces_of(tokenizer, term) for term in dict.fromkeys(terms)}
    order = sorted(cut, key=lambda term: (-cut[term].count(tokenizer.unk_token), -len(cut[term]) / len(term), term))
    return Segmentation(
        single_syllable_share=sum(len(piece) == 1 for piece in korean) / max(len(korean), 1),
        unknown_share=pieces.count(tokenizer.unk_token) / max(len(pieces), 1),
        pieces_per_word=len(pieces) / max(words, 1),
        boundary_agreement=2 * len(boundaries & morphemes) / max(len(boundaries) + len(morphemes), 1),
        worst=[(term, cut[term]) for term in order[:worst]],
    )


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
    tokenize, vocabulary = cache(tokenizer.tokenize), tokenizer.get_vocab()
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
                # A Unigram tokenizer shows an unknown piece as it is written.
                known = sum(n for piece, n in pieces.items() if piece in vocabulary and piece != tokenizer.unk_token)
                report.unknown += pieces.total() - known
                report.identical += (own & pieces).total()
        if continuation:
            report.fallbacks = len(ours.word_splitter.continuation.fallbacks)
    return reports
