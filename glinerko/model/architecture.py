"""What gliner2's two architectures answer differently. Everything else asks a model here, and never which one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from datasets import Dataset
from gliner2.configuration import ExtractorConfig
from gliner2.models.base import BaseExtractorModel
from gliner2.processor import PreprocessedBatch

from glinerko.corpus.processor import TrainingWindow, Window
from glinerko.corpus.rows import Span
from glinerko.corpus.schema import LabelSchema


@dataclass(frozen=True)
class Prompt:
    """What a text is asked."""

    schema: Mapping[str, Any]
    """The tasks in gliner2's own form."""
    metadata: Mapping[str, Any]
    """What gliner2 keeps to decode the answers: order, types, thresholds and validators of labels and fields."""
    threshold: float
    """The lowest score of what has no threshold of its own."""
    resolve_relations: Callable[[list[dict]], list[dict]] = list
    """See :meth:`Architecture.resolve_relations`."""

    @property
    def classifications(self) -> dict[str, Mapping[str, Any]]:
        """The options of each classification."""
        return {task["task"]: task for task in self.schema.get("classifications") or ()}

    @property
    def relations(self) -> list[str]:
        """The types of relations, in the order of the prompt."""
        return list(dict.fromkeys(chain.from_iterable(self.schema.get("relations") or ())))

    @property
    def structures(self) -> list[str]:
        """The names of structures, in the order of the prompt."""
        return list(dict.fromkeys(chain.from_iterable(self.schema.get("json_structures") or ())))

    @property
    def floor(self) -> float:
        """The lowest score that can be part of an answer to any task but entities."""
        fields, types = self.metadata["field_metadata"].values(), self.metadata["relation_metadata"].values()
        own = (options.get("threshold") for options in (*fields, *types))
        return min((self.threshold, *(value for value in own if value is not None)))

    def threshold_of(self, task: str, thresholds: Mapping[str, float] | None = None, field: str | None = None) -> float:
        """The lowest score of an answer to a task.

        Args:
            thresholds: Other thresholds, by task; a task that is not in it keeps its own.
            field: One of a structure's, which may have a threshold of its own.
        """
        if thresholds is not None and task in thresholds:
            return thresholds[task]
        if task in self.classifications:
            return self.classifications[task].get("cls_threshold", 0.5)
        of_fields = self.metadata["field_metadata"]
        fields = (
            [field] if field else [name.partition(f"{task}.")[2] for name in of_fields if name.startswith(f"{task}.")]
        )
        own = [self.metadata["relation_metadata"].get(task, {}).get("threshold")]
        own += [of_fields.get(f"{task}.{name}", {}).get("threshold") for name in fields]
        return min((value for value in own if value is not None), default=self.threshold)


@dataclass(frozen=True)
class WindowAnswer:
    """What a model finds in a window."""

    tasks: dict[str, Any]
    """The answer to each task in gliner2's unformatted form, with scores and with offsets into the window. Entities may
    overlap, and are an empty list if nothing was asked or the gate of the window is shut. A classification is the
    probability of each class."""
    gates: int = 0
    """How many gates decided whether entities are returned at all."""
    shut: int = 0
    """How many of them kept back what scores would have given."""


class Architecture(BaseExtractorModel):
    """The questions. A subclass is mixed with gliner2's extractor of its architecture, and answers them."""

    plain: ClassVar[type[BaseExtractorModel]]
    """gliner2's own class, with which plain gliner2 loads the saved files."""
    overlap_policy: str
    """How overlapping entities of a label are resolved by default, as in plain gliner2."""
    gate: ClassVar[str]
    """The name of what can keep all entities back, whatever their scores are."""
    loss_parts: ClassVar[tuple[str, ...]]
    """The parts of the loss that are logged."""
    adapted: ClassVar[tuple[str, ...]]
    """The modules whose linear layers get LoRA adapters."""
    depends_on_length: ClassVar[bool]
    """Whether scores change with the length of a text, so that windows to read must be like those of training."""
    max_width: int | None = None
    """The widest span that can be found, in words; ``None`` if there is none."""
    max_records: ClassVar[int | None] = None
    """How many relations of a type, or instances of a structure, can be found in a window; ``None`` for any number."""
    flattened: Set[str] = frozenset()
    """The names of parameters that have a dimension only here; see :meth:`flatten_scalars`."""

    @classmethod
    def swapped_config(cls, base: ExtractorConfig, max_width: int | None) -> dict[str, Any]:
        """The entries of a config that a swap changes.

        Args:
            max_width: As the user asks for it; ``None`` for the default.

        Raises:
            SwapError: The architecture has no widest span.
        """
        raise NotImplementedError

    def limits(self) -> dict[str, str]:
        """What limits the entities that can be found, by name, for tables."""
        raise NotImplementedError

    def untrained(self, kinds: Set[str]) -> tuple[str, ...]:
        """The beginnings of the names of parameters that neither entities nor these kinds of tasks train."""
        raise NotImplementedError

    def touch_heads(self) -> torch.Tensor:
        """0, with a gradient of 0 for every trained head.

        A batch may lack a task, and DistributedDataParallel waits for the gradient of every parameter.
        """
        heads = (p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("encoder."))
        return sum((parameter.sum() for parameter in heads), start=torch.zeros((), device=self.device)) * 0.0

    def fit_limits(self, windows: Dataset) -> None:
        """Raise the limits of the model, if it has some, so that all targets of these training windows fit."""

    def beyond_limits(self, windows: Sequence[TrainingWindow]) -> int:
        """How many targets of these windows the limits keep from being found."""
        return 0

    def anneal(self, step: int, steps: int) -> None:
        """Set what changes while a model is trained, before step ``step`` (from 0) of ``steps``."""

    def flatten_scalars(self) -> None:
        """Give parameters without a dimension one, since FSDP shards no others. They are saved without it."""
        self.flattened = {name for name, parameter in self.named_parameters() if parameter.ndim == 0}
        for name in self.flattened:
            parameter, (module, _, own) = self.get_parameter(name), name.rpartition(".")
            one = torch.nn.Parameter(parameter.detach()[None], requires_grad=parameter.requires_grad)
            setattr(self.get_submodule(module), own, one)

    def summed_losses(self, outputs: Mapping[str, Any], windows: int) -> list[torch.Tensor]:
        """The total loss of a batch and its :attr:`loss_parts`, each as a sum over its windows."""
        raise NotImplementedError

    def find_faults(self, outputs: Mapping[str, Any], batch: PreprocessedBatch) -> dict[int, str]:
        """What is wrong with the losses of a batch: the fault by window. Nothing is if it is empty."""
        raise NotImplementedError

    def best_starts(self, batch: PreprocessedBatch) -> list[torch.Tensor | None]:
        """For each window the best score of the spans that start at each word, ``[labels, words]`` on the CPU.

        ``None`` if a gate that is for the whole window is shut.
        """
        raise NotImplementedError

    def find_missing(self, windows: Sequence[TrainingWindow], schema: LabelSchema) -> list[list[Span]]:
        """The targets of each window that are not even scored."""
        return [[] for _ in windows]

    @staticmethod
    def resolve_relations(relations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Relations of one type in a document without those that only repeat others."""
        return relations

    @staticmethod
    def _decode_classification_probabilities(results, schema_name, cls_config, probs) -> None:
        """gliner2's method; the choice is left for when a document is complete."""
        results[schema_name] = dict(zip(cls_config["labels"], probs.tolist(), strict=True))

    def extract_from_windows(self, windows: Sequence[Window], prompts: Sequence[Prompt]) -> list[WindowAnswer]:
        """What gliner2 decodes for each window of a batch, before overlaps of entities are resolved."""
        raise NotImplementedError
