"""A check of the features that methods compare: the input of the layer that `feature_layer` names."""

import torch
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.base import Task
from fedbench.models.groups import feature_layer
from fedbench.models.probe import example_inputs, probe
from fedbench.tasks.kinds import TASKS


def check_features(module: nn.Module, task: Task, method: str) -> None:
    """Check that a network has one vector of features for each sample, before its final classifier.

    Args:
        module: the network.
        task: the learning task, which has the shape of the data.
        method: the method's name, for the message.

    Raises:
        ModelError: a task that scores tokens or pixels, no classifier, one that is not called, or features of another
            shape than [N, F].
    """
    if TASKS[task.target].places != "row":
        allowed = ", ".join(kind.name for kind in TASKS.values() if kind.places == "row")
        raise ModelError(
            f"algorithm.name={method}: compares one vector of features for each row, and task={task.target} scores "
            f"every {TASKS[task.target].places} of a row; choose another method, or a task of {allowed}"
        )
    name, owner, samples = feature_layer(module), type(module).__name__, 2

    def shape(copy: nn.Module, device: torch.device) -> tuple[int, ...] | None:
        shapes: list[tuple[int, ...]] = []

        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            shapes.append(tuple(arguments[0].shape))

        copy.get_submodule(name).register_forward_pre_hook(note)
        copy(example_inputs(task, samples, device))
        return shapes[-1] if shapes else None

    found = probe(module, shape)
    if found is None:
        raise ModelError(
            f"{owner}: {name!r} is not called in a forward pass, so algorithm.name={method} finds no features; name "
            "the classifier in an attribute 'feature_layer'"
        )
    if len(found) != 2 or found[0] != samples:
        raise ModelError(
            f"algorithm.name={method}: compares one vector of features for each sample, and the input of {name!r} has "
            f"shape {list(found)} for {samples} samples; name another layer in an attribute 'feature_layer'"
        )
