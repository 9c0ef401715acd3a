"""From windows to the batches that the encoder reads: gliner2's processor, for texts already split into words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from gliner2.inference.schema import Schema
from gliner2.processor import PreprocessedBatch, SamplingConfig, SchemaTransformer

from glinerko.corpus.rows import Offsets, Span
from glinerko.corpus.schema import RELATIONS, STRUCTURES, LabelSchema
from glinerko.corpus.tokens import MARK, ContinuationTokenizer
from glinerko.corpus.words import WordSplitter, as_word_splitter

MAX_WORD_LENGTH = 128
"""Of a longer word (a DNA sequence) so many characters are read: an encoder may have few positions.

They rarely make more pieces than that; only rare characters have several each.
"""


@dataclass(frozen=True)
class Window:
    """A part of a document that the model reads at once; all offsets are into ``text``.

    ``labels`` are those in the prompt, in prompt order.
    """

    text: str
    words: list[Offsets]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class RecordTarget:
    """An instance of a structure, or a relation, as a target: its values lie in one window.

    ``values`` are fields with every place where a value stands; ``chosen`` are fields with a value from their choices.
    """

    task: str
    values: list[tuple[str, list[Offsets]]]
    chosen: list[tuple[str, str]]

    @classmethod
    def from_row(cls, entry: Mapping[str, Any], begin: int = 0) -> RecordTarget:
        """The target in an entry of a row; offsets are then from ``begin``."""
        values = [(v["label"], [(start - begin, end - begin) for start, end in v["spans"]]) for v in entry["values"]]
        return cls(entry["task"], values, [(v["label"], v["text"]) for v in entry["chosen"]])

    def to_row(self) -> dict[str, Any]:
        """The entry that :meth:`from_row` reads."""
        values = [{"label": label, "spans": spans} for label, spans in self.values]
        return {"task": self.task, "values": values, "chosen": [{"label": n, "text": t} for n, t in self.chosen]}


@dataclass(frozen=True)
class TrainingWindow(Window):
    """A window with its gold, aligned to the words: spans of ``labels``, classes, records. Only training makes these.

    ``asked`` are the kinds of tasks for which the document was annotated: only those are in the prompt.
    """

    targets: list[Span] = field(default_factory=list)
    asked: tuple[str, ...] = ()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    records: list[RecordTarget] = field(default_factory=list)


class SplitText(str):
    """A text with its words, so that a document is split once and not once per epoch."""

    words: list[Offsets]
    full_stop: bool
    """Whether the last word is the full stop that gliner2 adds to a text."""

    def __new__(cls, text: str, words: list[Offsets], full_stop: bool = False):
        self = super().__new__(cls, text)
        self.words, self.full_stop = words, full_stop
        return self

    def __reduce__(self):
        # Only the text travels between processes: the words are not needed after a batch is made.
        return str, (str(self),)


class CarriedWordSplitter:
    """gliner2's view of a splitter: yields the words a :class:`SplitText` carries; splits any other text.

    Args:
        splitter: Any word splitter, also a plain callable of gliner2's interface.
        continuation: If given, words that continue another one are marked for it.
    """

    def __init__(self, splitter: WordSplitter, continuation: ContinuationTokenizer | None = None):
        self.splitter = as_word_splitter(splitter)
        self.continuation = continuation

    def __call__(self, text: str, lower: bool = True) -> Iterator[tuple[str, int, int]]:
        # gliner2 asks for the words of an empty mention as well, once for each label.
        words = text.words if isinstance(text, SplitText) else self.splitter.split(text) if text else []
        for token, (start, end) in zip(self.tokens(text, words), words, strict=True):
            yield token, start, end

    def tokens(self, text: str, words: Sequence[Offsets]) -> list[str]:
        """What the tokenizer gets for each word of ``text``."""
        tokens = [self.splitter.token(text[start:end][:MAX_WORD_LENGTH]) for start, end in words]
        if self.continuation is None:
            return tokens
        flags = self.continuation.continuing(text, words)
        return [MARK * marked + token.replace(MARK, "") for token, marked in zip(tokens, flags, strict=True)]


class KoreanSchemaTransformer(SchemaTransformer):
    """gliner2's processor, fed with windows whose words are known.

    gliner2 adds a full stop to a text that does not end a sentence. Here it is a word of its own that only this class
    sees: :meth:`split` leaves it out, :meth:`collate` adds it to each batch.

    Args:
        tokenizer: A fast tokenizer; GLiNER2's ten special tokens are added to it.
        word_splitter: Splits the texts.
        token_pooling: As in gliner2: how the states of a word's pieces become the state of the word.
        continuation_pieces: Whether to tokenize a word that continues another one as in pre-training.
        architecture: That of the model; batches for the boundary architecture contain more.
    """

    def __init__(
        self,
        tokenizer,
        word_splitter: WordSplitter,
        token_pooling: str = "first",
        continuation_pieces: bool = False,
        architecture: str = "span",
    ):
        self.architecture = architecture
        continuation = ContinuationTokenizer(tokenizer) if continuation_pieces else None
        super().__init__(
            tokenizer=tokenizer,
            word_splitter=CarriedWordSplitter(word_splitter, continuation),
            token_pooling=token_pooling,
            # What is left out of a prompt would make the number of instances wrong, or leave nothing to ask.
            sampling_config=SamplingConfig(
                shuffle_entities=True,
                remove_relations_prob=0,
                remove_json_field_prob=0,
                remove_json_structure_prob=0,
            ),
        )
        # A word without a piece (a control character) gets the unknown one: gliner2 would have no state for it.
        tokenize = continuation.tokenize if continuation else tokenizer.tokenize
        self._tokenize_cached = lru_cache(maxsize=50_000)(lambda word: tokenize(word) or [tokenizer.unk_token])

    def split(self, texts: Sequence[str]) -> list[list[Offsets]]:
        """The words of each text. They are those of the text as gliner2 reads it, without the full stop it adds."""
        split = self.word_splitter.splitter.split_batch([self._normalize_text(text) for text in texts])
        return [
            [(start, min(end, len(text))) for start, end in words if start < len(text)]
            for text, words in zip(texts, split, strict=True)
        ]

    def word_pieces(self, text: str, words: Sequence[Offsets]) -> list[list[str]]:
        """The pieces that the model reads for each word of ``text``."""
        return [self._tokenize_cached(token) for token in self.word_splitter.tokens(text, words)]

    def prompt_length(self, schema: Mapping[str, Any]) -> int:
        """The number of pieces of the prompt of a schema in gliner2's own form, separators included."""
        text = "."
        whole = self.collate_schemas([Window(text, [(0, 1)], ())], [schema]).input_ids.shape[1]
        return whole - len(self.word_pieces(text, [(0, 1)])[0])

    def collate(
        self,
        windows: Sequence[Window],
        schema: LabelSchema,
        *,
        augmentation_seeds: Sequence[int | str] | None = None,
    ) -> PreprocessedBatch:
        """Make a batch of windows; a :class:`TrainingWindow` comes with its targets.

        Args:
            schema: Descriptions for the prompt; the labels in the prompt are those of each window.
            augmentation_seeds: One for each window, to vary its prompt as gliner2 does in training (labels shuffled or
                renamed, descriptions left out); ``None`` for the plain prompt.

        Returns:
            A batch whose ``input_ids`` and ``attention_mask`` are ``[windows, pieces]``.
        """
        schemas = [gliner2_schema(window, schema) for window in windows]
        return self.collate_schemas(windows, schemas, augmentation_seeds=augmentation_seeds)

    def collate_schemas(
        self,
        windows: Sequence[Window],
        schemas: Sequence[Mapping[str, Any]],
        *,
        augmentation_seeds: Sequence[int | str] | None = None,
    ) -> PreprocessedBatch:
        """Make a batch of windows, each with a schema of any tasks in gliner2's own form; see :meth:`collate`."""
        state = random.getstate()
        self.change_mode(is_training=augmentation_seeds is not None)
        try:
            records = []
            for index, (window, schema) in enumerate(zip(windows, schemas, strict=True)):
                if augmentation_seeds is not None:
                    random.seed(augmentation_seeds[index])
                text, words = self._normalize_text(window.text), window.words
                full_stop = len(text) > len(window.text)
                if full_stop:
                    words = [*words, (len(window.text), len(text))]
                records.append(self.transform_and_format(SplitText(text, words, full_stop), schema))
            trained = any(isinstance(window, TrainingWindow) for window in windows)
            return self._add_boundary_metadata(
                self._pad_batch(records),
                self.architecture,
                is_training=trained,
                build_targets=trained,
                max_gold_per_query=None,
            )
        finally:
            self.change_mode(is_training=False)
            random.setstate(state)

    def with_word_splitter(self, splitter: WordSplitter) -> KoreanSchemaTransformer:
        """The same processor for other words."""
        continuation = self.word_splitter.continuation is not None
        return type(self)(self.tokenizer, splitter, self.token_pooling, continuation, self.architecture)

    def __reduce__(self):
        # A cache of pieces cannot be copied, and need not be.
        continuation, splitter = self.word_splitter.continuation is not None, self.word_splitter.splitter
        return type(self), (self.tokenizer, splitter, self.token_pooling, continuation, self.architecture)

    def _transform_schema(self, *args, label_descriptions=None, **options) -> list[str]:
        """gliner2's method; a label without a description has none in the prompt, and not an empty one."""
        described = {label: text for label, text in (label_descriptions or {}).items() if text and text.strip()}
        return super()._transform_schema(*args, label_descriptions=described, **options)

    def extract_embeddings_from_batch(self, token_embeddings, input_ids, batch):
        """gliner2's method; all states are taken at once.

        gliner2 takes them one by one, and the backward pass of each makes a tensor of the size of all states.
        """
        flat, length = token_embeddings.flatten(0, 1), token_embeddings.shape[1]
        counts = batch.text_word_counts
        places = [index * length + place for index, row in enumerate(batch.schema_special_indices) for task in row
                  for place in task]  # fmt: skip
        sizes = [len(task) for row in batch.schema_special_indices for task in row]
        taken = iter(flat.index_select(0, torch.tensor(places, dtype=torch.long, device=flat.device)).split(sizes))
        prompts = [[list(next(taken)) for _ in row] for row in batch.schema_special_indices]
        if self.token_pooling == "first":
            words = batch.text_word_indices + length * torch.arange(len(counts), device=flat.device)[:, None]
            first = torch.cat([row[:count] for row, count in zip(words, counts, strict=True)])
            return list(flat.index_select(0, first).split(counts)), prompts
        pooled = []
        for index, (count, end) in enumerate(zip(counts, batch.original_lengths, strict=True)):
            starts = batch.text_word_indices[index, :count]
            pieces = starts.diff(prepend=starts.new_zeros(1), append=starts.new_full((1,), end))
            # The prompt before the text counts as one word: no value has to be read back from the device.
            pooled.append(
                torch.segment_reduce(token_embeddings[index, :end], self.token_pooling, lengths=pieces, unsafe=True)[1:]
            )
        return pooled, prompts


def words_before(batch: PreprocessedBatch) -> list[int]:
    """How many words stand before each text of a batch: the choices of structures."""
    return [count - len(own) for count, own in zip(batch.text_word_counts, batch.start_mappings, strict=True)]


def gliner2_schema(window: Window, schema: LabelSchema) -> dict[str, Any]:
    """The labels, tasks, descriptions and targets of a window in gliner2's own form.

    Targets are given by offsets: as strings, gliner2 would search for them and drop those that it does not find.
    """
    tasks = Schema.from_dict(schema.to_request()).build() if schema.tasks else {}
    gold = window if isinstance(window, TrainingWindow) else None
    record: dict[str, Any] = {name: tasks[name] for name in ("relation_descriptions", "json_descriptions") if tasks}
    if gold is None:
        record |= {
            name: tasks[name]
            for name in (*_INSTANCES.values(), "classifications", "record_metadata")
            if tasks.get(name)
        }
    elif tasks:
        record["record_metadata"] = tasks.get("record_metadata", {})
        record["classifications"] = [
            {**task, "true_label": list(gold.classes[task["task"]])}
            for task in tasks["classifications"]
            if task["task"] in gold.classes
        ]
        for kind, name in _INSTANCES.items():
            if kind in gold.asked:
                record[name] = [each for empty in tasks[name] for each in _fill(empty, gold)]
    if window.labels:
        entities: dict[str, list] = {label: [] for label in window.labels}
        for span in gold.targets if gold else ():
            entities[span.label].append(_mention(window.text, span.start, span.end))
        descriptions = {label: schema.descriptions[label] for label in window.labels if label in schema.descriptions}
        record |= {"entities": entities, "entity_descriptions": descriptions}
    return record


_INSTANCES = {RELATIONS: "relations", STRUCTURES: "json_structures"}
"""gliner2's key for the instances of each kind."""


def _fill(empty: Mapping[str, Mapping[str, Any]], window: TrainingWindow) -> list[dict[str, dict[str, Any]]]:
    """The records of a window in gliner2's form; the empty one if there are none.

    Only the first one has the choices of fields: gliner2 writes them into the text once for each instance that has
    them, and the number would tell how many instances there are.
    """
    ((name, fields),) = empty.items()
    filled = []
    for record in (each for each in window.records if each.task == name):
        values: dict[str, Any] = {}
        for field_name, places in record.values:
            values.setdefault(field_name, []).extend(_mention(window.text, *place) for place in places)
        for field_name, value in record.chosen:
            values.setdefault(field_name, []).append(value)
        filled.append({field_name: values.get(field_name, "") for field_name in fields})
    for field_name, value in fields.items():
        if isinstance(value, Mapping) and filled:
            filled[0][field_name] = {**value, "value": filled[0][field_name]}
    return [{name: instance} for instance in filled] or [dict(empty)]


def _mention(text: str, start: int, end: int) -> dict[str, Any]:
    return {"text": text[start:end], "start": start, "end": end}
