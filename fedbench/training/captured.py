"""Training steps that are captured once as a CUDA graph and replayed: one launch in place of a hundred.

A graph replays the same kernels on the same addresses. So what a step reads and writes lies in tensors that stay: the
minibatch is copied to its place, and the model, the objective and the optimizer of a slot work on tensors of the slot.
A graph is captured for each combination of layer groups, minibatch size and variant of the objective and the optimizer.

Every graph is compared, bit for bit, with the step that it stands for before it is used. A step that cannot be
captured, or whose replay differs, runs as it is, and why is said once.
"""

import random
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.models.flat import FlatModel
from fedbench.randomness import global_generators_seeded
from fedbench.training.optimizers import Optimizer, ReusableStep
from fedbench.training.out_of_memory import release_memory, retried_out_of_memory

MOST_GRAPHS = 64
"""Graphs, and optimizers of layer groups, that a slot keeps from one client to the next; beyond it starts anew."""

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
            pool: memory of a living graph that never runs at the same time, for what it computes; None: new memory.
        """
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with _workspaces_of_its_own():
            # Not `torch.cuda.graph`, which gives all free memory of all streams back before each capture, and hides
            # the error that ended a capture behind its own.
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self.loss = step()
            except BaseException:
                with suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()

    def replay(self) -> None:
        self._graph.replay()

    @property
    def pool(self) -> Any:
        """The memory of what the step computes, which lives as long as any graph that has it."""
        return self._graph.pool()


class GraphRecorder:
    """Records the steps of one slot as CUDA graphs, which share their memory: they never run at the same time."""

    def __init__(self) -> None:
        self._living: weakref.WeakSet[CudaStepGraph] = weakref.WeakSet()

    def __call__(self, step: Callable[[], Tensor]) -> CudaStepGraph:
        # PyTorch takes no more graphs into a memory whose last graph is gone.
        graph = CudaStepGraph(step, next((graph.pool for graph in self._living), None))
        self._living.add(graph)
        return graph


@contextmanager
def _workspaces_of_its_own() -> Iterator[None]:
    """The context of a capture, in which cuBLAS takes its workspace from the memory of the graph.

    PyTorch keeps such a workspace for each stream and frees it when any graph of that stream is destroyed, while others
    would still write to it (github.com/pytorch/pytorch/issues/193402). What a graph holds stays as long as its pool.
    """
    clear = torch._C._cuda_clearCublasWorkspaces
    clear()
    try:
        yield
    finally:
        clear()


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
        refused: why the first step that cannot be recorded cannot; "" where all can be.
    """

    def __init__(self, model: FlatModel, record: Record | None) -> None:
        """Record nothing yet.

        Args:
            model: the slot's model.
            record: how a step is recorded; None: never, every step is done as it is.
        """
        self._model = model
        self._record = record
        self._recorded: dict[Hashable, Recorded] = {}
        self._eager: set[Hashable] = set()
        self._met: set[Hashable] = set()
        self._updates: dict[Hashable, ReusableStep] = {}
        self._randomness = HostRandomness()
        self.refused = ""

    def seed(self, seed: int) -> None:
        """Seed what the steps of the next client draw from on the host."""
        self._randomness.seed(seed)

    def forget(self) -> None:
        """Give up what was recorded, with the optimizers' tensors, on which the graphs work."""
        self._recorded.clear()
        self._updates.clear()
        self._met.clear()
        self._eager.clear()
        for parameter in self._model.module.parameters():
            parameter.grad = None  # it may be memory of a graph

    def update(
        self, optimizer: Optimizer, groups: tuple[int, ...], parameters: list[nn.Parameter], factor: float
    ) -> Callable[[], object]:
        """An optimizer's step over the parameters of some layer groups, at its beginning, on tensors that stay."""
        if max(len(self._updates), len(self._recorded), len(self._met) // MOST_GRAPHS) > MOST_GRAPHS:
            self.forget()
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
            loss = recorded(inputs, labels)
            recorded.give_gradients(self._model)
            update.stepped()
            return loss
        if whole in self._eager or whole not in self._met:
            self._met.add(whole)  # recorded when it comes again: a rest of a client's rows may never do so
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
        before, outside = [tensor.clone() for tensor in tensors], (self._model.outside(), _draws_of_host())
        draws = _device_draws(inputs.device)
        steps_before = update.variant
        loss = compute(inputs, labels)
        steps_after = update.variant
        if (self._model.outside(), _draws_of_host()) != outside:
            return self._run_eagerly(whole, loss, "its network or Python's random numbers change with each step")
        after = [tensor.clone() for tensor in tensors]
        draws_after = _device_draws(inputs.device)

        def recorded_and_repeated() -> tuple[Recorded, Tensor]:
            assert self._record is not None
            update.variant = steps_before
            _restore(tensors, before, draws)
            recorded = Recorded(compute, inputs, labels, self._record, self._model)
            _restore(tensors, before, draws)
            return recorded, recorded(inputs, labels)

        try:  # amid a capture PyTorch cannot give memory back that is free, but not for the graph
            recorded, repeated = retried_out_of_memory(recorded_and_repeated, lambda: release_memory(inputs.device))
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
        return loss

    def _run_eagerly(self, whole: Hashable, loss: Tensor, reason: str) -> Tensor:
        self._eager.add(whole)
        self._refuse(reason)
        return loss

    def _refuse(self, reason: str) -> None:
        self.refused = self.refused or reason


def _restore(tensors: list[Tensor], values: list[Tensor], draws: "Tensor | None") -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
    if draws is not None:
        torch.cuda.set_rng_state(draws)


def _device_draws(device: torch.device) -> "Tensor | None":
    """The state of the generator that dropout on a GPU draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _draws_of_host() -> tuple[object, ...]:
    """The states of the generators that a step may draw from on the host, which a graph would not."""
    of_python, of_numpy, of_torch = _host_generators()
    return of_python, of_numpy[1].tobytes(), of_numpy[2], of_torch.numpy().tobytes()
