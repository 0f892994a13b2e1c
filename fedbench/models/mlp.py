"""A multilayer perceptron, for tables and for small images and arrays of any shape."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import row_values

if TYPE_CHECKING:
    from torch import nn


class Mlp(Model):
    """Multilayer perceptron on all values of a row: tables, arrays of any shape, images.

    Each hidden layer is linear with a ReLU, and perhaps dropout; each linear layer is a layer group.

    Attributes:
        hidden: Units of each hidden layer, the first layer first; []: a linear model.
        dropout: Probability of dropping a hidden unit.
    """

    name: str = "mlp"
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (64, 64)
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.mlp import Perceptron

        return Perceptron([row_values(task, self.name), *self.hidden, task.classes], self.dropout)
