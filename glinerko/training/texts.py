"""Raw text of any size as packed rows of pieces; memory holds one batch of documents, whatever the size of the text."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from xxhash import xxh3_64_intdigest

from glinerko.common import DataError, __version__, file_digest, first_line
from glinerko.corpus.matching import without_spaces
from glinerko.corpus.reading import read_texts

SPECIAL_TOKENS = {
    "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
# The 2,350 syllables of KS X 1001. A Korean vocabulary contains each of them, at the start of a word and inside one.
SYLLABLES = [bytes([lead, trail]).decode("euc-kr") for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF)]
ASCII = [chr(code) for code in range(33, 127)]

DUPLICATE, HELD_OUT = "duplicate", "held out"
REMEMBERED = 2**22
"""The number of earlier documents among which a duplicate is found, about: 8 bytes each."""
SHARED_WORDS = 13
"""A document with this many words in a row of a held-out document is left out, as for GPT-3 (Brown et al. 2020)."""
COUNTED_WORDS = 300_000
"""The number of different words that are counted for a vocabulary; beyond it, the rarest are forgotten."""
WORKER_DOCUMENTS = 20_000
"""The least number of documents for a process that tokenizes."""
ROW_FEATURES = Features({"input_ids": List(Value("int32")), "words": List(Value("int16"))})


def load_documents(
    files: Sequence[str], dataset_name: str | None = None, held_out_file: str | None = None
) -> tuple[Dataset, Counter[str]]:
    """The texts of files and of a data set, read once into a file of the ``datasets`` cache.

    Args:
        files: See :func:`glinerko.corpus.reading.read_texts`.
        dataset_name: A data set with a column ``text``, on the Hub or in a directory.
        held_out_file: A document with the whole text of one in here, or :data:`SHARED_WORDS` of its words in a row, is
            left out.

    Returns:
        The documents, in the order of the files, and the numbers of documents that were left out, by reason.

    Raises:
        DataError: With file, line and reason.
    """
    names = [*files, *([held_out_file] if held_out_file else [])]
    for name in names:
        if not Path(name).is_file():
            raise DataError(f"{name}: no such file")
    content = {
        "files": tuple(files),  # a list would be parted, and duplicates in two files would not be found
        "dataset_name": dataset_name,
        "held_out_file": held_out_file,
        "digests": {name: file_digest(Path(name)) for name in names},
        "version": __version__,
    }
    features = Features({"text": Value("string"), "left_out": Value("string")})
    try:
        documents = Dataset.from_generator(_generate, features=features, gen_kwargs=content)
    except DatasetGenerationError as error:
        raise error.__cause__ from None
    counts = Counter()
    for batch in documents.select_columns("left_out").with_format("arrow").iter(100_000):
        counts.update({entry["values"]: entry["counts"] for entry in batch["left_out"].value_counts().to_pylist()})
    if not counts.pop("", 0):
        raise DataError(f"{', '.join(files)}: no text is left")
    return documents, counts


def _generate(
    files: Sequence[str], dataset_name: str | None, held_out_file: str | None, digests: dict[str, str], version: str
) -> Iterator[dict[str, str]]:
    """The rows of :func:`load_documents`; ``digests`` and ``version`` only tell the cache when to read again."""
    held_out = [text for _, text in read_texts(held_out_file)] if held_out_file else []
    whole = set(map(without_spaces, held_out))
    runs = {run for text in held_out for run in _word_runs(text)}
    seen = np.zeros(REMEMBERED, dtype=np.uint64)
    for text in _read(files, dataset_name):
        bare = without_spaces(text)
        digest = xxh3_64_intdigest(bare.encode())
        duplicate = seen[digest % REMEMBERED] == digest
        seen[digest % REMEMBERED] = digest
        hit = bare in whole or (runs and not runs.isdisjoint(_word_runs(text)))
        reason = HELD_OUT if hit else DUPLICATE if duplicate else ""
        yield {"text": "" if reason else text, "left_out": reason}


def _read(files: Sequence[str], dataset_name: str | None) -> Iterator[str]:
    for file in files:
        for _, text in read_texts(file):
            yield text
    if dataset_name is not None:
        try:
            yield from (row["text"] for row in load_dataset(dataset_name, split="train", streaming=True))
        except Exception as error:  # every builder raises its own
            raise DataError(f"data set {dataset_name!r}: {first_line(error)}") from error


def _word_runs(text: str) -> Iterator[int]:
    words = text.split()
    return (hash(tuple(words[at : at + SHARED_WORDS])) for at in range(len(words) - SHARED_WORDS + 1))


def choose_validation(documents: Dataset, share: float, limit: int, seed: int) -> np.ndarray:
    """The positions of the documents that are only used to measure, drawn by ``seed``, in their order.

    Raises:
        DataError: None would be left to train on.
    """
    usable = np.concatenate(
        [
            batch["left_out"].to_numpy(zero_copy_only=False) == ""
            for batch in documents.select_columns("left_out").with_format("arrow").iter(100_000)
        ]
    ).nonzero()[0]
    number = min(int(np.ceil(share * len(usable))), limit)
    if number == len(usable):
        raise DataError(f"--validation_split {share} of {len(usable)} documents leaves none to train on")
    return np.sort(np.random.default_rng(seed).choice(usable, number, replace=False))


def pack_texts(
    documents: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, left_out: np.ndarray | None = None
) -> Dataset:
    """Full rows of ``max_length`` pieces: ``[CLS]`` document ``[SEP]`` document ... ``[SEP]``; a row cuts documents.

    The last row of each 1,000 documents can be shorter.

    Args:
        documents: See :func:`load_documents`.
        left_out: Positions of documents to leave out.

    Returns:
        Rows with ``input_ids`` and ``words``: the number of each piece's word in its row, -1 for special tokens.
    """
    left_out = np.array([], dtype=int) if left_out is None else left_out
    # Explicit, because a tokenizer's own hash changes when it is used.
    content = (
        documents._fingerprint,
        tokenizer.backend_tokenizer.to_str(),
        max_length,
        left_out.tobytes(),
        __version__,
    )
    processes = min(os.cpu_count() or 1, len(documents) // WORKER_DOCUMENTS)
    return documents.map(
        partial(_pack, tokenizer=tokenizer, max_length=max_length, left_out=set(left_out.tolist())),
        with_indices=True,
        batched=True,
        remove_columns=documents.column_names,
        features=ROW_FEATURES,
        num_proc=processes if processes > 1 else None,
        new_fingerprint=Hasher.hash(content),
        desc="Tokenizing",
    )


def _pack(
    batch: dict[str, list], indices: Sequence[int], tokenizer: PreTrainedTokenizerFast, max_length: int, left_out: set
) -> dict[str, list[np.ndarray]]:
    texts = [text for text, index in zip(batch["text"], indices, strict=True) if text and index not in left_out]
    pieces, words, number = [], [], 0
    for encoding in tokenizer(texts, add_special_tokens=False).encodings if texts else ():
        own = np.array([-1 if word is None else word + number for word in encoding.word_ids], dtype=np.int64)
        pieces += [np.array(encoding.ids, dtype=np.int32), np.array([tokenizer.sep_token_id], dtype=np.int32)]
        words += [own, np.array([-1])]
        number = max(own.max(initial=number) + 1, number)
    if not pieces:
        return {"input_ids": [], "words": []}
    # Every row ends with a separator of its own.
    stream, numbers = np.concatenate(pieces[:-1]), np.concatenate(words[:-1])
    rows = {"input_ids": [], "words": []}
    for start in range(0, len(stream), max_length - 2):
        part = slice(start, start + max_length - 2)
        own = numbers[part]
        own = np.where(own < 0, -1, own - own[own >= 0].min(initial=number))
        rows["input_ids"].append(np.concatenate([[tokenizer.cls_token_id], stream[part], [tokenizer.sep_token_id]]))
        rows["words"].append(np.concatenate([[-1], own, [-1]]))
    return rows


def rows_digest(rows: Dataset) -> str:
    """A hash of the pieces of packed rows, independent of their file."""
    batches = rows.select_columns("input_ids").with_format("arrow").iter(10_000)
    return Hasher.hash_bytes(column.flatten().to_numpy().tobytes() for b in batches for column in b["input_ids"].chunks)


def word_piece_tokenizer(
    texts: Iterable[str], common_pieces: int = 6000, min_count: int = 8, min_size: int = 0
) -> Tokenizer:
    """A WordPiece tokenizer of the most frequent beginnings and ends of words, and of single characters.

    Rare names are cut into characters, so that names never seen look like names that were. The trainers of the
    tokenizers library break ties at random; this gives the same vocabulary at every build.

    Args:
        common_pieces: The greatest number of pieces with more than one character.
        min_count: The number of times that such a piece must occur.
        min_size: The least number of tokens; unused ones are added.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    characters: set[str] = set()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
        if len(words) > 2 * COUNTED_WORDS:
            characters.update(*words)
            words = Counter(dict(words.most_common(COUNTED_WORDS)))
    characters.update(*words)
    counts = Counter()
    for word, count in words.items():
        for cut in range(1, len(word)):
            counts[word[:cut]] += count
            counts[f"##{word[cut:]}"] += count
        counts[word] += count
    common = sorted((p for p, count in counts.items() if count >= min_count), key=lambda p: (-counts[p], p))
    single = list(dict.fromkeys([*SYLLABLES, *ASCII, *sorted(characters)]))
    pieces = [*SPECIAL_TOKENS.values(), *common[:common_pieces], *single, *(f"##{c}" for c in single)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    vocabulary |= {f"[unused{index}]": index for index in range(len(vocabulary), min_size)}
    tokenizer.model = models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer
