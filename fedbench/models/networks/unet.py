"""Networks of `fedbench.models.unet`."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class TwoConvolutions(nn.Module):
    """(convolution 3x3, BatchNorm, ReLU) twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> float32 [N, outputs, H, W]."""
        maps = self.relu(self.bn1(self.conv1(maps)))
        out: Tensor = self.relu(self.bn2(self.conv2(maps)))
        return out


class SegmentationNetwork(nn.Module):
    """Levels that halve the image and double the channels, and levels back up, each joined with its level down.

    Args:
        channels: C of the image.
        width: channels of the first level.
        depth: number of halvings.
        classes: outputs for each pixel.
    """

    def __init__(self, channels: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(TwoConvolutions(sizes[i - 1] if i else channels, sizes[i]) for i in range(depth + 1))
        self.pool = nn.MaxPool2d(2)
        self.widen = nn.ModuleList(nn.ConvTranspose2d(sizes[i + 1], sizes[i], 2, stride=2) for i in range(depth))
        self.up = nn.ModuleList(TwoConvolutions(2 * sizes[i], sizes[i]) for i in range(depth))
        self.output = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes, H, W]."""
        levels = [self.down[0](images)]
        for block in self.down[1:]:
            levels.append(block(self.pool(levels[-1])))
        maps = levels.pop()
        for widen, block in zip(reversed(self.widen), reversed(self.up), strict=True):
            level = levels.pop()
            maps = widen(maps)
            # An odd side loses a pixel when it is halved, which is given back as zeros.
            maps = pad(maps, (0, level.shape[3] - maps.shape[3], 0, level.shape[2] - maps.shape[2]))
            maps = block(torch.cat([level, maps], dim=1))
        logits: Tensor = self.output(maps)
        return logits
