"""The loss between models: against quadratics, planes by hand, and runs whose models are known."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import Finished, in_this_process
from small import config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedbench.analysis.landscape import Landscape, around_round
from fedbench.analysis.loss_surface import LossSurface, Plane
from fedbench.analysis.recorded_model import open_model
from fedbench.analysis.results import silent
from fedbench.analysis.sharpness import largest_eigenvalue
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.run import run

Call = Callable[..., Finished]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capfd)


@pytest.fixture(scope="module")
def kept_run(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one client, whose model is the mean, that has kept the models around its first two rounds."""
    directory = tmp_path_factory.mktemp("kept") / "alone"
    undone = pytest.MonkeyPatch()
    undone.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    run(
        config(
            "rounds=2", "data.clients=1", "data.samples_per_client=60", "model.width=2", "schedule=full",
            "runtime.executor=inline", "runtime.keep_models=1-2", "runtime.keep_messages=0",
            f"output.directory={directory}",
        )
    )  # fmt: skip
    undone.undo()
    return directory


def test_the_sharpness_of_a_quadratic_is_its_largest_eigenvalue() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(30, 5, generator=generator), torch.randn(30, 1, generator=generator)
    module = nn.Linear(5, 1, bias=False)
    # f(w) = (1/N) sum_i (w.x_i - y_i)^2 has the Hessian (2/N) X^T X.
    known = np.linalg.eigvalsh(2 / 30 * (inputs.T @ inputs).double().numpy())[-1]
    batches = [(inputs[:20], targets[:20]), (inputs[20:], targets[20:])]
    assert largest_eigenvalue(module, batches, 0, nn.MSELoss()) == pytest.approx(known, rel=1e-3)
    assert largest_eigenvalue(module, [(3 * inputs, targets)], 1, nn.MSELoss()) == pytest.approx(9 * known, rel=1e-3)


def test_the_sharpness_of_two_parameters_is_computed_densely() -> None:
    module = nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert largest_eigenvalue(module, [(inputs, torch.zeros(2, 1))], 0, nn.MSELoss()) == pytest.approx(4.0)


class Attention(nn.Module):
    """A linear layer on what one head of PyTorch's attention gives for the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.output = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [N, L, 3] -> float32 [N, 2]."""
        mixed = nn.functional.scaled_dot_product_attention(self.query(tokens), tokens, tokens)
        return self.output(mixed.mean(1))


class Recurrent(nn.Module):
    """A linear layer on the last state of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.states, self.output = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [N, L, 3] -> float32 [N, 2]."""
        return self.output(self.states(tokens)[0][:, -1])


@pytest.mark.parametrize("kind", [Attention, Recurrent])
def test_the_sharpness_of_attention_and_of_an_lstm_is_that_of_the_dense_hessian(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    tokens, labels = torch.randn(8, 4, 3), torch.arange(8) % 2
    parameters = list(module.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        loss = nn.functional.cross_entropy(module(tokens), labels)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        rows = [
            torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
            for value in torch.cat([gradient.flatten() for gradient in gradients])
        ]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).double().numpy()
    known = np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    assert largest_eigenvalue(module, [(tokens, labels)], 0) == pytest.approx(known, rel=1e-2)


def test_a_missing_library_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: object, **options: object) -> object:
        if name.partition(".")[0] == "curvlinops":
            raise ModuleNotFoundError("No module named 'curvlinops'", name="curvlinops")
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"needs the library curvlinops.*pip install 'fedbench-ray\[analysis\]'"):
        largest_eigenvalue(nn.Linear(2, 1), [], 0)


def test_a_plane_holds_its_three_points_at_their_places() -> None:
    points = [np.array(point, np.float32) for point in ([1, 0, 0, 0], [4, 0, 0, 0], [2, 2, 0, 0])]
    plane = Plane.through(points)
    assert plane is not None
    np.testing.assert_allclose(plane.places, [(0, 0), (3, 0), (1, 2)])
    for (x, y), point, number in zip(plane.places, points, range(3), strict=True):
        np.testing.assert_allclose(plane.point(x, y), point, atol=1e-6)
        np.testing.assert_allclose(plane.shares(x, y), np.eye(3)[number], atol=1e-12)
    mixed = sum(share * point for share, point in zip(plane.shares(0.5, 1.5), points, strict=True))
    np.testing.assert_allclose(plane.point(0.5, 1.5), mixed, atol=1e-6)
    across, up = plane.grid(3)
    np.testing.assert_allclose(across, [-0.75, 1.5, 3.75])
    np.testing.assert_allclose(up, [-0.5, 1, 2.5])
    assert Plane.through([points[0], points[1], (points[0] + points[1]) / 2]) is None
    assert Plane.through([points[0], points[0], points[2]]) is None


@pytest.mark.parametrize("statistics", ["recalibrated", "interpolated"])
def test_the_line_between_equal_models_is_flat(kept_run: Path, statistics: str) -> None:
    experiment = open_model(kept_run).experiment
    client, mean, after = around_round(experiment, 1, None)
    # The only client's model is the mean: what it sent, added to what it started from.
    np.testing.assert_allclose(client.vector, mean.vector, atol=1e-6)
    np.testing.assert_allclose(client.statistics, mean.statistics, atol=1e-6)
    assert [model.label for model in (client, mean, after)] == [
        "alone client 0 in round 1", "alone after round 1", "alone after round 2",
    ]  # fmt: skip
    settings = Landscape(round=1, points=5, grid=0, samples=40, sharpness=False, statistics=statistics)
    analysis = settings.perform([open_model(kept_run)], silent)
    flat = [row["loss"] for row in analysis.data["line"].to_pylist() if row["end"].endswith("after round 1")]
    assert np.ptp(flat) < 1e-5
    assert analysis.metrics["barrier/alone client 0 in round 1 to alone after round 1"] == pytest.approx(0, abs=1e-5)
    assert analysis.metrics["barrier/alone client 0 in round 1 to alone after round 2"] >= 0


def test_the_ends_of_a_line_are_the_losses_of_its_models(kept_run: Path) -> None:
    analysis = Landscape(points=3, samples=50, split="test", sharpness=False).perform([open_model(kept_run)], silent)
    start, end = analysis.models
    rows = analysis.data["line"].to_pylist()
    assert (start, end) == ("alone before the first round", "alone")
    assert rows[0]["loss"] == analysis.metrics[f"loss/{start}"]
    assert rows[-1]["loss"] == analysis.metrics[f"loss/{end}"]


def test_interpolated_statistics_score_the_test_split_as_the_run_did(kept_run: Path) -> None:
    model = open_model(kept_run)
    rounds = model.experiment.run.rounds
    surface = LossSurface(model, "test", 10**6, "interpolated", 0)
    score = surface.score(model.vector, model.statistics)
    assert score.accuracy == rounds["test_accuracy"].to_pylist()[-1]
    assert score.loss == pytest.approx(rounds["test_loss"].to_pylist()[-1], rel=1e-6)


@pytest.mark.slow
def test_the_command_draws_line_plane_and_sharpness(kept_run: Path, call: Call) -> None:
    command = ("analyze", "landscape", str(kept_run), "--round", "2", "--points", "3", "--grid", "3", "--samples", "20")
    finished = call(*command, "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    folder = Path(document["directory"])
    assert folder.name == "landscape"
    assert len(document["models"]) == 2  # there is no round after the last
    several = [str(kept_run / "kept" / f"model-{number:05}.safetensors") for number in (0, 1, 2)]
    finished = call("analyze", "landscape", *several, *command[5:], "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert document["models"] == ["alone before the first round", "alone after round 1", "alone after round 2"]
    assert {Path(file).name for file in document["files"]} == {
        "line.parquet", "line.png", "models.parquet", "plane.parquet", "plane.png",
    }  # fmt: skip
    assert pq.read_table(folder / "plane.parquet").num_rows == 9
    sharp = pq.read_table(folder / "models.parquet")["sharpness"].to_pylist()
    assert all(np.isfinite(sharp))


def test_what_makes_no_sense_is_refused(kept_run: Path, tiny_run: Path) -> None:
    model = open_model(kept_run)
    with pytest.raises(ConfigError, match="--client 0: has no effect without --round"):
        Landscape(client=0).perform([model], silent)
    with pytest.raises(DataError, match="has not kept what client 1 sent in round 1"):
        Landscape(round=1, client=1).perform([model], silent)
    with pytest.raises(ConfigError, match="has another network"):
        Landscape().perform([model, open_model(tiny_run)], silent)
    with pytest.raises(ConfigError, match="--round 1: is of one run; 2 are named"):
        Landscape(round=1).perform([model, open_model(tiny_run)], silent)
