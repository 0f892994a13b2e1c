"""VGG-16 with BatchNorm and two wide hidden linear layers.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
configuration D; in FedMR's experiments (arXiv 2208.07677) with BatchNorm and hidden layers of 4,096 units.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

if TYPE_CHECKING:
    from torch import nn


class Vgg16(Model):
    """VGG-16 with BatchNorm: 33,646,666 parameters for 10 classes; images from 32x32.

    All layers start with PyTorch's initial values, as in FedMR's published code.

    Attributes:
        width: Channels of the first stage.
        hidden: Units of each of the two hidden linear layers.
        dropout: Probability of dropping a hidden unit.
    """

    name: str = "vgg16"
    width: int = Field(64, gt=0)
    hidden: int = Field(4096, gt=0)
    dropout: float = Field(0.5, ge=0, lt=1)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.vgg import Vgg

        _, _, channels = image_shape(task, self.name, smallest=32)
        return Vgg(channels, self.width, self.hidden, self.dropout, task.classes)
