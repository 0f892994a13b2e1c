"""Networks with dropout: that of pfl-research's benchmark on CIFAR-10, and a small one. Importable by path."""

import torch
from torch import Tensor, nn

from fedbench.models.base import Model, Task


class PflCnn(Model):
    """Two 3x3 convolutions, a max-pool, a hidden layer, dropout after both: 1,626,442 parameters at 32x32x3.

    The `simple_cnn` of pfl-research (arXiv 2404.06430), whose benchmark trains it on CIFAR-10.
    """

    name: str = "pfl_network:PflCnn"
    dropout: bool = True

    def build(self, task: Task) -> nn.Module:
        return PooledConvolutions(task.classes, self.dropout)


class PooledConvolutions(nn.Module):
    """The network, for images of 32x32x3."""

    def __init__(self, classes: int, dropout: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout1 = nn.Dropout(0.25 if dropout else 0.0)
        self.fc1 = nn.Linear(64 * 14 * 14, 128)
        self.dropout2 = nn.Dropout(0.5 if dropout else 0.0)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv2(torch.relu(self.conv1(images))))
        pooled = self.dropout1(nn.functional.max_pool2d(maps, 2)).flatten(1)
        logits: Tensor = self.fc2(self.dropout2(torch.relu(self.fc1(pooled))))
        return logits


class SmallDropout(Model):
    """One hidden layer with dropout, for images of any size."""

    name: str = "pfl_network:SmallDropout"

    def build(self, task: Task) -> nn.Module:
        height, width, channels = task.input_shape
        return nn.Sequential(
            nn.Flatten(), nn.Linear(height * width * channels, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, task.classes)
        )
