"""Local training of one client in one round: from the global parameters to the client's own."""

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
"""Turns a minibatch of stored inputs into what the module takes; a generator draws augmentations, None does without."""


class OutOfTime(Exception):
    """Raised when a client's training has not ended at its deadline."""


@dataclass(frozen=True)
class LocalTraining:
    """Settings of local training that all clients share.

    Attributes:
        optimizer: the local optimizer, made again for each client and round.
        objective: the loss to minimise, and the method's changes to the gradient.
        batch_size: samples of a minibatch.
        epochs: passes over the client's data; None where `steps` is set.
        steps: minibatches; None where `epochs` is set.
        bf16: whether the forward pass runs under bfloat16 autocast.
        seed: seed of the experiment.
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
    """The result of one client's local training, beside the model that it has trained.

    Attributes:
        steps: minibatches trained on.
        loss: mean training loss over the samples of all steps.
        passes: additional forward passes of every minibatch, beside that of the training step.
        outgoing: {channel: float32 [P]}, what the client adds to the method's further channels; meaningful on the
            active groups.
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
    settings: LocalTraining,
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
        model: holds the global parameters; its active groups and its running statistics are changed.
        inputs: uint8 [N, H, W, C] or int32 [N, L], the inputs of all clients, on the model's device.
        labels: int64 [N], the labels of all clients, on the model's device.
        rows: int64 [n], the client's rows of `inputs`.
        transform: turns stored inputs into what the module takes.
        settings: optimizer, objective and length of the training.
        anchor: float32 [P], the global parameters.
        groups: the active layer groups.
        round_index: the round, from 0; in asynchronous runs the number of tasks that the client has had before.
        client: the client.
        lr_factor: factor on the learning rate.
        shared: {channel: float32 [P]}, the server's values of the method's further channels.
        state: {name: float32 [P]}, what the client keeps between rounds; the objective changes it in place.
        until: deadline on `time.monotonic`'s clock, checked after every minibatch.

    Raises:
        OutOfTime: the deadline has passed.
    """
    device = model.vector.device
    objective = settings.objective
    step = settings.optimizer.step_function(model.activate(groups), lr_factor)
    pieces = model.layout.ranges(groups)
    context = LocalContext(
        model, anchor, groups, pieces, settings.optimizer.lr * lr_factor, shared or {}, {} if state is None else state
    )
    gradients = [model.gradient[piece] for piece in pieces]
    order = generator(settings.seed, "minibatches", round_index, client)
    augmentation = generator(settings.seed, "augmentation", round_index, client)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    steps = samples = 0
    model.module.train()
    objective.begin(context)
    with seeded(device, torch_seed(settings.seed, "dropout", round_index, client)):
        for positions in minibatches(
            order,
            len(rows),
            settings.batch_size,
            epochs=settings.epochs,
            steps=settings.steps,
            smallest=model.smallest_batch,
        ):
            chosen = torch.from_numpy(rows[positions]).to(device)
            batch = transform(inputs.index_select(0, chosen), augmentation)
            for gradient in gradients:
                gradient.zero_()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
                loss = objective.loss(model.module, batch, labels.index_select(0, chosen))
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                objective.correct(context)
            step()
            loss_sum += loss.detach().double() * len(positions)
            steps += 1
            samples += len(positions)
            if time.monotonic() > until:
                raise OutOfTime
    model.collect_statistics()
    with torch.no_grad():
        objective.finish(context, steps)
    return LocalResult(steps, float(loss_sum) / max(samples, 1), context.passes, context.outgoing)
