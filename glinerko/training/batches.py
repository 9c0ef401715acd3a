"""Batches of training windows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from gliner2.processor import PreprocessedBatch

from glinerko.common import TrainingError
from glinerko.corpus.processor import KoreanSchemaTransformer, words_before
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.windows import window_from_row
from glinerko.model.extractor import KoreanExtractor
from glinerko.training.optimizer import freeze_unused


@dataclass
class WindowCollator:
    """Makes batches of the rows of :func:`glinerko.corpus.windows.training_windows`.

    All random choices depend on the seed, the epoch and the document only: a run gives the same batches with any number
    of workers or processes, and however many batches are prepared ahead.

    Args:
        augment: Whether to vary the prompts as gliner2 does.
        word_dropout: The share of the words of a text that the encoder sees masked; they keep their targets.
    """

    processor: KoreanSchemaTransformer
    schema: LabelSchema
    augment: bool = False
    word_dropout: float = 0.0
    seed: int = 42
    epoch: int = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """``{"batch": PreprocessedBatch of [windows, pieces], "ids": the document of each window}``."""
        seeds = [f"{self.seed}-{self.epoch}-{row['id']}" for row in rows]
        windows = [window_from_row(row) for row in rows]
        batch = self.processor.collate(windows, self.schema, augmentation_seeds=seeds if self.augment else None)
        if self.word_dropout:
            self._drop_words(batch, seeds)
        return {"batch": batch, "ids": [row["id"] for row in rows]}

    def _drop_words(self, batch: PreprocessedBatch, seeds: Sequence[str]) -> None:
        """Replace all pieces of some words of each text by the mask token; prompts are not changed."""
        tokenizer = self.processor.tokenizer
        mask = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        for index, (seed, first) in enumerate(zip(seeds, words_before(batch), strict=True)):
            draw = random.Random(f"word dropout {seed}")
            starts = batch.text_word_indices[index, first : batch.text_word_counts[index]].tolist()
            for start, end in pairwise([*starts, batch.original_lengths[index]]):
                if draw.random() < self.word_dropout:
                    batch.input_ids[index, start:end] = mask


def longest_rows(windows: Dataset, number: int) -> list[int]:
    """The indices of the ``number`` windows with the most words."""
    batches = windows.select_columns("words").with_format("arrow").iter(1000)
    lengths = np.concatenate([pc.list_value_length(batch["words"]).to_numpy() for batch in batches])
    return np.argsort(-lengths, kind="stable")[:number].tolist()


def rows_of_tasks(windows: Dataset, schema: LabelSchema) -> list[int]:
    """The index of the first window that trains each task of ``schema`` beside entities, if one does."""
    missing, found = {task.name for task in schema.tasks}, []
    columns = windows.select_columns(["classes", "records"])
    for index, row in enumerate(columns if missing else ()):
        trained = missing & {entry["task"] for entry in (*row["classes"], *row["records"])}
        if trained:
            found.append(index)
            missing -= trained
        if not missing:
            break
    return found


def find_batch_size(
    model: KoreanExtractor,
    windows: Dataset,
    schema: LabelSchema,
    wanted: int,
    accelerator: Accelerator,
    halve: bool = False,
) -> tuple[int, list[str]]:
    """Do a step with the longest windows, so that memory which is too small shows now; see :func:`freeze_unused`.

    Windows of every task follow, so that no head is frozen that some of the corpus trains.

    Args:
        wanted: The number of windows in a batch.
        halve: Whether to try half of it until it fits.

    Returns:
        The number of windows that fit, on every process, and the modules that get no gradient.

    Raises:
        TrainingError: Memory is too small, and the batch may not be halved, or not further.
    """
    longest, of_tasks, size = longest_rows(windows, wanted), rows_of_tasks(windows, schema), wanted
    while True:
        groups = [longest[:size], *(of_tasks[first : first + size] for first in range(0, len(of_tasks), size))]
        chosen = ([window_from_row(windows[index]) for index in group] for group in groups)
        batches = (model.processor.collate(each, schema).to(accelerator.device) for each in chosen)
        try:
            with accelerator.autocast():
                unused = freeze_unused(model, batches)
            return min(gather_object([size])), unused
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if size == 1 or not halve:
                raise out_of_memory(wanted) from error
            size //= 2
            clear_device_cache(garbage_collection=True)


def out_of_memory(windows: int) -> TrainingError:
    """The error for a batch of ``windows`` that does not fit."""
    return TrainingError(
        f"out of memory with {windows} windows a batch: lower --max_length, or lower "
        "--per_device_train_batch_size and raise --gradient_accumulation_steps as much (--auto_find_batch_size does)"
    )
