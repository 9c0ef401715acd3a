"""The model that users load and call: its settings, saving, loading, and extraction with its own labels."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from gliner2.configuration import ExtractorConfig
from gliner2.inference.schema import Schema
from gliner2.models.loading import (
    apply_post_load_options,
    pop_attention_backend,
    pop_disentangled_flash_options,
    reconcile_encoder_embeddings,
    split_load_kwargs,
)
from safetensors.torch import load_file

from glinerko.common import DataError, LoadError, __version__, first_line, write_json
from glinerko.corpus.processor import KoreanSchemaTransformer, Window
from glinerko.corpus.rows import Offsets, Span
from glinerko.corpus.schema import LabelSchema, check_labels
from glinerko.corpus.tokens import load_encoder_tokenizer, restore_tokenizer_class
from glinerko.corpus.windows import align_gold, cut_windows, row_windows, split_into_windows, text_room, usual_length
from glinerko.corpus.words import (
    USER_DICTIONARY,
    as_word_splitter,
    load_word_splitter,
    word_splitter_names,
    write_user_dictionary,
)
from glinerko.hub import fetch, load_config, require_gliner2
from glinerko.model.answers import answer
from glinerko.model.architecture import Architecture, Prompt
from glinerko.model.boundary import BoundaryScorer
from glinerko.model.lora import adapter_base, has_lora, merge_adapter, save_adapter
from glinerko.model.prediction import gliner2_policy, in_batches, overlap_resolver
from glinerko.model.requests import (
    check_task_names,
    chunks_of_texts,
    read_schema,
    require_number,
    require_texts,
    schema_errors,
)
from glinerko.model.settings import Settings
from glinerko.model.spans import SpanScorer

SCORE_TOLERANCE = 2e-3
"""How much the scores of one model may differ between two machines."""
BATCH_SIZE = 8
"""Windows in a batch, by default as in gliner2."""

WINDOW_LIMITS = ("max_length", "window_overlap", "max_text")
"""What is known of the windows: see :func:`glinerko.corpus.windows.split_into_windows`."""

EntityTypes = str | Sequence[str] | Mapping[str, str | Mapping[str, Any] | None]
"""Labels, or a description or gliner2's options for each label."""
SchemaLike = Schema | Mapping[str, Any]
"""gliner2's schema builder, or the dictionary that it can be made from, or the one that it makes."""
_REFERENCE_TEXT = "환자는 제2형 당뇨병으로 인슐린을 투여받았고, 혈액 검사에서 HbA1c가 8.2%였다."


class KoreanExtractor(Architecture):
    """A GLiNER2 that keeps its word splitter, labels, descriptions and threshold, and uses them by default.

    :func:`load_extractor` gives the one of the right architecture.
    """

    @property
    def settings(self) -> Settings:
        """See :class:`Settings`; :meth:`configure` changes them."""
        return Settings.from_config(vars(self.config))

    def configure(self, **changes: Any) -> None:
        """Change fields of :class:`Settings`. They are saved with the model, by gliner2 as well.

        Raises:
            DataError: ``window`` has other entries than :data:`WINDOW_LIMITS`, or other values than numbers of pieces.
        """
        window = changes.get("window") or {}
        for name, pieces in window.items():
            if name not in WINDOW_LIMITS:
                raise DataError(f"window has no {name!r}: it takes {', '.join(WINDOW_LIMITS)}, in pieces")
            require_number(name, pieces, whole=True, at_least=0 if name == "window_overlap" else 1)
        for name, value in replace(self.settings, **changes).to_config().items():
            setattr(self.config, name, value)

    @property
    def label_schema(self) -> LabelSchema | None:
        """The labels, descriptions and tasks that this model was trained for, if it names them.

        The descriptions can be passed as ``entity_types``: they contain every label if at least one has a description;
        the others get an empty one.
        """
        labels, descriptions, tasks = self.settings.labels, self.settings.descriptions, self.settings.tasks
        named = {label: descriptions.get(label, "") for label in labels} if descriptions else {}
        return LabelSchema(labels, named, tasks) if labels or tasks else None

    @property
    def threshold(self) -> float | None:
        """The threshold chosen on validation documents, if one was."""
        return self.settings.threshold

    @property
    def window_limits(self) -> dict[str, int]:
        """The :data:`WINDOW_LIMITS` of training, in pieces."""
        return dict(self.settings.window)

    def fit_to(self, windows: Dataset) -> None:
        """Read and find as much at once as these training windows hold; saved with the model.

        If scores depend on the length of the text, no window to read holds much more than most of these.
        """
        self.fit_limits(windows)
        if self.depends_on_length and len(windows):
            self.configure(window={**self.window_limits, "max_text": usual_length(windows, self.processor)})

    def split(self, rows: Dataset, schema: LabelSchema | None = None) -> Dataset:
        """The rows with this model's words and windows: see :func:`glinerko.corpus.windows.split_into_windows`."""
        return split_into_windows(rows, self.processor, schema or self.label_schema, **self.window_limits)

    def align(self, rows: Dataset, schema: LabelSchema | None = None) -> Dataset:
        """The same with the outcome of each gold span: see :func:`glinerko.corpus.windows.align_gold`."""
        return align_gold(self.split(rows, schema), self.max_width, self.max_records)

    def extract_entities(
        self,
        text: str,
        entity_types: EntityTypes | None = None,
        threshold: float | None = None,
        *args: Any,
        **options: Any,
    ) -> dict[str, Any]:
        """The entities of a text, by default of the labels that this model was trained with: see :meth:`batch_extract`.

        Args:
            entity_types: Labels, with or without descriptions. A label that has none gets the one it was trained with.
        """
        return _only_entities(self.extract(text, self.entity_schema(entity_types), threshold, *args, **options))

    def batch_extract_entities(
        self,
        texts: Sequence[str],
        entity_types: EntityTypes | None = None,
        batch_size: int = BATCH_SIZE,
        threshold: float | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """See :meth:`extract_entities`."""
        answers = self.batch_extract(texts, self.entity_schema(entity_types), batch_size, threshold, **options)
        return list(map(_only_entities, answers))

    def extract(
        self,
        text: str,
        schema: SchemaLike | None = None,
        threshold: float | None = None,
        format_results: bool = True,
        include_confidence: bool = False,
        include_spans: bool = False,
        max_len: int | None = None,
        overlap_policy: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """See :meth:`batch_extract`."""
        options |= {"max_len": max_len, "overlap_policy": overlap_policy, "format_results": format_results}
        options |= {"include_confidence": include_confidence, "include_spans": include_spans, "threshold": threshold}
        return self.batch_extract([text], schema, **options)[0]

    def batch_extract(
        self,
        texts: Sequence[str],
        schemas: SchemaLike | list[SchemaLike] | None = None,
        batch_size: int = BATCH_SIZE,
        threshold: float | None = None,
        num_workers: int = 0,
        format_results: bool = True,
        include_confidence: bool = False,
        include_spans: bool = False,
        max_len: int | None = None,
        overlap_policy: str | None = None,
        hidden_states: None = None,
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
    ) -> list[dict[str, Any]]:
        """The answers to any tasks of GLiNER2's schema, in gliner2's form. All methods that extract come here.

        Texts of any length are read as in evaluation: in the windows of training, whose answers are merged.

        Args:
            schemas: One for all texts, or a list with one for each; the labels and tasks of this model by default.
            batch_size: Windows in a batch.
            threshold: Lowest score. By default that of this model for entities and for each task that it was trained
                for, and 0.5 for other tasks.
            num_workers: Not used: words are split on threads.
            max_len: Read at most so many words of a text.
            overlap_policy: One of :data:`glinerko.model.prediction.OVERLAP_POLICIES`; by default that of gliner2.
            format_results, hidden_states, chunk_size, chunk_overlap: Of gliner2; only their defaults are accepted.

        Raises:
            DataError: A text, label, schema or value that cannot be used.
            LoadError: No labels are given, and the model names none.
        """
        require_texts(texts)
        if not format_results or hidden_states is not None:
            raise DataError("format_results=False and hidden_states are not supported: texts are read in windows")
        if chunk_size not in (None, 384) or chunk_overlap not in (None, 64):  # what gliner2's own methods pass
            raise DataError(
                f"chunk_size and chunk_overlap are not used: texts are read in the windows of training, "
                f"{self.window_limits or 'by default 512 pieces'}; `configure(window=...)` changes them"
            )
        texts = list(texts)
        if not isinstance(schemas, list):
            schemas = [schemas] * len(texts)
        if len(schemas) != len(texts):
            raise DataError(f"{len(schemas)} schemas for {len(texts)} texts")
        options = {"batch_size": batch_size, "threshold": threshold, "max_len": max_len}
        options |= {"overlap_policy": overlap_policy, "confidence": include_confidence, "spans": include_spans}
        return list(self._read(zip(texts, schemas, strict=True), **options))

    # Long texts are no case of their own.
    extract_long, batch_extract_long = extract, batch_extract
    extract_entities_long, batch_extract_entities_long = extract_entities, batch_extract_entities

    def stream(
        self,
        texts: Iterable[str],
        schema: SchemaLike | None = None,
        *,
        threshold: float | None = None,
        batch_size: int = BATCH_SIZE,
        overlap_policy: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The answer for each text, with offsets and scores, while ``texts`` is read on; see :meth:`batch_extract`.

        Memory depends neither on the number of texts nor on the length of one.
        """
        require_texts(texts)
        options = {"batch_size": batch_size, "threshold": threshold, "overlap_policy": overlap_policy}
        return self._read(((text, schema) for text in texts), confidence=True, spans=True, **options)

    def stream_entities(
        self, texts: Iterable[str], entity_types: EntityTypes | None = None, **options: Any
    ) -> Iterator[list[Span]]:
        """The entities of each text as spans in reading order; see :meth:`stream`."""
        return map(spans_of, self.stream(texts, self.entity_schema(entity_types), **options))

    def _read(
        self,
        documents: Iterable[tuple[str, SchemaLike | None]],
        *,
        batch_size: int,
        threshold: float | None,
        max_len: int | None = None,
        overlap_policy: str | None = None,
        confidence: bool,
        spans: bool,
    ) -> Iterator[dict[str, Any]]:
        """The one way from texts to answers: see :meth:`batch_extract`."""
        require_number("batch_size", batch_size, whole=True, at_least=1)
        require_number("max_len", 1 if max_len is None else max_len, whole=True, at_least=1)
        if threshold is not None:
            require_number("threshold", threshold, at_least=0, at_most=1)
        resolve = overlap_resolver(self.overlap_policy if overlap_policy is None else overlap_policy)
        prompts: dict[int, tuple[Prompt, tuple[int, int]]] = {}
        being_read: deque[Prompt] = deque()

        def windows_of(text: str, words: list[Offsets], prompt: Prompt, room: tuple[int, int]) -> Iterator[tuple]:
            if max_len is not None and len(words) > max_len:
                words, text = words[:max_len], text[: words[max_len - 1][1]]
            pieces = [len(pieces) for pieces in self.processor.word_pieces(text, words)]
            windows = cut_windows(words, pieces, *room) or [(0, 0)]
            for begin, window in row_windows({"text": text, "words": words, "windows": windows}, ()):
                yield (begin, prompt), window

        def documents_in_windows() -> Iterator[Iterator[tuple]]:
            for chunk in chunks_of_texts(documents):
                for (text, schema), words in zip(chunk, self.processor.split([text for text, _ in chunk]), strict=True):
                    if id(schema) not in prompts:
                        prompts[id(schema)] = self._prompt(schema, threshold, overlap_policy)
                    being_read.append(prompts[id(schema)][0])
                    yield windows_of(text, words, *prompts[id(schema)])

        def run(batch: Sequence[tuple]) -> list[dict[str, Any]]:
            answers = self.extract_from_windows([window for _, window in batch], [prompt for (_, prompt), _ in batch])
            return [each.tasks for each in answers]

        self.eval()
        for results in in_batches(documents_in_windows(), run, batch_size):
            prompt = being_read.popleft()
            begins = [(begin, result) for (begin, _), result in results]
            yield answer(prompt, begins, resolve, confidence=confidence, spans=spans)

    def _prompt(
        self, schema: SchemaLike | None, threshold: float | None = None, overlap_policy: str | None = None
    ) -> tuple[Prompt, tuple[int, int]]:
        """What to ask, and the room for text beside it: see :func:`glinerko.corpus.windows.text_room`."""
        with schema_errors():
            if schema is None:
                schema = self._own_schema()
            elif isinstance(schema, str):
                schema = self.entity_schema(schema)
            elif isinstance(schema, Mapping):
                schema = read_schema(schema)
            elif not hasattr(schema, "build") or isinstance(schema, type):
                raise ValueError(f"it must be gliner2's Schema or a dictionary, found {type(schema).__name__}")
            (tasks,), (metadata,) = self._build_schema_dicts_and_metadata([schema])
            if not all(task["labels"] for task in tasks.get("classifications") or ()):
                raise ValueError("a classification has no labels")
            labels = check_labels(tasks.get("entities") or ())
            check_task_names(tasks)
            given = {**tasks.get("entities", {}), **tasks.get("entity_descriptions", {})}
            described = {label: text for label, text in given.items() if text and isinstance(text, str)}
            described = {**self.settings.descriptions, **described}
            tasks = {**tasks, "entity_descriptions": {name: described[name] for name in labels if name in described}}
            metadata = {**metadata, "_overlap_policy": gliner2_policy(overlap_policy)}
            tasks, metadata = self._with_thresholds(tasks, metadata, threshold)
            prompt = Prompt(tasks, metadata, 0.5 if threshold is None else threshold, self.resolve_relations)
            return prompt, text_room(self.processor, tasks, **self.window_limits)

    def _with_thresholds(
        self, tasks: Mapping[str, Any], metadata: Mapping[str, Any], threshold: float | None
    ) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """The thresholds where the schema gives none: the requested one, or those of this model.

        As in gliner2, a requested one is not for classes.
        """
        saved = self.settings.thresholds
        own = saved if threshold is None else {}

        def with_own(options: Mapping[str, Any], value: float | None) -> dict[str, Any]:
            given = options.get("threshold")
            return {**options, "threshold": value if given is None else given}

        entities, of_entities = metadata["entity_metadata"], self.choose_threshold(threshold)
        relations, fields = metadata["relation_metadata"], metadata["field_metadata"]
        structure_of = {
            f"{name}.{field}": name
            for item in tasks.get("json_structures") or ()
            for name, each in item.items()
            for field in each
        }
        metadata = {
            **metadata,
            "entity_metadata": {
                label: with_own(entities.get(label, {}), of_entities) for label in tasks.get("entities") or ()
            },
            "relation_metadata": {
                name: with_own(relations.get(name, {}), own.get(name)) for name in metadata["relation_order"]
            },
            "field_metadata": {key: with_own(each, own.get(structure_of.get(key))) for key, each in fields.items()},
        }
        classifications = [
            {**task, "cls_threshold": saved.get(task["task"], 0.5)} if task.get("cls_threshold", 0.5) == 0.5 else task
            for task in tasks.get("classifications") or ()
        ]
        return {**tasks, "classifications": classifications} if classifications else tasks, metadata

    def _classification_schema(self, tasks: Mapping[str, Any]) -> Schema:
        with schema_errors():
            return super()._classification_schema(tasks)

    def _json_schema(self, structures: Mapping[str, Any]) -> Schema:
        with schema_errors():
            return super()._json_schema(structures)

    def entity_schema(self, requested: EntityTypes | None) -> Schema:
        """gliner2's schema of these labels, or of this model's own labels and tasks."""
        if not requested and self.settings.labels:
            return self._own_schema()
        requested = [requested] if isinstance(requested, str) else requested
        if not requested:
            raise LoadError("the model names no labels of its own: pass entity_types")
        if not isinstance(requested, Iterable):
            raise DataError(f"labels must be a list, found {type(requested).__name__}")
        names = check_labels(requested)
        configs = requested.values() if isinstance(requested, Mapping) else [None] * len(names)
        types = {}
        for label, config in zip(names, configs, strict=True):
            types[label] = {"description": config} if isinstance(config, str) else config or {}
            if not isinstance(types[label], Mapping):
                raise DataError(f"the description of {label!r} must be a string, found {config!r}")
        with schema_errors():
            return self.create_schema().entities(types)

    def _own_schema(self) -> Schema:
        """gliner2's schema of the labels and tasks that this model was trained for."""
        own = self.label_schema
        if own is None:
            raise LoadError("the model names no labels of its own: pass a schema")
        return Schema.from_dict(own.to_request())

    def choose_threshold(self, requested: float | None = None) -> float:
        """The requested threshold, or otherwise this model's own, or otherwise gliner2's default.

        Raises:
            DataError: The requested one does not lie between 0 and 1.
        """
        threshold = next(value for value in (requested, self.threshold, 0.5) if value is not None)
        return require_number("threshold", threshold, at_least=0, at_most=1)

    def reference_scores(self) -> list[list[float]] | None:
        """The best score of the spans that start at each word of a fixed sentence: ``[labels, words]``.

        Saved with a model, they tell whether it still gives the same scores. ``None`` if the gate of the text is shut.
        """
        (words,) = self.processor.split([_REFERENCE_TEXT])
        window = Window(_REFERENCE_TEXT, words, self.label_schema.labels)
        training = self.training
        self.eval()
        (scores,) = self.best_starts(self.processor.collate([window], self.label_schema))
        self.train(training)
        return None if scores is None else [[round(score, 5) for score in row] for row in scores.tolist()]

    def get_input_embeddings(self) -> torch.nn.Module:
        """Those of the encoder; Accelerate asks for them under FSDP."""
        return self.encoder.get_input_embeddings()

    def set_word_splitter(self, word_splitter: str | Callable) -> KoreanExtractor:
        """Read other words from now on: gliner2's method, and saved with the model.

        Args:
            word_splitter: A registered name, a :class:`~glinerko.corpus.words.WordSplitter`, or any callable of
                gliner2's interface.
        """
        named = isinstance(word_splitter, str)
        splitter = load_word_splitter(word_splitter) if named else as_word_splitter(word_splitter)
        self.processor = self.processor.with_word_splitter(splitter)
        dictionary = USER_DICTIONARY if splitter.user_dictionary else None
        lower_case = splitter.lower_case and not type(splitter).lower_case
        self.configure(word_splitter=splitter.name, lower_case=lower_case, user_dictionary=dictionary)
        return self

    @classmethod
    def from_pretrained(cls, repo_or_dir: str | Path, **options: Any) -> KoreanExtractor:
        """See :func:`load_extractor`."""
        return load_extractor(repo_or_dir, **options)

    def __reduce_ex__(self, protocol):
        """For copies and worker processes.

        Raises:
            LoadError: Compiled code or fast attention would go on using the weights of the original.
        """
        if getattr(self, "_disentangled_flash_mode", None) or hasattr(self.encoder, "_orig_mod"):
            raise LoadError("copy or pickle a model before compile() and before fast attention, or load it again")
        return super().__reduce_ex__(protocol)

    def save_pretrained(
        self, save_directory: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None, **kwargs
    ) -> None:
        """Save as gliner2 does, with settings, user dictionary, and a tokenizer for transformers 4 and 5.

        Args:
            state_dict: The weights, if this process holds only a part of them; gliner2 ignores the argument.

        Raises:
            LoadError: The word splitter is not registered, so that no other process could load the model.
        """
        directory, splitter = Path(save_directory), self.settings.word_splitter
        if splitter not in word_splitter_names():
            raise LoadError(
                f"the word splitter {splitter!r} could not be loaded again: `register_word_splitter` it first"
            )
        self.configure(saved_by=__version__)
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: each.reshape(()) if name in self.flattened else each for name, each in weights.items()}
        weights = {name.replace("_orig_mod.", ""): each for name, each in weights.items()}  # put in by compile()
        self.state_dict = lambda *_, **__: weights
        try:
            super().save_pretrained(str(directory), **kwargs)
        finally:
            del self.__dict__["state_dict"]
        restore_tokenizer_class(directory)
        if has_lora(self):  # only the adapter; the frozen weights are those of the base model
            (directory / "model.safetensors").unlink()
            save_adapter(self, directory)
        if self.settings.user_dictionary:
            entries = self.processor.word_splitter.splitter.user_dictionary
            write_user_dictionary(directory / self.settings.user_dictionary, entries)
        # The class with which plain gliner2 loads these files.
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        write_json(directory / "config.json", {**config, "architectures": [self.plain.__name__]})


def spans_of(answer: Mapping[str, Any]) -> list[Span]:
    """The entities in an answer of :meth:`KoreanExtractor.stream`, in reading order."""
    return sorted(
        Span(mention["start"], mention["end"], label, mention["confidence"])
        for label, mentions in answer.get("entities", {}).items()
        for mention in (mentions if isinstance(mentions, list) else [mentions] if mentions else ())
    )


def _only_entities(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"entities": answer["entities"]}


class KoreanSpanExtractor(KoreanExtractor, SpanScorer):
    """Of the span architecture (GLiNER2)."""


class KoreanBoundaryExtractor(KoreanExtractor, BoundaryScorer):
    """Of the boundary architecture (GLiNER2.5)."""


ARCHITECTURES: dict[str, type[KoreanExtractor]] = {
    each.plain.architecture: each for each in (KoreanSpanExtractor, KoreanBoundaryExtractor)
}
"""The models by gliner2's name of their architecture."""


def load_extractor(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    map_location: str | torch.device | None = None,
    word_splitter: str | Callable | None = None,
    quantize: bool = False,
    compile: bool = False,
    **attention: Any,
) -> KoreanExtractor:
    """Load a model with its word splitter, width, labels, descriptions and threshold, from its files only.

    A plain GLiNER2 loads too, with the white-space splitter it was trained with.

    Args:
        name_or_path: A directory, or the id of a repository of the Hub.
        map_location: The device of the model; the CPU by default.
        word_splitter: Other words than those it was trained with; see :meth:`KoreanExtractor.set_word_splitter`.
        quantize: Convert the weights to float16.
        compile: Use ``torch.compile``.
        attention: gliner2's ``attention_backend`` and what belongs to it.

    Raises:
        LoadError: What is missing or wrong, and what to do.
    """
    try:
        attention, _ = split_load_kwargs(attention, context="load_extractor")
        backend, use_flashdeberta = pop_attention_backend(attention)
    except ValueError as error:
        raise LoadError(f"{name_or_path}: {first_line(error)}") from error
    options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    directory = fetch(name_or_path, revision=revision, **options)
    config = require_gliner2(directory, directory)
    architecture = config.get("architecture") or "span"
    if architecture not in ARCHITECTURES:
        raise LoadError(f"{directory}: unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    base = adapter_base(directory)
    weights = (fetch(base, **options) if base else directory) / "model.safetensors"
    if not weights.is_file():
        raise LoadError(f"{directory}: no model.safetensors (weights in another format are not read)")
    settings = Settings.from_config(config, directory)
    dictionary = directory / settings.user_dictionary if settings.user_dictionary else None
    splitter = load_word_splitter(settings.word_splitter, settings.lower_case, dictionary)
    tokenizer = load_encoder_tokenizer(directory)
    try:
        model = ARCHITECTURES[architecture](
            ExtractorConfig.from_dict(config),
            encoder_config=load_config(directory / "encoder_config"),
            tokenizer=tokenizer,
            use_flashdeberta=use_flashdeberta,
        )
        state = load_file(weights)
        reconcile_encoder_embeddings(model, state)
        model.load_state_dict(state)
        if base:
            merge_adapter(model, directory)
    except Exception as error:  # safetensors, transformers and torch each raise their own on a damaged file
        raise LoadError(f"{directory}: the weights cannot be loaded: {first_line(error)}") from error
    model.processor = KoreanSchemaTransformer(
        tokenizer, splitter, model.config.token_pooling, settings.continuation_pieces, architecture
    )
    if word_splitter is not None:
        model.set_word_splitter(word_splitter)
    try:
        return apply_post_load_options(
            model.to(map_location or "cpu").eval(),
            quantize=quantize,
            compile_model=compile,
            attention_backend=backend,
            disentangled_flash_options=pop_disentangled_flash_options(attention),
        )
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:  # each backend raises its own
        raise LoadError(f"{name_or_path}: {first_line(error)}") from error


def load_and_compare(
    directory: str | Path, expected: list[list[float]] | None, map_location: str | torch.device | None = None
) -> tuple[KoreanExtractor, float]:
    """Load a saved model and compare its :meth:`~KoreanExtractor.reference_scores` with the expected ones.

    Returns:
        The model, and the greatest difference of two scores; infinite if the words or the gate differ.

    Raises:
        LoadError: It cannot be loaded.
    """
    model = load_extractor(directory, map_location=map_location)
    found = model.reference_scores()
    if expected is None or found is None or len(expected[0]) != len(found[0]):
        return model, 0.0 if expected is found is None else math.inf
    return model, (torch.tensor(expected) - torch.tensor(found)).abs().max().item()
