"""ResNet-8 and ResNet-18 with the ImageNet stem, as the FedPart paper trains them.

H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated Learning Through Partial Network
Updates", NeurIPS 2024, arXiv 2410.11559, after K. He et al., "Deep Residual Learning for Image Recognition",
CVPR 2016. The stem (7x7 convolution and 3x3 max-pool, stride 2 each) is kept on small images too.
"""

from pydantic import Field
from torch import Tensor, nn

from fedbench.models.base import Model, Task
from fedbench.models.initialisation import initialise_convolutions
from fedbench.models.requirements import image_shape


class ResNet8(Model):
    """ResNet-8 of the FedPart paper: stages of 64, 128, 256 channels, one basic block each; ten layer groups.

    1,235,274 / 1,258,404 / 1,284,104 parameters for 10 / 100 / 200 classes.

    Attributes:
        width: Channels of the stem and the first stage; each further stage doubles them.
    """

    name: str = "resnet8"
    width: int = Field(64, gt=0)

    def build(self, task: Task) -> nn.Module:
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

    def build(self, task: Task) -> nn.Module:
        _, _, channels = image_shape(task, self.name)
        return ResNet(channels, self.width, (2, 2, 2, 2), task.classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around an identity or a strided 1x1 convolution with BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] -> float32 [N, outputs, H / stride, W / stride]."""
        residual = self.relu(self.bn1(self.conv1(maps)))
        residual = self.bn2(self.conv2(residual))
        # After both convolutions: the down-sample's layer group follows theirs.
        shortcut = maps if self.downsample is None else self.downsample(maps)
        out: Tensor = self.relu(residual + shortcut)
        return out


class ResNet(nn.Module):
    """Stem, stages of basic blocks, global average pool, linear.

    Args:
        channels: C of the input.
        width: channels of the stem and the first stage.
        blocks: number of blocks in each stage.
        classes: number of outputs.
    """

    def __init__(self, channels: int, width: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            first = BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(count - 1))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        maps = self.pool(self.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.fc(self.average(self.stages(maps)).flatten(1))
        return logits
