"""What every built-in network must be: its size, its groups, and how it runs on flat channels-last parameters."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.cnn import Cnn, CnnBatchNorm
from fedbench.models.groups import build_module, derive_layer_groups, feature_layer, parameter_layout
from fedbench.models.networks.resnet20 import PaddedBlock, PreactBottleneck
from fedbench.models.resnet import ResNet8, ResNet18
from fedbench.models.resnet20 import ResNet20, ResNet20Preact
from fedbench.models.vgg import Vgg16

CIFAR = Task("image", (32, 32, 3), 10)
DIGITS = Task("image", (8, 8, 1), 10)


def images(classes: int, edge: int = 32) -> Task:
    return Task("image", (edge, edge, 3), classes)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("model", "classes", "count"),
    [
        (Cnn(), 10, 62_006),
        (Cnn(projection=256), 10, 62_006 - 85 * 10 + 85 * 84 + 85 * 256 + 257 * 10),
        (ResNet8(), 10, 1_235_274),
        (ResNet8(), 100, 1_258_404),
        (ResNet8(), 200, 1_284_104),
        (ResNet18(), 10, 11_181_642),
        (ResNet18(), 100, 11_227_812),
        (ResNet18(), 200, 11_279_112),
        (ResNet20(), 10, 269_722),
        (ResNet20Preact(final_norm=True), 10, 219_482),
        (ResNet20Preact(), 10, 219_482 - 2 * 256),
        (Vgg16(), 10, 33_646_666),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_published_parameter_count(model: Model, classes: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(model.build(images(classes))) == count


def test_cnn_takes_28_pixels_and_a_width() -> None:
    grey = Task("image", (28, 28, 1), 62)
    assert parameters(Cnn().build(grey)) == 26 * 6 + 151 * 16 + 257 * 120 + 121 * 84 + 85 * 62
    assert parameters(Cnn(width=0.5).build(CIFAR)) == 76 * 3 + 76 * 8 + 201 * 60 + 61 * 42 + 43 * 10
    assert Cnn().build(grey)(torch.zeros(2, 1, 28, 28)).shape == (2, 62)


def test_moon_compares_what_the_projection_head_gives() -> None:
    module = build_module(Cnn(projection=7), CIFAR, seed=0)
    assert (feature_layer(module), module.get_parameter("fc3.weight").shape) == ("fc3", (10, 7))
    names = [group.name for group in derive_layer_groups(module, CIFAR)]
    assert names == ["conv1", "conv2", "fc1", "fc2", "projection.0", "projection.2", "fc3"]


def test_width_scales_every_stage() -> None:
    first = ResNet8(width=16).build(CIFAR).get_parameter("conv1.weight")
    last = ResNet8(width=16).build(CIFAR).get_parameter("fc.weight")
    assert (first.shape[0], last.shape[1]) == (16, 64)
    assert ResNet18(width=16).build(CIFAR).get_parameter("fc.weight").shape[1] == 128
    assert CnnBatchNorm(width=3).build(CIFAR).get_parameter("fc.weight").shape[1] == 12


@pytest.mark.parametrize(("classes", "classifier"), [(10, 2_570), (100, 25_700), (200, 51_400)])
def test_resnet8_has_the_papers_ten_groups(classes: int, classifier: int) -> None:
    task = images(classes)
    module = build_module(ResNet8(), task, seed=0)
    layout = parameter_layout(module, derive_layer_groups(module, task))
    assert [layout.group_size(group) for group in range(layout.groups)] == [
        *(9_536, 36_992, 36_992, 73_984, 147_712, 8_448, 295_424, 590_336, 33_280),
        classifier,
    ]
    assert layout.group_names == (
        "conv1",
        "stages.0.0.conv1",
        "stages.0.0.conv2",
        "stages.1.0.conv1",
        "stages.1.0.conv2",
        "stages.1.0.downsample.0",
        "stages.2.0.conv1",
        "stages.2.0.conv2",
        "stages.2.0.downsample.0",
        "fc",
    )


def test_resnet18_has_21_groups_with_downsamples_after_their_blocks_convolutions() -> None:
    module = build_module(ResNet18(), CIFAR, seed=0)
    layout = parameter_layout(module, derive_layer_groups(module, CIFAR))
    assert layout.groups == 21
    sizes = [layout.group_size(group) for group in range(21)]
    expected = [3 * 64 * 49 + 128]
    inputs = 64
    for outputs in (64, 128, 256, 512):
        expected += [inputs * outputs * 9 + 2 * outputs, outputs * outputs * 9 + 2 * outputs]
        if outputs != inputs:
            expected.append(inputs * outputs + 2 * outputs)
        expected += [outputs * outputs * 9 + 2 * outputs] * 2
        inputs = outputs
    assert sizes == [*expected, 5_130]


def test_option_a_shortcut_is_every_second_pixel_and_zero_channels() -> None:
    block = PaddedBlock(16, 32, stride=2)
    nn.init.zeros_(block.bn2.weight)
    maps = torch.randn(2, 16, 8, 8)
    out = block(maps)
    assert torch.equal(out[:, :16], maps[:, :, ::2, ::2].relu())
    assert not out[:, 16:].any()
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"conv1", "bn1", "conv2", "bn2"}


def test_preactivation_block_adds_the_raw_input() -> None:
    block = PreactBottleneck(64, 16, stride=1)
    nn.init.zeros_(block.conv3.weight)
    maps = torch.randn(2, 64, 4, 4)
    assert torch.equal(block(maps), maps)
    strided = PreactBottleneck(64, 32, stride=2)
    nn.init.zeros_(strided.conv3.weight)
    assert isinstance(strided.downsample, nn.Conv2d)
    plain = F.conv2d(maps, strided.downsample.weight, stride=2)
    assert torch.equal(strided(maps), plain)


def preact_by_hand(module: nn.Module, images: Tensor) -> Tensor:
    """The forward pass of FedMR's published code in training mode: no BatchNorm after the last bottleneck."""

    def normalised(maps: Tensor, norm: str) -> Tensor:
        weight, bias = (module.get_parameter(f"{norm}.{part}") for part in ("weight", "bias"))
        mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), keepdim=True, unbiased=False)
        return ((maps - mean) / (var + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]).clamp(min=0)

    maps = F.conv2d(images, module.get_parameter("conv1.weight"), padding=1)
    blocks = [f"stages.{stage}.{n}" for stage in range(3) for n in range(2)]
    for block, stride in zip(blocks, (1, 1, 2, 1, 2, 1), strict=True):
        weights = [module.get_parameter(f"{block}.conv{n}.weight") for n in (1, 2, 3)]
        residual = F.conv2d(normalised(maps, f"{block}.bn1"), weights[0])
        residual = F.conv2d(normalised(residual, f"{block}.bn2"), weights[1], stride=stride, padding=1)
        residual = F.conv2d(normalised(residual, f"{block}.bn3"), weights[2])
        projection = dict(module.named_parameters()).get(f"{block}.downsample.weight")
        maps = residual + (maps if projection is None else F.conv2d(maps, projection, stride=stride))
    return F.linear(maps.mean((2, 3)), module.get_parameter("fc.weight"), module.get_parameter("fc.bias"))


def test_fedmrs_resnet_20_is_that_of_its_published_code() -> None:
    module = build_module(ResNet20Preact(), CIFAR, seed=0).double()
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    assert len(norms) == 3 * 6
    assert all((norm.weight == 0.5).all() and (norm.bias == 0).all() for norm in norms)
    batch = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(module(batch), preact_by_hand(module, batch))


NETWORKS: list[tuple[Model, Task]] = [
    (Cnn(), CIFAR),
    (Cnn(), Task("image", (28, 28, 1), 10)),
    (CnnBatchNorm(), DIGITS),
    (CnnBatchNorm(), CIFAR),
    (ResNet8(width=8), CIFAR),
    (ResNet8(width=8), DIGITS),
    (ResNet18(width=8), CIFAR),
    (ResNet20(), CIFAR),
    (ResNet20(), Task("image", (28, 28, 1), 10)),
    (ResNet20Preact(), CIFAR),
    (ResNet20Preact(final_norm=True), CIFAR),
    (Vgg16(width=8, hidden=32, dropout=0.0), CIFAR),
    (Vgg16(width=8, hidden=32, dropout=0.0), images(10, 64)),
]
LABELLED = pytest.mark.parametrize(
    ("model", "task"), NETWORKS, ids=[f"{model.name}-{task.input_shape[0]}" for model, task in NETWORKS]
)


@pytest.mark.slow
@LABELLED
def test_flat_channels_last_parameters_give_the_same_step(model: Model, task: Task) -> None:
    """Parameters and gradients as permuted views into flat vectors, counters gone: logits and gradients agree.

    In float64, where the order of summation hides nothing.
    """
    plain, flat = (build_module(model, task, seed=1) for _ in range(2))
    layout = parameter_layout(flat, derive_layer_groups(flat, task))
    plain, flat = plain.double(), flat.double()
    vector, gradient = torch.zeros(2, layout.size, dtype=torch.float64)
    for slot in layout.slots:
        parameter = flat.get_parameter(slot.name)
        view, grad = (whole[slot.offset : slot.stop].view(slot.stored_shape) for whole in (vector, gradient))
        if slot.channels_last:
            view, grad = view.permute(0, 3, 1, 2), grad.permute(0, 3, 1, 2)
        view.copy_(parameter.detach())
        parameter.data, parameter.grad = view, grad
    for child in flat.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.num_batches_tracked = None
    height, width, channels = task.input_shape
    batch = torch.randn(4, channels, height, width, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3])
    expected, given = plain(batch), flat(batch.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(given, expected)
    F.cross_entropy(expected, labels).backward()
    F.cross_entropy(given, labels).backward()
    for slot in layout.slots:
        reference = plain.get_parameter(slot.name).grad
        filled = gradient[slot.offset : slot.stop].view(slot.stored_shape)
        filled = filled.permute(0, 3, 1, 2) if slot.channels_last else filled
        torch.testing.assert_close(filled, reference)
    for (name, moved), kept in zip(flat.named_buffers(), statistics(plain), strict=True):
        torch.testing.assert_close(moved, kept, msg=name)


def statistics(module: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in module.named_buffers() if not name.endswith("num_batches_tracked")]


@LABELLED
def test_activations_stay_channels_last(model: Model, task: Task) -> None:
    module = build_module(model, task, seed=0).to(memory_format=torch.channels_last)
    copied: list[str] = []
    for name, child in module.named_modules():

        def check(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor, name: str = name) -> None:
            maps = inputs[0]
            if maps.dim() == 4 and not maps.is_contiguous(memory_format=torch.channels_last):
                copied.append(name)

        child.register_forward_hook(check)
    height, width, channels = task.input_shape
    module(torch.randn(2, channels, height, width).contiguous(memory_format=torch.channels_last))
    assert copied == []


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (Cnn(), 84),
        (CnnBatchNorm(), 64),
        (ResNet8(), 256),
        (ResNet18(), 512),
        (ResNet20(), 64),
        (ResNet20Preact(), 256),
        (Vgg16(hidden=16), 16),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_feature_layer_is_the_classifier(model: Model, features: int) -> None:
    module = build_module(model, CIFAR, seed=0)
    layer = module.get_submodule(feature_layer(module))
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (features, 10)
    seen: list[tuple[int, ...]] = []
    layer.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    module(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, features)]


def test_cnn_bn_learns_digits() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randperm(len(labels), generator=generator).split([1_440, 357])
    module = build_module(CnnBatchNorm(), DIGITS, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(5):
        for batch in train[torch.randperm(1_440, generator=generator)].split(32):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    module.eval()
    accuracy = (module(inputs[test]).argmax(dim=1) == labels[test]).float().mean().item()
    assert accuracy > 0.95


def test_initial_convolutions_have_the_variance_of_their_outputs_fan() -> None:
    weight = build_module(ResNet18(), CIFAR, seed=0).get_parameter("stages.3.1.conv2.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)


def test_vgg_16_starts_with_pytorchs_initial_values_as_in_fedmrs_code() -> None:
    module = build_module(Vgg16(hidden=16), CIFAR, seed=0)
    weight, bias = (module.get_parameter(f"features.40.{part}") for part in ("weight", "bias"))
    bound = 1 / math.sqrt(512 * 9)  # uniform in [-1 / sqrt(fan in), 1 / sqrt(fan in)], weights and biases
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert bound * 0.9 < bias.abs().max() <= bound


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (Cnn(), DIGITS, "model.name=cnn: needs images of at least 16x16, these are 8x8"),
        (Vgg16(), Task("image", (28, 28, 1), 10), "model.name=vgg16: needs images of at least 32x32, these are 28x28"),
        (ResNet8(), Task("text", (9,), 4, 50, 0), "model.name=resnet8: needs images, the data are text"),
    ],
    ids=["small", "odd", "text"],
)
def test_a_task_that_cannot_be_served_is_named(model: Model, task: Task, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model.build(task)
