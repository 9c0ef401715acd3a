"""GLiNER2's span architecture with what a Korean encoder needs: carried words, and a count head that is trained."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from gliner2.inference.engine import SpanExtractor
from gliner2.processing.word_splitter import WordSplitter
from gliner2.processor import PreprocessedBatch, SamplingConfig, SchemaTransformer

from glinerko.continuation import ContinuationTokenizer
from glinerko.data import LabelSchema
from glinerko.errors import LoadError
from glinerko.files import write_json
from glinerko.kiwi import USER_DICTIONARY, write_user_dictionary
from glinerko.lora import has_lora, save_adapter
from glinerko.tokenization import restore_tokenizer_class
from glinerko.windows import Window
from glinerko.words import CarriedWordSplitter, SplitText, split_batch

#: The part of ``config.json`` that is ours: splitter, labels, descriptions, threshold.
CONFIG_KEY = "glinerko"
SCORE_TOLERANCE = 2e-3
"""How far the scores of one model may lie apart on two machines."""
FORMAT = 1
"""Of that part; a model of another one is refused rather than half understood."""

_REFERENCE_TEXT = "환자는 제2형 당뇨병으로 인슐린을 투여받았고, 혈액 검사에서 HbA1c가 8.2%였다."


class KoreanSchemaTransformer(SchemaTransformer):
    """gliner2's processor, fed with windows whose words are known.

    Args:
        tokenizer: A fast tokenizer; GLiNER2's ten special tokens are added to it.
        word_splitter: Splits texts that do not carry their words.
        token_pooling: As in gliner2: how the pieces of a word become its state.
        continuation_pieces: Tokenize a word that continues one as the encoder saw it in pre-training.
    """

    def __init__(
        self,
        tokenizer,
        word_splitter: WordSplitter,
        token_pooling: str = "first",
        continuation_pieces: bool = False,
    ):
        continuation = ContinuationTokenizer(tokenizer) if continuation_pieces else None
        super().__init__(
            tokenizer=tokenizer,
            word_splitter=CarriedWordSplitter(word_splitter, continuation),
            token_pooling=token_pooling,
            sampling_config=SamplingConfig(shuffle_entities=True),
        )
        # A word of which the tokenizer makes nothing (a control character) would leave gliner2 without a state for it.
        tokenize = continuation.tokenize if continuation else tokenizer.tokenize
        self._tokenize_cached = lru_cache(maxsize=50_000)(lambda word: tokenize(word) or [tokenizer.unk_token])

    @staticmethod
    def normalize_text(text: str) -> str:
        """The text as gliner2 reads it: a full stop is added unless it ends in one."""
        return SchemaTransformer._normalize_text(text)

    def word_pieces(self, text: str, words: Sequence[tuple[int, int]]) -> list[list[str]]:
        """The pieces that the model sees of each word of ``text``."""
        return [self._tokenize_cached(token) for token in self.word_splitter.tokens(text, words)]

    def extract_embeddings_from_batch(self, token_embeddings, input_ids, batch):
        """gliner2's, with all words of a text pooled at once; its own loop takes them piece by piece."""
        words, prompts = self._extract_embeddings_fast(token_embeddings, batch)
        if self.token_pooling != "first":
            for index, (count, end) in enumerate(zip(batch.text_word_counts, batch.original_lengths, strict=True)):
                if count:
                    starts = batch.text_word_indices[index, :count]
                    pieces = starts.diff(prepend=starts.new_zeros(1), append=starts.new_full((1,), end))
                    # The prompt before the text counts as one word, so that nothing waits for the device.
                    words[index] = torch.segment_reduce(
                        token_embeddings[index, :end], self.token_pooling, lengths=pieces, unsafe=True
                    )[1:]
        return words, prompts

    def prompt_length(self, schema: LabelSchema) -> int:
        """How many pieces the prompt takes in front of the text, descriptions included."""
        window = Window(".", [(0, 1)], schema.labels)
        return self.collate([window], schema).input_ids.shape[1] - len(self.word_pieces(".", [(0, 1)])[0])

    def collate(
        self,
        windows: Sequence[Window],
        schema: LabelSchema,
        *,
        augmentation_seeds: Sequence[int | str] | None = None,
    ) -> PreprocessedBatch:
        """Make a batch of windows, targets included.

        Args:
            schema: Descriptions for the prompt; each window says which labels its prompt asks for.
            augmentation_seeds: One a window, to vary its prompt as gliner2 does in training (labels shuffled or
                renamed, descriptions left out); ``None`` for the plain prompt.

        Returns:
            A batch whose ``input_ids`` and ``attention_mask`` are ``[windows, pieces]``.
        """
        state = random.getstate()
        self.change_mode(is_training=augmentation_seeds is not None)
        try:
            records = []
            for index, window in enumerate(windows):
                if augmentation_seeds is not None:
                    random.seed(augmentation_seeds[index])
                text, words = self.normalize_text(window.text), window.words
                if len(text) > len(window.text):
                    words = [*words, (len(window.text), len(text))]
                records.append(self.transform_and_format(SplitText(text, words), gliner2_schema(window, schema)))
            return self._pad_batch(records)
        finally:
            self.change_mode(is_training=False)
            random.setstate(state)


def gliner2_schema(window: Window, schema: LabelSchema) -> dict:
    """A window's labels, targets and descriptions in gliner2's own form; targets go by offsets, never by string."""
    entities: dict[str, list] = {label: [] for label in window.labels}
    for span in window.targets:
        mention = {"text": window.text[span.start : span.end], "start": span.start, "end": span.end}
        entities[span.label].append(mention)
    descriptions = {label: schema.descriptions[label] for label in window.labels if label in schema.descriptions}
    return {"entities": entities, "entity_descriptions": descriptions}


def score_difference(first: list[list[float]] | None, second: list[list[float]] | None) -> float:
    """How far two :meth:`KoreanSpanExtractor.reference_scores` lie apart; infinite where words or gate differ."""
    if first is None or second is None or len(first[0]) != len(second[0]):
        return 0.0 if first is second is None else math.inf
    return (torch.tensor(first) - torch.tensor(second)).abs().max().item()


class KoreanSpanExtractor(SpanExtractor):
    """GLiNER2's span architecture, with the count head supervised on entity schemas.

    At inference a predicted count of 0 returns no entities, whatever the span scores are, and gliner2's training loss
    skips the count for entity schemas. Entity scores use instance 0 and are the same for any count of at least 1, so
    the target here is always 1, with or without entities in the text.
    """

    negative_masking = 0.5
    """The share of spans without an entity that a training step leaves out of its loss, drawn anew each time."""

    def compute_struct_loss_from_scores(self, scores, structure, masking_rate=None):
        rate = self.negative_masking if masking_rate is None else masking_rate
        return super().compute_struct_loss_from_scores(scores, structure, rate)

    def _compute_sample_loss(self, token_embeddings, embs_per_schema, task_types, *args, **kwargs):
        losses = super()._compute_sample_loss(token_embeddings, embs_per_schema, task_types, *args, **kwargs)
        prompts = [
            states[0] for states, kind in zip(embs_per_schema, task_types, strict=True) if kind == "entities" and states
        ]
        if prompts:
            logits = self.count_pred(torch.stack(prompts))
            target = torch.ones(len(prompts), dtype=torch.long, device=logits.device)
            losses["count"] = losses["count"] + F.cross_entropy(logits.float(), target, reduction="sum")
        return losses

    def compute_span_scores_batched(self, token_embs_list, query_embs_list, *, mask_invalid=True):
        """gliner2's; on a CPU text by text, without the padding that a GPU does not mind."""
        if self.device.type != "cpu":
            return super().compute_span_scores_batched(token_embs_list, query_embs_list, mask_invalid=mask_invalid)
        pairs = zip(token_embs_list, query_embs_list, strict=True)
        return [
            super(KoreanSpanExtractor, self).compute_span_scores_batched([t], [q], mask_invalid=mask_invalid)[0]
            for t, q in pairs
        ]

    def _compute_span_scores_core(self, padded, queries, text_len_t, mask_invalid=True):
        """gliner2's ``SpanMarkerV0.score_queries``, one span width after the other.

        Only spans that lie in the longest text are scored, nothing is gathered, and under autocast nothing of the size
        of all spans is widened to float32, as gliner2's is by the bias of its first layer.

        Args:
            padded: States of the words, ``[texts, words, hidden]``.
            queries: ``[texts, labels, hidden]``.
            text_len_t: How many words each text has, ``[texts]``.
            mask_invalid: Give spans that reach past the end of their text a score of minus infinity; 0 or what the
                padding gives otherwise.

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
            reach = torch.arange(words, device=padded.device)[:, None] + torch.arange(
                self.max_width, device=padded.device
            )
            logits = logits.masked_fill((reach >= text_len_t[:, None, None])[:, None], -torch.inf)
        return logits

    @torch.no_grad()  # what attention caches of an evaluation in inference mode could not be trained with after it
    def span_probabilities(self, batch: PreprocessedBatch) -> list[torch.Tensor | None]:
        """The score of every span of every window for each of its labels, before any threshold.

        Returns:
            For each window a float32 tensor ``[labels, words, max_width]`` on the CPU, labels in prompt order and 0
            past the end of the text; ``None`` where the count gate is shut, so that gliner2 would return nothing.
        """
        batch = batch.to(self.device)
        states = self.processor.extract_embeddings_from_batch(self.encode_tokens(batch), batch.input_ids, batch)
        logits, _ = self._compute_direct_span_logits_batched(batch, *states)
        return [None if scores[0] is None else torch.sigmoid(scores[0][0].float()).cpu() for scores in logits]

    def extract_entities(self, text: str, entity_types=None, threshold: float | None = None, **options) -> dict:
        """As in gliner2, by default with the labels, descriptions and threshold that this model was trained with."""
        return super().extract_entities(
            text, self._entity_types(entity_types), self.choose_threshold(threshold), **options
        )

    def batch_extract_entities(
        self, texts: list[str], entity_types=None, batch_size: int = 8, threshold: float | None = None, **options
    ) -> list[dict]:
        """As in gliner2, by default with the labels, descriptions and threshold that this model was trained with."""
        types = self._entity_types(entity_types)
        return super().batch_extract_entities(texts, types, batch_size, self.choose_threshold(threshold), **options)

    def _entity_types(self, asked):
        if asked is not None:
            return asked
        schema = self.label_schema
        if schema is None:
            raise LoadError("the model names no labels of its own: pass entity_types")
        return {label: schema.descriptions.get(label, {}) for label in schema.labels}

    def choose_threshold(self, asked: float | None = None) -> float:
        """The threshold that is asked for, or else this model's own, or else gliner2's default."""
        return next(value for value in (asked, self.threshold, 0.5) if value is not None)

    def reference_scores(self) -> list[list[float]] | None:
        """The best score of the spans that start at each word of a fixed sentence: ``[labels, words]``.

        Kept with a model, they tell whether it still gives what it gave when it was saved. ``None`` where the count
        gate is shut.
        """
        (words,) = split_batch(self.processor.word_splitter.splitter, [_REFERENCE_TEXT])
        window = Window(_REFERENCE_TEXT, words, self.label_schema.labels)
        training = self.training
        self.eval()
        (scores,) = self.span_probabilities(self.processor.collate([window], self.label_schema))
        self.train(training)
        return None if scores is None else [[round(score, 5) for score in row] for row in scores.amax(-1).tolist()]

    def train_with_flash(self, backend: str) -> None:
        """Put in the attention of disentangled-flash, to be trained; ``backend`` is ``torch`` or ``triton``."""
        # gliner2's thresholds for packing were measured on a GPU; without one it always pays.
        packed = True if backend == "torch" else "auto"
        self.train().enable_disentangled_flash(backend=backend, inference=False, packed=packed)

    def get_input_embeddings(self) -> torch.nn.Module:
        """The encoder's, which Accelerate asks for under FSDP."""
        return self.encoder.get_input_embeddings()

    @property
    def _settings(self) -> dict:
        return getattr(self.config, CONFIG_KEY, {})

    @property
    def word_splitter_name(self) -> str:
        return self._settings.get("word_splitter", "whitespace")

    @property
    def label_schema(self) -> LabelSchema | None:
        """The labels and descriptions this model was trained for, where its config names them."""
        settings = self._settings
        if not settings.get("labels"):
            return None
        labels, described = tuple(settings["labels"]), settings.get("descriptions", {})
        # config.json is written with its keys sorted; a prompt keeps the order that was trained.
        return LabelSchema(labels, {label: described[label] for label in labels if label in described})

    @property
    def threshold(self) -> float | None:
        """The threshold chosen on development data, where one was."""
        return self._settings.get("threshold")

    @property
    def validation(self) -> dict | None:
        """What this model scored on its validation documents when it was saved."""
        return self._settings.get("validation")

    @property
    def window_limits(self) -> dict[str, int]:
        """``max_length`` and ``window_overlap`` that this model was trained with, in pieces."""
        return dict(self._settings.get("window", {}))

    def configure(self, **settings) -> None:
        """Keep settings of ours in ``config.json``; they survive a reload by us and by gliner2."""
        setattr(self.config, CONFIG_KEY, {**self._settings, **settings})

    def save_pretrained(
        self, save_directory: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None, **kwargs
    ) -> None:
        """Save as gliner2 does, with a tokenizer that loads as it is under transformers 4 and 5.

        Args:
            state_dict: The weights, where this process holds but a part of them; gliner2 swallows it.
        """
        if state_dict is not None:
            self.state_dict = lambda *_, **__: state_dict
        try:
            super().save_pretrained(str(save_directory), **kwargs)
        finally:
            self.__dict__.pop("state_dict", None)
        restore_tokenizer_class(Path(save_directory))
        if has_lora(self):  # the adapter alone; the frozen weights are the base model's
            (Path(save_directory) / "model.safetensors").unlink()
            save_adapter(self, Path(save_directory))
        if self._settings.get("user_dictionary"):
            entries = self.processor.word_splitter.splitter.user_dictionary
            write_user_dictionary(Path(save_directory) / USER_DICTIONARY, entries)
        # The class that plain gliner2 loads these files with.
        path = Path(save_directory) / "config.json"
        config = {**json.loads(path.read_text(encoding="utf-8")), "architectures": [SpanExtractor.__name__]}
        write_json(path, config)
