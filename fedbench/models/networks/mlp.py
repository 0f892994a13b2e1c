"""Networks of `fedbench.models.mlp`."""

from itertools import pairwise

from torch import Tensor, nn

from fedbench.models.networks.dropout import Dropout


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
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """float32 [N, ...] -> outputs float32 [N, K]."""
        values = rows.flatten(1)
        for layer in self.layers[:-1]:
            values = self.dropout(self.relu(layer(values)))
        outputs: Tensor = self.layers[-1](values)
        return outputs
