"""What makes a training step faster: without this room, the same training takes longer (and draws other dropout)."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from transformers import DebertaV2Model, PreTrainedModel

from glinerko.common import TrainingError
from glinerko.model.attention import why_not_fast


def speed_up(model: torch.nn.Module, encoder: PreTrainedModel, wanted: str, accelerator: Accelerator) -> str:
    """Make the steps of a model that is on its device faster, in place.

    Args:
        encoder: The DeBERTa-v2 inside ``model``, or another encoder.
        wanted: The attention; see :func:`enable_fast_attention`.

    Returns:
        The attention in use.
    """
    attention = enable_fast_attention(encoder, wanted, accelerator, partial(install_fast_attention, model, encoder))
    if accelerator.device.type == "cpu":
        use_fast_dropout(model)
        keep_freed_memory()
    return attention


def enable_fast_attention(
    encoder: PreTrainedModel, wanted: str, accelerator: Accelerator, install: Callable[[str], object]
) -> str:
    """Put the attention of the disentangled-flash package into a DeBERTa-v2, and compare it with eager attention.

    Args:
        wanted: ``eager``, ``disentangled_flash``, or ``auto`` for the latter if it is available.
        install: Puts it in, given the package's backend: ``triton`` on NVIDIA, ``torch`` on a CPU.

    Returns:
        The attention in use, and the reason if it is not the fast one.

    Raises:
        TrainingError: It is requested but not available, or gives other states or gradients than eager attention.
    """
    if wanted == "eager":
        return "eager"
    reason = why_not_fast(encoder, accelerator.device, accelerator.distributed_type)
    if reason is not None:
        if wanted == "auto":
            return f"eager ({reason})"
        raise TrainingError(f"--attention_backend {wanted}: {reason}")
    training = encoder.training
    with torch.autocast(accelerator.device.type, enabled=False):
        exact = _states_and_gradients(encoder.eval())
    with accelerator.autocast():
        before = _states_and_gradients(encoder)
    encoder.train()
    install("torch" if accelerator.device.type == "cpu" else "triton")
    with accelerator.autocast():
        after = _states_and_gradients(encoder.eval())
    encoder.train(training)
    tolerance = 1e-3 if accelerator.mixed_precision == "no" else 5e-2
    for right, slow, fast in zip(exact, before, after, strict=True):
        # Both have rounding errors, and a gradient that is almost zero consists of them.
        error, rounding = ((found - right).norm() / right.norm().clamp(min=1e-12) for found in (fast, slow))
        if not error <= max(tolerance, 3 * rounding):  # also true if the error is not a number
            raise TrainingError(
                f"disentangled-flash is off by {error:.1e} here, eager attention by {rounding:.1e}: pass "
                "--attention_backend eager"
            )
    return "disentangled_flash"


def install_fast_attention(model: torch.nn.Module, encoder: PreTrainedModel, backend: str) -> None:
    """Replace the attention of ``encoder``, to be trained; in a GLiNER2, batches are packed without padding as well."""
    if not hasattr(model, "enable_disentangled_flash"):
        importlib.import_module("disentangled_flash").optimize_deberta(encoder, backend=backend, inference=False)
        return
    # gliner2's thresholds for packing were measured on a GPU; on a CPU packing always saves time.
    packed = True if backend == "torch" else "auto"
    model.train().enable_disentangled_flash(backend=backend, inference=False, packed=packed)


def score_fewer_positions(encoder: DebertaV2Model, longest: int) -> None:
    """Make eager attention score only the relative positions that a row can have, in place; the states stay the same.

    Args:
        longest: The number of pieces of the longest row. Of the 512 positions of a DeBERTa-v3, 128 pieces need 256.
    """
    layers, scored = [layer.attention.self for layer in encoder.encoder.layer], encoder.encoder.get_rel_embedding
    if encoder.config.relative_attention:
        size = layers[0].pos_ebd_size
        farthest = encoder.encoder.get_rel_pos(torch.empty(1, longest, 1), torch.empty(1, 1, 1)).min()
        span = min(size, 1 - int(farthest))
        encoder.encoder.get_rel_embedding = lambda: scored()[size - span : size + span]
        for layer in layers:
            layer.pos_ebd_size = span


def _states_and_gradients(encoder: PreTrainedModel) -> list[torch.Tensor]:
    """The states of two short texts, the second one padded, and the gradients of the first layer's weights."""
    ids = torch.arange(3, 3 + 2 * 48, device=encoder.device).view(2, 48) % encoder.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 32:] = 0
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].float()
    weights = [p for name, p in encoder.named_parameters() if p.requires_grad and p.ndim == 2 and "layer.0." in name]
    # Not the squares of the states: a layer norm comes last, so the sum of squares is constant.
    target = torch.arange(states.numel(), device=states.device).view_as(states).cos()
    return [states.detach(), *torch.autograd.grad((states * target).mean(), weights)]


class FastCpuDropout(torch.nn.Dropout):
    """Dropout with random bits from numpy, which a CPU draws about four times faster than torch's.

    Reproducible through torch's seed. The probability is a multiple of 1/65536.
    """

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return states
        cut = round(self.p * 2**16)
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-states.numel() // 4))
        keep = torch.from_numpy(bits.view(np.int16)[: states.numel()]).view(states.shape) >= cut - 2**15
        return states * keep.to(states.dtype).mul_(2**16 / (2**16 - cut))


def use_fast_dropout(module: torch.nn.Module) -> None:
    """Replace every dropout of a module that is on a CPU by :class:`FastCpuDropout`."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is torch.nn.Dropout:
                setattr(parent, name, FastCpuDropout(child.p).train(child.training))


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a step on a CPU frees, for the next step.

    Otherwise it returns large blocks to the system, which maps them again, page by page, a moment later. With other C
    libraries nothing is done.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped separately
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free blocks are kept
