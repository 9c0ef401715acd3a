"""The optimizer of a training run, and checks of its steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from gliner2.processor import PreprocessedBatch
from torch.distributed.fsdp import FSDPModule

from glinerko.common import TrainingError
from glinerko.model.extractor import KoreanExtractor
from glinerko.training.checkpoints import list_checkpoints

MAX_GRADIENT_NORM = 1.0
"""The norm to which the gradient of a step is clipped."""


@contextmanager
def whole_parameters(model: torch.nn.Module) -> Iterator[None]:
    """Under FSDP, give every process all parameters in this context, so that each can run any number of batches."""
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
    model: KoreanExtractor, encoder_learning_rate: float, head_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Four groups for AdamW: encoder and heads, each with and without weight decay (biases and layer norms).

    Every trainable parameter is in exactly one group; empty groups are left out.
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


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The current rate of the encoder and of the heads."""
    return {group["name"].split(",")[0]: group["lr"] for group in optimizer.param_groups}


def average_weights(optimizer: torch.optim.Optimizer, power: float) -> None:
    """Make every step update, in the optimizer's state of each weight, its average over the steps so far.

    The weights of step t count about t ** ``power`` times: polynomial-decay averaging (Shamir and Zhang, 2013), which
    covers the same share of a run of any length. A checkpoint of the optimizer contains the averages too.
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
    """Give the model the averages of :func:`average_weights` in this context; without averages, change nothing."""

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


def freeze_unused(model: KoreanExtractor, batches: Iterable[PreprocessedBatch]) -> list[str]:
    """Freeze the parameters that get no gradient, so that DistributedDataParallel does not wait for them.

    On entity data that is the classification head; an encoder may also have a pooler. The optimizer makes no step.

    Args:
        batches: Together they have every task of the corpus.

    Returns:
        The largest modules without a trained parameter, for example ``["classifier"]``.
    """
    model.train()
    for batch in batches:
        outputs = model(batch)
        check_step(outputs, model, batch)
        outputs["total_loss"].backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    unused = {name for name, parameter in trained.items() if parameter.grad is None}
    for name in unused:
        trained[name].requires_grad_(False)
    model.zero_grad()
    rest = trained.keys() - unused

    def largest(name: str) -> str:
        """The largest module around a parameter without a trained one."""
        modules = accumulate(name.split("."), "{}.{}".format)
        return next(m for m in modules if not any(f"{other}.".startswith(f"{m}.") for other in rest))

    return sorted(set(map(largest, unused)))


def disk_space(model: torch.nn.Module, checkpoints: int, averaging: bool) -> tuple[int, int, int]:
    """The bytes of the model, of a checkpoint, and of all that is kept, with one more of each while it is written.

    Args:
        checkpoints: The number that is kept.
        averaging: Whether they contain the averages of :func:`average_weights`.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    checkpoint = weights + (2 + averaging) * trained  # AdamW keeps two values for each weight
    return weights, checkpoint, 2 * weights + (checkpoints + 1) * checkpoint


def check_disk_space(model: torch.nn.Module, directory: Path, checkpoints: int, averaging: bool, result: str) -> None:
    """Check that ``directory`` has room for the best model and the checkpoints; see :func:`disk_space`.

    Args:
        result: The name under ``directory`` of what the run produces. It and the checkpoints that are there take
            their room already.

    Raises:
        TrainingError: Naming the free and the needed space.
    """
    _, _, needed = disk_space(model, checkpoints, averaging)
    free, kept = shutil.disk_usage(directory).free, [*list_checkpoints(directory), directory / result]
    used = sum(file.stat().st_size for each in kept for file in each.rglob("*") if file.is_file())
    if free + used < needed:
        raise TrainingError(
            f"{directory}: {free / 1e9:.1f} GB are free, and the best model and {checkpoints} checkpoints take up to "
            f"{needed / 1e9:.1f} GB: make room, or lower --checkpoints_total_limit"
        )


def check_step(
    outputs: Mapping[str, Any], model: KoreanExtractor, batch: PreprocessedBatch, ids: Sequence[str] = ()
) -> None:
    """Stop if the loss of a window is not what gliner2 says: it counts what fails and what is no number as zero.

    Raises:
        TrainingError: With the ids of the documents, or without ``ids`` their places in the batch.
    """
    faults = model.find_faults(outputs, batch)
    if faults:
        names = ids or [str(index) for index in range(len(batch))]
        listed = "; ".join(f"document {names[index]}: {fault}" for index, fault in faults.items())
        raise TrainingError(f"the loss cannot be trusted ({listed})")


def check_gradient(norm: torch.Tensor | None, mixed_precision: str, where: str) -> None:
    """Stop if the norm of a step's gradient is not finite. With fp16, Accelerate leaves out such steps.

    Raises:
        TrainingError: Naming ``where`` this happened.
    """
    if norm is not None and mixed_precision != "fp16" and not torch.isfinite(torch.as_tensor(norm)):
        raise TrainingError(f"the gradient is not finite ({where})")
