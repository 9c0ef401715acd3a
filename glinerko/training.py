"""What the training loop calls and does not show: batches, parameter groups, and steps that must not be trusted."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset
from gliner2.processor import PreprocessedBatch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from glinerko.data import LabelSchema
from glinerko.errors import TrainingError
from glinerko.modeling import KoreanSchemaTransformer, KoreanSpanExtractor
from glinerko.targets import window_from_row

# Settings that do not change what a run ends in, and paths, of which the content is compared.
NOT_OF_THE_RESULT = {
    "train_file", "output_dir", "overwrite_output_dir", "checkpointing_steps", "checkpoints_total_limit",
    "resume_from_checkpoint", "resume_anyway", "max_train_minutes",
}  # fmt: skip


@dataclass
class RunArguments:
    """What the scripts that train have in common."""

    output_dir: str = field(default="outputs", metadata={"help": "where everything of this run goes"})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "replace what an earlier run left in output_dir"}
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "of the rates", "choices": ["linear", "cosine"]})
    warmup_ratio: float = field(default=0.1, metadata={"help": "share of the steps in which the rates rise"})
    weight_decay: float = field(default=0.01, metadata={"help": "of weights; biases and layer norms have none"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "the gradient is clipped to this norm"})
    mixed_precision: str = field(
        default="auto",
        metadata={"help": "auto: what Accelerate is configured for, or else bf16 where the GPU has it",
                  "choices": ["auto", "no", "bf16", "fp16"]},
    )  # fmt: skip
    attention_backend: str = field(
        default="auto",
        metadata={"help": "auto: disentangled_flash where it is installed and knows encoder and device",
                  "choices": ["auto", "eager", "disentangled_flash"]},
    )  # fmt: skip
    seed: int = field(default=42, metadata={"help": "of everything that is drawn"})
    checkpoints_total_limit: int = field(default=2, metadata={"help": "checkpoints that are kept, the newest"})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "'latest' of output_dir, or the path of a checkpoint, to go on from"}
    )
    resume_anyway: bool = field(default=False, metadata={"help": "go on although the data or the settings differ"})
    max_train_minutes: float | None = field(
        default=None, metadata={"help": "stop after so long, counted from the start, with a checkpoint"}
    )


class StopRequest:
    """Whether a run is asked to stop after the step at hand: by SIGINT, by SIGTERM, or since its time is up.

    A second signal interrupts at once. In the background too, where a shell has SIGINT ignored.

    Args:
        minutes: How long the run may take, from now; without end where ``None``.
    """

    def __init__(self, minutes: float | None = None):
        self.reason: str | None = None
        self._minutes, self._end = minutes, math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.patient = False
        """Whether a signal waits for the end of a step; one that comes while it is not set interrupts at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @property
    def asked(self) -> bool:
        if self.reason is None and time.monotonic() >= self._end:
            self.reason = f"stopped after {self._minutes:g} minutes,"
        return self.reason is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or self.reason is not None:
            raise KeyboardInterrupt
        self.reason = f"stopped by {signal.Signals(number).name},"


def choose_precision(wanted: str) -> str | None:
    """What to ask Accelerate for; ``None`` leaves it to its configuration."""
    if wanted != "auto":
        return wanted
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
    return "bf16" if not configured and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else None


@dataclass
class WindowCollator:
    """Makes batches of the rows of :func:`glinerko.targets.training_windows`.

    What is random depends on the seed, the epoch and the document alone, so that a run gives the same batches however
    many are made ahead, by however many workers or processes.

    Args:
        augment: Vary the prompts as gliner2 does.
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
        """Put the mask token in place of all pieces of some words of each text; prompts stay."""
        tokenizer = self.processor.tokenizer
        mask = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        for index, seed in enumerate(seeds):
            draw = random.Random(f"word dropout {seed}")
            starts = batch.text_word_indices[index, : batch.text_word_counts[index]].tolist()
            for start, end in pairwise([*starts, batch.original_lengths[index]]):
                if draw.random() < self.word_dropout:
                    batch.input_ids[index, start:end] = mask


def enable_fast_attention(
    encoder: PreTrainedModel, wanted: str, accelerator: Accelerator, enable: Callable[[str], object]
) -> str:
    """Put the attention of the disentangled-flash package into a DeBERTa-v2 that is on its device, and try it.

    Args:
        wanted: ``eager``, ``disentangled_flash``, or ``auto`` for the latter where it can be had.
        enable: Does it, given the package's backend: ``triton`` on NVIDIA, ``torch`` on a CPU.

    Returns:
        What is in use, and why where it is not the fast one.

    Raises:
        TrainingError: it cannot be had though it is asked for, or gives other states or gradients than eager attention.
    """
    if wanted == "eager":
        return "eager"
    cuda = accelerator.device.type == "cuda" and torch.version.hip is None
    reason = None
    if importlib.util.find_spec("disentangled_flash") is None:
        reason = "disentangled-flash is not installed"
    elif encoder.config.model_type != "deberta-v2":
        reason = f"disentangled-flash knows no {encoder.config.model_type}"
    elif any(".lora_" in name for name, _ in encoder.named_parameters()):
        reason = "disentangled-flash passes LoRA adapters by"
    elif not cuda and accelerator.device.type != "cpu":
        reason = f"disentangled-flash has nothing for {accelerator.device.type}"
    elif accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        reason = f"parameters are sharded by {accelerator.distributed_type.value}"
    if reason is None:
        training = encoder.training
        with torch.autocast(accelerator.device.type, enabled=False):
            exact = _states_and_gradients(encoder.eval())
        with accelerator.autocast():
            before = _states_and_gradients(encoder)
        encoder.train()
        enable("triton" if cuda else "torch")
        with accelerator.autocast():
            after = _states_and_gradients(encoder.eval())
        encoder.train(training)
        tolerance = 1e-3 if accelerator.mixed_precision == "no" else 5e-2
        for right, slow, fast in zip(exact, before, after, strict=True):
            # Rounding has its part in both, and where little is left of a gradient, it is all there is.
            error, rounding = ((found - right).norm() / right.norm().clamp(min=1e-12) for found in (fast, slow))
            if not error <= max(tolerance, 3 * rounding):  # nor where it is not a number
                raise TrainingError(
                    f"disentangled-flash is off by {error:.1e} here, eager attention by {rounding:.1e}: pass "
                    "--attention_backend eager"
                )
        return "disentangled_flash"
    if wanted == "auto":
        return f"eager ({reason})"
    raise TrainingError(f"--attention_backend {wanted}: {reason}")


def _states_and_gradients(encoder: PreTrainedModel) -> list[torch.Tensor]:
    """The states of two short texts, the second one padded, and gradients of the first layer's weights."""
    ids = torch.arange(3, 3 + 2 * 48, device=encoder.device).view(2, 48) % encoder.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 32:] = 0
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].float()
    weights = [p for name, p in encoder.named_parameters() if p.requires_grad and p.ndim == 2 and "layer.0." in name]
    # Not their squares: a layer norm comes last, so that these are the same whatever the weights.
    target = torch.arange(states.numel(), device=states.device).view_as(states).cos()
    return [states.detach(), *torch.autograd.grad((states * target).mean(), weights)]


class CheapDropout(torch.nn.Dropout):
    """Dropout with random bits from numpy, drawn some four times faster on a CPU than torch draws its own.

    Reproducible through torch's seed. The probability is a multiple of 1/65536.
    """

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return states
        cut = round(self.p * 2**16)
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-states.numel() // 4))
        keep = torch.from_numpy(bits.view(np.int16)[: states.numel()]).view(states.shape) >= cut - 2**15
        return states * keep.to(states.dtype).mul_(2**16 / (2**16 - cut))


def cheapen_dropout(module: torch.nn.Module) -> None:
    """Put :class:`CheapDropout` in place of every dropout of a module that is on a CPU."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is torch.nn.Dropout:
                setattr(parent, name, CheapDropout(child.p).train(child.training))


def keep_freed_memory() -> None:
    """Have glibc keep what a step on a CPU frees for the next one.

    It would give large blocks back to the system and have them mapped, page by page, a moment later. Other C libraries
    are left alone.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself,
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and free ones stay


@contextmanager
def whole_parameters(model: torch.nn.Module) -> Iterator[None]:
    """Under FSDP, have every process hold all parameters in here, so that each can run as many batches as it likes."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def parameter_groups(
    model: KoreanSpanExtractor, encoder_learning_rate: float, head_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Four groups for AdamW: encoder and heads, each with and without weight decay (biases and layer norms).

    Every trainable parameter is in exactly one; empty groups are left out.
    """
    groups = []
    for part, rate in (("encoder", encoder_learning_rate), ("heads", head_learning_rate)):
        for decays in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and name.startswith("encoder.") == (part == "encoder")
                and (parameter.ndim >= 2) == decays
            ]
            name = f"{part}, {'decay' if decays else 'no decay'}"
            decay = weight_decay if decays else 0.0
            groups.append({"params": parameters, "lr": rate, "weight_decay": decay, "name": name})
    return [group for group in groups if group["params"]]


def average_weights(optimizer: torch.optim.Optimizer, power: float) -> None:
    """Have every step keep, in the optimizer's state beside each weight, its average over the steps so far.

    The weights of step t count t ** ``power`` times, about: polynomial-decay averaging (Shamir and Zhang, 2013), which
    looks back a share of the run, however long that is. A checkpoint of the optimizer holds the averages too.
    """

    def update(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["averaged_steps"] = steps = group.get("averaged_steps", 0) + 1
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if steps == 1:
                    state["average"] = parameter.detach().clone()
                state["average"].lerp_(parameter.detach(), (power + 1) / (steps + power))

    optimizer.register_step_post_hook(update)


@contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """In here the model has the averages of :func:`average_weights`, and those that it trains with again afterwards."""

    def exchange() -> None:
        with torch.no_grad():
            for parameter, state in optimizer.state.items():
                if "average" in state:
                    kept = parameter.detach().clone()
                    parameter.copy_(state["average"])
                    state["average"].copy_(kept)

    exchange()
    try:
        yield
    finally:
        exchange()


def freeze_unused(model: KoreanSpanExtractor, batch: PreprocessedBatch) -> list[str]:
    """Freeze parameters that a training step gives no gradient, so that DistributedDataParallel need not look for them.

    On entity data that is the classification head; an encoder may bring a pooler. The step is not taken.

    Returns:
        The modules of which nothing is trained, the largest ones, for example ``["classifier"]``.
    """
    model.train()
    outputs = model(batch)
    check_step(outputs, model, batch, [])
    outputs["total_loss"].backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    unused = {name for name, parameter in trained.items() if parameter.grad is None}
    for name in unused:
        trained[name].requires_grad_(False)
    model.zero_grad()
    rest = trained.keys() - unused

    def largest(name: str) -> str:
        """The largest module around a parameter of which nothing is trained."""
        modules = accumulate(name.split("."), "{}.{}".format)
        return next(m for m in modules if not any(f"{other}.".startswith(f"{m}.") for other in rest))

    return sorted(set(map(largest, unused)))


def window_lengths(windows: Dataset) -> np.ndarray:
    """How many words each window has: ``[windows]``."""
    batches = windows.select_columns("words").with_format("arrow").iter(1000)
    return np.concatenate([pc.list_value_length(batch["words"]).to_numpy() for batch in batches])


def longest_rows(windows: Dataset, number: int) -> list[int]:
    """The indices of the ``number`` windows with the most words."""
    return np.argsort(-window_lengths(windows), kind="stable")[:number].tolist()


def check_disk_space(model: torch.nn.Module, directory: Path, checkpoints: int, averaging: bool) -> None:
    """See that ``directory`` has room for the best model and for so many checkpoints, one more while it is written.

    Args:
        averaging: Whether checkpoints hold :func:`average_weights` too.

    Raises:
        TrainingError: with what is free and what is needed.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    optimizer = (2 + averaging) * trained  # AdamW keeps two figures for each weight
    needed = 2 * weights + (checkpoints + 1) * (weights + optimizer)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TrainingError(
            f"{directory}: {free / 1e9:.1f} GB are free, and the best model and {checkpoints} checkpoints take up to "
            f"{needed / 1e9:.1f} GB: make room, or lower --checkpoints_total_limit"
        )


def check_step(
    outputs: dict[str, Any], model: KoreanSpanExtractor, batch: PreprocessedBatch, ids: Sequence[str]
) -> None:
    """Stop where a loss is not finite or gliner2 left a sample out.

    gliner2 catches an exception per sample, prints it, and counts the loss of that sample as zero.

    Raises:
        TrainingError: with the ids of the documents.
    """
    complete = outputs["batch_size"] == len(batch)
    if complete and torch.isfinite(outputs["total_loss"]):
        return
    with torch.no_grad():
        samples = model(batch, return_individual_losses=True).get("individual_losses", [])
    faults = {}
    for identifier, sample in zip(ids or map(str, range(len(batch))), samples, strict=False):
        if "error" in sample:
            faults[identifier] = sample["error"]
        elif not torch.isfinite(torch.tensor(sample["total_loss"])):
            faults[identifier] = f"loss {sample['total_loss']}"
    listed = "; ".join(f"document {name}: {fault}" for name, fault in faults.items()) or f"among {', '.join(ids)}"
    kind = "the loss is not finite" if complete else "a document gave no loss"
    raise TrainingError(f"{kind} ({listed})")
