"""LoRA adapters instead of full fine-tuning: the recipe of the earlier attempts, to compare with a swap."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from glinerko.common import LoadError, first_line
from glinerko.model.architecture import Architecture

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of PEFT's own layout."""


def add_lora(model: Architecture, base_model: str | Path, rank: int = 16, alpha: int = 32, dropout: float = 0.1) -> str:
    """Freeze ``model`` and put adapters on the linear layers of its ``adapted`` modules, in place.

    Args:
        base_model: The model with the frozen weights; named in the adapter's config.

    Returns:
        A sentence for the user: what is trained and what is not.
    """
    layers = [
        name
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and name.startswith(model.adapted)  # attention reads its own kind directly
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=layers,
        base_model_name_or_path=str(base_model),
    )
    inject_adapter_in_model(config, model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"LoRA of rank {rank} (alpha {alpha}, dropout {dropout}) on {len(layers)} layers of "
        f"{', '.join(name.rstrip('.') for name in model.adapted)}: {trained:,} of {total:,} parameters. The rest is "
        "frozen. Words, targets and windows are as for full fine-tuning."
    )


def has_lora(model: torch.nn.Module) -> bool:
    """Whether ``model`` has adapters."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


def adapter_base(directory: Path) -> str | None:
    """The model whose weights the adapter in ``directory`` was trained on; ``None`` if there is no adapter.

    Raises:
        LoadError: The config of the adapter is malformed.
    """
    path = directory / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError) as error:
        raise LoadError(f"{path}: names no base_model_name_or_path ({first_line(error)})") from error


def save_adapter(model: torch.nn.Module, directory: Path) -> None:
    """Write the adapter in PEFT's layout."""
    model.peft_config["default"].save_pretrained(str(directory))
    state = {name: tensor.contiguous().cpu() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(state, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def merge_adapter(model: torch.nn.Module, directory: Path) -> None:
    """Add the adapter of ``directory`` to the weights of ``model``, which already has the frozen ones."""
    inject_adapter_in_model(LoraConfig.from_pretrained(str(directory)), model)
    set_peft_model_state_dict(model, load_file(directory / ADAPTER_WEIGHTS))
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    del model.peft_config
    model.requires_grad_(True)
