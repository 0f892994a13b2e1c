"""VGG-16 with BatchNorm and two wide hidden linear layers.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
configuration D; in FedMR's experiments (arXiv 2208.07677) with BatchNorm and hidden layers of 4,096 units.
"""

from pydantic import Field
from torch import Tensor, nn

from fedbench.models.base import Model, Task
from fedbench.models.requirements import image_shape

# Convolutions per stage and the stage's channels in units of `width`; a max-pool ends each stage.
STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class Vgg16(Model):
    """VGG-16 with BatchNorm: 33,646,666 parameters for 10 classes; images from 32x32.

    All layers start with PyTorch's initial values, as in FedMR's published code.

    Attributes:
        width: Channels of the first stage.
        hidden: Units of each of the two hidden linear layers.
        dropout: Probability of dropping a hidden unit.
    """

    name: str = "vgg16"
    width: int = Field(64, gt=0)
    hidden: int = Field(4096, gt=0)
    dropout: float = Field(0.5, ge=0, lt=1)

    def build(self, task: Task) -> nn.Module:
        _, _, channels = image_shape(task, self.name, smallest=32)
        return Vgg(channels, self.width, self.hidden, self.dropout, task.classes)


class Vgg(nn.Module):
    """Thirteen 3x3 convolutions with BatchNorm in five stages, average pool to 1x1, three linear layers."""

    def __init__(self, channels: int, width: int, hidden: int, dropout: float, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for convolutions, factor in STAGES:
            for _ in range(convolutions):
                outputs = factor * width
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        logits: Tensor = self.classifier(self.average(self.features(images)).flatten(1))
        return logits
