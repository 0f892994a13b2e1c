"""ResNet-8 and ResNet-18 with the ImageNet stem, as the FedPart paper trains them.

H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated Learning Through Partial Network
Updates", NeurIPS 2024, arXiv 2410.11559, after K. He et al., "Deep Residual Learning for Image Recognition",
CVPR 2016. The stem (7x7 convolution and 3x3 max-pool, stride 2 each) is kept on small images too.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

if TYPE_CHECKING:
    from torch import nn


class ResNet8(Model):
    """ResNet-8 of the FedPart paper: stages of 64, 128, 256 channels, one basic block each; ten layer groups.

    1,235,274 / 1,258,404 / 1,284,104 parameters for 10 / 100 / 200 classes.

    Attributes:
        width: Channels of the stem and the first stage; each further stage doubles them.
    """

    name: str = "resnet8"
    width: int = Field(64, gt=0)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.resnet import ResNet

        _, _, channels = image_shape(task, self.name)
        return ResNet(channels, self.width, (1, 1, 1), task.classes)


class ResNet18(Model):
    """ResNet-18: stages of 64, 128, 256, 512 channels, two basic blocks each; 21 layer groups.

    11,181,642 / 11,227,812 / 11,279,112 parameters for 10 / 100 / 200 classes.

    Attributes:
        width: Channels of the stem and the first stage; each further stage doubles them.
    """

    name: str = "resnet18"
    width: int = Field(64, gt=0)

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.resnet import ResNet

        _, _, channels = image_shape(task, self.name)
        return ResNet(channels, self.width, (2, 2, 2, 2), task.classes)
