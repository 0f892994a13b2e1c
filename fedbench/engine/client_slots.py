"""A slot of a client host: everything that a client needs for itself while others train in the same process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedbench.engine.messages import HostSpec
from fedbench.models.checkpointed import checkpoint_blocks
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.models.lowered import LOWERED
from fedbench.protocol.layout import Vector
from fedbench.randomness import torch_seed
from fedbench.tasks.losses import criterion_of
from fedbench.training.captured import CapturedSteps, GraphRecorder, Record
from fedbench.training.local import LocalTraining


class ClientSlot:
    """A model, an objective, a stream and a random state of its own, in which one client trains at a time.

    Attributes:
        model: the slot's model.
        training: settings of local training, with the slot's own objective.
        anchor: float32 [P], the parameters from which its client started.
        steps: the slot's training steps.
    """

    def __init__(self, spec: HostSpec, device: torch.device, record: Record | None) -> None:
        """Make a slot.

        Args:
            spec: model, method and settings of the experiment.
            device: where it trains.
            record: records training steps, so that they are repeated; None: each is done as it is.
        """
        self.model = host_model(spec, device)
        self.training = local_training(spec)
        self.anchor = torch.zeros_like(self.model.vector)
        self.steps = CapturedSteps(self.model, record)
        self._kept: dict[str, Tensor] = {}
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._draws: torch.Generator | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._draws = _generator(device).clone_state()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The context in which everything for the slot's client is done."""
        if self._stream is None or self._draws is None:
            yield
            return
        # Not by value: a captured step draws from the state that was the generator's when it was captured.
        generator = _generator(self._device)
        outside = generator.graphsafe_get_state()
        generator.graphsafe_set_state(self._draws)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            generator.graphsafe_set_state(outside)

    def begin(self, start: Tensor, statistics: Vector, seed: int) -> None:
        """Bring the slot to where a client starts; to be called in its turn.

        Args:
            start: float32 [P], the parameters, on the device.
            statistics: float32, the running statistics.
            seed: decides what its steps draw.
        """
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.default_stream(self._device))
            torch.cuda.manual_seed(seed)
        self.steps.seed(seed)
        self.model.vector.copy_(start)
        self.anchor.copy_(start)
        self.model.reset()
        self.model.statistics.copy_(torch.from_numpy(statistics))
        if self._stream is not None:  # the start may be overwritten by that of the next client
            torch.cuda.default_stream(self._device).wait_stream(self._stream)

    def place(self, arrays: dict[str, Vector]) -> dict[str, Tensor]:
        """What the client keeps between rounds, in tensors of the slot, which are the same ones for each client."""
        for name, array in arrays.items():
            source = torch.from_numpy(array)
            if name not in self._kept:
                self._kept[name] = torch.empty_like(source, device=self._device)
            self._kept[name].copy_(source)
        return {name: self._kept[name] for name in arrays}

    def handed_over(self, tensor: Tensor) -> Tensor:
        """A tensor that was computed in the slot's turn, ready to be read outside of it."""
        if self._stream is not None:
            outside = torch.cuda.default_stream(self._device)
            outside.wait_stream(self._stream)
            tensor.record_stream(outside)
        return tensor


def host_model(spec: HostSpec, device: torch.device) -> FlatModel:
    """The network that a host or a slot trains, on its device."""
    module = build_module(spec.model, spec.task, torch_seed(spec.seed, "model"), spec.base, device)
    if spec.checkpoint_activations:
        checkpoint_blocks(module)
    return FlatModel(module, spec.layout, device, lowered=spec.precision == LOWERED)


def recorder(device: torch.device) -> Record | None:
    """How training steps of one slot are recorded on a device; None: not at all."""
    if device.type != "cuda":
        return None
    return GraphRecorder()


def local_training(spec: HostSpec) -> LocalTraining:
    """The settings of local training, with a new objective."""
    objective = spec.algorithm.objective()
    objective.criterion = criterion_of(spec.task.target)
    return LocalTraining(
        optimizer=spec.optimizer,
        objective=objective,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        steps=spec.steps,
        bf16=spec.bf16,
        seed=spec.seed,
        step_norms=spec.step_norms,
    )


def _generator(device: torch.device) -> torch.Generator:
    """The generator that dropout on a GPU draws from."""
    return torch.cuda.default_generators[device.index or torch.cuda.current_device()]
