"""Networks of `fedbench.models.resnet20`."""

import torch.nn.functional as F
from torch import Tensor, nn

from fedbench.models.initialisation import initialise_convolutions

STAGE_PLANES = (16, 32, 64)
NORM_WEIGHT = 0.5
"""Initial weight of every BatchNorm in the network of FedMR's published code."""


class PaddedBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around option A's shortcut: every second pixel, zeros for new channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, maps: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] -> float32 [N, outputs, H / stride, W / stride]."""
        residual = self.relu(self.bn1(self.conv1(maps)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu(residual + self.shortcut(maps))
        return out

    def shortcut(self, maps: Tensor) -> Tensor:
        """The identity, subsampled by the stride and padded with zero channels at the end."""
        if self.stride != 1:
            maps = maps[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            maps = F.pad(maps, (0, 0, 0, 0, 0, self.new_channels))
        return maps


class CifarResNet(nn.Module):
    """3x3 stem, three stages of three blocks with 16, 32, 64 channels, global average pool, linear."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        inputs = STAGE_PLANES[0]
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        for planes in STAGE_PLANES:
            first = PaddedBlock(inputs, planes, stride=1 if planes == inputs else 2)
            stages.append(nn.Sequential(first, *(PaddedBlock(planes, planes, 1) for _ in range(2))))
            inputs = planes
        self.stages = nn.Sequential(*stages)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        maps = self.relu(self.bn1(self.conv1(images)))
        logits: Tensor = self.fc(self.average(self.stages(maps)).flatten(1))
        return logits


class PreactBottleneck(nn.Module):
    """(BatchNorm, ReLU, convolution) three times: 1x1, 3x3, 1x1 to four times the planes.

    The shortcut is the raw input, through a plain 1x1 convolution where the shape changes.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] -> float32 [N, 4 planes, H / stride, W / stride]."""
        residual = self.conv1(self.relu(self.bn1(maps)))
        residual = self.conv2(self.relu(self.bn2(residual)))
        residual = self.conv3(self.relu(self.bn3(residual)))
        shortcut = maps if self.downsample is None else self.downsample(maps)
        out: Tensor = residual + shortcut
        return out


class PreactResNet(nn.Module):
    """3x3 stem, three stages of two pre-activation bottlenecks, BatchNorm and ReLU if wanted, average pool, linear.

    The weights of every BatchNorm start at `NORM_WEIGHT`.
    """

    def __init__(self, channels: int, classes: int, final_norm: bool) -> None:
        super().__init__()
        inputs = STAGE_PLANES[0]
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        for stage, planes in enumerate(STAGE_PLANES):
            outputs = planes * PreactBottleneck.expansion
            first = PreactBottleneck(inputs, planes, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, PreactBottleneck(outputs, planes, 1)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.final = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if final_norm else nn.Identity()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)
        for child in self.modules():
            if isinstance(child, nn.BatchNorm2d):
                nn.init.constant_(child.weight, NORM_WEIGHT)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        maps = self.final(self.stages(self.conv1(images)))
        logits: Tensor = self.fc(self.average(maps).flatten(1))
        return logits
