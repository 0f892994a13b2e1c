"""The layers of a network in the order in which a forward pass calls them."""

from collections.abc import Sequence

import torch
from torch import nn

from fedbench.analysis.recorded_model import RecordedModel
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.measures.features import feature_modules
from fedbench.models.groups import call_order
from fedbench.models.probe import example_inputs, probe


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


def group_layers(module: nn.Module, model: RecordedModel) -> list[str]:
    """For each layer group, shallow to deep, the module whose output are the group's features.

    Args:
        module: the network.
        model: the recorded model that it was built from.
    """
    task = model.experiment.problem.spec.task

    def by_group(copy: nn.Module, device: torch.device) -> dict[int, str]:
        inputs = example_inputs(task, 2, device)
        return feature_modules(copy, model.layout, lambda: copy(inputs))

    return list(dict.fromkeys(name for _, name in sorted(probe(module, by_group).items())))


def chosen_layers(names: Sequence[str], wanted: Sequence[str], label: str) -> list[str]:
    """The layers that are asked for, in the order of `names`; none: all of them.

    Raises:
        ConfigError: there is no such layer; a near miss is suggested.
    """
    for name in wanted:
        chosen_layer(names, name, label)
    return [name for name in names if not wanted or name in wanted]


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
