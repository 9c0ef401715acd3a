"""The model that users load and call: its settings, saving, loading, and extraction with its own labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from gliner2.configuration import ExtractorConfig
from gliner2.inference.engine import SpanExtractor
from gliner2.models.loading import reconcile_encoder_embeddings
from safetensors.torch import load_file

from glinerko.common import DataError, LoadError, first_line, write_json
from glinerko.corpus.processor import KoreanSchemaTransformer, Window
from glinerko.corpus.rows import LabelSchema, check_labels
from glinerko.corpus.tokens import load_encoder_tokenizer, restore_tokenizer_class
from glinerko.corpus.windows import align_gold, split_into_windows
from glinerko.corpus.words import load_word_splitter, write_user_dictionary
from glinerko.hub import fetch, load_config, require_gliner2
from glinerko.model.lora import adapter_base, has_lora, merge_adapter, save_adapter
from glinerko.model.spans import SpanScorer

FORMAT = 1
"""The format of :class:`Settings`; a model saved in another one is refused."""
SCORE_TOLERANCE = 2e-3
"""How much the scores of one model may differ between two machines."""

_CONFIG_KEY = "glinerko"
"""The key of :class:`Settings` in config.json."""
EntityTypes = str | Sequence[str] | Mapping[str, str | Mapping[str, Any] | None]
"""Labels, or a description or gliner2's options for each label."""
_REFERENCE_TEXT = "환자는 제2형 당뇨병으로 인슐린을 투여받았고, 혈액 검사에서 HbA1c가 8.2%였다."


@dataclass(frozen=True)
class Validation:
    """What a model scored on its validation documents when it was saved."""

    epoch: int
    metric: str
    f1: float
    precision: str
    """The precision of the run: ``no``, ``bf16`` or ``fp16``."""
    reference_scores: list[list[float]] | None = None
    """See :meth:`KoreanSpanExtractor.reference_scores`."""


@dataclass(frozen=True)
class Settings:
    """What this project keeps in ``config.json``, under the key ``glinerko``. Only this class reads and writes it."""

    format: int = FORMAT
    word_splitter: str = "whitespace"
    lower_case: bool = False
    continuation_pieces: bool = False
    user_dictionary: str | None = None
    """The name of the file beside ``config.json``, if there is one."""
    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    """The threshold chosen on validation documents."""
    window: Mapping[str, int] = field(default_factory=dict)
    """``max_length`` and ``window_overlap`` of training, in pieces."""
    validation: Validation | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str | Path = "config.json") -> Settings:
        """The settings in the content of a ``config.json``; defaults for a model that was not made here.

        Raises:
            LoadError: They are of another format.
        """
        saved = {"format": FORMAT, **config.get(_CONFIG_KEY, {})}
        if saved["format"] != FORMAT:
            advice = "upgrade glinerko" if saved["format"] > FORMAT else "load it with the glinerko that saved it"
            raise LoadError(
                f"{source}: saved in format {saved['format']} of glinerko, and this is format {FORMAT}: {advice}"
            )
        known = {name: value for name, value in saved.items() if name in {each.name for each in fields(cls)}}
        labels, described = tuple(known.get("labels", ())), known.get("descriptions", {})
        # config.json is written with its keys sorted; a prompt keeps the order of training.
        known |= {"labels": labels, "descriptions": {name: described[name] for name in labels if name in described}}
        claim = known.get("validation")
        return cls(**{**known, "validation": Validation(**claim) if claim else None})

    def to_config(self) -> dict[str, Any]:
        """The entry for ``config.json``, without what is not set."""
        values = {**asdict(self), "labels": list(self.labels)}
        return {_CONFIG_KEY: {name: value for name, value in values.items() if value not in (None, [], {})}}


class KoreanSpanExtractor(SpanScorer):
    """A GLiNER2 that keeps its word splitter, labels, descriptions and threshold, and uses them by default."""

    @property
    def settings(self) -> Settings:
        """See :class:`Settings`; :meth:`configure` changes them."""
        return Settings.from_config(vars(self.config))

    def configure(self, **changes: Any) -> None:
        """Change fields of :class:`Settings`. They are saved with the model, by gliner2 as well."""
        for name, value in replace(self.settings, **changes).to_config().items():
            setattr(self.config, name, value)

    @property
    def label_schema(self) -> LabelSchema | None:
        """The labels and descriptions that this model was trained for, if it names them.

        The descriptions can be passed as ``entity_types``: they contain every label if at least one has a description;
        the others get an empty one.
        """
        labels, descriptions = self.settings.labels, self.settings.descriptions
        named = {label: descriptions.get(label, "") for label in labels} if descriptions else {}
        return LabelSchema(labels, named) if labels else None

    @property
    def threshold(self) -> float | None:
        """The threshold chosen on validation documents, if one was."""
        return self.settings.threshold

    @property
    def window_limits(self) -> dict[str, int]:
        """``max_length`` and ``window_overlap`` of training, in pieces."""
        return dict(self.settings.window)

    def split(self, rows: Dataset, schema: LabelSchema | None = None) -> Dataset:
        """The rows with this model's words and windows: see :func:`glinerko.corpus.windows.split_into_windows`."""
        return split_into_windows(rows, self.processor, schema or self.label_schema, **self.window_limits)

    def align(self, rows: Dataset, schema: LabelSchema | None = None) -> Dataset:
        """The same with the outcome of each gold span: see :func:`glinerko.corpus.windows.align_gold`."""
        return align_gold(self.split(rows, schema), self.max_width)

    def extract_entities(
        self, text: str, entity_types: EntityTypes | None = None, threshold: float | None = None, **options: Any
    ) -> dict:
        """As in gliner2, by default with the labels, descriptions and threshold that this model was trained with.

        Args:
            entity_types: Labels, with or without descriptions. A label that has none gets the one it was trained with.

        Raises:
            DataError: A label is given twice or is empty, or a threshold does not lie between 0 and 1.
            LoadError: No labels are given, and the model names none.
        """
        types = self._entity_types(entity_types)
        return super().extract_entities(text, types, self.choose_threshold(threshold), **options)

    def batch_extract_entities(
        self,
        texts: list[str],
        entity_types: EntityTypes | None = None,
        batch_size: int = 8,
        threshold: float | None = None,
        **options: Any,
    ) -> list[dict]:
        """See :meth:`extract_entities`."""
        types = self._entity_types(entity_types)
        return super().batch_extract_entities(texts, types, batch_size, self.choose_threshold(threshold), **options)

    def extract_entities_long(
        self, text: str, entity_types: EntityTypes | None = None, threshold: float | None = None, **options: Any
    ) -> dict:
        """See :meth:`extract_entities`."""
        types = self._entity_types(entity_types)
        return super().extract_entities_long(text, types, self.choose_threshold(threshold), **options)

    def batch_extract_entities_long(
        self,
        texts: list[str],
        entity_types: EntityTypes | None = None,
        batch_size: int = 8,
        threshold: float | None = None,
        **options: Any,
    ) -> list[dict]:
        """See :meth:`extract_entities`."""
        types = self._entity_types(entity_types)
        return super().batch_extract_entities_long(
            texts, types, batch_size, self.choose_threshold(threshold), **options
        )

    def _entity_types(self, requested: EntityTypes | None) -> dict[str, dict[str, Any]]:
        """``{label: config}`` for gliner2, with a description wherever there is one."""
        labels, own = self.settings.labels, self.settings.descriptions
        requested = [requested] if isinstance(requested, str) else requested or labels
        if not requested:
            raise LoadError("the model names no labels of its own: pass entity_types")
        names = check_labels(requested)
        configs = requested.values() if isinstance(requested, Mapping) else [None] * len(names)
        types = {}
        for label, config in zip(names, configs, strict=True):
            config = {"description": config} if isinstance(config, str) else config or {}
            if not isinstance(config, Mapping):
                raise DataError(f"the description of {label!r} must be a string, found {config!r}")
            types[label] = {**config, "description": config.get("description") or own.get(label)}
        return types

    def choose_threshold(self, requested: float | None = None) -> float:
        """The requested threshold, or otherwise this model's own, or otherwise gliner2's default.

        Raises:
            DataError: The requested one does not lie between 0 and 1.
        """
        threshold = next(value for value in (requested, self.threshold, 0.5) if value is not None)
        if not 0 <= threshold <= 1:
            raise DataError(f"threshold {threshold}: it must lie between 0 and 1")
        return threshold

    def reference_scores(self) -> list[list[float]] | None:
        """The best score of the spans that start at each word of a fixed sentence: ``[labels, words]``.

        Saved with a model, they tell whether it still gives the same scores. ``None`` if the count gate is shut.
        """
        (words,) = self.processor.split([_REFERENCE_TEXT])
        window = Window(_REFERENCE_TEXT, words, self.label_schema.labels)
        training = self.training
        self.eval()
        (scores,) = self.span_probabilities(self.processor.collate([window], self.label_schema))
        self.train(training)
        return None if scores is None else [[round(score, 5) for score in row] for row in scores.amax(-1).tolist()]

    def get_input_embeddings(self) -> torch.nn.Module:
        """Those of the encoder; Accelerate asks for them under FSDP."""
        return self.encoder.get_input_embeddings()

    def save_pretrained(
        self, save_directory: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None, **kwargs
    ) -> None:
        """Save as gliner2 does, with settings, user dictionary, and a tokenizer for transformers 4 and 5.

        Args:
            state_dict: The weights, if this process holds only a part of them; gliner2 ignores the argument.
        """
        directory = Path(save_directory)
        if state_dict is not None:
            self.state_dict = lambda *_, **__: state_dict
        try:
            super().save_pretrained(str(directory), **kwargs)
        finally:
            self.__dict__.pop("state_dict", None)
        restore_tokenizer_class(directory)
        if has_lora(self):  # only the adapter; the frozen weights are those of the base model
            (directory / "model.safetensors").unlink()
            save_adapter(self, directory)
        if self.settings.user_dictionary:
            entries = self.processor.word_splitter.splitter.user_dictionary
            write_user_dictionary(directory / self.settings.user_dictionary, entries)
        # The class with which plain gliner2 loads these files.
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        write_json(directory / "config.json", {**config, "architectures": [SpanExtractor.__name__]})


def load_extractor(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    map_location: str | torch.device | None = None,
) -> KoreanSpanExtractor:
    """Load a model with its word splitter, width, labels, descriptions and threshold, from its files only.

    A plain GLiNER2 of the span architecture loads too, with the white-space splitter it was trained with.

    Args:
        name_or_path: A directory, or the id of a repository of the Hub.
        map_location: The device of the model; the CPU by default.

    Raises:
        LoadError: What is missing or wrong, and what to do.
    """
    options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    directory = fetch(name_or_path, revision=revision, **options)
    config = require_gliner2(directory, directory)
    if config.get("architecture") not in (None, "span"):
        raise LoadError(
            f"{directory}: a GLiNER2 of the {config['architecture']!r} architecture; only 'span' is supported, "
            "for example fastino/gliner2-base-v1"
        )
    base = adapter_base(directory)
    weights = (fetch(base, **options) if base else directory) / "model.safetensors"
    if not weights.is_file():
        raise LoadError(f"{directory}: no model.safetensors (weights in another format are not read)")
    settings = Settings.from_config(config, directory)
    dictionary = directory / settings.user_dictionary if settings.user_dictionary else None
    splitter = load_word_splitter(settings.word_splitter, settings.lower_case, dictionary)
    tokenizer = load_encoder_tokenizer(directory)
    try:
        model = KoreanSpanExtractor(
            ExtractorConfig.from_dict(config),
            encoder_config=load_config(directory / "encoder_config"),
            tokenizer=tokenizer,
        )
        state = load_file(weights)
        reconcile_encoder_embeddings(model, state)
        model.load_state_dict(state)
        if base:
            merge_adapter(model, directory)
    except Exception as error:  # safetensors, transformers and torch each raise their own on a damaged file
        raise LoadError(f"{directory}: the weights cannot be loaded: {first_line(error)}") from error
    model.processor = KoreanSchemaTransformer(
        tokenizer, splitter, model.config.token_pooling, settings.continuation_pieces
    )
    return model.to(map_location or "cpu").eval()


def load_and_compare(
    directory: str | Path, expected: list[list[float]] | None, map_location: str | torch.device | None = None
) -> tuple[KoreanSpanExtractor, float]:
    """Load a saved model and compare its :meth:`~KoreanSpanExtractor.reference_scores` with the expected ones.

    Returns:
        The model, and the greatest difference of two scores; infinite if the words or the count gate differ.

    Raises:
        LoadError: It cannot be loaded.
    """
    model = load_extractor(directory, map_location=map_location)
    found = model.reference_scores()
    if expected is None or found is None or len(expected[0]) != len(found[0]):
        return model, 0.0 if expected is found is None else math.inf
    return model, (torch.tensor(expected) - torch.tensor(found)).abs().max().item()
