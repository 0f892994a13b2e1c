"""Plain convolutional networks: a LeNet, and a small network with BatchNorm for small images."""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

if TYPE_CHECKING:
    from torch import nn


class Cnn(Model):
    """LeNet-like: two 5x5 convolutions and three linear layers; images from 16x16.

    The network of FedMR's experiments (arXiv 2208.07677), 62,006 parameters at 32x32x3 and 10 classes.

    Attributes:
        width: Factor on the number of channels and hidden units.
        projection: Outputs of a projection head of two linear layers before the output layer, 0: no head. With 256 it
            is the network for CIFAR-10 of MOON (arXiv 2103.16257, Section 4.1), 92,626 parameters.
    """

    name: str = "cnn"
    width: float = Field(1.0, gt=0)
    projection: int = Field(0, ge=0)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.cnn import LeNet

        height, width, channels = image_shape(task, self.name, smallest=16)
        sizes = [max(1, round(base * self.width)) for base in (6, 16, 120, 84)]
        return LeNet((height, width), channels, sizes, task.classes, self.projection)


class CnnBatchNorm(Model):
    """Three 3x3 convolutions with BatchNorm for small images, from 8x8.

    Attributes:
        width: Channels of the first convolution; the second and third have twice and four times as many.
    """

    name: str = "cnn-bn"
    width: int = Field(16, gt=0)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.cnn import ConvBatchNorm

        _, _, channels = image_shape(task, self.name, smallest=8)
        return ConvBatchNorm(channels, self.width, task.classes)
