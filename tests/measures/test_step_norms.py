"""The norms of a client's steps are those of PyTorch's own loop, and recording them changes nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.measures.step_norms import StepNorms, norms_by_client
from fedbench.models.base import LayerGroup, Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import derive_layer_groups, parameter_layout
from fedbench.randomness import generator
from fedbench.training.local import LocalResult, LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD, Adam, Optimizer

ROWS, BATCH = 40, 8
TASK = Task("image", (8, 8, 1), 3)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8))
LABELS = torch.arange(ROWS) % 3


def network() -> nn.Module:
    """Without a bias in front of BatchNorm: its gradient is rounding alone, which Adam would make large."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 3)
    )


def flat() -> FlatModel:
    module = network()
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def inputs(rows: Tensor) -> Tensor:
    return (rows.float() / 255).permute(0, 3, 1, 2)


def train(
    optimizer: Optimizer, groups: tuple[int, ...], objective: Objective | None = None, recorded: bool = True
) -> tuple[FlatModel, LocalResult]:
    model = flat()
    settings = LocalTraining(
        optimizer, objective or Objective(), BATCH, epochs=2, steps=None, bf16=False, seed=1, step_norms=recorded
    )
    result = train_client(
        model, IMAGES, LABELS, np.arange(ROWS), lambda batch, _: inputs(batch), settings, anchor=model.vector.clone(),
        groups=groups, round_index=0, client=0, lr_factor=1.0,
    )  # fmt: skip
    return model, result


def plain_loop(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], groups: tuple[int, ...]
) -> tuple[list[list[float]], list[list[float]]]:
    """Norms of steps and gradients by layer group, in an ordinary loop over an ordinary network."""
    module = network()
    by_name = dict(module.named_parameters())
    of_group = [[by_name[name] for name in group.parameters] for group in derive_layer_groups(module, TASK)]
    for index, parameters in enumerate(of_group):
        for parameter in parameters:
            parameter.requires_grad_(index in groups)
    trained = [of_group[group] for group in groups]
    optimizer = make([parameter for parameters in trained for parameter in parameters])
    steps, gradients = [], []
    for rows in minibatches(generator(1, "minibatches", 0, 0), ROWS, BATCH, epochs=2, steps=None):
        before = [[parameter.detach().clone() for parameter in parameters] for parameters in trained]
        optimizer.zero_grad()
        cross_entropy(module(inputs(IMAGES[rows])), LABELS[rows]).backward()
        gradients.append([norm([p.grad for p in parameters if p.grad is not None]) for parameters in trained])
        optimizer.step()
        steps.append(
            [
                norm([p.detach() - old for p, old in zip(parameters, olds, strict=True)])
                for parameters, olds in zip(trained, before, strict=True)
            ]
        )
    return steps, gradients


def norm(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.flatten().double() for tensor in tensors]).norm())


@pytest.mark.parametrize("groups", [(0, 1, 2), (1,), (0, 2)], ids=str)
@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        (SGD(lr=0.1, momentum=0.9), lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9)),
        (Adam(lr=0.01), lambda parameters: torch.optim.Adam(parameters, 0.01)),
    ],
    ids=["sgd", "adam"],
)
def test_the_norms_of_one_client_are_those_of_pytorchs_own_loop(
    optimizer: Optimizer,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    groups: tuple[int, ...],
) -> None:
    norms = train(optimizer, groups)[1].step_norms
    steps, gradients = plain_loop(make, groups)
    assert norms is not None
    assert norms.groups == groups
    assert norms.steps == pytest.approx(np.array(steps), rel=1e-4)
    assert norms.gradients == pytest.approx(np.array(gradients), rel=1e-4)


class Halved(Objective):
    """Halves the gradient before the optimizer has it."""

    corrects = True

    def correct(self, context: LocalContext) -> None:
        context.model.gradient.mul_(0.5)


def test_the_gradient_is_the_one_that_the_optimizer_has() -> None:
    norms = train(SGD(lr=0.1), (0, 1, 2), Halved())[1].step_norms
    assert norms is not None
    assert norms.steps == pytest.approx(0.1 * norms.gradients, rel=1e-4)


@pytest.mark.parametrize("objective", [Objective, Halved])
def test_recording_changes_no_bit_of_what_is_learnt(objective: type[Objective]) -> None:
    recorded, with_norms = train(Adam(), (0, 2), objective())
    model, without = train(Adam(), (0, 2), objective(), recorded=False)
    assert torch.equal(recorded.vector, model.vector)
    assert torch.equal(recorded.statistics, model.statistics)
    assert with_norms.loss == without.loss
    assert without.step_norms is None


class Forgetful(SGD):
    """Clears the gradients in its step."""

    @property
    def elementwise(self) -> bool:
        return True

    def step_function(self, parameters: list[nn.Parameter], factor: float) -> Callable[[], object]:
        step = super().step_function(parameters, factor)

        def step_and_clear() -> None:
            step()
            for parameter in parameters:
                parameter.grad = None

        return step_and_clear


def test_a_gradient_that_the_optimizer_has_cleared_has_no_norm() -> None:
    norms = train(Forgetful(lr=0.1), (0, 2))[1].step_norms
    assert norms is not None
    assert np.isnan(norms.gradients).all()
    assert (norms.steps > 0).all()


class HalfUsed(nn.Module):
    """Does not use its second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images.flatten(1)))


def test_parameters_that_a_step_does_not_use_have_the_norm_0() -> None:
    module = HalfUsed()
    groups = [LayerGroup(name, (f"{name}.weight", f"{name}.bias")) for name in ("first", "second", "last")]
    model = FlatModel(module, parameter_layout(module, groups))
    settings = LocalTraining(SGD(lr=0.1), Objective(), BATCH, 1, None, bf16=False, seed=1, step_norms=True)
    norms = train_client(
        model, IMAGES, LABELS, np.arange(ROWS), lambda batch, _: inputs(batch), settings, anchor=model.vector.clone(),
        groups=(0, 1, 2), round_index=0, client=0, lr_factor=1.0,
    ).step_norms  # fmt: skip
    assert norms is not None
    assert not norms.steps[:, 1].any()
    assert not norms.gradients[:, 1].any()
    assert norms.steps == pytest.approx(0.1 * norms.gradients, rel=1e-4)


def test_norms_of_clients_that_trained_other_groups_and_made_fewer_steps() -> None:
    both = StepNorms((0, 2), np.array([[3.0, 4.0], [6.0, 8.0]]), np.array([[1.0, 0.0], [0.0, 2.0]]))
    short = StepNorms((2,), np.array([[7.0]]), np.array([[9.0]]))
    steps, gradients = norms_by_client([both, short], [0, 2])
    nan = np.nan
    assert np.array_equal(
        steps, np.array([[[5, 3, 4], [10, 6, 8]], [[7, nan, 7], [nan, nan, nan]]], float), equal_nan=True
    )
    assert gradients[:, 0].tolist() == pytest.approx(np.array([[1, 1, 0], [9, nan, 9]]), nan_ok=True)
