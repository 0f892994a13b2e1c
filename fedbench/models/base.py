"""What a model is to the rest of fedbench: a component that builds a `torch.nn.Module` for a task."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedbench.components.base import Component

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Task:
    """What the model is to solve, read off the data.

    Attributes:
        kind: "image" or "text".
        input_shape: (H, W, C) of an image (the module itself is called with float32 [N, C, H, W]),
            (L,) of a text (the module is called with int64 [N, L]).
        classes: number of classes; the module returns float32 [N, classes].
        vocabulary_size: number of token ids, 0 for images.
        padding_index: token id of padding, -1 for images.
    """

    kind: Literal["image", "text"]
    input_shape: tuple[int, ...]
    classes: int
    vocabulary_size: int = 0
    padding_index: int = -1


@dataclass(frozen=True)
class LayerGroup:
    """A named set of parameters that a partial update trains, sends and combines together.

    Attributes:
        name: the name of the module that leads the group.
        parameters: names as in `Module.named_parameters()`, in the module's own order.
    """

    name: str
    parameters: tuple[str, ...]


class Model(Component):
    """A network with its parameters (width and the like), built for a task."""

    @abstractmethod
    def build(self, task: Task) -> "nn.Module":
        """A freshly initialised module, drawn from PyTorch's current default generator.

        A module may define `layer_groups() -> list[LayerGroup]` to name its own groups, shallow to deep;
        otherwise they are derived (`fedbench.models.groups.derive_layer_groups`).

        Raises:
            ModelError: when the model cannot serve the task (images too small, text for an image model).
        """
