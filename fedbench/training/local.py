"""Local training of one client in one round: from the global parameters to the client's own."""

import math
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.measures.step_norms import StepNorms
from fedbench.measures.step_recorder import StepNormRecorder
from fedbench.models.flat import FlatModel
from fedbench.randomness import generator, torch_seed
from fedbench.tasks.losses import counted_in
from fedbench.training.backward import BackwardPass
from fedbench.training.captured import CapturedSteps
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import Optimizer
from fedbench.training.prepared import Transform, prepared_minibatches
from fedbench.training.seeding import seeded

STEPS_AHEAD = 16
"""Steps that are given to a GPU before it is waited for, where a client has a deadline."""


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
        step_norms: whether the norms of every step are recorded: of the parameters' change, and of the gradient that
            the optimizer is given, with the method's change to it and without a weight decay of the optimizer's.
    """

    optimizer: Optimizer
    objective: Objective
    batch_size: int
    epochs: int | None
    steps: int | None
    bf16: bool
    seed: int
    step_norms: bool = False


@dataclass(frozen=True)
class LocalResult:
    """The result of one client's local training, beside the model that it has trained.

    Attributes:
        steps: minibatches trained on.
        loss: mean training loss over the rows, tokens or pixels that count of all steps.
        passes: additional forward passes of every minibatch, beside that of the training step.
        outgoing: {channel: float32 [P]}, what the client adds to the method's further channels; meaningful on the
            active groups.
        step_norms: the norms of every step; None where they are not recorded.
        rms_loss: root of the mean squared minibatch loss, over the samples of all steps.
        gradient_norms: for each layer group, the norm of the gradient of the first minibatch, before any step; (): not
            computed.
        places: mean number of tokens or pixels of a sample that count, over all steps; 1 where rows count.
    """

    steps: int
    loss: float
    passes: int
    outgoing: dict[str, Tensor]
    step_norms: StepNorms | None = None
    rms_loss: float = math.nan
    gradient_norms: tuple[float, ...] = ()
    places: float = 1.0


class ClientTraining:
    """One client's local training in one round: begun when it is made, then a step for each minibatch, then finished.

    A step is the forward and the backward pass, the objective's change to the gradient, and the optimizer's update. It
    waits for no device and moves nothing between host and device.
    """

    def __init__(
        self,
        model: FlatModel,
        settings: LocalTraining,
        *,
        anchor: Tensor,
        groups: tuple[int, ...],
        lr_factor: float,
        shared: dict[str, Tensor] | None = None,
        state: dict[str, Tensor] | None = None,
        captured: CapturedSteps | None = None,
    ) -> None:
        """Prepare model, objective and optimizer for a client; arguments as for `train_client`.

        Args:
            captured: records the steps, and repeats them; None: each is done as it is.
        """
        self._model = model
        self._objective = settings.objective
        self._backward = BackwardPass(model, self._objective, groups, settings.bf16)
        self._corrects = self._objective.corrects
        self._collects = self._corrects or not settings.optimizer.elementwise
        by_tensor = settings.optimizer.elementwise
        trained = self._backward.parameters if by_tensor else model.slices(groups)
        if captured is None:
            self._update = settings.optimizer.step_function(trained, lr_factor)
        else:
            self._update = captured.update(settings.optimizer, groups, trained, lr_factor)
        self._context = LocalContext(
            model,
            anchor,
            groups,
            model.layout.ranges(groups),
            settings.optimizer.lr * lr_factor,
            shared or {},
            {} if state is None else state,
        )
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._counted: list[Tensor | int] = []
        self._objective.begin(self._context)
        variant = self._objective.variant()
        self._key = None if variant is None else (groups, variant)
        self._captured = captured
        self._norms = StepNormRecorder(model, groups) if settings.step_norms else None

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one minibatch.

        Args:
            inputs: the inputs as the module takes them.
            labels: of the minibatch, as the task has them.
        """
        if self._captured is None:
            loss = self._compute(inputs, labels)
        else:
            loss = self._captured.step(self._compute, self._key, self._update, inputs, labels)
        if self._norms is not None:
            self._norms.after_step()
        self._losses.append(loss)
        self._sizes.append(len(labels))
        self._counted.append(counted_in(labels))

    def _compute(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """What a step computes; returns the loss."""
        loss = self._backward(inputs, labels)
        if self._collects:
            self._model.collect_gradient()
        if self._corrects:
            with torch.no_grad():
                self._objective.correct(self._context)
        self._update()
        return loss

    def finish(self) -> LocalResult:
        """Bring the model's statistics and the client's state up to date; the only time that the losses are read."""
        reads_gradient = type(self._objective).finish is not Objective.finish
        if self._losses and reads_gradient and not self._collects:
            self._model.collect_gradient()
        self._model.collect_statistics()
        with torch.no_grad():
            self._objective.finish(self._context, len(self._losses))
        losses = torch.stack(self._losses).double().tolist() if self._losses else []
        on_device = [count for count in self._counted if isinstance(count, Tensor)]  # all of them, or none
        counted = torch.stack(on_device).tolist() if on_device else self._counted
        total = sum(loss * count for loss, count in zip(losses, counted, strict=True))
        squares = sum(loss * loss * size for loss, size in zip(losses, self._sizes, strict=True))
        samples = max(sum(self._sizes), 1)
        norms = None if self._norms is None else self._norms.result()
        return LocalResult(
            len(losses),
            total / max(sum(counted), 1),
            self._context.passes,
            self._context.outgoing,
            norms,
            math.sqrt(squares / samples),
            places=sum(counted) / samples,
        )


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
    steps = training_steps(
        model, inputs, labels, rows, transform, settings, anchor=anchor, groups=groups, round_index=round_index,
        client=client, lr_factor=lr_factor, shared=shared, state=state, until=until,
        randomness=seeded(model.vector.device, torch_seed(settings.seed, "dropout", round_index, client)),
    )  # fmt: skip
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: LocalResult = end.value
            return result


def training_steps(
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
    shared: dict[str, Tensor] | None,
    state: dict[str, Tensor] | None,
    until: float,
    randomness: AbstractContextManager[None],
    captured: CapturedSteps | None = None,
) -> Generator[None, None, LocalResult]:
    """The same, as a generator that yields after each step and returns the result.

    Args:
        randomness: the context in which all steps are made.
        captured: as for `ClientTraining`.
    """
    training = ClientTraining(
        model,
        settings,
        anchor=anchor,
        groups=groups,
        lr_factor=lr_factor,
        shared=shared,
        state=state,
        captured=captured,
    )
    positions = minibatches(
        generator(settings.seed, "minibatches", round_index, client),
        len(rows),
        settings.batch_size,
        epochs=settings.epochs,
        steps=settings.steps,
        smallest=model.smallest_batch,
    )
    augmentation = generator(settings.seed, "augmentation", round_index, client)
    device, batches = (
        model.vector.device,
        prepared_minibatches(inputs, labels, rows, positions, transform, augmentation),
    )
    with randomness:
        for number, batch in enumerate(batches, 1):
            training.step(*batch)
            if until < math.inf:
                if device.type == "cuda" and number % STEPS_AHEAD == 0:
                    torch.cuda.current_stream(device).synchronize()  # else the steps are begun, and not yet made
                if time.monotonic() > until:
                    raise OutOfTime
            yield
    return training.finish()
