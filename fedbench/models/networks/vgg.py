"""Networks of `fedbench.models.vgg`."""

from torch import Tensor, nn

from fedbench.models.networks.dropout import Dropout

# Convolutions per stage and the stage's channels in units of `width`; a max-pool ends each stage.
STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


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
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        logits: Tensor = self.classifier(self.average(self.features(images)).flatten(1))
        return logits
