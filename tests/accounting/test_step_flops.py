"""Measured FLOPs of a training step."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedbench.accounting.flops import StepFlops
from fedbench.errors import ModelError
from fedbench.models.base import LayerGroup, Model, Task
from fedbench.models.cnn import Cnn, CnnBatchNorm
from fedbench.models.groups import build_module, derive_layer_groups
from fedbench.models.resnet import ResNet8
from fedbench.models.resnet20 import ResNet20
from fedbench.models.transformer import TextTransformer

IMAGES = Task("image", (32, 32, 3), 10)
TEXTS = Task("text", (12,), 4, vocabulary_size=50, padding_index=0)


def step_flops(model: Model, task: Task) -> StepFlops:
    module = build_module(model, task, seed=0)
    return StepFlops(module, derive_layer_groups(module, task), task)


class TwoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(images.flatten(1)))
        return out


class ReadsValues(TwoLinear):
    """Reads the data, which the meta device cannot do, and draws."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(images + float(images.max())))


@pytest.mark.parametrize("kind", [TwoLinear, ReadsValues])
def test_two_linear_layers_by_hand(kind: type[nn.Module]) -> None:
    task = Task("image", (2, 2, 3), 3)
    module = kind()
    counted = StepFlops(module, derive_layer_groups(module, task), task)
    batch = 7
    first, last = 2 * batch * 12 * 5, 2 * batch * 5 * 3
    assert counted.forward_flops(batch) == first + last
    assert counted.flops([1], batch) == first + last + last
    # The first layer's weights need the gradient to pass through the last layer; its input needs none.
    assert counted.flops([0], batch) == first + last + last + first
    assert counted.flops([0, 1], batch) == first + last + last + last + first


@pytest.mark.slow
def test_what_freezing_saves_in_resnet8() -> None:
    """Shares of a full step for each of the ten groups, at 32x32 with 100 classes."""
    counted = step_flops(ResNet8(), Task("image", (32, 32, 3), 100))
    full = counted.flops(range(10), 32)
    shares = [round(counted.flops([group], 32) / full, 3) for group in range(10)]
    assert shares == [0.706, 0.647, 0.590, 0.529, 0.500, 0.446, 0.440, 0.411, 0.357, 0.354]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task"),
    [(Cnn(), IMAGES), (CnnBatchNorm(), IMAGES), (ResNet20(), IMAGES), (TextTransformer(embedding=8), TEXTS)],
)
def test_law_agrees_with_a_real_step_on_the_cpu(model: Model, task: Task) -> None:
    module = build_module(model, task, seed=0)
    groups = derive_layer_groups(module, task)
    counted = StepFlops(module, groups, task)
    batch = 5
    if task.kind == "image":
        inputs = torch.randn(batch, task.input_shape[2], *task.input_shape[:2])
    else:
        inputs = torch.randint(1, 50, (batch, *task.input_shape))
    for active in (range(len(groups)), [0], [len(groups) - 1], [1, 2]):
        trained = {name for group in active for name in groups[group].parameters}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained)
        with FlopCounterMode(display=False) as counter:
            module(inputs).logsumexp(dim=1).sum().backward()
        assert counted.flops(active, batch) == counter.get_total_flops()


def test_linear_in_the_batch() -> None:
    counted = step_flops(ResNet8(width=8), IMAGES)
    one = counted.flops([3], 1)
    assert [counted.flops([3], batch) for batch in (2, 3, 32)] == [2 * one, 3 * one, 32 * one]


def test_work_on_parameters_alone_does_not_grow_with_the_batch() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Parameter(torch.randn(12, 4))
            self.right = nn.Parameter(torch.randn(4, 3))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ (self.left @ self.right)

    task = Task("image", (2, 2, 3), 3)
    module = Product()
    counted = StepFlops(module, derive_layer_groups(module, task), task)
    assert counted.forward_flops(10) == 2 * 12 * 4 * 3 + 2 * 10 * 12 * 3


def test_attention_products_are_counted() -> None:
    length, width, classes = 12, 8, 4
    counted = step_flops(TextTransformer(embedding=width, layers=1, feedforward=2), TEXTS)
    attention = 4 * length * width**2 + 2 * length**2 * width
    assert counted.forward_flops(1) == 2 * (attention + 2 * length * width * 2 + width * classes)


def test_counts_once_per_set_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = step_flops(Cnn(), IMAGES)
    calls: list[tuple[int, ...]] = []
    count = counted._count

    def spy(groups: tuple[int, ...], batch_size: int) -> int:
        calls.append(groups)
        return count(groups, batch_size)

    monkeypatch.setattr(counted, "_count", spy)
    same = [counted.flops([1, 0], 32), counted.flops((0, 1), 32), counted.flops([1, 1, 0], 32)]
    counted.flops([0, 1], 8)
    assert len(set(same)) == 1
    everything = (0, 1, 2, 3, 4)  # The law is checked on a full step.
    assert calls == [everything, everything, everything, (0, 1), (0, 1)]


def test_module_and_random_state_are_left_alone() -> None:
    task = Task("image", (2, 2, 3), 3)
    module = ReadsValues()
    module.last.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    StepFlops(module, [LayerGroup("first", ("first.weight", "first.bias"))], task).flops([0], 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.last.weight.requires_grad
    assert module.first.weight.grad is None


def test_a_network_that_cannot_run_is_named() -> None:
    task = Task("image", (5, 5, 3), 3)
    counted = StepFlops(TwoLinear(), [LayerGroup("first", ("first.weight", "first.bias"))], task)
    with pytest.raises(ModelError, match=r"TwoLinear: a training step .* fails: .*mat1 and mat2"):
        counted.flops([0], 2)
