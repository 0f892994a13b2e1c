"""Networks of `fedbench.models.cnn`."""

from torch import Tensor, nn


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
