"""Loading an encoder's tokenizer as its file says it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from glinerko.errors import LoadError, first_line
from glinerko.files import write_json

_PROBE = "당뇨병 환자에게 인슐린 10 U/mL을 투여한다 (HbA1c 7.2%, MRI)."


def load_encoder_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder, exactly as its ``tokenizer.json`` says where it has one.

    The class named in ``tokenizer_config.json`` is not asked: transformers 5 rebuilds a ``DebertaV2Tokenizer`` as a
    Unigram model whatever the file holds, which fails, or worse, does not, on a WordPiece file.

    Raises:
        LoadError: no tokenizer that can be loaded, or one that disagrees with its own file.
    """
    directory = Path(directory)
    file = directory / "tokenizer.json"
    try:
        if not file.is_file():
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        else:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
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
    """The pieces of a text as the encoder reads them; ``tokenizer.tokenize`` shows an unknown one as it is written."""
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def difference_from_files(
    tokenizer: PreTrainedTokenizerBase, directory: str | Path, texts: Sequence[str]
) -> str | None:
    """How a loaded tokenizer differs from what its files say; ``None`` where it does not.

    What the files say is ``tokenizer.json`` as the tokenizers library runs it, or else the SentencePiece model, or else
    the vocabulary file.
    """
    directory = Path(directory)
    file = directory / "tokenizer.json"
    sentencepiece = next(directory.glob("*.model"), None)
    if file.is_file():
        reference = Tokenizer.from_file(str(file))
        ours, theirs = (type(backend.model).__name__ for backend in (tokenizer.backend_tokenizer, reference))
        if ours != theirs:
            return f"loaded as {ours}, but tokenizer.json holds {theirs}"
        wrong = [
            text
            for text in texts
            if tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            != reference.encode(text, add_special_tokens=False).ids
        ]
    elif sentencepiece is not None:
        file, reference = sentencepiece, SentencePieceProcessor(str(sentencepiece))
        unknown = {tokenizer.unk_token, reference.id_to_piece(reference.unk_id())}
        wrong = [
            text
            for text in texts
            if [piece for piece in pieces_of(tokenizer, text) if piece not in unknown]
            != [piece for piece in map(reference.id_to_piece, reference.encode(text)) if piece not in unknown]
        ]
    elif (directory / "vocab.txt").is_file():
        file = directory / "vocab.txt"
        vocabulary = file.read_text(encoding="utf-8").splitlines()
        kind = type(tokenizer.backend_tokenizer.model).__name__
        if kind != "WordPiece":
            return f"loaded as {kind}, but vocab.txt is a WordPiece vocabulary"
        wrong = [piece for index, piece in enumerate(vocabulary) if tokenizer.convert_tokens_to_ids(piece) != index]
    else:
        return "no tokenizer.json, SentencePiece model or vocab.txt to go by"
    return f"cuts {len(wrong)} of {len(texts)} texts differently than {file.name}" if wrong else None


def restore_tokenizer_class(directory: Path) -> None:
    """Make a saved ``tokenizer_config.json`` loadable by transformers 4 and 5 alike.

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
