"""One client's local work in one round: from the global parameters to its own."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.models.flat import FlatModel
from fedbench.randomness import generator, torch_seed
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import Optimizer
from fedbench.training.seeding import seeded

Transform = Callable[[Tensor, np.random.Generator | None], Tensor]
"""Turns a minibatch of stored inputs into what the module takes; the generator draws augmentations."""


class OutOfTime(Exception):
    """A client's training had not ended when its time was up."""


@dataclass(frozen=True)
class LocalWork:
    """What every client does alike.

    Attributes:
        optimizer: made anew for each client and round.
        objective: what is minimised.
        batch_size, epochs, steps: as in `local`.
        bf16: autocast the forward pass.
        seed: the experiment's.
    """

    optimizer: Optimizer
    objective: Objective
    batch_size: int
    epochs: int | None
    steps: int | None
    bf16: bool
    seed: int


@dataclass(frozen=True)
class LocalResult:
    """What came of a client's round.

    Attributes:
        steps: minibatches trained on.
        loss: mean training loss over the samples of all steps.
        passes: forward passes of every minibatch beside the training step's own.
        outgoing: what the client adds to further channels, float32 [P] each, meaningful on the active pieces.
    """

    steps: int
    loss: float
    passes: int
    outgoing: dict[str, Tensor]


def train_client(
    model: FlatModel,
    inputs: Tensor,
    labels: Tensor,
    rows: npt.NDArray[np.int64],
    transform: Transform,
    work: LocalWork,
    *,
    anchor: Tensor,
    groups: tuple[int, ...],
    round_index: int,
    client: int,
    lr_factor: float,
    shared: dict[str, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
    until: float = math.inf,
) -> LocalResult:
    """Train `model` in place on one client's rows.

    Minibatches, augmentations and dropout depend on (seed, round, client) alone.

    Args:
        model: holds the global parameters; its active slices and statistics are changed.
        inputs, labels: uint8 [N, H, W, C] or int32 [N, L], and int64 [N], of all clients, on the model's device.
        rows: int64 [n], the client's rows of `inputs`.
        anchor: float32 [P], the global parameters.
        groups: the active layer groups.
        lr_factor: factor on the learning rate.
        shared: the server's further channels, float32 [P] each.
        state: what the client keeps; renewed in place by the objective.
        until: when it has to have ended, on `time.monotonic`'s clock; looked at after every minibatch.

    Raises:
        OutOfTime: it has not.
    """
    device = model.vector.device
    objective = work.objective
    optimizer = work.optimizer.make(model.activate(groups), lr_factor)
    pieces = model.layout.ranges(groups)
    context = LocalContext(
        model, anchor, groups, pieces, work.optimizer.lr * lr_factor, shared or {}, {} if state is None else state
    )
    gradients = [model.gradient[piece] for piece in pieces]
    order = generator(work.seed, "minibatches", round_index, client)
    augmentation = generator(work.seed, "augmentation", round_index, client)
    total = torch.zeros((), dtype=torch.float64, device=device)
    steps = samples = 0
    model.module.train()
    objective.begin(context)
    with seeded(device, torch_seed(work.seed, "dropout", round_index, client)):
        for positions in minibatches(
            order, len(rows), work.batch_size, epochs=work.epochs, steps=work.steps, smallest=model.smallest_batch
        ):
            chosen = torch.from_numpy(rows[positions]).to(device)
            batch = transform(inputs.index_select(0, chosen), augmentation)
            for gradient in gradients:
                gradient.zero_()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=work.bf16):
                loss = objective.loss(model.module, batch, labels.index_select(0, chosen))
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                objective.correct(context)
            optimizer.step()
            total += loss.detach().double() * len(positions)
            steps += 1
            samples += len(positions)
            if time.monotonic() > until:
                raise OutOfTime
    with torch.no_grad():
        objective.finish(context, steps)
    return LocalResult(steps, float(total) / max(samples, 1), context.passes, context.outgoing)
