"""FedDyn: the regularised loss by autograd, the dual and the server's state by hand."""

import numpy as np
import pytest
import torch
from small import TwoLayers
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective, RuleContext
from fedbench.algorithms.feddyn import FedDyn
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.models.base import Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import derive_layer_groups, parameter_layout
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator
from fedbench.training.local import LocalResult, LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD

TASK = Task("image", (4, 4, 1), 3)
INPUTS = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3
SEED, ROUND, CLIENT, LR, ALPHA = 5, 2, 3, 0.1, 0.7


def flat() -> FlatModel:
    torch.manual_seed(0)
    module = TwoLayers(TASK.input_shape, TASK.classes)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def train(objective: Objective, model: FlatModel, groups: tuple[int, ...], state: dict[str, Tensor]) -> LocalResult:
    work = LocalTraining(SGD(lr=LR), objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=SEED)
    return train_client(
        model, INPUTS, LABELS, np.arange(40), lambda batch, _: batch, work,
        anchor=model.vector.clone(), groups=groups, round_index=ROUND, client=CLIENT, lr_factor=1.0, state=state,
    )  # fmt: skip


def dual() -> Tensor:
    return 0.1 * torch.randn(flat().layout.size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("groups", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("first", [True, False])
def test_steps_follow_autograd_of_the_papers_loss_and_the_dual_its_update(groups: tuple[int, ...], first: bool) -> None:
    own = torch.zeros_like(dual()) if first else dual()
    start = flat().vector.clone()
    plain = flat()
    active = torch.zeros(plain.layout.size, dtype=torch.bool)
    for group in groups:
        active[plain.layout.slices[group]] = True
    total = 0.0
    for rows in minibatches(generator(SEED, "minibatches", ROUND, CLIENT), 40, 8, epochs=2, steps=None):
        loss = cross_entropy(plain.module(INPUTS[rows]), LABELS[rows])
        total += loss.item() / 10
        w = torch.cat([parameter.flatten() for parameter in plain.module.parameters()])
        whole = loss - (own * w).sum() + ALPHA / 2 * ((w - start) ** 2).sum()
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(whole, list(plain.module.parameters()))])
        plain.vector[active] -= LR * gradient[active]

    model, state = flat(), {} if first else {"dual": own.clone()}
    result = train(FedDyn(alpha=ALPHA).objective(), model, groups, state)
    torch.testing.assert_close(model.vector, plain.vector, rtol=1e-5, atol=1e-6)
    assert result.loss == pytest.approx(total, rel=1e-5), "the cross-entropy part alone is recorded"
    torch.testing.assert_close(state["dual"][active], (own - ALPHA * (model.vector - start))[active])
    assert torch.equal(model.vector[~active], start[~active])
    assert torch.equal(state["dual"][~active], own[~active])


def test_correct_touches_active_pieces_alone_and_finish_does_not_write_to_the_old_dual() -> None:
    model, old = flat(), dual()
    start = model.vector.clone()
    model.vector.add_(1)
    model.gradient.fill_(7)
    piece = model.layout.slices[1]
    context = LocalContext(model, start, (1,), [piece], LR, {}, {"dual": old})
    objective = FedDyn(alpha=ALPHA).objective()
    objective.begin(context)
    objective.correct(context)
    assert torch.equal(model.gradient[: piece.start], torch.full((piece.start,), 7.0))
    torch.testing.assert_close(model.gradient[piece], 7 + ALPHA - old[piece])
    objective.finish(context, 3)
    assert torch.equal(old, dual())
    assert context.outgoing == {}


def test_the_server_keeps_h_of_each_group_and_takes_h_over_alpha_off_the_mean() -> None:
    layout = ParameterLayout.build([("a", {"a": (2,)}), ("b", {"b": (3,)}), ("c", {"c": (1,)})])
    rule = FedDyn(alpha=0.5).rule()
    rng = np.random.default_rng(0)
    h = np.zeros(6)
    for round_index, groups in enumerate([(0, 1, 2), (1,), (0, 2), (1,)]):
        index = np.concatenate([np.arange(6)[piece] for piece in layout.ranges(groups)])
        previous, update = rng.normal(size=len(index)), rng.normal(size=len(index))
        h[index] -= 0.5 * 3 / 10 * update
        context = RuleContext(layout, groups, round_index, participants=3, population=10)
        new = rule.combine(previous.copy(), update.copy(), context)
        np.testing.assert_allclose(new, previous + update - h[index] / 0.5, rtol=1e-14)


def test_participants_count_alike_and_alpha_must_be_positive() -> None:
    assert FedDyn().weight(5) == FedDyn().weight(500) == 1.0
    with pytest.raises(ConfigError, match=r"algorithm\.alpha=0"):
        ExperimentConfig.load(None, ["algorithm=feddyn", "algorithm.alpha=0"])
