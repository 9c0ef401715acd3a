"""GLiNER2's boundary architecture (GLiNER2.5) as it is trained and scored here: with open gates and true losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from typing import Any

import torch
from datasets import Dataset
from gliner2.configuration import ExtractorConfig
from gliner2.inference.engine import BoundaryExtractor
from gliner2.models.base import QueryLayout
from gliner2.models.boundary.model import proposal_settings_from_head
from gliner2.models.outputs import ExtractorOutput
from gliner2.processor import PreprocessedBatch
from gliner2.training.trainer import GLiNER2Trainer, TrainingConfig
from gliner2.utils.device_errors import is_fatal_device_error

from glinerko.common import SwapError, TrainingError, first_line
from glinerko.corpus.processor import TrainingWindow, Window, words_before
from glinerko.corpus.rows import Offsets, Span
from glinerko.corpus.schema import CLASSIFICATIONS, RELATIONS, STRUCTURES, LabelSchema
from glinerko.corpus.windows import window_from_row
from glinerko.model.architecture import Architecture, Prompt, WindowAnswer

OPEN_GATE = 1.0
"""The ``abstention_threshold`` above which no label is kept back."""
CLASSIFICATION_WEIGHT = 8.0
"""The weight of the loss of classes; with gliner2's 1 none is learned in ten epochs: see docs/experiments.md."""


class BoundaryScorer(Architecture, BoundaryExtractor):
    """gliner2's extractor of the boundary architecture.

    It finds the likely starts and ends of mentions, pairs them to candidates, and scores those; there is no widest
    span. A head decides for each label of a window whether it has mentions at all: the abstention gate. After a swap it
    learns late and keeps mentions back that the scores give, so a swap opens it, in ``config.json``, for plain gliner2
    too.
    """

    plain = BoundaryExtractor
    gate = "abstention gate"
    depends_on_length = True
    loss_parts = (
        "start_loss", "end_loss", "pair_loss", "inside_loss", "abstention_loss", "classification_loss",
        "record_object_loss", "record_field_loss", "relation_loss",
    )  # fmt: skip
    adapted = ("encoder.", "boundary_head.", "classifier.")

    @classmethod
    def swapped_config(cls, base: ExtractorConfig, max_width: int | None) -> dict[str, Any]:
        """The gate is opened, no count lets spans below the threshold through, and classes weigh more."""
        if max_width is not None:
            raise SwapError("--max_width: a base of the boundary architecture has no widest span: leave it out")
        opened = {"abstention_threshold": OPEN_GATE, "adaptive_threshold": False}
        weight = {"classification_loss_weight": CLASSIFICATION_WEIGHT}
        return {"boundary_head": {**base.boundary_head, **opened, **weight}}

    @property
    def overlap_policy(self) -> str:
        """That of the config: ``flat``, ``nested`` or ``longest``."""
        return self.boundary_settings.overlap_policy

    def limits(self) -> dict[str, str]:
        """The candidates of a text, and when the gate shuts."""
        threshold, (_, candidates) = self.boundary_settings.abstention_threshold, self._capacity
        gate = f"above {threshold:g}" if threshold < OPEN_GATE else "open"
        return {"candidates": f"{candidates} of a {'text' if self._one_pool else 'label'}", self.gate: gate}

    def untrained(self, kinds: Set[str]) -> tuple[str, ...]:
        """The heads of other tasks, and of the way to candidates that the config does not choose."""
        heads = {
            CLASSIFICATIONS: ("classifier.",),
            RELATIONS: ("relation_scorer.",),
            STRUCTURES: ("record_decoder.", "boundary_head.candidate_encoder."),
        }
        other_tasks = (name for kind, names in heads.items() if kind not in kinds for name in names)
        others = "boundary_proposer.", "pair_scorer."
        unused = others if self._one_pool else ("shared_pool_builder.", "shared_pool_scorer.")
        return (*other_tasks, *(f"boundary_head.{name}" for name in unused))

    @property
    def _one_pool(self) -> bool:
        """Whether all labels of a text share their candidates."""
        return self.boundary_settings.candidate_pool == "shared"

    @property
    def _capacity(self) -> tuple[int, int]:
        """How many starts or ends, and how many candidates, are kept for those that share them."""
        settings = self.boundary_settings
        if self._one_pool:
            return settings.pool_boundary_top_k, settings.pool_size
        return min(settings.start_top_k, settings.end_top_k), settings.candidate_budget

    def fit_limits(self, windows: Dataset) -> None:
        """Twice as many starts, ends and candidates as any of these windows has, and no fewer than before."""
        demands = [self._demand(window_from_row(row)) for row in windows]
        boundaries, candidates = (max(each, default=0) for each in zip(*demands, strict=True)) if demands else (0, 0)
        self.set_limits(2 * boundaries, 2 * candidates)

    def beyond_limits(self, windows: Sequence[TrainingWindow]) -> int:
        """See :meth:`Architecture.beyond_limits`; at least so many."""
        demands = (zip(self._demand(window), self._capacity, strict=True) for window in windows)
        return sum(max(0, *(needed - limit for needed, limit in demand)) for demand in demands)

    def _demand(self, window: TrainingWindow) -> tuple[int, int]:
        """The different starts or ends of the targets that share candidates, and the number of these targets."""
        groups: dict[Any, set[Offsets]] = {}
        spans = [((start, end), label) for start, end, label in (span.key for span in window.targets)]
        for record in window.records:
            spans += [(place, (record.task, name)) for name, places in record.values for place in places]
        for place, query in spans:
            groups.setdefault("" if self._one_pool else query, set()).add(place)
        boundaries = (len(set(side)) for spans in groups.values() for side in zip(*spans, strict=True))
        return max(boundaries, default=0), max(map(len, groups.values()), default=0)

    def set_limits(self, boundaries: int, candidates: int) -> None:
        """Keep at least so many starts and ends of a window, and so many candidates; saved with the model."""
        head, settings = self.boundary_head, self.boundary_settings
        if self._one_pool:
            wanted = {"pool_boundary_top_k": boundaries, "pool_size": candidates}
        else:
            wanted = dict.fromkeys(("start_top_k", "end_top_k", "boundary_top_k_max"), boundaries)
            wanted |= dict.fromkeys(("candidate_budget", "training_candidate_budget"), candidates)
        settings = replace(settings, **{name: max(getattr(settings, name), value) for name, value in wanted.items()})
        self.boundary_settings = head.settings = settings
        head.boundary_proposer.settings = proposal_settings_from_head(settings)
        head.shared_pool_builder.pool_boundary_top_k = settings.pool_boundary_top_k
        head.shared_pool_builder.pool_size = settings.pool_size
        self.config.boundary_head = asdict(settings)

    def anneal(self, step: int, steps: int) -> None:
        """The share of gold put among the candidates, and the weights of two losses, as gliner2's trainer sets them."""
        head, settings, limits = self.boundary_head, self.boundary_settings, TrainingConfig
        injected = (limits.gold_injection_start, limits.gold_injection_end, limits.gold_injection_hold_frac)
        head.set_gold_injection_prob(GLiNER2Trainer._gold_injection_probability(step / max(steps, 1), *injected))
        warmup = settings.consistency_warmup_steps
        head.set_consistency_scale(1.0 if warmup <= 0 else min(step / warmup, 1.0))
        head.set_soft_iou_scale(GLiNER2Trainer._soft_iou_anneal_scale(step, settings.soft_iou_anneal_steps))

    def summed_losses(self, outputs: Mapping[str, Any], windows: int) -> list[torch.Tensor]:
        """gliner2's losses, which are means unless the config says otherwise, times the number of windows."""
        times = 1 if self.boundary_settings.loss_reduction == "sum" else windows
        parts = [outputs["total_loss"], *(outputs.losses.get(name) for name in self.loss_parts)]
        nothing = torch.zeros((), device=self.device)
        return [nothing if part is None else part.float() * times for part in parts]

    @torch.no_grad()
    def find_faults(self, outputs: Mapping[str, Any], batch: PreprocessedBatch) -> dict[int, str]:
        """A score of a window is not finite: gliner2 would count its loss as 0."""
        logits = {name: getattr(outputs, f"{name}_logits") for name in ("start", "end", "inside", "null")}
        logits |= {"pair": outputs.candidates and outputs.candidates.pair_logits, "count": outputs.count_log_rates}
        finite = {name: each.flatten(1).isfinite().all(1) for name, each in logits.items() if each is not None}
        if torch.stack([*finite.values(), outputs["total_loss"].isfinite().expand(len(batch))]).all():
            return {}
        faults = {}
        for index in range(len(batch)):
            wrong = [name for name, each in finite.items() if not each[index]]
            if wrong:
                faults[index] = f"{', '.join(wrong)} scores not finite"
        return faults or dict.fromkeys(range(len(batch)), "loss not finite")

    def _record_loss(self, *arguments):
        return _whole("records", super()._record_loss, *arguments)

    def _relation_loss(self, *arguments, **options):
        return _whole("relations", super()._relation_loss, *arguments, **options)

    def _head_touch(self, device: torch.device) -> torch.Tensor:
        """gliner2's method gives unused heads a gradient of 0, and weight decay shrinks them; here they get none."""
        return torch.zeros((), device=device)

    @torch.no_grad()
    def best_starts(self, batch: PreprocessedBatch) -> list[torch.Tensor | None]:
        """See :meth:`Architecture.best_starts`; 0 where no candidate starts."""
        found = self.score_candidates(batch.to(self.device))
        if found is None:  # only classes are asked
            return [None] * len(batch)
        scores = torch.sigmoid(found.pair_logits.float() / self.boundary_settings.pair_temperature)
        scores = scores.masked_fill(~found.valid_mask, 0.0)
        words = max(batch.text_word_counts)
        best = scores.new_zeros(*scores.shape[:2], words).scatter_reduce(2, found.indices[..., 0], scores, "amax")
        sizes = zip(batch.query_layouts, words_before(batch), batch.text_word_counts, strict=True)
        return [
            best[index, list(_entities(layout)), first:count].cpu()
            for index, (layout, first, count) in enumerate(sizes)
        ]

    @torch.no_grad()
    def find_missing(self, windows: Sequence[TrainingWindow], schema: LabelSchema) -> list[list[Span]]:
        """See :meth:`Architecture.find_missing`: no candidate has their start and end."""
        batch = self.processor.collate(windows, schema).to(self.device)
        self.eval()
        found, targets = self(batch, gold_injection_prob=0.0).candidates, batch.targets
        same = (found.indices[:, :, None] == targets.mention_pairs[:, :, :, None]).all(-1)
        lost = targets.mention_mask & ~(same & found.valid_mask[:, :, None]).any(-1)
        missing, before = [[] for _ in windows], words_before(batch)
        for index, query, place in lost.nonzero().tolist():
            label = _entities(batch.query_layouts[index]).get(query)
            if label is not None:
                first, last = (at - before[index] for at in targets.mention_pairs[index, query, place].tolist())
                words = windows[index].words
                missing[index].append(Span(words[first][0], words[last - 1][1], label))
        return missing

    @torch.no_grad()
    def extract_from_windows(self, windows: Sequence[Window], prompts: Sequence[Prompt]) -> list[WindowAnswer]:
        """See :meth:`Architecture.extract_from_windows`; each label of a window has a gate."""
        batch = self.processor.collate_schemas(windows, [prompt.schema for prompt in prompts]).to(self.device)
        self._shut = [0] * len(windows)
        counts, stops = batch.text_word_counts, [getattr(text, "full_stop", False) for text in batch.original_texts]
        last = torch.tensor([count if stop else -1 for count, stop in zip(counts, stops, strict=True)])
        first = torch.tensor(words_before(batch))
        queries = max(len(layout.queries) for layout in batch.query_layouts)
        chosen = torch.zeros(len(windows), queries, dtype=torch.bool)
        for index, (layout, prompt) in enumerate(zip(batch.query_layouts, prompts, strict=True)):
            fields = prompt.metadata["field_metadata"]
            for query in layout.queries:
                of_field = fields.get(f"{query.task_name}.{query.role_name}", {})
                chosen[index, query.query_id] = query.task_type == "json_structures" and bool(of_field.get("choices"))

        def keep_to_text(module, arguments, outputs) -> ExtractorOutput:
            """No candidate reaches the full stop that is added to a text, or the choices before it but as a choice."""
            starts, ends = outputs.candidates.indices.unbind(-1)
            begin, stop = (each.to(self.device)[:, None, None] for each in (first, last))
            inside = (starts >= begin) | (chosen.to(self.device)[:, :, None] & (ends <= begin))
            valid = outputs.candidates.valid_mask & (ends != stop) & inside
            return replace(outputs, candidates=replace(outputs.candidates, valid_mask=valid))

        hook = self.boundary_head.register_forward_hook(keep_to_text)
        try:
            metadata = [prompt.metadata for prompt in prompts]
            results = self._extract_from_batch(batch, min(prompt.floor for prompt in prompts), metadata, True, True)
        finally:
            hook.remove()
        gates = [len(each["entity_order"]) for each in metadata]
        return [WindowAnswer(*each) for each in zip(results, gates, self._shut, strict=True)]

    @staticmethod
    def _deduplicate_relation_edges(edges):
        """gliner2's method; relations that repeat others are left out when a document is complete."""
        return edges

    @staticmethod
    def resolve_relations(relations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """By gliner2's rule: the widest ends, and of equal strings those that stand nearest to each other."""
        parts, ends = ("text", "start", "end", "confidence"), ("head", "tail")
        edges = [
            {"score": each["confidence"], **{end: tuple(each[end][part] for part in parts) for end in ends}}
            for each in relations
        ]
        return [
            {**{end: dict(zip(parts, edge[end], strict=True)) for end in ends}, "confidence": edge["score"]}
            for edge in BoundaryExtractor._deduplicate_relation_edges(edges)
        ]

    def _decode_entities(self, index, core, specs, candidates, metadata, null_probabilities, policy, *rest):
        """gliner2's method; overlaps, and the one mention to choose, are left for when a document is complete."""
        labels = {label: {**options, "dtype": "list"} for label, options in metadata["entity_metadata"].items()}
        if null_probabilities is not None:
            shut = null_probabilities > self.boundary_settings.abstention_threshold
            entities = (query for query, spec in enumerate(specs) if spec["task_type"] == "entities")
            self._shut[index] = sum(bool(shut[query]) and bool(candidates[query]) for query in entities)
        metadata = {**metadata, "entity_metadata": labels}
        return super()._decode_entities(index, core, specs, candidates, metadata, null_probabilities, "allow", *rest)


def _entities(layout: QueryLayout) -> dict[int, str]:
    """The label of each query of a prompt that asks for entities."""
    return {query.query_id: query.role_name for query in layout.queries if query.task_type == "entities"}


def _whole(task: str, loss, *arguments, **options):
    """The loss of a task; what makes gliner2 leave it out with a warning stops the training here.

    Raises:
        TrainingError: With gliner2's reason.
    """
    try:
        return loss(*arguments, **options)
    except (IndexError, RuntimeError, ValueError) as error:
        if is_fatal_device_error(error):
            raise
        raise TrainingError(f"the loss of the {task} cannot be computed: {first_line(error)}") from error
