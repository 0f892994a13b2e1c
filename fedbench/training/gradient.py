"""The gradient of one minibatch: a worker's whole work in asynchronous SGD."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.models.flat import FlatModel
from fedbench.randomness import generator, torch_seed
from fedbench.training.local import Transform
from fedbench.training.seeding import seeded


def minibatch_gradient(
    model: FlatModel,
    inputs: Tensor,
    labels: Tensor,
    rows: npt.NDArray[np.int64],
    transform: Transform,
    *,
    groups: tuple[int, ...],
    weight_decay: float,
    bf16: bool,
    seed: int,
    client: int,
    visit: int,
) -> float:
    """Leave the gradient of the mean cross-entropy over `rows` in `model.gradient`, on the active pieces.

    The parameters stay; running statistics move as in a training step. Augmentations and dropout depend on (seed,
    visit, client) alone.

    Args:
        model: holds the parameters to differentiate at.
        inputs, labels: uint8 [N, H, W, C] or int32 [N, L], and int64 [N], of all clients, on the model's device.
        rows: int64 [B], rows of `inputs`.
        groups: the active layer groups.
        weight_decay: L2 penalty, whose gradient is added with these same parameters.
        visit: how many works the client has had before.

    Returns:
        The mean loss over the minibatch.
    """
    device = model.vector.device
    model.activate(groups)
    pieces = model.layout.ranges(groups)
    for piece in pieces:
        model.gradient[piece].zero_()
    model.module.train()
    chosen = torch.from_numpy(rows).to(device)
    batch = transform(inputs.index_select(0, chosen), generator(seed, "augmentation", visit, client))
    with seeded(device, torch_seed(seed, "dropout", visit, client)):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = Objective().loss(model.module, batch, labels.index_select(0, chosen))
        loss.backward()  # type: ignore[no-untyped-call]
    if weight_decay:
        for piece in pieces:
            model.gradient[piece].add_(model.vector[piece], alpha=weight_decay)
    return float(loss.detach())
