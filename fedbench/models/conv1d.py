"""A convolutional network for series.

Z. Wang, W. Yan, T. Oates, "Time Series Classification from Scratch with Deep Neural Networks: A Strong Baseline",
IJCNN 2017 (arXiv 1611.06455), Section II-B: the fully convolutional network.
"""

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from fedbench.models.base import Model, Task
from fedbench.models.requirements import series_shape

KERNELS = (8, 5, 3)
"""Lengths of the convolutions' kernels."""

FACTORS = (1, 2, 1)
"""Channels of each convolution, in units of the width."""


class Conv1d(Model):
    """Convolutions over series, arrays [channels, length] or [length] (Wang et al., IJCNN 2017), with BatchNorm.

    Three convolutions of 8, 5 and 3 values, each with BatchNorm and ReLU, their mean over the length, a linear layer.
    With one channel and 10 classes it has 265,482 parameters.

    Attributes:
        width: Channels of the first and the third convolution; the second has twice as many.
    """

    name: str = "conv1d"
    width: int = Field(128, gt=0)

    def build(self, task: Task) -> nn.Module:
        channels, _ = series_shape(task, self.name, smallest=2)
        return SeriesNetwork(channels, self.width, task.classes)


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
