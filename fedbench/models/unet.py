"""A small U-Net, which gives each pixel its class.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015
(arXiv 1505.04597), Section 2. Convolutions here are padded, so that the output has the size of the input, and have
BatchNorm, as in most later code.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

if TYPE_CHECKING:
    from torch import nn


class UNet(Model):
    """U-Net for segmentation (Ronneberger et al., MICCAI 2015), small: 117,412 parameters for 4 classes and 3 channels.

    Attributes:
        width: Channels of the first level, which double with each level below it; the paper has 64.
        depth: Number of times that the image is halved; the paper has 4. Each side has 2**depth pixels at least.
    """

    name: str = "unet"
    width: int = Field(16, gt=0)
    depth: int = Field(2, ge=1, le=8)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.unet import SegmentationNetwork

        _, _, channels = image_shape(task, self.name, 2**self.depth, targets=("segmentation",))
        return SegmentationNetwork(channels, self.width, self.depth, task.classes)
