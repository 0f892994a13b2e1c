"""The flat model: what a round trains, and that it trains as PyTorch would."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbench.algorithms.base import Objective
from fedbench.models.base import Task
from fedbench.models.cnn import CnnBatchNorm
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.resnet import ResNet8
from fedbench.randomness import generator
from fedbench.training.local import LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD, Adam, AdamW, Optimizer

TASK = Task("image", (12, 12, 3), 5)
SAMPLES = 45
SEED = 3


def flat(model: object = None) -> FlatModel:
    module = build_module(model or CnnBatchNorm(width=8), TASK, 0)  # type: ignore[arg-type]
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))


def to_float(batch: torch.Tensor, rng: np.random.Generator | None) -> torch.Tensor:
    return batch.permute(0, 3, 1, 2).float() / 255


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.integers(0, 256, (60, *TASK.input_shape), dtype=np.uint8))
    return inputs, torch.from_numpy(rng.integers(0, 5, 60))


def work(optimizer: Optimizer, epochs: int = 2) -> LocalTraining:
    return LocalTraining(optimizer, Objective(), batch_size=16, epochs=epochs, steps=None, bf16=False, seed=SEED)


def train(
    model: FlatModel, data: tuple[torch.Tensor, torch.Tensor], groups: tuple[int, ...], how: LocalTraining
) -> None:
    train_client(
        model, *data, np.arange(SAMPLES), to_float, how, anchor=model.vector.clone(), groups=groups, round_index=2,
        client=7, lr_factor=1.0,
    )  # fmt: skip


def test_parameters_and_statistics_are_views_that_keep_their_values() -> None:
    module = build_module(CnnBatchNorm(width=8), TASK, 0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)))
    for name, tensor in model.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    model.vector.zero_()
    model.statistics.fill_(2)
    assert all(float(parameter.detach().abs().sum()) == 0 for parameter in model.module.parameters())
    assert all(
        bool((buffer == 2).all()) for name, buffer in model.module.named_buffers() if name.endswith("running_var")
    )


@pytest.mark.parametrize("groups", [(0,), (1,), (3,), (0, 2), (1, 2, 3)])
def test_a_partial_round_changes_exactly_the_active_slices(
    data: tuple[torch.Tensor, torch.Tensor], groups: tuple[int, ...]
) -> None:
    model = flat()
    before, statistics = model.vector.clone(), model.statistics.clone()
    train(model, data, groups, work(Adam()))
    active = torch.zeros(model.layout.size, dtype=torch.bool)
    for group in groups:
        active[model.layout.slices[group]] = True
    assert torch.equal(model.vector[~active], before[~active])
    assert float((model.vector[active] != before[active]).float().mean()) > 0.9
    assert not torch.equal(model.statistics, statistics)


def test_frozen_groups_get_no_gradient_work() -> None:
    model = flat()
    model.activate((3,))
    assert [parameter.requires_grad for parameter in model.module.parameters()].count(True) == 2
    loss = model.module(torch.zeros(4, 3, 12, 12).to(memory_format=torch.channels_last)).sum()
    steps, node = 0, loss.grad_fn
    while node is not None:
        steps, node = steps + 1, node.next_functions[0][0] if node.next_functions else None
    assert steps <= 4, "the graph ends at the classifier"


@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05), SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3), Adam(weight_decay=1e-3), AdamW()],
)
@pytest.mark.parametrize("model", [CnnBatchNorm(width=8), ResNet8(width=8)])
def test_a_client_trains_bit_for_bit_as_pytorchs_own_loop(
    data: tuple[torch.Tensor, torch.Tensor], optimizer: Optimizer, model: object
) -> None:
    """The loop that a user would write, tensor by tensor, over the same minibatches."""
    plain = build_module(model, TASK, 0).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    stepper = optimizer.make(list(plain.parameters()), 1.0)
    plain.train()
    rng = generator(SEED, "minibatches", 2, 7)
    for positions in minibatches(rng, SAMPLES, 16, epochs=2, steps=None):
        images, labels = to_float(data[0][positions], None), data[1][positions]
        stepper.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        stepper.step()

    ours = flat(model)
    train(ours, data, ours.layout.all_groups, work(optimizer))
    theirs = plain.state_dict()
    for name, tensor in ours.module.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_a_last_minibatch_of_one_sample_is_left_out_where_batchnorm_could_not_take_it(
    data: tuple[torch.Tensor, torch.Tensor],
) -> None:
    model = flat()
    assert model.smallest_batch == 2
    result = train_client(
        model, *data, np.arange(33), to_float, work(SGD(lr=0.1), epochs=1),
        anchor=model.vector.clone(), groups=(0,), round_index=0, client=0, lr_factor=1.0,
    )  # fmt: skip
    assert result.steps == 2


class StaysFrozen(nn.BatchNorm2d):
    """A layer that redefines what training mode means for it: its statistics never move."""

    def train(self, mode: bool = True) -> "StaysFrozen":
        super().train(False)
        return self


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, StaysFrozen])
def test_training_mode_is_what_the_modules_own_train_makes_it(layer: type[nn.BatchNorm2d]) -> None:
    model = flat(CnnBatchNorm(width=8))
    layers = model.module.named_modules()
    name, normalisation = next((name, module) for name, module in layers if isinstance(module, nn.BatchNorm2d))
    normalisation.__class__ = layer
    model = FlatModel(model.module, model.layout)
    model.module.eval()
    model.train()
    modes = {name: module.training for name, module in model.module.named_modules()}
    model.module.train()
    assert modes == {name: module.training for name, module in model.module.named_modules()}
    assert modes[name] == (layer is nn.BatchNorm2d)
