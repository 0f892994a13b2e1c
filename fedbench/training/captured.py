"""Training steps that are captured once as a CUDA graph and replayed: one launch in place of a hundred.

A graph replays the same kernels on the same addresses. So what a step reads and writes lies in tensors that stay: the
minibatch is copied to its place, and the model, the objective and the optimizer of a slot work on tensors of the slot.
A graph is captured for each combination of layer groups, minibatch size and variant of the objective and the optimizer.

Every graph is compared, bit for bit, with the step that it stands for before it is used. A step that cannot be
captured, or whose replay differs, runs as it is, which is said once.
"""

import random
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.models.flat import FlatModel
from fedbench.randomness import global_generators_seeded
from fedbench.training.optimizers import Optimizer, ReusableStep

MOST_GRAPHS = 64
"""Graphs that a slot keeps; the one that was used least recently makes room."""

Compute = Callable[[Tensor, Tensor], Tensor]
"""A whole training step on a minibatch's inputs and labels, which returns the loss."""


class StepGraph(Protocol):
    """A step that was recorded, and can be done again."""

    loss: Tensor
    gradients_stay: bool

    def replay(self) -> None:
        """Do the step again, on the tensors that it was recorded with."""


Record = Callable[[Callable[[], Tensor]], StepGraph]
"""Records a step, without doing it or after having undone it."""


class CudaStepGraph:
    """A step as a CUDA graph, captured on the current stream."""

    gradients_stay = True

    def __init__(self, step: Callable[[], Tensor], pool: Any = None) -> None:
        """Capture a step.

        Args:
            step: the step, which has been done before on this stream.
            pool: memory for what it computes, shared with graphs that never run at the same time.
        """
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.loss = step()

    def replay(self) -> None:
        self._graph.replay()


class CalledStep:
    """A "graph" that calls the step that was recorded: it shows on any device what a graph would read and write."""

    gradients_stay = False

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self._step = step
        self.loss = torch.zeros(())

    def replay(self) -> None:
        self.loss = self._step()


class Recorded:
    """A recorded step with the places of its minibatch."""

    def __init__(self, compute: Compute, inputs: Tensor, labels: Tensor, record: Record, model: FlatModel) -> None:
        self._inputs = inputs.clone(memory_format=torch.preserve_format)
        self._labels = labels.clone()
        self._graph = record(lambda: compute(self._inputs, self._labels))
        # Where the memory of the gradients belongs to a graph, who reads them after a replay finds them there.
        self._gradients = [parameter.grad for parameter in model.trained] if self._graph.gradients_stay else []

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._graph.loss.detach().clone()

    def give_gradients(self, model: FlatModel) -> None:
        """Let the parameters have the gradients of the last replay."""
        for parameter, gradient in zip(model.trained, self._gradients, strict=False):
            parameter.grad = gradient


class HostRandomness:
    """The global generators of Python, NumPy and PyTorch's CPU as one slot's client sees them."""

    def __init__(self) -> None:
        self._states: tuple[Any, ...] | None = None

    def seed(self, seed: int) -> None:
        """Start anew from a seed, as `seeding.seeded` does."""
        with global_generators_seeded(seed):
            self._states = _host_generators()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The generators are the client's; afterwards they are as they were, and the client's are kept."""
        before = _host_generators()
        if self._states is not None:
            _set_host_generators(self._states)
        try:
            yield
        finally:
            self._states = _host_generators()
            _set_host_generators(before)


def _host_generators() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_host_generators(states: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)


class CapturedSteps:
    """The recorded steps of one slot.

    Attributes:
        refused: why steps are not recorded; "" where all are.
    """

    def __init__(self, model: FlatModel, record: Record | None) -> None:
        """Record nothing yet.

        Args:
            model: the slot's model.
            record: how a step is recorded; None: never, every step is done as it is.
        """
        self._model = model
        self._record = record
        self._recorded: OrderedDict[Hashable, Recorded] = OrderedDict()
        self._eager: set[Hashable] = set()
        self._updates: dict[Hashable, ReusableStep] = {}
        self._randomness = HostRandomness()
        self.refused = ""

    def seed(self, seed: int) -> None:
        """Seed what the steps of the next client draw from on the host."""
        self._randomness.seed(seed)

    def update(
        self, optimizer: Optimizer, groups: tuple[int, ...], parameters: list[nn.Parameter], factor: float
    ) -> Callable[[], object]:
        """An optimizer's step over the parameters of some layer groups, at its beginning, on tensors that stay."""
        if (kept := self._updates.get(groups)) is not None:
            kept.reset(factor)
            return kept
        step = optimizer.step_function(parameters, factor)
        if isinstance(step, ReusableStep):
            self._updates[groups] = step
        return step

    def step(
        self, compute: Compute, key: Hashable | None, update: Callable[[], object], inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Do one step, as a replay where one is recorded under its key; returns the loss.

        Args:
            compute: the step.
            key: what distinguishes the step from others of the slot, apart from its minibatch; None: it cannot be
                recorded.
            update: the optimizer's part of it.
            inputs, labels: the minibatch.
        """
        if self._record is None:
            return self._as_it_is(compute, inputs, labels)
        if key is None or not isinstance(update, ReusableStep):
            self._refuse("what its objective or its optimizer needs of a client is not where a graph would find it")
            return self._as_it_is(compute, inputs, labels)
        whole = (key, update.variant, tuple(inputs.shape), inputs.dtype)
        if (recorded := self._recorded.get(whole)) is not None:
            self._recorded.move_to_end(whole)
            loss = recorded(inputs, labels)
            recorded.give_gradients(self._model)
            update.stepped()
            return loss
        if whole in self._eager:
            return self._as_it_is(compute, inputs, labels)
        with self._randomness.turn():
            return self._first_step(whole, compute, update, inputs, labels)

    def _as_it_is(self, compute: Compute, inputs: Tensor, labels: Tensor) -> Tensor:
        with self._randomness.turn():
            return compute(inputs, labels)

    def _first_step(
        self, whole: Hashable, compute: Compute, update: ReusableStep, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Do a step as it is, record it, and do it again from the same start to see that nothing differs."""
        tensors = [self._model.vector, self._model.statistics, *update.tensors]
        before, outside = [tensor.clone() for tensor in tensors], _outside(self._model.module)
        draws = _device_draws(inputs.device)
        steps_before = update.variant
        loss = compute(inputs, labels)
        steps_after = update.variant
        if _outside(self._model.module) != outside:
            return self._run_eagerly(whole, loss, "its network or Python's random numbers change with each step")
        after = [tensor.clone() for tensor in tensors]
        draws_after = _device_draws(inputs.device)
        update.variant = steps_before
        _restore(tensors, before, draws)
        try:
            assert self._record is not None
            recorded = Recorded(compute, inputs, labels, self._record, self._model)
            _restore(tensors, before, draws)
            repeated = recorded(inputs, labels)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
        else:
            same = [torch.equal(one, other) for one, other in zip([*tensors, repeated], [*after, loss], strict=True)]
            reason = "" if all(same) else "its replay differs from it"
        update.variant = steps_after
        if reason:
            _restore(tensors, after, draws_after)
            return self._run_eagerly(whole, loss, reason)
        recorded.give_gradients(self._model)
        self._recorded[whole] = recorded
        if len(self._recorded) > MOST_GRAPHS:
            self._recorded.popitem(last=False)
        return loss

    def _run_eagerly(self, whole: Hashable, loss: Tensor, reason: str) -> Tensor:
        self._eager.add(whole)
        self._refuse(reason)
        return loss

    def _refuse(self, reason: str) -> None:
        if not self.refused:
            self.refused = reason
            warnings.warn(f"a training step is not captured as a graph, and takes longer: {reason}", stacklevel=2)


def _restore(tensors: list[Tensor], values: list[Tensor], draws: "Tensor | None") -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
    if draws is not None:
        torch.cuda.set_rng_state(draws)


def _device_draws(device: torch.device) -> "Tensor | None":
    """The state of the generator that dropout on a GPU draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _outside(module: nn.Module) -> tuple[object, ...]:
    """What a step may change that a graph would not: plain attributes of layers, whole numbers, random generators."""
    plain = tuple(
        (name, key, value)
        for name, layer in module.named_modules()
        for key, value in vars(layer).items()
        if isinstance(value, bool | int | float | str | tuple | None) and not key.startswith("_")
    )
    buffers = tuple(
        (name, tuple(buffer.reshape(-1).tolist()))
        for name, buffer in module.named_buffers()
        if buffer.dtype is not torch.float32
    )
    of_python, of_numpy, of_torch = _host_generators()
    return plain, buffers, of_python, of_numpy[1].tobytes(), of_numpy[2], of_torch.numpy().tobytes()
