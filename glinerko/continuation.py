"""Tokenizing a morpheme that continues a word as the encoder saw it in pre-training: ``##에게``, not ``에게``.

gliner2 tokenizes word by word, so that each word looks as if it began one. White space is not the rule of what begins
a word: ``(당뇨병)`` begins anew after the bracket. The tokenizer's own pre-tokenizer says where its words begin.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import PreTokenizedString
from transformers import PreTrainedTokenizerBase

from glinerko.errors import LoadError

#: Put before a word that continues one; a private-use character, taken out of the user's own text.
MARK = "\ue0c1"


class ContinuationTokenizer:
    """Tokenizes words, marked ones as continuations.

    Attributes:
        fallbacks: Marked words for which the vocabulary has no continuation, tokenized as if they began a word.

    Raises:
        LoadError: the tokenizer has no pre-tokenizer, or is neither WordPiece nor Unigram.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        backend = tokenizer.backend_tokenizer
        kind = type(backend.model).__name__
        if backend.pre_tokenizer is None:
            raise LoadError("continuation pieces need a tokenizer with a pre-tokenizer, and this one has none")
        if kind not in ("WordPiece", "Unigram"):
            raise LoadError(f"continuation pieces need a WordPiece or Unigram tokenizer, and this one is {kind}")
        self.tokenizer, self.backend = tokenizer, backend
        self.prefix = backend.model.continuing_subword_prefix if kind == "WordPiece" else ""
        self.fallbacks: set[str] = set()

    def continuing(self, text: str, words: Sequence[tuple[int, int]]) -> list[bool]:
        """For each word of ``text``, whether it continues a word of the tokenizer's."""
        split = PreTokenizedString(text)
        if self.backend.normalizer is not None:
            split.normalize(self.backend.normalizer.normalize)
        self.backend.pre_tokenizer.pre_tokenize(split)
        inside: set[int] = set()
        for _, (start, end), _ in split.get_splits(offset_referential="original", offset_type="char"):
            # A pre-token may begin with the white space before it.
            first = start + len(text[start:end]) - len(text[start:end].lstrip())
            inside.update(range(first + 1, end))
        return [start in inside for start, _ in words]

    def tokenize(self, word: str) -> list[str]:
        """The pieces of a word, which is marked if it continues one."""
        if not word.startswith(MARK):
            return self.tokenizer.tokenize(word)
        word = word[len(MARK) :]
        normalizer = self.backend.normalizer
        bare = normalizer.normalize_str(word) if normalizer is not None else word
        pieces = [piece.value for piece in self.backend.model.tokenize(self.prefix + bare)] if bare.strip() else []
        if not pieces or self.tokenizer.unk_token in pieces or not self._continues(pieces[0]):
            self.fallbacks.add(word)
            return self.tokenizer.tokenize(word)
        return pieces

    def _continues(self, piece: str) -> bool:
        """Guards against ``#`` being matched as a piece of its own where ``##`` was meant as a prefix."""
        return piece.startswith(self.prefix) and len(piece) > len(self.prefix)
