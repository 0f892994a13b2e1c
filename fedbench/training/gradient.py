"""The gradient of one minibatch: a worker's task in asynchronous SGD."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.data.augment import MinibatchDraws
from fedbench.models.flat import FlatModel
from fedbench.randomness import generator, torch_seed
from fedbench.tasks.losses import Criterion
from fedbench.training.backward import BackwardPass
from fedbench.training.prepared import Transform
from fedbench.training.seeding import seeded


def minibatch_gradient(
    model: FlatModel,
    inputs: Tensor,
    labels: Tensor,
    rows: npt.NDArray[np.int64],
    transform: Transform,
    *,
    criterion: Criterion,
    groups: tuple[int, ...],
    weight_decay: float,
    bf16: bool,
    seed: int,
    client: int,
    visit: int,
) -> float:
    """Compute the gradient of the mean loss over a minibatch, into `model.gradient` on the active groups.

    The parameters do not change; running statistics change as in a training step. Augmentations and dropout depend on
    (seed, visit, client) alone.

    Args:
        model: has the parameters at which the gradient is taken.
        inputs: uint8 [N, H, W, C], int32 [N, L] or float32 [N, ...], those of all clients, on the model's device.
        labels: int64 [N], or as the task has them, the labels of all clients, on the model's device.
        rows: int64 [B], the minibatch's rows of `inputs`.
        transform: turns stored inputs into what the module takes.
        criterion: the loss of the task.
        groups: the active layer groups.
        weight_decay: factor of an L2 penalty, whose gradient at the same parameters is added.
        bf16: whether the forward pass runs under bfloat16 autocast.
        seed: seed of the experiment.
        client: the client.
        visit: number of tasks that the client has had before.

    Returns:
        The mean loss over the minibatch, without the penalty.
    """
    device = model.vector.device
    objective = Objective()
    objective.criterion = criterion
    backward = BackwardPass(model, objective, groups, bf16)
    chosen = torch.from_numpy(rows).to(device)
    draws = MinibatchDraws(generator(seed, "augmentation", visit, client), [len(rows)])
    batch = transform(inputs.index_select(0, chosen), draws)
    with seeded(device, torch_seed(seed, "dropout", visit, client)):
        loss = backward(batch, labels.index_select(0, chosen))
    model.collect_gradient()
    model.collect_statistics()
    if weight_decay:
        for piece in model.layout.ranges(groups):
            model.gradient[piece].add_(model.vector[piece], alpha=weight_decay)
    return float(loss)
