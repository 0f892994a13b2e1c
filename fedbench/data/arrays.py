"""Preparing a batch of stored arrays for a network."""

import torch
from torch import Tensor


class ArrayScaling:
    """Normalises float32 arrays by entry of their last axis, or by value of a row: (x - mean) / std."""

    def __init__(
        self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, device: torch.device | None = None
    ) -> None:
        """Args:
        mean, std: one number for each entry of the last axis, or for each value of a row, the last axis running
            fastest; both None: arrays stay as they are.
        device: of the arrays; None: the CPU.
        """
        self._values: tuple[Tensor, Tensor] | None = None
        if mean is not None and std is not None:
            self._values = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def __call__(self, batch: Tensor, _draws: object = None) -> Tensor:
        """Float32 [B, ..., F] -> float32 of the same shape; the batch itself where there is nothing to do."""
        if self._values is None:
            return batch
        mean, std = self._values
        if len(mean) != batch.shape[-1]:
            mean, std = mean.view(batch.shape[1:]), std.view(batch.shape[1:])
        return (batch - mean) / std
