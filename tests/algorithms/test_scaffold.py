"""SCAFFOLD: the corrected steps and the control variates, by hand."""

import numpy as np
import pytest
import torch
from small import TwoLayers
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import Objective, RuleContext
from fedbench.algorithms.scaffold import Scaffold
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.models.base import Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import derive_layer_groups, parameter_layout
from fedbench.randomness import generator
from fedbench.training.local import LocalResult, LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD

TASK = Task("image", (4, 4, 1), 3)
INPUTS = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3
SEED, ROUND, CLIENT, LR, FACTOR, STEPS = 5, 2, 3, 0.2, 0.5, 10


def flat() -> FlatModel:
    torch.manual_seed(0)
    module = TwoLayers(TASK.input_shape, TASK.classes)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def train(
    objective: Objective,
    model: FlatModel,
    groups: tuple[int, ...],
    shared: dict[str, Tensor],
    state: dict[str, Tensor],
    *,
    samples: int = 40,
    round_index: int = ROUND,
) -> LocalResult:
    work = LocalTraining(SGD(lr=LR), objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=SEED)
    return train_client(
        model, INPUTS, LABELS, np.arange(samples), lambda batch, _: batch, work, anchor=model.vector.clone(),
        groups=groups, round_index=round_index, client=CLIENT, lr_factor=FACTOR, shared=shared, state=state,
    )  # fmt: skip


def control(seed: int) -> Tensor:
    return 0.1 * torch.randn(flat().layout.size, generator=torch.Generator().manual_seed(seed))


def by_hand(c: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters after a full round, and the mean of the gradients on the way."""
    model = flat()
    parameters = list(model.module.parameters())
    shapes = model.layout
    mean = torch.zeros(shapes.size)
    for rows in minibatches(generator(SEED, "minibatches", ROUND, CLIENT), 40, 8, epochs=2, steps=None):
        loss = cross_entropy(model.module(INPUTS[rows]), LABELS[rows])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        model.vector.sub_(LR * FACTOR * (gradient + c - own))
        mean += gradient / STEPS
    return model.vector, mean


def test_a_round_follows_algorithm_1_by_hand() -> None:
    c, own = control(2), control(3)
    expected, mean_gradient = by_hand(c, own)
    model, state = flat(), {"control": own.clone()}
    result = train(Scaffold().objective(), model, (0, 1), {"control": c.clone()}, state)
    assert result.steps == STEPS
    torch.testing.assert_close(model.vector, expected, rtol=1e-5, atol=1e-6)
    # (x - y) / (K lr) is the mean of (g + c - c_i), hence c_i+ the mean gradient.
    torch.testing.assert_close(state["control"], mean_gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.outgoing["control"], mean_gradient - own, rtol=1e-4, atol=1e-5)


def test_a_first_round_is_fedavg_bit_for_bit_and_gives_the_mean_gradient() -> None:
    plain, model, state = flat(), flat(), dict[str, Tensor]()
    train(Objective(), plain, (0, 1), {}, {})
    result = train(Scaffold().objective(), model, (0, 1), {}, state)
    assert torch.equal(model.vector, plain.vector)
    zero = torch.zeros(model.layout.size)
    torch.testing.assert_close(state["control"], by_hand(zero, zero)[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(result.outgoing["control"], state["control"])


@pytest.mark.parametrize("group", [0, 1])
def test_inactive_groups_keep_their_parameters_and_control_variates(group: int) -> None:
    c, own, model = control(2), control(3), flat()
    before, state = model.vector.clone(), {"control": own.clone()}
    result = train(Scaffold().objective(), model, (group,), {"control": c.clone()}, state)
    active = torch.zeros(model.layout.size, dtype=torch.bool)
    active[model.layout.slices[group]] = True
    assert torch.equal(model.vector[~active], before[~active])
    assert torch.equal(state["control"][~active], own[~active])
    assert not bool(result.outgoing["control"][~active].any())
    expected = own - c + (before - model.vector) / (STEPS * LR * FACTOR)
    torch.testing.assert_close(state["control"][active], expected[active])
    torch.testing.assert_close(result.outgoing["control"][active], (expected - own)[active], rtol=1e-4, atol=1e-6)


def test_shared_vectors_and_the_old_state_are_not_written_to() -> None:
    c, own = control(2), control(3)
    shared, state = {"control": c.clone()}, {"control": own}
    train(Scaffold().objective(), flat(), (0, 1), shared, state)
    assert torch.equal(shared["control"], c)
    assert torch.equal(own, control(3))


def test_a_client_without_a_step_changes_nothing() -> None:
    own, model = control(3), flat()
    before, state = model.vector.clone(), {"control": own.clone()}
    result = train(Scaffold().objective(), model, (0, 1), {"control": control(2)}, state, samples=0)
    assert result.steps == 0
    assert torch.equal(model.vector, before)
    assert torch.equal(state["control"], own)
    assert not bool(result.outgoing["control"].any())


def test_a_single_client_is_fedavg_bit_for_bit_where_the_channel_loses_nothing() -> None:
    plain, model = flat(), flat()
    objective, rule, state = Scaffold().objective(), Scaffold().rule(), dict[str, Tensor]()
    server = torch.zeros(model.layout.size)
    context = RuleContext(model.layout, (0, 1), 0, participants=1, population=1)
    for round_index in range(6):
        train(Objective(), plain, (0, 1), {}, {}, round_index=round_index)
        result = train(objective, model, (0, 1), {"control": server}, state, round_index=round_index)
        sent = result.outgoing["control"].double().numpy()
        server = torch.from_numpy(rule.combine_channel(server.double().numpy(), sent, context)).float()
        assert torch.equal(server, state["control"])
        assert torch.equal(model.vector, plain.vector)


def test_participants_count_alike() -> None:
    assert Scaffold().weight(5) == Scaffold().weight(500) == 1.0


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("local.optimizer=adam", "name=adam"),
        ("local.optimizer.momentum=0.9", "momentum=0.9"),
        ("local.optimizer.weight_decay=0.001", "weight_decay=0.001"),
    ],
)
def test_it_refuses_optimizers_whose_way_is_not_the_mean_gradient(override: str, key: str) -> None:
    Scaffold().check(ExperimentConfig())
    with pytest.raises(ConfigError, match=rf"local\.optimizer\.{key}: must be .* mean gradient"):
        Scaffold().check(ExperimentConfig.load(None, [override]))
