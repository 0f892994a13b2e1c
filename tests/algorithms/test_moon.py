"""MOON against a direct computation with three separate networks."""

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import small
import torch
from small import TwoLayers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import LocalContext, Objective
from fedbench.algorithms.moon import Contrastive, Moon, Reference
from fedbench.errors import ConfigError, ModelError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
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


def statistics_like(model: FlatModel, seed: int) -> Tensor:
    """Running statistics, means and variances alike between 0.05 and 0.15."""
    return 0.05 + 0.1 * torch.rand(len(model.statistics), generator=torch.Generator().manual_seed(seed))


def with_statistics(module: nn.Module, model: FlatModel, statistics: Tensor) -> nn.Module:
    """`module`, with these values in its running statistics."""
    for slot in model.layout.statistics:
        module.get_buffer(slot.name).copy_(statistics[slot.offset : slot.stop])
    return module


@pytest.mark.parametrize("reference", ["own", "batch"])
@pytest.mark.parametrize("groups", [(0, 1, 2, 3), (1,), (0, 2)])
def test_loss_and_gradient_equal_a_direct_computation_with_separate_models(
    groups: tuple[int, ...], reference: Reference
) -> None:
    model = flat()
    anchor, previous = model.vector.clone(), near(model.vector, 2)
    global_statistics, previous_statistics = statistics_like(model, 6), statistics_like(model, 7)
    model.statistics.copy_(global_statistics)
    objective = Moon(mu=MU, temperature=TEMPERATURE, reference=reference).objective()
    state = {"previous": previous, "previous_statistics": previous_statistics}
    objective.begin(LocalContext(model, anchor, groups, model.layout.ranges(groups), 0.1, {}, state))
    model.vector.copy_(near(model.vector, 3))
    model.module.train()(INPUTS + 1.0)  # an earlier step, which moves the running statistics of the training model
    local, glob, prev = (separate(model, vector) for vector in (model.vector, anchor, previous))

    z = features(local.train(), INPUTS)
    with torch.no_grad():
        if reference == "own":
            z_glob = features(with_statistics(glob, model, global_statistics).eval(), INPUTS)
            z_prev = features(with_statistics(prev, model, previous_statistics).eval(), INPUTS)
        else:
            z_glob, z_prev = features(glob.train(), INPUTS), features(prev.train(), INPUTS)
    cosine = [(z * other).sum(1) / (z.norm(dim=1) * other.norm(dim=1)) for other in (z_glob, z_prev)]
    positive, negative = (torch.exp(similarity / TEMPERATURE) for similarity in cosine)
    contrastive = -torch.log(positive / (positive + negative)).mean()
    expected = cross_entropy(local.fc(z), LABELS) + MU * contrastive
    expected.backward()
    assert contrastive.item() > 0.1

    model.activate(groups)
    loss = objective.loss(model.module, INPUTS, LABELS)
    loss.backward()
    model.collect_gradient()
    torch.testing.assert_close(loss, expected)
    gradients = {name: parameter.grad.numpy() for name, parameter in local.named_parameters()}
    whole = torch.from_numpy(model.layout.flatten(gradients))
    for piece in model.layout.ranges(groups):
        torch.testing.assert_close(model.gradient[piece], whole[piece], rtol=1e-4, atol=1e-6)


def test_a_client_keeps_the_running_statistics_that_its_last_model_ended_with() -> None:
    for reference, kept in (("own", ["previous", "previous_statistics"]), ("batch", ["previous"])):
        objective = Moon(mu=MU, reference=reference).objective()
        state: dict[str, Tensor] = {}
        model, _ = train(objective, flat(), (0, 1), state)
        assert list(objective.keeps) == sorted(state) == kept
        ended = model.statistics.clone()
        model.statistics.zero_()
        assert reference == "batch" or torch.equal(state["previous_statistics"], ended)


def test_the_statistics_of_the_minibatch_are_refused_where_they_could_not_act() -> None:
    with_running, without = flat(), counting()
    for model, mu, reason in (
        (without, MU, "Counting has no running statistics"),
        (with_running, 0.0, "algorithm.mu=0"),
    ):
        assert reason in str(Moon(mu=mu, reference="batch").objective().refusal(model.layout, model.module))
        assert Moon(mu=mu).objective().refusal(model.layout, model.module) is None
    assert Moon(reference="batch").objective().refusal(with_running.layout, with_running.module) is None
    config = small.config("algorithm=moon", "algorithm.reference=batch", "algorithm.mu=0")
    with pytest.raises(ConfigError, match=r"^algorithm\.reference=batch: has no effect with algorithm\.mu=0"):
        build_problem(config, load_federation(config))


@pytest.mark.parametrize("reference", ["own", "batch"])
def test_the_comparison_passes_change_neither_statistics_nor_mode_nor_the_two_models(reference: Reference) -> None:
    model, plain = flat(), flat()
    anchor, previous = model.vector.clone(), near(model.vector, 2)
    previous_statistics = statistics_like(model, 7)
    state = {"previous": previous, "previous_statistics": previous_statistics}
    kept = {name: values.clone() for name, values in state.items()}
    objective = Moon(mu=MU, reference=reference).objective()
    for _ in range(2):
        objective.begin(LocalContext(model, anchor, (0,), model.layout.ranges((0,)), 0.1, {}, state))
        objective.loss(model.module.train(), INPUTS, LABELS)
        plain.module.train()(INPUTS)
    assert torch.equal(model.statistics, plain.statistics)
    assert all(module.training for module in model.module.modules())
    assert all(torch.equal(values, kept[name]) for name, values in state.items())
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


class Drifting(TwoLayers):
    """Its training passes change a buffer and a plain attribute, on which its output depends."""

    def __init__(self, *shape: Any) -> None:
        super().__init__(*shape)
        self.register_buffer("drift", torch.zeros(()), persistent=False)
        self.normalisation = nn.BatchNorm2d(1, affine=False)
        self.gain = 1.0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.drift += 1.0
            self.gain += 0.1
        return super().forward(self.gain * self.normalisation(images) + self.drift)


@pytest.mark.parametrize("reference", ["own", "batch"])
def test_one_objective_serves_clients_in_turn(reference: Reference) -> None:
    """What one client leaves in the copies does not reach the next."""

    def drifting() -> FlatModel:
        torch.manual_seed(0)
        return flat(Drifting(TASK.input_shape, TASK.classes))

    def state(seed: int) -> dict[str, Tensor]:
        model = drifting()
        return {"previous": near(model.vector, seed), "previous_statistics": statistics_like(model, seed)}

    used, unused = (Moon(mu=MU, reference=reference).objective() for _ in range(2))
    train(used, drifting(), (0, 1), state(2))
    second, _ = train(used, drifting(), (0, 1), state(4))
    fresh, _ = train(unused, drifting(), (0, 1), state(4))
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
