import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedbench.plots import figures, partition_figure, save_figures
from fedbench.records import ROUND_SCHEMA, RoundRecord
from fedbench.run_directory import RunDirectory

from .samples import a_description, a_round, client_rows


def table(rounds: list[RoundRecord]) -> pa.Table:
    return pa.Table.from_pylist([vars(record) for record in rounds], schema=ROUND_SCHEMA)


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:])
    return width, height


def test_a_finished_run_has_readable_pngs(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run")
    recorder.run_started(a_description(recorder.path, clients=40))
    for index in range(8):
        recorder.round_finished(a_round(index, group=index % 3 - 1), client_rows(index))
    recorder.run_finished({"status": "finished"})
    assert recorder.warning is None
    sizes = {path.name: png_size(path) for path in (recorder.path / "plots").iterdir()}
    assert set(sizes) == {
        "accuracy_by_round.png", "accuracy_by_traffic.png", "accuracy_by_compute.png", "partition.png",
    }  # fmt: skip
    assert all(600 <= width <= 2500 and 500 <= height <= 2000 for width, height in sizes.values())


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("accuracy_by_round", [0, 2]),
        ("accuracy_by_traffic", [4.0, 12.000003]),
        ("accuracy_by_compute", [2.0, 6.0]),
    ],
)
def test_effort_is_summed_over_rounds_that_were_not_evaluated_too(tmp_path: Path, name: str, x: list[float]) -> None:
    rounds = table([a_round(0), a_round(1, evaluated=False), a_round(2)])
    axes = figures(rounds, a_description(tmp_path))[name].axes
    assert len(axes) == 1
    drawn = axes[0].lines[0]
    np.testing.assert_allclose(drawn.get_xdata(), x)
    np.testing.assert_allclose(drawn.get_ydata(), [10.0, 70.0])
    assert axes[0].get_xlabel()
    assert axes[0].get_ylabel() == "test accuracy (%)"


def test_partial_rounds_show_their_layer_groups_below(tmp_path: Path) -> None:
    rounds = table([a_round(0), a_round(1, group=0), a_round(2, group=0), a_round(3, group=1)])
    _, strip = figures(rounds, a_description(tmp_path))["accuracy_by_traffic"].axes
    stretches = [bars.get_paths()[0].get_extents() for bars in strip.collections]
    np.testing.assert_allclose([(s.x0, s.x1) for s in stretches], [(0, 4), (4, 12.000003), (12.000003, 16.000006)])
    np.testing.assert_allclose([(s.y0, s.y1) for s in stretches], [(-0.5, 1.5), (-0.5, 0.5), (0.5, 1.5)])


def test_a_run_without_any_round_or_evaluation_is_drawn(tmp_path: Path) -> None:
    save_figures(table([]), a_description(tmp_path), tmp_path / "none")
    save_figures(table([a_round(0, evaluated=False)]), a_description(tmp_path), tmp_path / "one")
    assert len(list(tmp_path.glob("*/*.png"))) == 8


def test_the_partition_of_100_clients_stays_readable(tmp_path: Path) -> None:
    figure = partition_figure(a_description(tmp_path, clients=100))
    totals, cells = figure.axes[:2]
    assert len(totals.patches) == 100
    assert cells.images[0].get_array().shape == (3, 100)
    assert len(cells.get_xticks()) <= 25
    assert [label.get_text() for label in cells.get_yticklabels()] == ["cat", "deer", "dog"]


def test_recording_modules_import_neither_matplotlib_nor_mlflow() -> None:
    program = (
        "import sys, fedbench.run_directory, fedbench.plots, fedbench.tracking;"
        "sys.exit('matplotlib' in sys.modules or 'mlflow' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
