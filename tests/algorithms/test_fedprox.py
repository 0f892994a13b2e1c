"""FedProx against the loss that it states, differentiated by autograd."""

import numpy as np
import pytest
import torch
from small import TwoLayers
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.algorithms.fedprox import FedProx
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
SEED, ROUND, CLIENT, LR = 5, 2, 3, 0.1


def network() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers(TASK.input_shape, TASK.classes)


def train(objective: Objective, groups: tuple[int, ...] = (0, 1)) -> tuple[FlatModel, LocalResult]:
    module = network()
    model = FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))
    work = LocalTraining(SGD(lr=LR), objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=SEED)
    result = train_client(
        model, INPUTS, LABELS, np.arange(40), lambda batch, _: batch, work,
        anchor=model.vector.clone(), groups=groups, round_index=ROUND, client=CLIENT, lr_factor=1.0,
    )  # fmt: skip
    return model, result


def reference(mu: float, layers: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], float]:
    """Plain PyTorch: parameters after training, and the mean cross-entropy over the samples of all steps."""
    module = network()
    trained = [parameter for layer in layers for parameter in module.get_submodule(layer).parameters()]
    start = [parameter.detach().clone() for parameter in trained]
    optimizer = torch.optim.SGD(trained, lr=LR)
    total, samples = 0.0, 0
    for rows in minibatches(generator(SEED, "minibatches", ROUND, CLIENT), 40, 8, epochs=2, steps=None):
        loss = cross_entropy(module(INPUTS[rows]), LABELS[rows])
        total, samples = total + loss.item() * len(rows), samples + len(rows)
        distance = sum(((now - then) ** 2).sum() for now, then in zip(trained, start, strict=True))
        optimizer.zero_grad()
        (loss + mu / 2 * distance).backward()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in module.named_parameters()}, total / samples


@pytest.mark.parametrize(("groups", "layers"), [((0, 1), ("first", "second")), ((0,), ("first",)), ((1,), ("second",))])
def test_steps_follow_autograd_of_the_loss_with_the_squared_norm_over_the_active_groups(
    groups: tuple[int, ...], layers: tuple[str, ...]
) -> None:
    model, result = train(FedProx(mu=2.0).objective(), groups)
    expected, loss = reference(2.0, layers)
    for name, parameter in model.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-5, atol=1e-6)
    assert result.loss == pytest.approx(loss, rel=1e-6), "the cross-entropy part alone is recorded"
    plain, _ = train(Objective(), groups)
    assert not torch.allclose(plain.vector, model.vector, atol=1e-3), "the term matters here"


def test_mu_0_is_fedavg_bit_for_bit() -> None:
    (plain, expected), (model, result) = train(Objective()), train(FedProx(mu=0).objective())
    assert torch.equal(model.vector, plain.vector)
    assert result.loss == expected.loss


def test_gradients_outside_the_active_groups_are_left_alone() -> None:
    model, _ = train(Objective())
    model.gradient.fill_(7)
    piece = model.layout.slices[1]
    context = LocalContext(model, torch.zeros_like(model.vector), (1,), [piece], LR, {}, {})
    FedProx(mu=0.5).objective().correct(context)
    assert torch.equal(model.gradient[: piece.start], torch.full((piece.start,), 7.0))
    torch.testing.assert_close(model.gradient[piece], 7 + 0.5 * model.vector[piece])


def test_it_keeps_and_sends_nothing_of_its_own_and_refuses_a_negative_mu() -> None:
    objective = FedProx().objective()
    assert (objective.keeps, objective.channels) == ((), ())
    with pytest.raises(ConfigError, match=r"algorithm\.mu=-1"):
        ExperimentConfig.load(None, ["algorithm=fedprox", "algorithm.mu=-1"])
