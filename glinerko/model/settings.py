"""What this project keeps in the ``config.json`` of a model: one reader, one writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from glinerko.common import LoadError
from glinerko.corpus.schema import Task

FORMAT = 1
"""The format of :class:`Settings`; a model saved in another one is refused."""
_CONFIG_KEY = "glinerko"
"""The key of :class:`Settings` in config.json."""


@dataclass(frozen=True)
class Validation:
    """What a model scored on its validation documents when it was saved."""

    epoch: int
    metric: str
    f1: float
    precision: str
    """The precision of the run: ``no``, ``bf16`` or ``fp16``."""
    reference_scores: list[list[float]] | None = None
    """See :meth:`glinerko.model.extractor.KoreanExtractor.reference_scores`."""


@dataclass(frozen=True)
class Settings:
    """What this project keeps in ``config.json``, under the key ``glinerko``. Only this class reads and writes it."""

    format: int = FORMAT
    saved_by: str | None = None
    """The version of glinerko that saved the model."""
    word_splitter: str = "whitespace"
    lower_case: bool = False
    continuation_pieces: bool = False
    user_dictionary: str | None = None
    """The name of the file beside ``config.json``, if there is one."""
    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    """The threshold for entities, chosen on validation documents."""
    tasks: tuple[Task, ...] = ()
    """The tasks beside entities that the model was trained for."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The threshold of each of these tasks."""
    window: Mapping[str, int] = field(default_factory=dict)
    """The limits of the windows of training, in pieces: see :func:`glinerko.corpus.windows.split_into_windows`."""
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
        known["tasks"] = tuple(map(Task.from_dict, known.get("tasks", ())))
        claim = known.get("validation")
        return cls(**{**known, "validation": Validation(**claim) if claim else None})

    def to_config(self) -> dict[str, Any]:
        """The entry for ``config.json``, without what is not set."""
        values = {**asdict(self), "labels": list(self.labels)}
        return {_CONFIG_KEY: {name: value for name, value in values.items() if value not in (None, [], {}, ())}}
