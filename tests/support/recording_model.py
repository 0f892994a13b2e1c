"""A network that keeps what it is trained on; importable by path: "recording_model:Recording"."""

import torch
from torch import Tensor, nn

SEEN: set[bytes] = set()
"""The images, as stored, that any network of this process was given in training mode."""


class Recording(nn.Module):
    """A linear classifier of images that are scaled to [0, 1]."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        height, width, channels = input_shape
        self.layer = nn.Linear(height * width * channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type == "cpu":
            stored = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            SEEN.update(image.contiguous().numpy().tobytes() for image in stored)
        return self.layer(images.flatten(1))
