"""Models on the straight line between two others."""

import torch
from torch import Tensor


def on_line(start: Tensor, end: Tensor, t: float) -> Tensor:
    """The point (1 - t) start + t end; exactly `start` at t = 0, `end` at t = 1, and `start` where both are equal."""
    return torch.lerp(start, end, t)
