"""A multilayer perceptron, for tables and for small images and arrays of any shape."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from fedbench.models.base import Model, Task
from fedbench.models.requirements import row_values


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

    def build(self, task: Task) -> nn.Module:
        return Perceptron([row_values(task, self.name), *self.hidden, task.classes], self.dropout)


class Perceptron(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        sizes: values of a row, units of each hidden layer, number of outputs.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(self, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """float32 [N, ...] -> outputs float32 [N, K]."""
        values = rows.flatten(1)
        for layer in self.layers[:-1]:
            values = self.dropout(self.relu(layer(values)))
        outputs: Tensor = self.layers[-1](values)
        return outputs
