"""Activation maximisation against examples by hand, and as a command."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import Finished, in_this_process
from torch import nn

from fedbench.analysis.activations import channel_activations, depth_order, maximise, mean_frequency, total_variations
from fedbench.errors import ConfigError

Call = Callable[..., Finished]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capfd)


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "convolution as large as the image"])
def test_the_image_of_a_linear_first_layer_points_along_the_kernel(linear: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randint(0, 2, (3, 2, 4, 4), generator=generator).float() * 2 - 1
    module = nn.Sequential(nn.Flatten(), nn.Linear(32, 3, bias=False)) if linear else nn.Sequential(nn.Conv2d(2, 3, 4))
    layer = "1" if linear else "0"
    with torch.no_grad():
        weight = module.get_parameter(f"{layer}.weight")
        weight.copy_(kernel.view(weight.shape))
        if not linear:
            module.get_parameter("0.bias").fill_(50.0)  # above the threshold of the ReLU for any noise
    noise = torch.randn(3, 2, 4, 4, generator=generator)
    found = maximise(module, layer, noise, iterations=400, lr=0.1, total_variation=0.0)
    for image, own in zip(found.images, kernel.numpy(), strict=True):
        cosine = (image * own).sum() / np.linalg.norm(image) / np.linalg.norm(own)
        assert cosine > 0.999
    assert (found.activation > found.at_start).all()


def test_total_variation_flattens_what_the_activation_does_not_ask_for() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    nn.init.zeros_(module.get_parameter("1.weight"))
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = maximise(module, "1", noise, iterations=200, lr=0.01, total_variation=0.0)
    np.testing.assert_array_equal(plain.images, noise.numpy())
    flat = maximise(module, "1", noise, iterations=200, lr=0.01, total_variation=1.0)
    assert flat.total_variation[0] < 0.1 * plain.total_variation[0]


def test_the_total_variation_is_the_mean_difference_down_and_across() -> None:
    image = torch.tensor([[[[0.0, 1.0], [4.0, 9.0]]]])
    assert total_variations(image).item() == (4 + 8) / 2 + (1 + 5) / 2


def test_each_channel_has_an_image_of_its_own_and_counts_after_a_relu() -> None:
    output = torch.tensor([[[[1.0, -3.0]], [[9.0, 9.0]]], [[[9.0, 9.0]], [[-1.0, -1.0]]]])
    assert channel_activations(output).tolist() == [0.5, 0.0]
    assert channel_activations(torch.tensor([[1.0, 9.0], [9.0, -2.0]])).tolist() == [1.0, -2.0]


def test_the_frequency_of_stripes_is_one_over_their_period() -> None:
    columns = np.arange(8)
    stripes = np.broadcast_to(np.cos(2 * np.pi * columns / 4), (1, 8, 8)).astype(np.float32)
    assert mean_frequency(stripes) == pytest.approx(0.25)
    assert mean_frequency(np.full((1, 8, 8), 3, np.float32)) == 0
    assert depth_order([0.1, 0.1]) is None


def test_the_network_is_not_changed_and_the_same_noise_gives_the_same_images() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    noise = torch.randn(5, 1, 6, 6)
    first, second = (maximise(module, "1", noise, iterations=5, lr=0.1, total_variation=1.0) for _ in range(2))
    assert first.images.shape == (2, 1, 6, 6)
    np.testing.assert_array_equal(first.images, second.images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    with pytest.raises(ConfigError, match="has no output"):
        maximise(nn.Sequential(nn.Flatten(2)), "0", noise, iterations=1, lr=0.1, total_variation=1.0)


def test_the_command_draws_each_layer_group(own_run: Path, call: Call) -> None:
    finished = call("analyze", "activations", str(own_run), "--iterations", "5", "--channels", "2", "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    rows = pq.read_table(Path(document["directory"]) / "activations.parquet").to_pylist()
    assert [(row["layer"], row["channel"]) for row in rows] == [
        (layer, channel) for layer in ("bn1", "bn2", "bn3", "fc") for channel in (0, 1)
    ]
    assert "depth_order/tiny" in document["metrics"]
    wrong = call("analyze", "activations", str(own_run), "--layer", "bn9")
    assert wrong.status == 2
    assert "has no such layer" in wrong.stderr
