"""The built-in networks for tables, series, next tokens and segmentation against independent statements."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.errors import ModelError
from fedbench.models.base import Model, Task
from fedbench.models.cnn import Cnn
from fedbench.models.conv1d import Conv1d
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.lstm import Lstm
from fedbench.models.mlp import Mlp
from fedbench.models.networks.transformer import EncoderLayer
from fedbench.models.transformer import TextTransformer
from fedbench.models.unet import UNet

TABLE = Task("array", (9,), 2, target="regression")
SERIES = Task("array", (3, 20), 5)
TEXTS = Task("text", (7,), 4, vocabulary_size=20, padding_index=0)
NEXT = Task("text", (7,), 20, vocabulary_size=20, padding_index=0, target="next_token")
PIXELS = Task("image", (13, 10, 3), 4, target="segmentation")
DIGITS = Task("image", (8, 8, 1), 10)
SMALL_TRANSFORMER = TextTransformer(embedding=8, layers=2, dropout=0.0)

CASES: dict[str, tuple[Model, Task, tuple[int, ...], int, list[str]]] = {
    "table": (Mlp(), TABLE, (2, 9), 10 * 64 + 65 * 64 + 65 * 2, ["layers.0", "layers.1", "layers.2"]),
    "linear": (Mlp(hidden=()), TABLE, (2, 9), 10 * 2, ["layers.0"]),
    "images": (Mlp(hidden=(5,)), DIGITS, (2, 1, 8, 8), 65 * 5 + 6 * 10, ["layers.0", "layers.1"]),
    "series": (
        Conv1d(width=4), SERIES, (2, 3, 20), 3 * 4 * 8 + 4 * 8 * 5 + 8 * 4 * 3 + 2 * 16 + 5 * 5,
        ["convolutions.0", "convolutions.1", "convolutions.2", "output"],
    ),
    "series step by step": (
        Lstm(hidden=16), SERIES, (2, 3, 20), 64 * (3 + 16 + 2) + 64 * (32 + 2) + 17 * 5,
        ["layers.0", "layers.1", "output"],
    ),
    "next character": (
        Lstm(hidden=16), NEXT, (2, 7), 20 * 8 + 64 * (8 + 16 + 2) + 64 * (32 + 2) + 17 * 20,
        ["embedding", "layers.0", "layers.1", "output"],
    ),
    "texts": (
        Lstm(hidden=16, layers=1), TEXTS, (2, 7), 20 * 8 + 64 * (8 + 16 + 2) + 17 * 4,
        ["embedding", "layers.0", "output"],
    ),
    "causal": (
        SMALL_TRANSFORMER, NEXT, (2, 7), 20 * 8 + 2 * (9 * 24 + 9 * 8 + 9 * 2 + 3 * 8 + 32) + 9 * 20,
        ["embedding", "layers.0.attention", "layers.0.linear1", "layers.1.attention", "layers.1.linear1", "classifier"],
    ),
}  # fmt: skip


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def example(task: Task, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(1, 20, shape) if task.kind == "text" else torch.randn(shape)


@pytest.mark.parametrize(("model", "task", "shape", "count", "groups"), CASES.values(), ids=CASES)
def test_parameters_groups_and_output(
    model: Model, task: Task, shape: tuple[int, ...], count: int, groups: list[str]
) -> None:
    module = build_module(model, task, seed=0)
    assert parameters(module) == count
    derived = derive_layer_groups(module, task)
    assert [group.name for group in derived] == groups
    assert parameter_layout(module, derived).size == count
    assert module(example(task, shape)).shape == (2, *task.output_shape)


def test_published_sizes() -> None:
    """LEAF's Shakespeare network has 817,872 parameters with 80 characters; PyTorch's LSTM a second bias for each."""
    leaf = 80 * 8 + 4 * 256 * (8 + 256 + 1) + 4 * 256 * (256 + 256 + 1) + 257 * 80
    with torch.device("meta"):
        lstm = Lstm().build(Task("text", (80,), 80, 80, -1, "next_token"))
        series = Conv1d().build(Task("array", (1, 50), 10))
        unet = UNet().build(PIXELS)
    assert (leaf, parameters(lstm)) == (817_872, 819_920)
    assert (parameters(series), parameters(unet)) == (265_482, 117_412)


def test_a_perceptron_is_a_sequence_of_layers() -> None:
    module = build_module(Mlp(hidden=(6, 5)), TABLE, seed=0)
    first, second, last = (module.get_submodule(f"layers.{index}") for index in range(3))
    rows = torch.randn(4, 9)
    expected = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)(rows)
    assert torch.equal(module(rows), expected)


def test_the_lstm_is_pytorchs_with_two_layers() -> None:
    module = build_module(Lstm(hidden=16), NEXT, seed=0)
    whole = nn.LSTM(8, 16, num_layers=2, batch_first=True)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            kind, layer = name[:-1], int(name[-1])
            parameter.copy_(module.get_parameter(f"layers.{layer}.{kind}0"))
    tokens = example(NEXT, (3, 7))
    expected = module.get_submodule("output")(whole(module.get_submodule("embedding")(tokens))[0])
    torch.testing.assert_close(module(tokens), expected)


def test_the_lstm_reads_a_series_step_by_step() -> None:
    module = build_module(Lstm(hidden=16, layers=1), SERIES, seed=0)
    cell = nn.LSTMCell(3, 16)
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(module.get_parameter(f"layers.0.{name}_l0"))
    series = example(SERIES, (2, 3, 20))
    state = (torch.zeros(2, 16), torch.zeros(2, 16))
    for step in range(20):
        state = cell(series[:, :, step], state)
    torch.testing.assert_close(module(series), module.get_submodule("output")(state[0]))
    one = build_module(Lstm(hidden=16), Task("array", (20,), 2), seed=0)
    assert torch.equal(one(series[:, 0]), one(series[:, :1]))
    with pytest.raises(ModelError, match=r"model\.embedding=4: has no effect on series"):
        Lstm(embedding=4).build(SERIES)


def test_a_text_is_judged_by_the_state_at_its_last_token() -> None:
    module = build_module(Lstm(hidden=16), TEXTS, seed=0)
    padded, short = torch.tensor([[3, 0, 7, 2, 0, 0, 0]]), torch.tensor([[3, 0, 7, 2]])
    torch.testing.assert_close(module(padded), module(short))
    assert module(torch.zeros(2, 7, dtype=torch.int64)).isfinite().all()


CAUSAL = [
    pytest.param(Lstm(hidden=16), id="lstm"),
    pytest.param(SMALL_TRANSFORMER, id="transformer"),
    pytest.param(TextTransformer(embedding=8, layers=2, dropout=0.0, mask_padding=False), id="no mask"),
]


@pytest.mark.parametrize("model", CAUSAL)
def test_a_token_is_predicted_from_those_up_to_it_alone(model: Model) -> None:
    """Also where a text begins with padding."""
    module = build_module(model, NEXT, seed=0)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [0, 0, 3, 4, 5, 6, 7]])
    for place in range(1, 7):
        other = tokens.clone()
        other[:, place:] = 1 + (other[:, place:] + 6) % 19
        torch.testing.assert_close(module(other)[:, :place], module(tokens)[:, :place])
        assert not torch.allclose(module(other)[:, place], module(tokens)[:, place])


def test_a_causal_layer_is_torchs_with_a_causal_mask() -> None:
    torch.manual_seed(0)
    own = EncoderLayer(width=12, heads=3, feedforward=5, dropout=0.0)
    torchs = nn.TransformerEncoderLayer(12, 3, 5, dropout=0.0, batch_first=True)
    with torch.no_grad():
        torchs.self_attn.in_proj_weight.copy_(own.attention.in_proj.weight)
        torchs.self_attn.in_proj_bias.copy_(own.attention.in_proj.bias)
        torchs.self_attn.out_proj.load_state_dict(own.attention.out_proj.state_dict())
    for name in ("linear1", "linear2", "norm1", "norm2"):
        torchs.get_submodule(name).load_state_dict(own.get_submodule(name).state_dict())
    tokens, later = torch.randn(4, 6, 12), torch.ones(6, 6, dtype=torch.bool).triu(1)
    torch.testing.assert_close(own(tokens, later[None]), torchs(tokens, src_mask=later))


def test_convolutions_over_series_by_numpy() -> None:
    """In evaluation, where the first statistics of BatchNorm leave values as they are but for its epsilon."""
    module = build_module(Conv1d(width=2), SERIES, seed=0).eval()
    series = torch.randn(2, 3, 20)
    maps = series.numpy().astype(np.float64)
    for index, kernel in enumerate((8, 5, 3)):
        weight = module.get_parameter(f"convolutions.{index}.weight").detach().numpy()
        padded = np.pad(maps, ((0, 0), (0, 0), ((kernel - 1) // 2, kernel // 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=2)
        maps = np.maximum(np.einsum("nclk,ock->nol", windows, weight) / np.sqrt(1 + 1e-5), 0)
    output = module.get_submodule("output")
    expected = maps.mean(2) @ output.weight.detach().numpy().T + output.bias.detach().numpy()
    np.testing.assert_allclose(module(series).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_series_of_one_channel_need_no_dimension_for_it() -> None:
    with_channel = build_module(Conv1d(width=2), Task("array", (1, 20), 5), seed=0).eval()
    without = build_module(Conv1d(width=2), Task("array", (20,), 5), seed=0).eval()
    series = torch.randn(2, 20)
    assert torch.equal(with_channel(series[:, None]), without(series))


@pytest.mark.parametrize("task", [PIXELS, Task("array", (3, 13, 10), 4, target="segmentation")], ids=["image", "array"])
def test_a_u_net_gives_each_pixel_its_classes_whatever_the_sides(task: Task) -> None:
    module = build_module(UNet(width=2, depth=3), task, seed=0)
    assert module(torch.randn(2, 3, 13, 10)).shape == (2, 4, 13, 10)
    names = [group.name for group in derive_layer_groups(module, task)]
    assert names[:2] == ["down.0.conv1", "down.0.conv2"]
    assert (names[-4:], len(names)) == (["widen.0", "up.0.conv1", "up.0.conv2", "output"], 4 * 2 + 3 * 3 + 1)


def test_a_u_net_learns_where_things_are() -> None:
    """Bright squares on a dark ground: nearly every pixel is right after 30 steps."""
    torch.manual_seed(0)
    images = torch.rand(16, 1, 12, 12) * 0.5
    masks = torch.zeros(16, 12, 12, dtype=torch.int64)
    for row in range(16):
        top, left = np.random.default_rng(row).integers(0, 8, 2)
        masks[row, top : top + 4, left : left + 4] = 1
    images += 0.7 * masks[:, None]
    module = build_module(UNet(width=4), Task("image", (12, 12, 1), 2, target="segmentation"), seed=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), masks).backward()
        optimizer.step()
    assert (module(images).argmax(1) == masks).float().mean() > 0.98


@pytest.mark.parametrize("task", [DIGITS, Task("array", (1, 8, 8), 10)], ids=["image", "array"])
def test_image_networks_take_arrays_with_channels_first(task: Task) -> None:
    from fedbench.models.cnn import CnnBatchNorm

    module = build_module(CnnBatchNorm(width=2), task, seed=0)
    assert module(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_the_work_of_recurrent_layers_is_counted() -> None:
    """For each token 2 FLOPs a weight in the forward pass; no gradient of the tokens is computed."""
    module = build_module(Lstm(hidden=16), NEXT, seed=0)
    groups = derive_layer_groups(module, NEXT)
    weights = 64 * (8 + 16) + 64 * 32 + 16 * 20
    assert forward_macs(module, NEXT) == 7 * weights
    flops = StepFlops(module, groups, NEXT)
    assert flops.forward_flops(3) == 2 * 3 * 7 * weights
    assert flops.uncounted == ()


REFUSALS: list[tuple[Callable[[], Model], Task, str]] = [
    (Mlp, TEXTS, "model.name=mlp: needs arrays or images, the data are text; lstm and text-transformer take text"),
    (Mlp, PIXELS, "mlp: has outputs for whole rows, and task=segmentation needs them for each pixel; unet has them"),
    (Lstm, DIGITS, "model.name=lstm: needs text or series, the data are images"),
    (Conv1d, DIGITS, "model.name=conv1d: needs series, arrays [channels, length], the data are images"),
    (Conv1d, Task("array", (3, 8, 8), 2), "needs series, arrays [channels, length], the data are arrays of shape [3, "),
    (Conv1d, Task("array", (1, 1), 2), "conv1d: needs series of at least 2 values, these have 1; mlp takes short ones"),
    (UNet, DIGITS, "model.name=unet: has no outputs for whole rows, which task=classification needs"),
    (lambda: UNet(depth=4), PIXELS, "model.name=unet: needs images of at least 16x16, these are 13x10"),
    (Cnn, TABLE, "model.name=cnn: needs images, the data are arrays of shape [9]"),
    (Cnn, NEXT, "cnn: has outputs for whole rows, and task=next_token needs them for each token; lstm and text-transf"),
    (lambda: TextTransformer(readout="last"), NEXT, "model.readout=last: has no effect with task=next_token, where"),
]


@pytest.mark.parametrize(("model", "task", "message"), REFUSALS)
def test_a_model_that_the_task_does_not_suit_is_refused_in_one_line(
    model: Callable[[], Model], task: Task, message: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as refusal:
        model().build(task)
    assert "\n" not in str(refusal.value)
