"""The tokenizer of an encoder, loaded as its files say, and words tokenized as the continuation of another word."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import PreTokenizedString, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from glinerko.common import LoadError, first_line, write_json
from glinerko.corpus.rows import Offsets

_PROBE = "당뇨병 환자에게 인슐린 10 U/mL을 투여한다 (HbA1c 7.2%, MRI)."

MARK = "\ue0c1"
"""Put before a word that continues another one. A private-use character, removed from the user's own text."""


def load_encoder_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder, exactly as its ``tokenizer.json`` describes it, if there is one.

    The class named in ``tokenizer_config.json`` is ignored: transformers 5 rebuilds a ``DebertaV2Tokenizer`` as a
    Unigram model whatever the file holds. On a WordPiece file that fails or, worse, gives a wrong tokenizer.

    Raises:
        LoadError: There is no tokenizer that can be loaded, or it disagrees with its own file.
    """
    directory = Path(directory)
    try:
        if (directory / "tokenizer.json").is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        else:
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception
        raise LoadError(f"{directory}: the tokenizer cannot be loaded: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise LoadError(f"{directory}: no fast tokenizer can be made from these files; add a tokenizer.json")
    if tokenizer.unk_token is None or tokenizer.pad_token is None:
        raise LoadError(f"{directory}: the tokenizer names no padding or no unknown token in tokenizer_config.json")
    difference = difference_from_files(tokenizer, directory, [_PROBE])
    if difference:
        raise LoadError(f"{directory}: {difference}")
    return tokenizer


def pieces_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The pieces of a text as the encoder reads them; ``tokenizer.tokenize`` hides unknown ones."""
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def difference_from_files(
    tokenizer: PreTrainedTokenizerBase, directory: str | Path, texts: Sequence[str]
) -> str | None:
    """How a loaded tokenizer differs from its files; ``None`` if it does not.

    Its files are ``tokenizer.json``, run by the tokenizers library, or otherwise the SentencePiece model, or otherwise
    the vocabulary file.
    """
    directory = Path(directory)
    sentencepiece = next(directory.glob("*.model"), None)
    if (directory / "tokenizer.json").is_file():
        return _difference_from_json(tokenizer, directory / "tokenizer.json", texts)
    if sentencepiece is not None:
        return _difference_from_sentencepiece(tokenizer, sentencepiece, texts)
    if (directory / "vocab.txt").is_file():
        return _difference_from_vocabulary(tokenizer, directory / "vocab.txt")
    return "no tokenizer.json, SentencePiece model or vocab.txt to compare with"


def _difference_from_json(tokenizer: PreTrainedTokenizerBase, file: Path, texts: Sequence[str]) -> str | None:
    reference = Tokenizer.from_file(str(file))
    ours, theirs = (type(backend.model).__name__ for backend in (tokenizer.backend_tokenizer, reference))
    if ours != theirs:
        return f"loaded as {ours}, but tokenizer.json holds {theirs}"
    own = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts)
    return _describe(own, (reference.encode(text, add_special_tokens=False).ids for text in texts), "texts", file)


def _difference_from_sentencepiece(tokenizer: PreTrainedTokenizerBase, file: Path, texts: Sequence[str]) -> str | None:
    reference = SentencePieceProcessor(str(file))
    unknown = {tokenizer.unk_token, reference.id_to_piece(reference.unk_id())}

    def known(pieces: Iterable[str]) -> list[str]:
        return [piece for piece in pieces if piece not in unknown]

    own = (known(pieces_of(tokenizer, text)) for text in texts)
    return _describe(own, (known(map(reference.id_to_piece, reference.encode(t))) for t in texts), "texts", file)


def _difference_from_vocabulary(tokenizer: PreTrainedTokenizerBase, file: Path) -> str | None:
    kind = type(tokenizer.backend_tokenizer.model).__name__
    if kind != "WordPiece":
        return f"loaded as {kind}, but vocab.txt is a WordPiece vocabulary"
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {piece: number for number, piece in enumerate(lines)}  # of a piece that stands twice, the last counts
    return _describe(map(tokenizer.convert_tokens_to_ids, vocabulary), vocabulary.values(), "pieces", file)


def _describe(ours: Iterable, theirs: Iterable, what: str, file: Path) -> str | None:
    same = [own == their for own, their in zip(ours, theirs, strict=True)]
    return None if all(same) else f"reads {same.count(False)} of {len(same)} {what} differently than {file.name}"


def restore_tokenizer_class(directory: Path) -> None:
    """Make a saved ``tokenizer_config.json`` loadable by both transformers 4 and 5.

    transformers 5 writes the class ``TokenizersBackend`` and a list under ``extra_special_tokens``; 4 knows neither.
    """
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    for local in ("is_local", "local_files_only"):
        config.pop(local, None)
    write_json(path, config)


class ContinuationTokenizer:
    """Tokenizes a word that continues another one as in pre-training: ``##에게``, not ``에게``.

    gliner2 tokenizes word by word, so that each word looks like the start of one. White space does not decide what
    starts a word: ``(당뇨병)`` starts again after the bracket. The tokenizer's own pre-tokenizer says where one starts.

    Attributes:
        fallbacks: Marked words for which the vocabulary has no continuation; tokenized like the start of a word.

    Raises:
        LoadError: The tokenizer has no pre-tokenizer, or is neither WordPiece nor Unigram.
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

    def continuing(self, text: str, words: Sequence[Offsets]) -> list[bool]:
        """For each word of ``text``, whether it continues a word of the tokenizer."""
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
        """The pieces of a word; it is marked if it continues another one."""
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
        """Whether ``##`` was read as a prefix, and not as the piece ``#`` twice."""
        return piece.startswith(self.prefix) and len(piece) > len(self.prefix)
