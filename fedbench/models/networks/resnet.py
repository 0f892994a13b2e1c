"""Networks of `fedbench.models.resnet`."""

from torch import Tensor, nn

from fedbench.models.initialisation import initialise_convolutions


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
