"""Loading an encoder's tokenizer as its file says it is."""

from __future__ import annotations

import json
from pathlib import Path

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
    if file.is_file():
        ours = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        theirs = Tokenizer.from_file(str(file)).encode(_PROBE, add_special_tokens=False).ids
        if ours != theirs:
            raise LoadError(f"{directory}: the loaded tokenizer cuts text differently than its tokenizer.json")
    return tokenizer


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
