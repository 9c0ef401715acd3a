"""The pair and the documents of gpu_check.py: of the size and shape of the real ones, and made on the spot.

The pair has random weights in the layouts of the published models. The documents are made of the templates of
data/sample and are as long as those of a real corpus; no text of anyone is in them.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from train_throughput import Arguments as StepArguments
from train_throughput import Ours, Theirs

from glinerko.common import write_json_lines
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.windows import training_windows
from glinerko.corpus.words import load_word_splitter
from glinerko.model.extractor import KoreanExtractor
from glinerko.model.swap import swap_encoder
from glinerko.training.arguments import RunArguments
from glinerko.training.batches import WindowCollator
from glinerko.training.checkpoints import BEST
from glinerko.training.run import Run, start_run
from glinerko.training.starter import StarterSize, build_starter_pair
from glinerko.training.trial import wait

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "data" / "sample"))
from make_sample import DESCRIPTIONS, IN_PASSING, TEMPLATES, WITHOUT_ENTITIES, fill, split_names  # noqa: E402

LENGTHS = {
    0: 51, 0.05: 77, 0.1: 104, 0.25: 195, 0.5: 326, 0.75: 552, 0.9: 878, 0.95: 1401, 0.99: 2426, 1: 4270
}  # fmt: skip
"""Characters of a document by the share of documents that are shorter, of 696 real ones."""
WITH_ENTITIES = 0.12
"""The share of sentences with entities that gives as many mentions as the real documents have, 6.4 on average."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    pair: StarterSize
    launched: StarterSize
    """The pair of runs that accelerate starts: these are about processes and files, not about speed."""
    documents: int
    characters: int
    """No document is much longer."""
    batch_size: int
    batches: Sequence[int]
    """Numbers of windows whose memory is measured, until one does not fit."""
    windows: int
    """How many windows are timed at once."""
    rounds: int
    """Of each comparison, after one that does not count."""
    read: int
    """How many documents are read."""
    trained: int
    """How many documents a run that accelerate starts is trained on."""
    workers: int
    """Processes that make batches."""


SIZES = {
    "full": Size(
        StarterSize(768, 12, 0, 0, tokens=64_001), StarterSize(768, 2, 0, 0), documents=1000, characters=4270,
        batch_size=32, batches=(8, 16, 32, 64, 128, 256, 512), windows=256, rounds=3, read=128, trained=160, workers=4,
    ),
    "tiny": Size(
        StarterSize(32, 1, 0, 0, tokens=6_000), StarterSize(32, 1, 0, 0, tokens=6_000), documents=24, characters=400,
        batch_size=2, batches=(1, 2), windows=8, rounds=1, read=6, trained=24, workers=1,
    ),
}  # fmt: skip
"""``full``: the encoder is a DeBERTa-v3-base with the vocabulary of team-lucid/deberta-v3-base-korean."""


class OtherTrainer(Theirs):
    """gliner2's trainer."""

    def once(self) -> float:
        """Train on all windows once, and return the seconds of a step; the first one, which waits for a batch, apart.

        The device is waited for at the end only, as far as the step itself does not.
        """
        steps = self.steps()
        next(steps)
        wait()
        begin = time.perf_counter()
        number = sum(1 for _ in steps)
        wait()
        return (time.perf_counter() - begin) / number


class OurTrainer(Ours):
    """Our step."""

    once = OtherTrainer.once


@dataclass
class Check:
    """What the measurements share."""

    size: Size
    run: Run
    directory: Path
    model: KoreanExtractor
    """On the CPU and never trained: each measurement copies it."""
    rows: Dataset
    schema: LabelSchema
    windows: Dataset
    best_batch: int
    """The number of windows with the highest throughput, once that is measured."""
    loss: float | None = None
    """Of the run of one process that nothing interrupted."""

    @property
    def device(self) -> torch.device:
        return self.run.accelerator.device

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def judged(self) -> bool:
        """Whether the goals of speed hold here."""
        return self.on_gpu and self.size is SIZES["full"]

    def some(self, batch_size: int) -> Dataset:
        """The windows that are timed: whole batches, at least four. If there are too few windows they come again."""
        number = max(self.size.windows // batch_size, 4) * batch_size
        return self.windows.select([index % len(self.windows) for index in range(number)])

    def trainer(
        self,
        kind: type[Ours] | type[Theirs] = OurTrainer,
        batch_size: int | None = None,
        prepare: Callable[[KoreanExtractor], object] = lambda model: None,
        **options: Any,
    ) -> OurTrainer | OtherTrainer:
        """A trainer of a copy of the model.

        Args:
            batch_size: The best batch by default.
            prepare: Changes the copy when it is on the device.
            options: Of benchmarks/train_throughput.py.
        """
        size = batch_size or self.best_batch
        options = {"workers": self.size.workers, "gliner2_attention": "disentangled_flash", **options}
        args = StepArguments(batch_size=size, mixed_precision="bf16", **options)
        model = copy.deepcopy(self.model).to(self.device)
        prepare(model)
        last = self.run.accelerator if kind is OurTrainer else str(self.directory / "gliner2")
        return kind(model, self.some(size), self.schema, args, last)

    @cached_property
    def base(self) -> OurTrainer:
        """Our step as it is, with the best batch."""
        return self.trainer()

    @cached_property
    def scored(self) -> KoreanExtractor:
        """A copy whose scores spread from 0 to 1 like those of trained weights; those of random ones are all near .5.

        Its threshold is one that few words reach.
        """
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in model.span_rep.parameters():
                parameter.mul_(3.0)
        model.to(self.device).eval()
        batch = WindowCollator(model.processor, self.schema)(list(self.windows.select(range(4))))["batch"]
        scores = torch.cat([scores.flatten() for scores in model.best_starts(batch)])
        model.configure(threshold=round(scores.quantile(0.97).item(), 4))
        return model


def build(size: Size, directory: Path, word_splitter: str | None, seed: int) -> Check:
    """Write the documents and the pairs under ``directory``, and swap."""
    datasets.config.HF_DATASETS_CACHE = directory / "cache"
    run = start_run(RunArguments(str(directory / "run"), mixed_precision="bf16", seed=seed), BEST)
    write_json_lines(directory / "train.jsonl", make_documents(size.documents, size.characters, seed))
    write_json_lines(directory / "validation.jsonl", make_documents(8, size.characters, seed + 1))
    rows, _ = load_rows(str(directory / "train.jsonl"))
    base, encoder = build_starter_pair(rows, directory / "pair", size.pair, seed)
    if size.launched == size.pair:
        (directory / "launched").symlink_to(directory / "pair")
    else:
        build_starter_pair(rows, directory / "launched", size.launched, seed)
    schema = label_schema(rows)
    splitter = choose_splitter(word_splitter)
    model, _ = swap_encoder(base, encoder, schema=schema, seed=seed, word_splitter=splitter)
    with torch.no_grad():
        model.count_pred[-1].bias[1] += 100.0  # the count gate is open, as after training
    windows = training_windows(model.align(rows, schema), schema).shuffle(seed=seed)
    return Check(size, run, directory, model, rows, schema, windows, size.batch_size)


def choose_splitter(wanted: str | None) -> str:
    """The splitter that is asked for; by default that of Korean words, or white space if Kiwi cannot be used."""
    if wanted is not None:
        return wanted
    try:
        load_word_splitter("korean")
    except Exception:  # without its model, Kiwi raises an error of its own
        return "whitespace"
    return "korean"


def make_documents(number: int, characters: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of documents with their mentions.

    Args:
        characters: The most that a document is meant to have.
    """
    draw, names = random.Random(seed), split_names(seed)["train"]
    others = [*WITHOUT_ENTITIES, *IN_PASSING]
    for index in range(number):
        text, length, entities = "", min(draw_length(draw.random()), characters), {}
        while len(text) < length:
            templates = TEMPLATES if draw.random() < WITH_ENTITIES else others
            sentence, found = fill([draw.choice(templates)], names, draw)
            text += " " if text else ""
            for slot in (each for each in found if each.kind in DESCRIPTIONS):
                mention = {"text": slot.text, "start": len(text) + slot.start, "end": len(text) + slot.end}
                entities.setdefault(slot.kind, []).append(mention)
            text += sentence
        yield {"id": f"{seed}-{index}", "text": text, "entities": entities, "entity_descriptions": DESCRIPTIONS}


def draw_length(share: float) -> float:
    """The length of a document for a random number between 0 and 1; see :data:`LENGTHS`."""
    for (low, shorter), (high, longer) in pairwise(LENGTHS.items()):
        if share <= high:
            return shorter + (longer - shorter) * (share - low) / (high - low)
    raise ValueError(f"{share} is no share")
