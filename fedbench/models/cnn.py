"""Plain convolutional networks: a LeNet, and a small network with BatchNorm for small images."""

from pydantic import Field
from torch import Tensor, nn

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape


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

    def build(self, task: Task) -> nn.Module:
        height, width, channels = image_shape(task, self.name, smallest=16)
        sizes = [max(1, round(base * self.width)) for base in (6, 16, 120, 84)]
        return LeNet((height, width), channels, sizes, task.classes, self.projection)


class LeNet(nn.Module):
    """(conv 5x5, ReLU, max-pool) twice, then three linear layers, perhaps with a projection head before the last one.

    Args:
        image: (H, W) of the input.
        channels: C of the input.
        sizes: channels of the two convolutions, units of the two hidden linear layers.
        classes: number of outputs.
        projection: outputs of the projection head; 0: no head.
    """

    def __init__(
        self, image: tuple[int, int], channels: int, sizes: list[int], classes: int, projection: int = 0
    ) -> None:
        super().__init__()
        first, second, hidden, features = sizes
        rows, columns = (((edge - 4) // 2 - 4) // 2 for edge in image)
        self.conv1 = nn.Conv2d(channels, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(second * rows * columns, hidden)
        self.fc2 = nn.Linear(hidden, features)
        self.projection: nn.Module = nn.Identity()
        if projection:
            self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projection))
        self.fc3 = nn.Linear(projection or features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        maps = self.pool(self.relu(self.conv1(images)))
        maps = self.pool(self.relu(self.conv2(maps)))
        hidden = self.relu(self.fc1(maps.flatten(1)))
        logits: Tensor = self.fc3(self.projection(self.relu(self.fc2(hidden))))
        return logits


class CnnBatchNorm(Model):
    """Three 3x3 convolutions with BatchNorm for small images, from 8x8.

    Attributes:
        width: Channels of the first convolution; the second and third have twice and four times as many.
    """

    name: str = "cnn-bn"
    width: int = Field(16, gt=0)

    def build(self, task: Task) -> nn.Module:
        _, _, channels = image_shape(task, self.name, smallest=8)
        return ConvBatchNorm(channels, self.width, task.classes)


class ConvBatchNorm(nn.Module):
    """Three blocks of (conv 3x3, BatchNorm, ReLU), max-pools between them, global average pool, linear."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        maps = self.pool(self.relu(self.bn1(self.conv1(images))))
        maps = self.pool(self.relu(self.bn2(self.conv2(maps))))
        maps = self.relu(self.bn3(self.conv3(maps)))
        logits: Tensor = self.fc(self.average(maps).flatten(1))
        return logits
