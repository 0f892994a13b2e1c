"""A step over the network's own tensors is that of a plain loop, and objectives still see the flat gradient."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.algorithms.fedprox import Proximal
from fedbench.models.base import LayerGroup
from fedbench.models.flat import FlatModel
from fedbench.models.groups import parameter_layout
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator
from fedbench.training.gradient import minibatch_gradient
from fedbench.training.local import LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD, Adam, AdamW, Optimizer

ROWS = 30
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 12, (ROWS, 4), dtype=np.int32))
LABELS = torch.arange(ROWS) % 3


class Words(nn.Module):
    """A bag of words with a sparse embedding, a layer for long texts only, and one for short texts only."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 6, sparse=sparse)
        self.odd, self.even = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        layer = self.odd if self.calls % 2 else self.even
        return self.last(torch.relu(layer(self.embedding(tokens).mean(1))))


def flat(sparse: bool = True) -> FlatModel:
    torch.manual_seed(0)
    module = Words(sparse)
    names = [name for name, _ in module.named_parameters()]
    layout: ParameterLayout = parameter_layout(module, [LayerGroup(name, (name,)) for name in names])
    return FlatModel(module, layout)


def train(model: FlatModel, optimizer: Optimizer, objective: Objective, groups: tuple[int, ...] | None = None) -> float:
    settings = LocalTraining(optimizer, objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=1)
    return train_client(
        model, TOKENS, LABELS, np.arange(ROWS), lambda batch, _: batch.long(), settings, anchor=model.vector.clone(),
        groups=model.layout.all_groups if groups is None else groups, round_index=0, client=0, lr_factor=1.0,
    ).loss  # fmt: skip


class Whole(Objective):
    """Cross-entropy; asks for the flat gradient, and leaves it as it is."""

    def correct(self, context: LocalContext) -> None:
        pass


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9, weight_decay=0.01), Adam(weight_decay=0.01), AdamW()]
)
@pytest.mark.parametrize("groups", [None, (0, 2, 3)])
@pytest.mark.parametrize("sparse", [True, False])
def test_an_objective_that_reads_the_flat_gradient_and_leaves_it_changes_no_bit(
    optimizer: Optimizer, groups: tuple[int, ...] | None, sparse: bool
) -> None:
    """Also where a step reaches not all parameters: their gradient is then zero, not absent."""
    plain, read = flat(sparse), flat(sparse)
    losses = [train(plain, optimizer, Objective(), groups), train(read, optimizer, Whole(), groups)]
    assert losses[0] == losses[1]
    assert torch.equal(plain.vector, read.vector)
    assert not torch.equal(plain.vector, flat().vector)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9, weight_decay=0.01), Adam(weight_decay=0.01), AdamW()])
def test_a_parameter_that_a_step_does_not_reach_moves_as_with_a_gradient_of_zero(optimizer: Optimizer) -> None:
    torch.manual_seed(0)
    plain = Words(sparse=False)
    stepper = optimizer.make(list(plain.parameters()), 1.0)
    for positions in minibatches(generator(1, "minibatches", 0, 0), ROWS, 8, epochs=2, steps=None):
        for parameter in plain.parameters():
            parameter.grad = torch.zeros_like(parameter)
        nn.functional.cross_entropy(plain(TOKENS[positions].long()), LABELS[positions]).backward()
        stepper.step()
    for sparse in (True, False):
        model = flat(sparse)
        train(model, optimizer, Objective())
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(model.module.get_parameter(name), parameter, rtol=1e-6, atol=1e-7)


def test_a_step_that_needs_no_flat_gradient_makes_none() -> None:
    model = flat()
    train(model, SGD(lr=0.1), Objective())
    assert "gradient" not in vars(model)
    train(model, SGD(lr=0.1), Proximal(0.1))
    assert "gradient" in vars(model)


class Clipped(SGD):
    """SGD whose step depends on the norm of the whole gradient."""

    def step_function(self, parameters: list[nn.Parameter], factor: float) -> Callable[[], object]:
        step = super().step_function(parameters, factor)

        def clipped() -> None:
            nn.utils.clip_grad_norm_(parameters, 0.1)
            step()

        return clipped


def test_an_optimizer_of_ones_own_gets_the_slices_of_the_active_groups() -> None:
    seen: list[list[int]] = []

    class Watching(Clipped):
        def step_function(self, parameters: list[nn.Parameter], factor: float) -> Callable[[], object]:
            seen.append([parameter.numel() for parameter in parameters])
            return super().step_function(parameters, factor)

    model = flat()
    train(model, Watching(lr=0.1), Objective(), (0, 1, 3))
    groups = model.layout.slices
    assert seen == [[groups[1].stop - groups[0].start, groups[3].stop - groups[3].start]]


def test_an_objective_may_read_the_last_gradient_when_a_client_has_finished() -> None:
    gradients: list[Tensor] = []

    class Reads(Objective):
        def finish(self, context: LocalContext, steps: int) -> None:
            gradients.append(context.model.gradient.clone())

    class Records(Whole):
        def correct(self, context: LocalContext) -> None:
            gradients.append(context.model.gradient.clone())

    train(flat(), SGD(lr=0.1), Records())
    steps = list(gradients)
    gradients.clear()
    train(flat(), SGD(lr=0.1), Reads())
    assert len(gradients) == 1
    assert torch.equal(gradients[0], steps[-1])


def test_the_gradient_of_a_task_is_that_of_the_first_step() -> None:
    model, trained = flat(), flat()
    loss = minibatch_gradient(
        model, TOKENS, LABELS, np.arange(8), lambda batch, _: batch.long(), criterion=cross_entropy,
        groups=model.layout.all_groups, weight_decay=0.5, bf16=False, seed=1, client=0, visit=0,
    )  # fmt: skip
    settings = LocalTraining(SGD(lr=1.0, weight_decay=0.5), Objective(), 8, epochs=1, steps=None, bf16=False, seed=1)
    result = train_client(
        trained, TOKENS[:8], LABELS[:8], np.arange(8), lambda batch, _: batch.long(), settings,
        anchor=trained.vector.clone(), groups=trained.layout.all_groups, round_index=0, client=0, lr_factor=1.0,
    )  # fmt: skip
    torch.testing.assert_close(trained.vector, model.vector - model.gradient)
    assert loss == pytest.approx(result.loss)
