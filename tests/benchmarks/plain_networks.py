"""Networks of the benchmarks of a round, in PyTorch alone, so that other frameworks can train them, too."""

import torch
from torch import Tensor, nn


class PooledCnn(nn.Module):
    """Three convolutions with max-pools and two linear layers, 155,690 parameters for 10 classes of 32x32x3."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 96)
        self.fc2 = nn.Linear(96, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            maps = nn.functional.max_pool2d(torch.relu(convolution(maps)), 2)
        return self.fc2(torch.relu(self.fc1(maps.flatten(1))))


class StridedCnn(nn.Module):
    """Three 5x5 convolutions of stride 2 without pooling and one linear layer, 156,810 parameters for 10 classes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, stride=2)
        self.conv2 = nn.Conv2d(32, 64, 5, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 5, stride=2)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            maps = torch.relu(convolution(maps))
        return self.fc(maps.flatten(1))


NETWORKS = {"pooled": PooledCnn, "strided": StridedCnn}
"""Networks for CIFAR-10's shape, by name."""
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""Memory formats of images and weights, by name."""
