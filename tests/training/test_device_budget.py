"""What a local step asks of a device: kernels, uploads and waits, counted on PyTorch's meta device.

Tensors there have no values. Whatever would wait for one (`Tensor.item`), or mixes it with a tensor in host
memory, fails or is counted here as it would cost time on a GPU. A budget is what a step takes now: a change that needs
more of a device has to say so here.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pfl_network import PflCnn
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedbench.algorithms.base import Objective
from fedbench.algorithms.feddyn import Regularised
from fedbench.algorithms.fedprox import Proximal
from fedbench.algorithms.moon import PREVIOUS_STATISTICS, Contrastive
from fedbench.algorithms.scaffold import Controlled
from fedbench.data.augment import MinibatchDraws, prepare
from fedbench.data.augmentation import Augmentation
from fedbench.models.base import Model, Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.resnet import ResNet8
from fedbench.randomness import generator
from fedbench.training.local import ClientTraining, LocalTraining
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD, Adam, AdamW, Optimizer
from fedbench.training.prepared import prepared_minibatches

META = torch.device("meta")
TASK = Task("image", (32, 32, 3), 10)
ROWS = 96
BATCH = 32

FUSED = {torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_adam_.default, torch.ops.aten._fused_adamw_.default}
"""The optimizers' kernels, which the meta device does not have."""


class DeviceCount(TorchDispatchMode):
    """Counts what is asked of the meta device.

    Attributes:
        kernels: operators that compute there; views are none.
        uploads: copies from host memory.
        waits: values that are read from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.uploads = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kinds = {tensor.device.type for tensor in tensors_of((args, kwargs))}
        if func is torch.ops.aten._local_scalar_dense.default and "meta" in kinds:
            self.waits += 1
            return 0.0
        if func in FUSED and "meta" in kinds:
            self.kernels += 1
            return None
        result = func(*args, **kwargs)
        made = {tensor.device.type for tensor in tensors_of(result)}
        if "meta" in made and kinds == {"cpu"}:
            self.uploads += 1
        elif "meta" in kinds and "cpu" in made:
            self.waits += 1
        elif "meta" in kinds | made and not is_view(func):
            self.kernels += 1
        return result


def is_view(func: Any) -> bool:
    """Whether an operator returns a view of its input, or an empty tensor: no kernel runs for it."""
    returns = func._schema.returns
    aliases = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
    return aliases or func.overloadpacket.__name__ in ("empty", "empty_like", "empty_strided", "detach", "_unsafe_view")


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_of(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_of(part)


@cache
def flat_model(model: type[Model]) -> FlatModel:
    """A model on the meta device, of the widths that it comes with."""
    module: nn.Module = build_module(model(), TASK, 0)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)), META)


class Client:
    """A client's local training on the meta device.

    Attributes:
        begin: what is asked of the device to begin.
        steps: for each step, what is asked of the device.
    """

    def __init__(
        self,
        model: FlatModel,
        objective: Objective | None = None,
        optimizer: Optimizer | None = None,
        augmentation: Augmentation | None = None,
        groups: tuple[int, ...] | None = None,
        batch_size: int = BATCH,
        step_norms: bool = False,
    ) -> None:
        objective = objective or Objective()
        settings = LocalTraining(
            optimizer or SGD(), objective, batch_size, epochs=1, steps=None, bf16=False, seed=0, step_norms=step_norms
        )
        vector = model.vector.clone()
        state = {name: vector.clone() for name in objective.keeps if name != PREVIOUS_STATISTICS}
        if PREVIOUS_STATISTICS in objective.keeps:
            state[PREVIOUS_STATISTICS] = model.statistics.clone()
        inputs, labels = torch.empty(ROWS, 32, 32, 3, dtype=torch.uint8, device=META), torch.empty(ROWS, device=META)
        transform = transform_of(augmentation)
        self.begin, self.steps = DeviceCount(), list[DeviceCount]()
        with self.begin:
            training = ClientTraining(
                model,
                settings,
                anchor=vector,
                groups=groups or model.layout.all_groups,
                lr_factor=1.0,
                shared={name: vector.clone() for name in objective.channels},
                state=state,
            )
            batches = list(
                prepared_minibatches(
                    inputs,
                    labels.long(),
                    np.arange(ROWS),
                    minibatches(generator(0, "minibatches"), ROWS, batch_size, epochs=1, steps=None),
                    transform,
                    generator(0, "augmentation"),
                )
            )
        for batch in batches:
            self.steps.append(DeviceCount())
            with self.steps[-1]:
                training.step(*batch)

    @property
    def kernels(self) -> int:
        """Of a step after the first, all of which ask for the same."""
        assert len({step.kernels for step in self.steps[1:]}) == 1
        return self.steps[-1].kernels


def transform_of(augmentation: Augmentation | None) -> Callable[[Tensor, MinibatchDraws | None], Tensor]:
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    return lambda batch, draws: prepare(batch, augmentation, mean, std, draws)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "fedavg": Objective,
    "fedprox": lambda: Proximal(0.1),
    "scaffold": Controlled,
    "feddyn": lambda: Regularised(0.1),
    "moon": lambda: Contrastive(1.0, 0.5),
    "moon-batch": lambda: Contrastive(1.0, 0.5, "batch"),
}

AUGMENTATIONS = {
    "none": None,
    "flip": Augmentation(flip=True),
    "crop": Augmentation(crop=4),
    "rotate": Augmentation(rotate=10.0),
    "all": Augmentation(flip=True, crop=4, rotate=10.0),
}


@cache
def client_with(objective: str) -> Client:
    """A client that trains ResNet-8 with SGD."""
    return Client(flat_model(ResNet8), OBJECTIVES[objective]())


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_waits_for_nothing_and_uploads_nothing(name: str) -> None:
    client = client_with(name)
    assert [(step.waits, step.uploads) for step in client.steps] == [(0, 0)] * len(client.steps)
    assert client.begin.waits == 0


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), Adam(), AdamW()], ids=lambda optimizer: optimizer.name)
def test_no_optimizer_waits_or_uploads(optimizer: Optimizer) -> None:
    client = Client(flat_model(PflCnn), optimizer=optimizer)
    assert [(step.waits, step.uploads) for step in client.steps] == [(0, 0)] * len(client.steps)


@pytest.mark.parametrize(("name", "most"), [("none", 3), ("flip", 4), ("crop", 4), ("rotate", 5), ("all", 7)])
def test_whatever_is_drawn_is_uploaded_once_for_all_steps(name: str, most: int) -> None:
    """The rows, the scale and the shift of the normalisation, and each parameter of the augmentation."""
    client = Client(flat_model(PflCnn), augmentation=AUGMENTATIONS[name])
    assert client.begin.uploads <= most
    assert client.begin.waits == 0
    assert [(step.waits, step.uploads) for step in client.steps] == [(0, 0)] * len(client.steps)


KERNELS = {"fedavg": 70, "fedprox": 73, "scaffold": 72, "feddyn": 74, "moon": 191, "moon-batch": 191}
"""Kernels of a step of ResNet-8 with SGD, by objective. MOON's two further forward passes are in its figure."""

KERNELS_BY_GROUP = (69, 64, 61, 55, 52, 52, 46, 43, 43, 40)
"""Kernels of a step of ResNet-8 with Adam that trains one layer group alone, from the first to the last."""


@pytest.mark.parametrize("name", KERNELS)
def test_a_step_stays_within_its_budget_of_kernels(name: str) -> None:
    assert client_with(name).kernels <= KERNELS[name]


def test_the_optimizer_and_the_counter_of_its_steps_are_two_kernels() -> None:
    assert Client(flat_model(ResNet8), optimizer=Adam()).kernels <= KERNELS["fedavg"] + 1


def test_a_partial_step_stays_within_its_budget_of_kernels() -> None:
    model = flat_model(ResNet8)
    for group, most in enumerate(KERNELS_BY_GROUP):
        assert Client(model, optimizer=Adam(), groups=(group,)).kernels <= most, group


def test_a_step_of_small_minibatches_stays_within_its_budget_of_kernels() -> None:
    assert Client(flat_model(PflCnn), batch_size=10).kernels <= 34


@pytest.mark.parametrize("groups", [None, (3,), (2, 5)], ids=str)
def test_the_norms_of_a_step_are_three_kernels_more_and_wait_for_nothing(groups: tuple[int, ...] | None) -> None:
    """The change, the norms of it and of the gradient, and the copy of the parameters."""
    model = flat_model(ResNet8)
    measured = Client(model, groups=groups, step_norms=True)
    assert [(step.waits, step.uploads) for step in measured.steps] == [(0, 0)] * len(measured.steps)
    assert measured.begin.waits == 0
    assert measured.kernels <= Client(model, groups=groups).kernels + 3


class Waiting(Objective):
    """Reads the loss of each minibatch."""

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        loss = super().loss(module, inputs, labels)
        loss.item()
        return loss


class Uploading(Objective):
    """Sends a weight to the device in each step."""

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return super().loss(module, inputs, labels) * torch.tensor([0.5]).to(inputs.device).squeeze()


def test_what_waits_and_what_uploads_is_seen() -> None:
    model = flat_model(PflCnn)
    assert {step.waits for step in Client(model, Waiting()).steps} == {1}
    assert {step.uploads for step in Client(model, Uploading()).steps} == {1}
