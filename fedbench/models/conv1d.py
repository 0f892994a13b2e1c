"""A convolutional network for series.

Z. Wang, W. Yan, T. Oates, "Time Series Classification from Scratch with Deep Neural Networks: A Strong Baseline",
IJCNN 2017 (arXiv 1611.06455), Section II-B: the fully convolutional network.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import series_shape

if TYPE_CHECKING:
    from torch import nn


class Conv1d(Model):
    """Convolutions over series, arrays [channels, length] or [length] (Wang et al., IJCNN 2017), with BatchNorm.

    Three convolutions of 8, 5 and 3 values, each with BatchNorm and ReLU, their mean over the length, a linear layer.
    With one channel and 10 classes it has 265,482 parameters.

    Attributes:
        width: Channels of the first and the third convolution; the second has twice as many.
    """

    name: str = "conv1d"
    width: int = Field(128, gt=0)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.conv1d import SeriesNetwork

        channels, _ = series_shape(task, self.name, smallest=2)
        return SeriesNetwork(channels, self.width, task.classes)
