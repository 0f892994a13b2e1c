"""Two networks that are both called ResNet-20: He et al.'s, and the pre-activation one of FedMR's published code."""

from typing import TYPE_CHECKING

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

if TYPE_CHECKING:
    from torch import nn


class ResNet20(Model):
    """He et al.'s CIFAR ResNet-20 with parameter-free shortcuts: 269,722 parameters for 10 classes.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2,
    option A; the network of OrMo's experiments (arXiv 2407.19234).
    """

    name: str = "resnet20"

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.resnet20 import CifarResNet

        _, _, channels = image_shape(task, self.name)
        return CifarResNet(channels, task.classes)


class ResNet20Preact(Model):
    """FedMR's "ResNet-20", a pre-activation bottleneck network: 218,970 parameters for 10 classes.

    The network of FedMR's published code (arXiv 2208.07677): six bottlenecks of three convolutions, after
    K. He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. Not He et al.'s ResNet-20. As there, the
    weights of every BatchNorm start at 0.5, and nothing stands between the last bottleneck and the average pool. That
    code makes a last BatchNorm which it never calls, and so counts 219,482 parameters; the 512 that have no effect are
    left out here, and with them their bytes.

    Attributes:
        final_norm: whether BatchNorm and ReLU stand before the average pool, as with He et al. (219,482 parameters).
    """

    name: str = "resnet20-preact"
    final_norm: bool = False

    def build(self, task: Task) -> "nn.Module":
        from fedbench.models.networks.resnet20 import PreactResNet

        _, _, channels = image_shape(task, self.name)
        return PreactResNet(channels, task.classes, self.final_norm)
