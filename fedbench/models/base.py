"""Base class of models: components that build a `torch.nn.Module` for a task."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedbench.components.base import Component
from fedbench.tasks.kinds import TaskName

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Task:
    """The task that a model is built for, as the data define it.

    Attributes:
        kind: "image", "text" or "array".
        input_shape: (H, W, C) of an image (the module is called with float32 [N, C, H, W]), (L,) of a text (the module
            is called with int64 [N, L]), or the shape of an array (the module is called with float32 [N, ...]).
        classes: number of outputs for each row, token or pixel: classes, labels, targets, or token ids.
        vocabulary_size: number of token ids, 0 for images and arrays.
        padding_index: token id of padding, -1 for images and arrays.
        target: what is learned, which decides the output.
        tokenizer: identifies the tokenizer of a model folder that the token ids come from; "": they do not.
    """

    kind: Literal["image", "text", "array"]
    input_shape: tuple[int, ...]
    classes: int
    vocabulary_size: int = 0
    padding_index: int = -1
    target: TaskName = "classification"
    tokenizer: str = ""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the module's output for one row, float32.

        (classes,) of classification, multilabel and regression; (L, classes) of next_token; (classes, H, W) of
        segmentation.
        """
        match self.target:
            case "next_token":
                return (*self.input_shape, self.classes)
            case "segmentation":
                height, width = self.input_shape[:2] if self.kind == "image" else self.input_shape[-2:]
                return (self.classes, height, width)
            case _:
                return (self.classes,)


@dataclass(frozen=True)
class LayerGroup:
    """A named set of parameters that a partial update trains, sends and combines together.

    Attributes:
        name: the group's name; a derived group has the name of its first module.
        parameters: names as in `Module.named_parameters()`, in the same order.
    """

    name: str
    parameters: tuple[str, ...]


class Model(Component):
    """A network with its parameters (width and the like), built for a task."""

    @abstractmethod
    def build(self, task: Task) -> "nn.Module":
        """A new module, with initial values drawn from PyTorch's default generator.

        The module may define `layer_groups() -> list[LayerGroup]`, shallow to deep; otherwise its groups are derived
        (`fedbench.models.groups.derive_layer_groups`).

        Raises:
            ModelError: the model cannot serve the task: images that are too small, text for an image model.
        """
