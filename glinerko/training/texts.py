"""Raw text of any size as packed rows of pieces, on disk and memory-mapped."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import multiprocess
import numpy as np
import tokenizers
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from xxhash import xxh3_64_intdigest

from glinerko.common import DataError, code_digest, file_digest, first_line
from glinerko.corpus.matching import without_spaces
from glinerko.corpus.reading import load_split, no_room, read_once, read_texts

SPECIAL_TOKENS = {
    "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
# The 2,350 syllables of KS X 1001. A Korean vocabulary contains each of them, at the start of a word and inside one.
SYLLABLES = [bytes([lead, trail]).decode("euc-kr") for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF)]
ASCII = [chr(code) for code in range(33, 127)]

DUPLICATE, HELD_OUT = "duplicate", "held out"
BUCKETS, SLOTS = 2**20, 8
"""The memory of documents in which duplicates are found, 64 MB. With four million documents between two equal ones,
95 % are found; with fewer, more."""
SHARED_WORDS = 13
"""A document with this many words in a row of a held-out document is left out, as for GPT-3 (Brown et al. 2020)."""
LONGEST_PART = 10_000
"""The number of characters of a document that are handled at once; a longer one is cut at white space."""
COUNTED_WORDS = 300_000
"""The number of different words that are counted for a vocabulary; beyond it, the rarest are forgotten."""
LONGEST_WORD = 100
"""The number of characters of the longest word that a WordPiece tokenizer cuts, and that is counted."""
BLOCK, SLICE = 500, 100
"""The number of documents that fill rows together, and that are tokenized at once."""
_WORDS = re.compile(r"[^\W_]+")
ROW_FEATURES = Features({"input_ids": List(Value("int32")), "words": List(Value("int16"))})


class HeldOutTexts:
    """The texts of ``files``, on which models are scored and none may be trained. Letters and digits are compared."""

    def __init__(self, files: Iterable[str]):
        texts = [text for file in files for _, text in read_texts(file)]
        self._whole = {"".join(_words(each)) for text in texts for each in (text, *text.splitlines())} - {""}
        self._runs = {run for text in texts for run in _word_runs(_words(text))}

    def share_words(self, text: str) -> bool:
        """Whether a text is one of them or a line of one, or has :data:`SHARED_WORDS` words in a row of one."""
        words = _words(text) if self._whole else []
        return "".join(words) in self._whole or not self._runs.isdisjoint(_word_runs(words))


def load_documents(
    files: Sequence[str], dataset_name: str | None = None, held_out_files: Sequence[str] = ()
) -> tuple[Dataset, Counter[str]]:
    """The texts of files and of a data set, read once into a file of the ``datasets`` cache.

    Args:
        files: See :func:`glinerko.corpus.reading.read_texts`.
        dataset_name: A data set with a column ``text``, on the Hub or in a directory.
        held_out_files: A document is left out if it shares words with one in here; see :class:`HeldOutTexts`.

    Returns:
        The documents in their order, those longer than :data:`LONGEST_PART` in several rows, with an empty text where
        one was left out; and how many were, by reason.

    Raises:
        DataError: With file, line and reason.
    """
    for name in (*files, *held_out_files):
        if not Path(name).is_file():
            raise DataError(f"{name}: a directory; name its files" if Path(name).is_dir() else f"{name}: no such file")
    documents = read_once(
        _names(files, dataset_name),
        _generate,
        Features({"text": Value("string"), "left_out": Value("string")}),
        files=tuple(files),
        dataset_name=dataset_name,
        held_out_files=tuple(held_out_files),
        digests=tuple(file_digest(Path(name)) for name in (*files, *held_out_files)),
        dataset=load_split(dataset_name, "train")._fingerprint if dataset_name else None,
    )
    counts = Counter()
    for batch in documents.select_columns("left_out").with_format("arrow").iter(100_000):
        counts.update({entry["values"]: entry["counts"] for entry in batch["left_out"].value_counts().to_pylist()})
    if not counts.pop("", 0):
        raise DataError(f"{_names(files, dataset_name)}: no text is left")
    return documents, counts


def _generate(
    files: Sequence[str], dataset_name: str | None, held_out_files: Sequence[str], **digests: Any
) -> Iterator[dict[str, str]]:
    """The rows of :func:`load_documents`; ``digests`` only tell the cache when to read again."""
    held_out = HeldOutTexts(held_out_files)
    seen, empty = np.zeros((BUCKETS, SLOTS), dtype=np.uint64), True
    for text in (part for document in _read(files, dataset_name) for part in _parts(document)):
        bare = without_spaces(text)
        if not bare:
            continue
        empty = False
        digest = np.uint64(xxh3_64_intdigest(bare.encode()))
        bucket = seen[int(digest) % BUCKETS]
        duplicate = digest in bucket
        if not duplicate:
            bucket[1:] = bucket[:-1].copy()
            bucket[0] = digest
        reason = HELD_OUT if held_out.share_words(text) else DUPLICATE if duplicate else ""
        yield {"text": "" if reason else text, "left_out": reason}
    if empty:
        raise DataError(f"{_names(files, dataset_name)}: no text")


def _names(files: Sequence[str], dataset_name: str | None) -> str:
    return ", ".join([*files, *([f"data set {dataset_name!r}"] if dataset_name else [])])


def _read(files: Sequence[str], dataset_name: str | None) -> Iterator[str]:
    for file in files:
        for _, text in read_texts(file):
            yield text
    for number, row in enumerate(load_split(dataset_name, "train") if dataset_name else ()):
        if not isinstance(row.get("text"), str):
            raise DataError(f"data set {dataset_name!r}, row {number}: expected a text in the column 'text'")
        yield row["text"]


def _parts(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > LONGEST_PART:
        blank = max(text.rfind(each, begin, begin + LONGEST_PART) for each in " \n")
        end = blank if blank > begin else begin + LONGEST_PART
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _words(text: str) -> list[str]:
    return _WORDS.findall(unicodedata.normalize("NFC", text))


def _word_runs(words: Sequence[str]) -> Iterator[int]:
    return (hash(tuple(words[at : at + SHARED_WORDS])) for at in range(len(words) - SHARED_WORDS + 1))


def choose_validation(documents: Dataset, share: float, limit: int, seed: int) -> np.ndarray:
    """The positions of the documents that are only used to measure, drawn by ``seed``, in their order.

    Args:
        share: Share of the documents, at most ``limit`` of them.

    Raises:
        DataError: None would be left to train on.
    """
    left_out = documents.select_columns("left_out").with_format("arrow").iter(100_000)
    usable = np.concatenate([batch["left_out"].to_numpy() == "" for batch in left_out]).nonzero()[0]
    number = min(math.ceil(share * len(usable)), limit)
    if number == len(usable):
        raise DataError(f"--validation_split {share} of {len(usable)} documents leaves none to train on")
    return np.sort(np.random.default_rng(seed).choice(usable, number, replace=False))


def pack_texts(
    documents: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, drawn: np.ndarray | None = None
) -> Dataset:
    """Full rows of ``max_length`` pieces: ``[CLS]`` document ``[SEP]`` document ... ``[SEP]``; a row cuts documents.

    The last row of each :data:`BLOCK` documents can be shorter. Several processes tokenize many documents; their
    number changes nothing.

    Args:
        documents: See :func:`load_documents`.
        drawn: Positions of documents to leave out.

    Returns:
        Rows with ``input_ids`` and ``words``: the number of each piece's word in its row, -1 for special tokens.

    Raises:
        DataError: A process ended, or the cache cannot be written.
    """
    drawn = np.array([], dtype=int) if drawn is None else drawn
    blocks = Dataset.from_dict({"start": range(0, len(documents), BLOCK)})
    # Explicit, because a tokenizer's own hash changes when it is used.
    vocabulary = tokenizer.backend_tokenizer.to_str()
    content = (documents._fingerprint, vocabulary, max_length, drawn.tobytes(), code_digest(), tokenizers.__version__)
    fingerprint = Hasher.hash(content)
    # Explicit as well: without a file, the rows of a data set that is in memory, like these blocks, stay in memory.
    file = Path(documents.cache_files[0]["filename"]).with_name(f"rows-{fingerprint}.arrow")
    processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(blocks) // 20)
    try:
        return blocks.map(
            partial(_pack, documents=documents, tokenizer=tokenizer, max_length=max_length, drawn=set(drawn.tolist())),
            batched=True,
            batch_size=1,
            remove_columns="start",
            features=ROW_FEATURES,
            num_proc=processes if processes > 1 else None,
            new_fingerprint=fingerprint,
            cache_file_name=str(file),
            desc=f"Tokenizing, {BLOCK:,} documents at once",
        )
    except multiprocess.TimeoutError as error:  # datasets raises it when it is interrupted
        raise KeyboardInterrupt from error
    except OSError as error:
        raise no_room(error) from error
    except RuntimeError as error:
        raise DataError(f"a process that tokenizes ended, perhaps for lack of memory ({first_line(error)})") from error


def _pack(
    block: dict[str, list[int]],
    documents: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    drawn: set[int],
) -> dict[str, list[np.ndarray]]:
    (start,) = block["start"]
    texts = documents[start : start + BLOCK]["text"]
    kept = [text for index, text in enumerate(texts, start) if text and index not in drawn]
    separator, pieces, words, number = tokenizer.sep_token_id, [], [], 0
    slices = (kept[begin : begin + SLICE] for begin in range(0, len(kept), SLICE))
    for encoding in (each for some in slices for each in tokenizer(some, add_special_tokens=False).encodings):
        ids = np.array(encoding.ids, dtype=np.int32)
        own = np.array([-1 if word is None else word + number for word in encoding.word_ids], dtype=np.int64)
        own[np.isin(ids, tokenizer.all_special_ids)] = -1  # a text can contain the name of a special token
        pieces += [ids, [separator]]
        words += [own, [-1]]
        number = max(own.max(initial=number) + 1, number)
    rows = {"input_ids": [], "words": []}
    if not pieces:
        return rows
    # Every row ends with a separator of its own.
    stream, numbers = np.concatenate(pieces[:-1]), np.concatenate(words[:-1])
    for begin in range(0, len(stream), max_length - 2):
        own = numbers[begin : begin + max_length - 2]
        own = np.where(own < 0, -1, own - own[own >= 0].min(initial=number))
        part = stream[begin : begin + max_length - 2]
        rows["input_ids"].append(np.concatenate([[tokenizer.cls_token_id], part, [separator]]))
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
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            if len(word) <= LONGEST_WORD:
                words[word] += 1
            else:
                characters.update(word)
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
