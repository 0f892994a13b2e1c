"""The plain PyTorch training loop of somebody who knows what is fast: what fedbench's local step is measured against.

The data lie ready as float32 (or int64 token ids), the optimizer is the fused one of `torch.optim`, gradients are set
to None before each backward pass, and images and weights are contiguous or channels_last, whichever is faster.
"""

import numpy as np
import torch
from plain_networks import FORMATS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.models.networks.resnet import ResNet
from fedbench.models.networks.transformer import TransformerClassifier


def resnet8() -> nn.Module:
    """The ResNet-8 of fedbench, 1,235,274 parameters for 10 classes."""
    return ResNet(3, 64, (1, 1, 1), 10)


def text_transformer(vocabulary: int, length: int, classes: int) -> nn.Module:
    """The text transformer of fedbench in its standard size."""
    return TransformerClassifier(
        length, vocabulary, padding=0, sizes=(200, 3, 2, 2), dropout=0.1, classes=classes, readout="mean"
    )


class ExpertLoop:
    """One client's model with its data.

    Args:
        module: the network.
        inputs: uint8 [N, H, W, C] or int32 [N, L].
        labels: int64 [N].
        memory_format: one of `FORMATS`; of no meaning for text.
        adam: whether the optimizer is Adam; otherwise it is SGD without momentum.
    """

    def __init__(
        self, module: nn.Module, inputs: Tensor, labels: Tensor, memory_format: str, lr: float, adam: bool = False
    ) -> None:
        layout = FORMATS[memory_format]
        if inputs.dtype == torch.uint8:
            self._inputs = (inputs.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=layout)
            self.module = module.to(memory_format=layout).train()
        else:
            self._inputs, self.module = inputs.long(), module.train()
        self._labels = labels
        self._lr, self._adam = lr, adam

    def epoch(self, positions: np.ndarray, batch_size: int) -> float:
        """Train with a new optimizer on the rows `positions` in their order, and return the mean loss."""
        kind = torch.optim.Adam if self._adam else torch.optim.SGD
        optimizer = kind(self.module.parameters(), lr=self._lr, fused=True)
        losses = []
        for chosen in torch.from_numpy(positions).split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(
                self.module(self._inputs.index_select(0, chosen)), self._labels.index_select(0, chosen)
            )
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())
