"""The norm of the gradient in every layer group, of the minibatch that a client trains on first."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.models.flat import FlatModel
from fedbench.randomness import generator
from fedbench.training.gradient import minibatch_gradient
from fedbench.training.local import LocalTraining
from fedbench.training.minibatches import minibatches
from fedbench.training.prepared import Transform


def gradient_norms(
    model: FlatModel,
    inputs: Tensor,
    labels: Tensor,
    rows: npt.NDArray[np.int64],
    transform: Transform,
    settings: LocalTraining,
    *,
    round_index: int,
    client: int,
) -> tuple[float, ...]:
    """For each layer group, the L2 norm of the gradient of the mean loss at the model's parameters.

    It is that of the plain loss, without what the method or a weight decay would add. The parameters do not change;
    running statistics change as in a training step. Arguments as for `train_client`.
    """
    first = next(
        minibatches(
            generator(settings.seed, "minibatches", round_index, client),
            len(rows),
            settings.batch_size,
            epochs=settings.epochs,
            steps=settings.steps,
            smallest=model.smallest_batch,
        )
    )
    layout = model.layout
    minibatch_gradient(
        model,
        inputs,
        labels,
        rows[first],
        transform,
        criterion=settings.objective.criterion,
        groups=layout.all_groups,
        weight_decay=0.0,
        bf16=settings.bf16,
        seed=settings.seed,
        client=client,
        visit=round_index,
    )
    squares = torch.stack([model.gradient[piece].double().square().sum() for piece in layout.slices])
    return tuple(squares.sqrt().tolist())
