"""The kernels of a first convolution: their scaling, their grid, and what the command leaves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Finished, in_this_process
from safetensors.numpy import load_file

from fedbench.analysis.channel_grid import LINE, block, scaled_alone
from fedbench.analysis.kernels import kernel_figures, kernel_picture

Call = Callable[..., Finished]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capfd)


def test_each_kernel_is_scaled_by_itself_from_black_to_white() -> None:
    small = np.array([[[-1.0, 0.0], [1.0, 3.0]]], np.float32)
    picture = kernel_picture(small)
    assert picture.shape == (2, 2, 3)
    np.testing.assert_allclose(picture[:, :, 0], [[0, 0.25], [0.5, 1]])
    np.testing.assert_allclose(kernel_picture(1000 * small), picture)
    np.testing.assert_allclose(scaled_alone(np.full((2, 2, 3), 7, np.float32)), 0.5)


def test_three_input_channels_are_red_green_and_blue() -> None:
    kernel = np.zeros((3, 2, 2), np.float32)
    kernel[1, 0, 1] = 2
    picture = kernel_picture(kernel)
    assert picture[0, 1].tolist() == [0, 1, 0]
    assert not picture[1].any()


def test_the_cosine_with_the_start_is_over_each_kernel() -> None:
    start = np.array([[[[3.0, 4.0]]], [[[1.0, 0.0]]]], np.float32)
    weight = np.array([[[[6.0, 8.0]]], [[[0.0, 2.0]]]], np.float32)
    figures = kernel_figures(weight, start)
    assert figures == {"norm_mean": 6.0, "norm_min": 2.0, "norm_max": 10.0, "start_cosine": 0.5}


def test_channels_lie_row_by_row() -> None:
    pictures = [np.full((24, 24, 3), value, np.float32) for value in (0.1, 0.2, 0.3)]
    whole = block(pictures, columns=2)
    assert whole.shape == (50, 50, 3)
    assert whole[0, 0, 0] == np.float32(0.1)
    assert whole[0, 26, 0] == np.float32(0.2)
    assert whole[26, 0, 0] == np.float32(0.3)
    np.testing.assert_allclose(whole[24, 0], LINE)


def test_small_pictures_are_drawn_with_larger_dots() -> None:
    picture = np.zeros((3, 3, 3), np.float32)
    picture[0, 1] = 1
    whole = block([picture], columns=1)
    assert whole.shape == (24, 24, 3)
    assert whole[:8, 8:16].all()
    assert whole.sum() == 8 * 8 * 3


def test_the_command_writes_tables_picture_and_page_for_each_run(tiny_run: Path, tmp_path: Path, call: Call) -> None:
    runs = [tmp_path / "first", tmp_path / "second"]
    for directory in runs:
        shutil.copytree(tiny_run, directory)
    finished = call("analyze", "kernels", *map(str, runs), "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert document["models"] == ["first", "second"]
    for directory in runs:
        folder = directory / "analysis" / "kernels-compared"
        assert sorted(path.name for path in folder.iterdir()) == ["analysis.json", "kernels.parquet", "kernels.png"]
        assert "data:image/png;base64," in (directory / "analysis" / "index.html").read_text()
        table = pq.read_table(folder / "kernels.parquet").to_pylist()
        weights = load_file(directory / "model.safetensors")["conv1.weight"]
        np.testing.assert_array_equal([row["weights"] for row in table[:4]], weights.reshape(4, -1))
    again = call("analyze", "kernels", str(runs[0]), "--channels", "2")
    assert again.status == 0, again.stderr
    assert sorted(path.name for path in (runs[0] / "analysis").iterdir()) == [
        "index.html",
        "kernels",
        "kernels-compared",
    ]
    assert "Norms of the kernels" in again.stdout


def test_without_a_kind_the_command_lists_what_there_is(call: Call) -> None:
    listed = call("analyze", "--json")
    assert listed.status == 0
    names = [row["name"] for row in json.loads(listed.stdout)]
    assert "kernels" in names
    assert "kernels" in call("analyze").stdout


def test_a_mistake_is_one_line_and_exit_status_2(tiny_run: Path, call: Call) -> None:
    for arguments in (
        ("kernels",), ("nosuch",), ("kernels", "nowhere"), ("kernels", str(tiny_run), "--layer", "cnv1"),
        ("kernels", str(tiny_run), "--name", "../x"), ("kernels", str(tiny_run), "--channels", "0"),
    ):  # fmt: skip
        finished = call("analyze", *arguments)
        assert (finished.status, finished.stdout) == (2, ""), arguments
        assert finished.stderr.startswith("error: ")
        assert finished.stderr.count("\n") == 1
    assert not (tiny_run / "analysis").exists()


def test_places_without_a_channel_are_white() -> None:
    whole = block([np.zeros((24, 24, 3), np.float32)] * 3, columns=2)
    assert (whole[26:, 26:] == 1).all()
    assert (whole[:24, :24] == 0).all()
