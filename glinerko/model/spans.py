"""GLiNER2's span architecture as it is trained and scored here: with a trained count head, spans by width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from gliner2.configuration import ExtractorConfig
from gliner2.inference.engine import SpanExtractor
from gliner2.processor import PreprocessedBatch

from glinerko.corpus.processor import Window, words_before
from glinerko.corpus.schema import CLASSIFICATIONS
from glinerko.model.architecture import Architecture, Prompt, WindowAnswer

CLASSIFICATION_WEIGHT, COUNT_WEIGHT = 8.0, 4.0
"""The weights of the losses of classes, and of the numbers of relations and instances, beside that of spans.

A document has a handful of the former and hundreds of the latter; with weight 1 they are hardly learned: see
docs/experiments.md.
"""
MAX_WIDTH = 12
"""The widest span that is scored after a swap, in words."""


class SpanScorer(Architecture, SpanExtractor):
    """gliner2's extractor of the span architecture, with the count head supervised on entity schemas.

    At inference a predicted count of 0 returns no entities, whatever the span scores are, and gliner2's training loss
    skips the count for entity schemas. Entity scores use instance 0 and are the same for any count of at least 1, so
    the target here is always 1, with or without entities in the text.
    """

    plain = SpanExtractor
    overlap_policy = "greedy"
    gate = "count gate"
    max_records = 19
    depends_on_length = False
    loss_parts = ("structure_loss", "count_loss", "classification_loss")
    adapted = ("encoder.", "span_rep.", "classifier.")

    @classmethod
    def swapped_config(cls, base: ExtractorConfig, max_width: int | None) -> dict[str, Any]:
        """The widest span, which stands in a config twice."""
        width = MAX_WIDTH if max_width is None else max_width
        return {"span_head": {**base.span_head, "max_width": width}, "max_width": width}

    def limits(self) -> dict[str, str]:
        """The widest span."""
        return {"max_width": str(self.max_width)}

    def untrained(self, kinds: Set[str]) -> tuple[str, ...]:
        """All but classifications train the same heads."""
        return () if CLASSIFICATIONS in kinds else ("classifier.",)

    def summed_losses(self, outputs: Mapping[str, Any], windows: int) -> list[torch.Tensor]:
        """gliner2's losses, which are sums already."""
        return [outputs[name] for name in ("total_loss", *self.loss_parts)]

    @torch.no_grad()
    def find_faults(self, outputs: Mapping[str, Any], batch: PreprocessedBatch) -> dict[int, str]:
        """A window gave no loss, because gliner2 caught an exception, or its loss is not finite."""
        complete = outputs["batch_size"] == len(batch)
        if complete and torch.isfinite(outputs["total_loss"]):
            return {}
        samples = self(batch, return_individual_losses=True).get("individual_losses", [])
        faults = {}
        for index, sample in enumerate(samples):
            if "error" in sample:
                faults[index] = f"no loss ({sample['error']})"
            elif not torch.isfinite(torch.tensor(sample["total_loss"])):
                faults[index] = f"loss {sample['total_loss']}"
        return faults or dict.fromkeys(range(len(batch)), "loss not finite" if complete else "perhaps no loss")

    def _compute_sample_loss(self, token_embeddings, embs_per_schema, task_types, structure_labels, *args, **kwargs):
        """gliner2's method; the count head learns how many instances there really are, none included."""
        structure_labels = list(map(_with_negatives, embs_per_schema, task_types, structure_labels))
        losses = super()._compute_sample_loss(
            token_embeddings, embs_per_schema, task_types, structure_labels, *args, **kwargs
        )
        losses["classification"] = CLASSIFICATION_WEIGHT * losses["classification"]
        asked = [
            (states[0], 1, 1.0) if kind == "entities" else (states[0], _count(labels), COUNT_WEIGHT)
            for states, kind, labels in zip(embs_per_schema, task_types, structure_labels, strict=True)
            if kind != "classifications" and states
        ]
        if asked:
            states, counts, weights = zip(*asked, strict=True)
            logits = self.count_pred(torch.stack(states)).float()
            each = F.cross_entropy(logits, torch.tensor(counts, device=logits.device), reduction="none")
            losses["count"] = each @ torch.tensor(weights, device=logits.device)
        return losses

    def _compute_training_span_scores_batched(self, token_embs_list, all_schema_embs, all_task_types, all_labels):
        """gliner2's method; where there is no instance, the spans of the first one are scored, as negatives."""
        labels = [
            list(map(_with_negatives, *sample))
            for sample in zip(all_schema_embs, all_task_types, all_labels, strict=True)
        ]
        return super()._compute_training_span_scores_batched(token_embs_list, all_schema_embs, all_task_types, labels)

    def compute_span_scores_batched(self, token_embs_list, query_embs_list, *, mask_invalid=True):
        """gliner2's method; on a CPU text by text, without padding, which costs time there and none on a GPU."""
        if self.device.type != "cpu":
            return super().compute_span_scores_batched(token_embs_list, query_embs_list, mask_invalid=mask_invalid)
        pairs = zip(token_embs_list, query_embs_list, strict=True)
        return [
            super(SpanScorer, self).compute_span_scores_batched([t], [q], mask_invalid=mask_invalid)[0]
            for t, q in pairs
        ]

    def _compute_span_scores_core(self, padded, queries, text_len_t, mask_invalid=True):
        """gliner2's ``SpanMarkerV0.score_queries``, computed for one span width after the other.

        Only spans that lie in the longest text are scored, and nothing is gathered. Under autocast nothing of the size
        of all spans becomes float32; in gliner2 the bias of the first layer causes that.

        Args:
            padded: States of the words, ``[texts, words, hidden]``.
            queries: ``[texts, labels, hidden]``.
            text_len_t: Number of words of each text, ``[texts]``.
            mask_invalid: Whether spans that reach past the end of their text get a score of minus infinity; otherwise
                it is 0 or follows from the padding.

        Returns:
            Logits, ``[texts, labels, words, max_width]``.
        """
        marker = self.span_rep.span_rep_layer
        first, _, dropout, last = marker.out_project
        starts = marker.project_start(padded).relu()
        ends = marker.project_end(padded).relu()
        hidden, words = padded.shape[-1], padded.shape[1]
        starts = F.linear(starts, first.weight[:, :hidden], first.bias)
        ends = F.linear(ends, first.weight[:, hidden:])
        folded = (queries @ last.weight).transpose(1, 2)
        bias = (queries @ last.bias)[:, None, :]
        by_width = []
        for width in range(min(self.max_width, words)):
            spans = dropout((starts[:, : words - width] + ends[:, width:]).relu())
            by_width.append(F.pad(torch.baddbmm(bias, spans, folded), (0, 0, 0, width)))
        by_width += [torch.zeros_like(by_width[0])] * (self.max_width - len(by_width))
        logits = torch.stack(by_width, dim=-1).transpose(1, 2)
        if mask_invalid:
            widths = torch.arange(self.max_width, device=padded.device)
            last_words = torch.arange(words, device=padded.device)[:, None] + widths
            logits = logits.masked_fill((last_words >= text_len_t[:, None, None])[:, None], -torch.inf)
        return logits

    def _compute_direct_span_logits_batched(self, batch: PreprocessedBatch, *states):
        """gliner2's method; no span holds the full stop that is added to a text, and all logits are float32."""
        logits, counts = super()._compute_direct_span_logits_batched(batch, *states)
        for text, tasks in zip(batch.original_texts, logits, strict=True):
            for index, task in enumerate(tasks):
                if task is not None:
                    tasks[index] = task = task.float()
                    if getattr(text, "full_stop", False):
                        words, widths = task.shape[-2:]
                        width = torch.arange(min(words, widths), device=task.device)
                        task[..., words - 1 - width, width] = -torch.inf
        return logits, counts

    def _decode_span_probabilities(self, results, schema_name, *arguments):
        """gliner2's method; overlaps of entities, and the one to choose, are left for when a document is complete.

        In gliner2 a relation with a description is found under both, as one name, and its own name stays empty.
        """
        *first, metadata, choices, confidence, spans = arguments
        described = {f"{name}: {text}": name for name, text in metadata.get("relation_descriptions", {}).items()}
        schema_name = described.get(schema_name, schema_name)
        if schema_name == "entities":
            labels = {label: {**options, "dtype": "list"} for label, options in metadata["entity_metadata"].items()}
            metadata = {**metadata, "_overlap_policy": "allow", "entity_metadata": labels}
        super()._decode_span_probabilities(results, schema_name, *first, metadata, choices, confidence, spans)

    def _find_spans(self, scores, threshold, text_len, text, start_map, end_map):
        """gliner2's method, with all scores read at once; a score of 0 marks what is no span of the text."""
        starts, widths = torch.where((scores >= threshold) & (scores > 0))
        found = zip(starts.tolist(), widths.tolist(), scores[starts, widths].tolist(), strict=True)
        offsets = ((start_map[first], end_map[first + width], score) for first, width, score in found)
        return [(text[start:end], score, start, end) for start, end, score in offsets]

    @torch.no_grad()
    def extract_from_windows(self, windows: Sequence[Window], prompts: Sequence[Prompt]) -> list[WindowAnswer]:
        """See :meth:`Architecture.extract_from_windows`; each window has one gate."""
        batch = self.processor.collate_schemas(windows, [prompt.schema for prompt in prompts]).to(self.device)
        metadata = [prompt.metadata for prompt in prompts]
        results = self._extract_from_batch(batch, min(prompt.floor for prompt in prompts), metadata, True, True)
        asked = [bool(prompt.metadata["entity_order"]) for prompt in prompts]
        return [
            WindowAnswer(each, wants, wants and not each.get("entities"))
            for each, wants in zip(results, asked, strict=True)
        ]

    # no_grad, not inference_mode: attention caches tensors, and inference tensors cannot be used in later training.
    @torch.no_grad()
    def span_probabilities(self, batch: PreprocessedBatch) -> list[torch.Tensor | None]:
        """The score of every span of every window for each of its labels, before any threshold.

        Returns:
            For each window a float32 tensor ``[labels, words, max_width]`` on the CPU, labels in prompt order and 0
            past the end of the text; ``None`` if the count gate is shut, so that gliner2 would return nothing.
        """
        batch = batch.to(self.device)
        states = self.processor.extract_embeddings_from_batch(self.encode_tokens(batch), batch.input_ids, batch)
        logits, _ = self._compute_direct_span_logits_batched(batch, *states)
        of_entities = [
            scores[kinds.index("entities")] if "entities" in kinds else None
            for scores, kinds in zip(logits, batch.task_types, strict=True)
        ]
        return [
            None if scores is None else torch.sigmoid(scores[0, :, first:].float()).cpu()
            for scores, first in zip(of_entities, words_before(batch), strict=True)
        ]

    def best_starts(self, batch: PreprocessedBatch) -> list[torch.Tensor | None]:
        """See :meth:`Architecture.best_starts`."""
        return [None if scores is None else scores.amax(-1) for scores in self.span_probabilities(batch)]


def _with_negatives(states: Sequence[torch.Tensor], kind: str, labels: Any) -> Any:
    """The labels of a task; for relations or structures that are not there, an instance without values."""
    return [1, [[[] for _ in states[1:]]]] if kind != "classifications" and labels[0] == 0 else labels


def _count(labels: Sequence[Any]) -> int:
    """How many instances have a value in the text; gliner2 counts a relation without ends as one."""
    found = sum(any(place != (-1, -1) for places in instance for place in places) for instance in labels[1])
    return min(found, SpanScorer.max_records)
