"""A transformer of up to a billion parameters, which is laid out and never trained. Importable by path."""

from typing import Any

from small import config
from torch import Tensor, nn


class Encoder(nn.Module):
    """Encoder layers of PyTorch's with 50.4 million parameters each, over the rows of an image."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(input_shape[1] * input_shape[2], 2048)
        layer = {"d_model": 2048, "nhead": 16, "dim_feedforward": 8192, "dropout": 0.0, "batch_first": True}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(depth))  # type: ignore[arg-type]
        self.last = nn.Linear(2048, classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images.flatten(2).unflatten(2, images.shape[2:]).movedim(1, 3).flatten(2))
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.last(values.mean(1))
        return logits


def large(depth: int, *overrides: str) -> Any:
    return config(
        "model=large_encoder:Encoder", f"model.depth={depth}", "rounds=2", "schedule=full", "data.clients=3",
        "local.optimizer=sgd", *overrides,
    )  # fmt: skip
