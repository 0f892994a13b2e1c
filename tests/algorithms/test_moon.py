"""MOON against a direct computation with three separate networks."""

import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from small import TwoLayers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.algorithms.moon import Contrastive, Moon
from fedbench.errors import ModelError
from fedbench.models.base import LayerGroup, Task
from fedbench.models.cnn import CnnBatchNorm
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.training.local import LocalResult, LocalTraining, train_client
from fedbench.training.optimizers import SGD

TASK = Task("image", (8, 8, 1), 3)
INPUTS = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3
MU, TEMPERATURE = 2.0, 0.5
STEPS = 10


class Counting(TwoLayers):
    """Notes the forward passes of all its copies together: whether each is made for a gradient."""

    passes: ClassVar[list[bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(torch.is_grad_enabled())
        return super().forward(images)


class Uncalled(nn.Module):
    """Its only linear layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 3, 8)
        self.classifier = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).flatten(1) @ self.classifier.weight.T + self.classifier.bias

    def layer_groups(self) -> list[LayerGroup]:
        return [LayerGroup(name, (f"{name}.weight", f"{name}.bias")) for name in ("body", "classifier")]


def flat(module: nn.Module | None = None) -> FlatModel:
    module = module or build_module(CnnBatchNorm(width=4), TASK, 0)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def counting() -> FlatModel:
    torch.manual_seed(0)
    return flat(Counting(TASK.input_shape, TASK.classes))


def near(vector: Tensor, seed: int) -> Tensor:
    return vector + 0.3 * torch.randn(len(vector), generator=torch.Generator().manual_seed(seed))


def train(
    objective: Objective, model: FlatModel, groups: tuple[int, ...], state: dict[str, Tensor]
) -> tuple[FlatModel, LocalResult]:
    work = LocalTraining(SGD(lr=0.1), objective, batch_size=8, epochs=2, steps=None, bf16=False, seed=5)
    Counting.passes.clear()  # those of building the model
    result = train_client(
        model, INPUTS, LABELS, np.arange(40), lambda batch, _: batch, work,
        anchor=model.vector.clone(), groups=groups, round_index=1, client=0, lr_factor=1.0, state=state,
    )  # fmt: skip
    return model, result


def separate(model: FlatModel, vector: Tensor) -> nn.Module:
    """A network of its own with other parameters."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name, values in model.layout.unflatten(vector.numpy()).items():
            module.get_parameter(name).copy_(torch.from_numpy(values.copy()))
    return module


def features(module: nn.Module, images: Tensor) -> Tensor:
    """The convolutional network without its classifier, written out."""
    maps = module.pool(module.relu(module.bn1(module.conv1(images))))
    maps = module.pool(module.relu(module.bn2(module.conv2(maps))))
    return module.average(module.relu(module.bn3(module.conv3(maps)))).flatten(1)


@pytest.mark.parametrize("groups", [(0, 1, 2, 3), (1,), (0, 2)])
def test_loss_and_gradient_equal_a_direct_computation_with_separate_models(groups: tuple[int, ...]) -> None:
    model = flat()
    anchor, previous = model.vector.clone(), near(model.vector, 2)
    model.vector.copy_(near(model.vector, 3))
    local, glob, prev = (separate(model, vector) for vector in (model.vector, anchor, previous))

    z = features(local.train(), INPUTS)
    with torch.no_grad():
        for other in (glob, prev):
            for name, buffer in local.named_buffers():
                other.get_buffer(name).copy_(buffer)
        z_glob, z_prev = features(glob.eval(), INPUTS), features(prev.eval(), INPUTS)
    cosine = [(z * other).sum(1) / (z.norm(dim=1) * other.norm(dim=1)) for other in (z_glob, z_prev)]
    positive, negative = (torch.exp(similarity / TEMPERATURE) for similarity in cosine)
    contrastive = -torch.log(positive / (positive + negative)).mean()
    expected = cross_entropy(local.fc(z), LABELS) + MU * contrastive
    expected.backward()
    assert contrastive.item() > 0.1

    objective = Moon(mu=MU, temperature=TEMPERATURE).objective()
    model.activate(groups)
    model.module.train()
    pieces = model.layout.ranges(groups)
    objective.begin(LocalContext(model, anchor, groups, pieces, 0.1, {}, {"previous": previous}))
    loss = objective.loss(model.module, INPUTS, LABELS)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    gradients = {name: parameter.grad.numpy() for name, parameter in local.named_parameters()}
    whole = torch.from_numpy(model.layout.flatten(gradients))
    for piece in pieces:
        torch.testing.assert_close(model.gradient[piece], whole[piece], rtol=1e-4, atol=1e-6)


def test_the_comparison_passes_change_neither_statistics_nor_mode_nor_the_two_models() -> None:
    model, plain = flat(), flat()
    anchor, previous = model.vector.clone(), near(model.vector, 2)
    kept = previous.clone()
    objective = Moon(mu=MU).objective()
    for _ in range(2):
        objective.begin(LocalContext(model, anchor, (0,), model.layout.ranges((0,)), 0.1, {}, {"previous": previous}))
        objective.loss(model.module.train(), INPUTS, LABELS)
        plain.module.train()(INPUTS)
    assert torch.equal(model.statistics, plain.statistics)
    assert all(module.training for module in model.module.modules())
    assert torch.equal(previous, kept)
    assert torch.equal(anchor, plain.vector)
    assert not any(module._forward_pre_hooks for module in model.module.modules())


def test_mu_0_is_fedavg_bit_for_bit_and_keeps_nothing() -> None:
    objective = Moon(mu=0).objective()
    state = {"previous": near(flat().vector, 2)}
    (plain, expected), (model, result) = (
        train(Objective(), flat(), (0, 1, 2, 3), {}),
        train(objective, flat(), (0, 1, 2, 3), state),
    )
    assert torch.equal(model.vector, plain.vector)
    assert torch.equal(model.statistics, plain.statistics)
    assert result.loss == expected.loss
    assert objective.keeps == ()


def test_a_first_round_is_fedavg_bit_for_bit_and_keeps_the_whole_last_model() -> None:
    state: dict[str, Tensor] = {}
    plain, expected = train(Objective(), counting(), (1,), {})
    model, result = train(Moon(mu=MU).objective(), counting(), (1,), state)
    assert len(Counting.passes) == STEPS
    assert torch.equal(model.vector, plain.vector)
    assert result.loss == expected.loss
    assert result.passes == 0
    assert torch.equal(state["previous"], model.vector)
    model.vector.zero_()
    assert bool(state["previous"].any()), "a copy"


def test_with_only_the_classifier_active_it_is_fedavg_and_pays_no_further_pass() -> None:
    start = counting().vector
    objective = Moon(mu=MU).objective()
    plain, expected = train(Objective(), counting(), (1,), {})
    train(objective, counting(), (0, 1), {"previous": near(start, 2)})
    state = {"previous": near(start, 2)}
    model, result = train(objective, counting(), (1,), state)
    assert len(Counting.passes) == STEPS
    assert result.passes == objective.extra_passes((1,), model.layout, model.module) == 0
    assert torch.equal(model.vector, plain.vector)
    assert result.loss == expected.loss
    assert torch.equal(state["previous"], model.vector), "the last model is renewed all the same"


def test_where_features_train_each_step_pays_two_further_passes_and_frozen_groups_stay() -> None:
    start = counting().vector.clone()
    plain, _ = train(Objective(), counting(), (0,), {})
    objective = Moon(mu=MU).objective()
    model, result = train(objective, counting(), (0,), {"previous": near(start, 2)})
    assert Counting.passes == [True, False, False] * STEPS
    assert result.passes == objective.extra_passes((0,), model.layout, model.module) == 2
    active = model.layout.slices[0]
    assert not torch.allclose(model.vector[active], plain.vector[active], atol=1e-4)
    assert torch.equal(model.vector[active.stop :], start[active.stop :])


def test_one_objective_serves_clients_in_turn() -> None:
    """What one client leaves in the copies does not reach the next."""
    start = counting().vector
    used = Moon(mu=MU).objective()
    train(used, counting(), (0, 1), {"previous": near(start, 2)})
    second, _ = train(used, counting(), (0, 1), {"previous": near(start, 4)})
    fresh, _ = train(Moon(mu=MU).objective(), counting(), (0, 1), {"previous": near(start, 4)})
    assert torch.equal(second.vector, fresh.vector)


def test_it_says_why_the_term_cannot_act() -> None:
    model, objective = flat(), Contrastive(MU, TEMPERATURE)
    last = model.layout.groups - 1
    assert objective.idle_reason(model.layout.all_groups, model.layout, model.module) is None
    assert objective.idle_reason((0,), model.layout, model.module) is None
    assert "only fc trains" in str(objective.idle_reason((last,), model.layout, model.module))
    assert "mu=0" in str(Contrastive(0, TEMPERATURE).idle_reason((0,), model.layout, model.module))


def test_a_classifier_that_is_never_called_is_an_error() -> None:
    model = flat(Uncalled())
    with pytest.raises(ModelError, match="'classifier' is not called"):
        train(Moon(mu=MU).objective(), model, (0,), {"previous": model.vector.clone()})
