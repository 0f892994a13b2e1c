"""Large networks laid out without values, so that what they cost is counted in little memory."""

import torch
from torch import nn

from fedbench.components.model_folder import PREFIX
from fedbench.models.base import Model, Task
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.groups import build_module, derive_layer_groups

LARGE = 100_000_000
"""Parameters from which a network is laid out without values."""


def outline_module(model: Model, task: Task, seed: int, base: FrozenBase | None = None) -> nn.Module:
    """The module that `build_module` gives; on PyTorch's meta device, without values, where it is large.

    A model that cannot be built or computed there is built as it is, and so is one from a folder of weights.

    Raises:
        ModelError: as for `build_module`.
    """
    if base is None and not model.name.startswith(PREFIX):
        try:
            with torch.device("meta"):
                outlined = build_module(model, task, seed)
            if sum(parameter.numel() for parameter in outlined.parameters()) >= LARGE:
                derive_layer_groups(outlined, task)
                return outlined
        except Exception:
            pass  # What is wrong with the model itself is said where it is built in earnest.
    return build_module(model, task, seed, base)


def is_outlined(module: nn.Module) -> bool:
    """Whether a module was laid out without values."""
    return any(parameter.is_meta for parameter in module.parameters())
