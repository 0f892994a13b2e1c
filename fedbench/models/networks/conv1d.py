"""Networks of `fedbench.models.conv1d`."""

from torch import Tensor, nn
from torch.nn.functional import pad

KERNELS = (8, 5, 3)
"""Lengths of the convolutions' kernels."""
FACTORS = (1, 2, 1)
"""Channels of each convolution, in units of the width."""


class SeriesNetwork(nn.Module):
    """Three blocks of (convolution, BatchNorm, ReLU) that keep the length, mean over it, linear.

    Args:
        channels: C of the series.
        width: channels of the first convolution.
        outputs: number of outputs.
    """

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        sizes = [channels, *(factor * width for factor in FACTORS)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], kernel, bias=False) for i, kernel in enumerate(KERNELS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:])
        self.relu = nn.ReLU()
        self.output = nn.Linear(sizes[-1], outputs)

    def forward(self, series: Tensor) -> Tensor:
        """float32 [N, C, L] or [N, L] -> outputs float32 [N, K]."""
        maps = series.unsqueeze(1) if series.dim() == 2 else series
        for kernel, convolution, norm in zip(KERNELS, self.convolutions, self.norms, strict=True):
            maps = pad(maps, ((kernel - 1) // 2, kernel // 2))  # zeros, so that the length stays
            maps = self.relu(norm(convolution(maps)))
        outputs: Tensor = self.output(maps.mean(dim=2))
        return outputs
