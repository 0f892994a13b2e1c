"""FLOPs of single operators, forward and backward, against counts by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.operators import FORMULAS, WITHOUT_FORMULA
from fedbench.models.base import LayerGroup, Task

pytestmark = pytest.mark.slow

N, SIDE, CLASSES = 3, 4, 2
PIXELS = SIDE * SIDE
IMAGES = Task("image", (SIDE, SIDE, 4), CLASSES)
TEXTS = Task("text", (5,), CLASSES, vocabulary_size=11)


class BetweenTwo(nn.Module):
    """A 1x1 convolution before an operator and a sum for each class behind it, so that the operator's input has a
    gradient wherever the first layer trains, and the rest counts nothing else."""

    def __init__(self, operator: nn.Module, prepare: Callable[[Tensor], Any], reads_values: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1, bias=False)
        self.operator = operator
        self.prepare = prepare
        self.reads_values = reads_values

    def forward(self, images: Tensor) -> Tensor:
        if self.reads_values:
            images = images + float(images.max())
        out = self.operator(self.prepare(self.first(images)))
        out = out[0] if isinstance(out, tuple) else out
        return out.flatten(1)[:, :CLASSES]


class Attention(nn.Module):
    """The attention of four heads, of width 1 each, over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, tokens: Tensor) -> Tensor:
        heads = tokens[..., None] * self.scale  # [N, 4, PIXELS, 1]
        return F.scaled_dot_product_attention(heads, heads, heads)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(4, 7, 5)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.product(*pair)


class Projected(nn.Module):
    """The product of a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(4))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.contiguous() @ self.vector


class Distances(nn.Module):
    """Distances to class centres."""

    def __init__(self, centres: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.ones(centres, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cdist(tokens.flatten(1)[:, :4], self.centres)


def as_image(features: Tensor) -> Tensor:
    return features


def as_signal(features: Tensor) -> Tensor:
    return features.flatten(2)


def as_volume(features: Tensor) -> Tensor:
    return features.unflatten(2, (2, SIDE // 2))


def as_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).mT


def as_pair(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean((2, 3)), features.flatten(1)[:, 4:11]


# Gates x hidden x (inputs + hidden) weights, each used once in a step; the state before the first step is a constant.
def recurrent(gates: int, hidden: int, directions: int = 1) -> dict[str, int]:
    of_inputs, of_state = (2 * N * gates * hidden * size * directions for size in (4, hidden))
    return {
        "forward": PIXELS * (of_inputs + of_state),
        "weights": PIXELS * (of_inputs + of_state),
        "inputs": PIXELS * of_inputs,
        "state": (PIXELS - 1) * of_state,
    }


def product(macs: int) -> dict[str, int]:
    """An operator whose two gradients each take as much as its forward pass, as those of products do."""
    return {"forward": 2 * macs, "weights": 2 * macs, "inputs": 2 * macs, "state": 0}


PROJECTIONS = 4 * N * PIXELS * 4 * 4
ATTENTION = 2 * N * PIXELS * PIXELS * 4
OPERATORS = {
    "convolution": (nn.Conv2d(4, 8, 3, padding=1), as_image, product(N * PIXELS * 9 * 4 * 8)),
    "grouped": (nn.Conv2d(4, 8, 3, padding=1, groups=2), as_image, product(N * PIXELS * 9 * 2 * 8)),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False), as_image, product(N * PIXELS * 25 * 4)),
    "depthwise with multiplier": (nn.Conv2d(4, 12, 3, padding=1, groups=4), as_image, product(N * PIXELS * 9 * 12)),
    "strided": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), as_image, product(N * PIXELS // 4 * 9 * 8)),
    "dilated": (nn.Conv2d(4, 8, 3, dilation=2, padding=2, groups=2), as_image, product(N * PIXELS * 9 * 2 * 8)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), as_image, product(N * PIXELS * 9 * 4 * 6)),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), as_image, product(N * PIXELS * 9 * 4 * 3)),
    "1-d": (nn.Conv1d(4, 6, 3, padding=1), as_signal, product(N * PIXELS * 3 * 4 * 6)),
    "1-d grouped": (nn.Conv1d(4, 6, 3, padding=1, groups=2), as_signal, product(N * PIXELS * 3 * 2 * 6)),
    "3-d": (nn.Conv3d(4, 6, 3, padding=1), as_volume, product(N * PIXELS * 27 * 4 * 6)),
    "3-d grouped": (nn.Conv3d(4, 6, 3, padding=1, groups=2), as_volume, product(N * PIXELS * 27 * 2 * 6)),
    "3-d transposed": (nn.ConvTranspose3d(4, 6, 2, groups=2), as_volume, product(N * PIXELS * 8 * 4 * 3)),
    "linear": (nn.Linear(4, 6), as_tokens, product(N * PIXELS * 4 * 6)),
    "RNN": (nn.RNN(4, 6, batch_first=True), as_tokens, recurrent(1, 6)),
    "GRU": (nn.GRU(4, 6, batch_first=True), as_tokens, recurrent(3, 6)),
    "LSTM": (nn.LSTM(4, 6, batch_first=True), as_tokens, recurrent(4, 6)),
    "bidirectional LSTM": (nn.LSTM(4, 6, batch_first=True, bidirectional=True), as_tokens, recurrent(4, 6, 2)),
    "matrix and vector": (
        Projected(),
        as_tokens,
        # The gradient of the matrix is an outer product, which is elementwise.
        {"forward": 2 * N * PIXELS * 4, "weights": 2 * N * PIXELS * 4, "inputs": 0, "state": 0},
    ),
    "few distances": (Distances(2), as_image, product(N * 2 * 4)),
    # By matrix products, whose backward pass gives both gradients whether or not one is frozen.
    "many distances": (
        Distances(60),
        as_image,
        {"forward": 2 * N * 60 * 4, "weights": 0, "inputs": 0, "state": 4 * N * 60 * 4},
    ),
    # x1 W, then times x2; gradients of W by x1 g, then times x2; of x1 by g W, times x2; of x2 by x1 W, times g.
    "bilinear": (
        Bilinear(),
        as_pair,
        {
            "forward": 2 * N * 5 * 7 * (4 + 1),
            "weights": 2 * N * 5 * 4 * (7 + 1),
            "inputs": 2 * N * 4 * 7 * (5 + 1) + 2 * N * 5 * 7 * (4 + 1),
            "state": 0,
        },
    ),
    # The two products have two gradients each; the weights before them wait for all, the weight behind for none.
    "attention kernel": (
        Attention(),
        as_signal,
        {"forward": 2 * ATTENTION, "weights": 4 * ATTENTION, "inputs": 0, "state": 0},
    ),
    "multi-head attention": (
        SelfAttention(),
        as_tokens,
        {
            "forward": 2 * (PROJECTIONS + ATTENTION),
            "weights": 2 * PROJECTIONS,
            "inputs": 2 * PROJECTIONS * 3 // 4,
            "state": 2 * PROJECTIONS // 4 + 4 * ATTENTION,
        },
    ),
}


@pytest.mark.parametrize("reads_values", [False, True], ids=["meta", "cpu"])
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_counts_what_a_hand_counts(name: str, reads_values: bool) -> None:
    """Forward, with each of the two layers frozen, and with both trained; the same on the meta device and the CPU."""
    operator, prepare, hand = OPERATORS[name]
    first = 2 * N * PIXELS * 4 * 4
    module = BetweenTwo(operator, prepare, reads_values)
    groups = [
        LayerGroup("first", ("first.weight",)),
        LayerGroup("operator", tuple(f"operator.{key}" for key, _ in operator.named_parameters())),
    ]
    counted = StepFlops(module, groups, IMAGES)
    assert counted.uncounted == ()
    forward = first + hand["forward"]
    assert counted.forward_flops(N) == forward
    assert counted.flops([1], N) == forward + hand["weights"] + hand["state"]
    if name == "attention kernel":  # The work between is the same for the layer before as for the operator's own scale.
        assert counted.flops([0], N) == counted.flops([1], N) + first
        assert counted.flops([0, 1], N) == counted.flops([0], N)
        return
    assert counted.flops([0], N) == forward + hand["inputs"] + hand["state"] + first
    assert counted.flops([0, 1], N) == forward + hand["weights"] + hand["inputs"] + hand["state"] + first


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, requires_grad=True)


@pytest.mark.parametrize(
    ("compute", "macs"),
    [
        (lambda: torch.mv(zeros(3, 4), zeros(4)), 3 * 4),
        (lambda: torch.addmv(zeros(3), zeros(3, 4), zeros(4)), 3 * 4),
        (lambda: torch.dot(zeros(7), zeros(7)), 7),
        (lambda: torch.vdot(zeros(7), zeros(7)), 7),
        (lambda: torch.addbmm(zeros(2, 4), zeros(5, 2, 3), zeros(5, 3, 4)), 5 * 2 * 3 * 4),
        (lambda: torch.cdist(zeros(2, 3, 4), zeros(2, 5, 4), p=1), 2 * 3 * 5 * 4),
        (lambda: torch.cdist(zeros(1, 3, 4), zeros(6, 5, 4), p=1), 6 * 3 * 5 * 4),
        (lambda: torch.cdist(zeros(6, 3, 4), zeros(1, 5, 4), p=1), 6 * 3 * 5 * 4),
    ],
)
def test_products_of_few_dimensions(compute: Callable[[], Tensor], macs: int) -> None:
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        compute()
    assert counter.get_total_flops() == 2 * macs


def test_each_gradient_of_distances_counts_as_the_distances() -> None:
    first, second = zeros(2, 3, 4), zeros(2, 5, 4)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        torch.cdist(first, second, p=1).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 3 * 5 * 4


def test_an_embedding_is_a_look_up() -> None:
    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.bag = nn.EmbeddingBag(11, 8)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens).mean(1) + self.bag(tokens))

    groups = [LayerGroup("embedding", ("embedding.weight", "bag.weight")), LayerGroup("head", ("head.weight",))]
    counted = StepFlops(Texts(), groups, TEXTS)
    head = 2 * N * 8 * CLASSES
    assert [counted.flops(active, N) for active in ([], [0], [1], [0, 1])] == [head, 2 * head, 2 * head, 3 * head]
    assert counted.uncounted == ()


OF_THE_SAME_OPERATORS = [
    pytest.param("mnasnet1_0", marks=pytest.mark.exhaustive),  # as mobilenet_v3_small, which has gates, too
    pytest.param("mobilenet_v2", marks=pytest.mark.exhaustive),
    pytest.param("efficientnet_b0", marks=pytest.mark.exhaustive),
    pytest.param("resnet18", marks=pytest.mark.exhaustive),  # as resnext50_32x4d, which has grouped ones, too
]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnext50_32x4d", *OF_THE_SAME_OPERATORS])
def test_networks_of_grouped_convolutions_count_three_forward_passes(name: str) -> None:
    """A full step is a forward pass and two gradients of every product; the first layer's input has none."""
    models = pytest.importorskip("torchvision.models")
    module = models.get_model(name, num_classes=CLASSES)
    task = Task("image", (32, 32, 3), CLASSES)
    forward = first = 0

    def hand(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal forward, first
        fan_in = math.prod(layer.weight.shape[1:])  # C_in / groups x kernel, or the inputs of a linear layer
        forward += 2 * output.numel() * fan_in
        first = first or 2 * output.numel() * fan_in

    hooks = [
        layer.register_forward_hook(hand) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    module(torch.zeros(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    everything = LayerGroup("all", tuple(key for key, _ in module.named_parameters()))
    counted = StepFlops(module, [everything], task)
    assert counted.forward_flops(2) == forward
    assert counted.flops([0], 2) == 3 * forward - first


class Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4 * PIXELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.fft.fft2(images).abs().flatten(1))


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CLASSES, 4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        ops = pytest.importorskip("torchvision.ops")
        return ops.deform_conv2d(images, images.repeat(1, 5, 1, 1)[:, :2], self.weight).mean((2, 3))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (Fourier(), ("aten._fft_c2c",)),
        (Deformable(), ("torchvision._deform_conv2d_backward", "torchvision.deform_conv2d")),
    ],
)
def test_operators_with_work_that_is_not_counted_are_named(module: nn.Module, names: tuple[str, ...]) -> None:
    groups = [LayerGroup("all", tuple(key for key, _ in module.named_parameters()))]
    assert StepFlops(module, groups, IMAGES).uncounted == names


def test_an_operator_that_a_user_has_told_the_formula_of_is_counted_and_no_longer_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(flop_registry, torch.ops.aten._fft_c2c, lambda *_, **__: 1000)
    counted = StepFlops(Fourier(), [LayerGroup("head", ("head.weight", "head.bias"))], IMAGES)
    assert counted.uncounted == ()
    assert counted.forward_flops(N) == 1000 + 2 * N * 4 * PIXELS * CLASSES


def test_every_name_without_a_formula_is_an_operator_of_pytorch() -> None:
    assert [name for name in WITHOUT_FORMULA if not hasattr(torch.ops.aten, name)] == []


def test_work_between_the_samples_of_a_batch_is_counted_at_its_size() -> None:
    class Batchwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            features = images.mean((2, 3))
            return self.head(features @ features.T @ features)

    counted = StepFlops(Batchwise(), [LayerGroup("head", ("head.weight", "head.bias"))], IMAGES)
    batch = 10
    assert counted.forward_flops(batch) == 2 * 2 * batch * batch * 4 + 2 * batch * 4 * CLASSES
