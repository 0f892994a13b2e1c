"""The layers of a network in the order in which a forward pass calls them."""

from collections.abc import Sequence

import torch
from torch import nn

from fedbench.analysis.recorded_model import RecordedModel
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.models.groups import call_order
from fedbench.models.probe import probe


def called_layers(module: nn.Module, model: RecordedModel, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """The names of the layers of some kinds, in the order of their first calls.

    Args:
        module: the network.
        model: the recorded model that it was built from.
        kinds: classes of layers.

    Raises:
        ConfigError: there is none.
    """
    task = model.experiment.problem.spec.task

    def order(copy: nn.Module, device: torch.device) -> list[str]:
        return call_order(copy, task, device)

    names = [name for name in probe(module, order) if isinstance(module.get_submodule(name), kinds)]
    if not names:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{model.label}: its network {type(module).__name__} has no {wanted} layer")
    return names


def chosen_layer(names: Sequence[str], wanted: str | None, label: str) -> str:
    """The layer that is asked for; None: the first.

    Raises:
        ConfigError: there is no such layer; a near miss is suggested.
    """
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise ConfigError(
            f"--layer {wanted}: {label} has no such layer{did_you_mean(wanted, names)} (it has {', '.join(names)})"
        )
    return wanted
