import struct
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from samples import a_description, a_round, an_asynchronous_round, arrival_rows, client_rows

from fedbench.records.headline import with_task
from fedbench.records.plots import figures, partition_figure, save_figures
from fedbench.records.run_directory import RunDirectory
from fedbench.records.schema import ARRIVAL_SCHEMA, ROUND_SCHEMA, RoundRecord


def table(rounds: list[RoundRecord]) -> pa.Table:
    return pa.Table.from_pylist([vars(record) for record in rounds], schema=ROUND_SCHEMA)


def arrivals(staleness: list[int], status: str = "ok") -> pa.Table:
    row = vars(arrival_rows(0)[0]) | {"status": status}
    rows = [row | {"arrival": number, "staleness": value} for number, value in enumerate(staleness)]
    return pa.Table.from_pylist(rows, schema=ARRIVAL_SCHEMA)


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
        ("accuracy_by_round", [1, 3]),
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
    assert "grey: all" in strip.get_ylabel()


def test_an_asynchronous_run_is_drawn_on_its_clock_in_epochs_and_by_staleness(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run")
    recorder.run_started(a_description(recorder.path))
    for index in range(3):
        recorder.arrivals_finished(arrival_rows(index))
        recorder.round_finished(an_asynchronous_round(index), client_rows(index))
    recorder.run_finished({"status": "finished"})
    assert recorder.warning is None
    sizes = {path.name: png_size(path) for path in (recorder.path / "plots").iterdir()}
    assert set(sizes) == {
        "accuracy_by_round.png", "accuracy_by_traffic.png", "accuracy_by_compute.png", "accuracy_by_time.png",
        "accuracy_by_epochs.png", "staleness.png", "partition.png", "timeline.png",
    }  # fmt: skip
    assert all(600 <= width <= 2500 and 500 <= height <= 2000 for width, height in sizes.values())


@pytest.mark.parametrize(
    ("name", "x", "label"),
    [
        ("accuracy_by_time", [2.5, 7.5], "time on the run's clock (s)"),
        ("accuracy_by_epochs", [0.75, 2.25], "epochs (samples trained on / training samples)"),
    ],
)
def test_clock_and_epochs_are_drawn_as_recorded(tmp_path: Path, name: str, x: list[float], label: str) -> None:
    rounds = table([an_asynchronous_round(index, evaluated=index != 1) for index in range(3)])
    (axes,) = figures(rounds, a_description(tmp_path))[name].axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), x)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [10.0, 70.0])
    assert axes.get_xlabel() == label


def test_what_was_not_recorded_is_not_drawn(tmp_path: Path) -> None:
    run, synchronous = a_description(tmp_path), {"accuracy_by_round", "accuracy_by_traffic", "accuracy_by_compute"}
    assert set(figures(table([a_round(0)]), run, arrivals([]))) == synchronous
    assert set(figures(table([]), run)) == synchronous
    asynchronous = synchronous | {"accuracy_by_time", "accuracy_by_epochs"}
    assert set(figures(table([an_asynchronous_round(0)]), run, arrivals([1, 2], "lost"))) == asynchronous


def test_asynchronous_rounds_show_the_group_that_all_their_arrivals_trained(tmp_path: Path) -> None:
    rounds = table([an_asynchronous_round(index, group=group) for index, group in enumerate((-1, 0, 0, 1))])
    drawn = figures(rounds, a_description(tmp_path))
    for name, starts in (("accuracy_by_time", [0, 2.5, 7.5, 10]), ("accuracy_by_round", [0.5, 1.5, 3.5, 4.5])):
        _, strip = drawn[name].axes
        stretches = [bars.get_paths()[0].get_extents() for bars in strip.collections]
        np.testing.assert_allclose([(s.x0, s.x1) for s in stretches], list(pairwise(starts)))
        np.testing.assert_allclose([(s.y0, s.y1) for s in stretches], [(-0.5, 1.5), (-0.5, 0.5), (0.5, 1.5)])
        assert "hatched: several" in strip.get_ylabel(), "a run of an earlier version, which did not record them"


def test_rounds_that_trained_several_groups_show_each_by_its_share_of_the_updates(tmp_path: Path) -> None:
    counts = [(4, 0, 0), (2, 2, 0), (2, 2, 0), (1, 1, 2), (4, 4, 4)]
    rounds = table([replace(an_asynchronous_round(i), group_clients=each) for i, each in enumerate(counts)])
    run = replace(a_description(tmp_path), group_names=("stem", "a layer of a network with a long name", "fc"))
    _, strip = figures(rounds, run)["accuracy_by_round"].axes
    bars = [(bar.get_paths()[0].get_extents(), bar.get_alpha()) for bar in strip.collections]
    places = [(box.x0, box.x1, box.y0 + 0.5) for box, _ in bars]
    assert places == [
        (0.5, 1.5, 0),
        (1.5, 3.5, 0),
        (1.5, 3.5, 1),
        (3.5, 4.5, 0),
        (3.5, 4.5, 1),
        (3.5, 4.5, 2),
        (4.5, 5.5, 0),
    ]
    opacities = [alpha for _, alpha in bars]
    assert opacities[:6] == pytest.approx([0.15 + 0.85 * share for share in (1, 0.5, 0.5, 0.25, 0.25, 0.5)])
    assert bars[-1][0].height == 3, "a round of full updates is one grey bar"
    assert [label.get_text() for label in strip.get_yticklabels()] == ["stem", "a layer of a netw…", "fc"]
    assert "several" not in strip.get_ylabel()


def test_a_run_of_full_updates_has_no_strip(tmp_path: Path) -> None:
    rounds = table([replace(an_asynchronous_round(index), group_clients=(4, 4)) for index in range(3)])
    assert len(figures(rounds, a_description(tmp_path))["accuracy_by_round"].axes) == 1


@pytest.mark.parametrize(("samples", "numbered"), [(9, True), (123_456, False)])
def test_numbers_of_a_partition_are_drawn_where_they_have_room(tmp_path: Path, samples: int, numbered: bool) -> None:
    counts = tuple((samples, samples) for _ in range(90))
    run = replace(a_description(tmp_path), client_class_counts=counts, class_names=("cat", "dog"))
    cells = partition_figure(run).axes[1]
    assert bool(cells.texts) == numbered


def test_a_clock_that_counts_like_the_rounds_is_still_a_clock(tmp_path: Path) -> None:
    rounds = table([replace(an_asynchronous_round(index, group=1), virtual_seconds=float(index)) for index in range(3)])
    _, strip = figures(rounds, a_description(tmp_path))["accuracy_by_time"].axes
    (stretch,) = [bars.get_paths()[0].get_extents() for bars in strip.collections]
    assert (stretch.x0, stretch.x1) == (0, 2)


def test_staleness_has_a_bar_for_each_value_and_its_mean(tmp_path: Path) -> None:
    kept, lost = arrivals([2, 2, 3, 5, 5, 5]), arrivals([40, 40], "lost")
    axes = figures(table([]), a_description(tmp_path), pa.concat_tables([kept, lost]))["staleness"].axes[0]
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert {round(x, 6): height for x, height in bars.items()} == {2: 2, 3: 1, 4: 0, 5: 3}
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 22 / 6)
    assert axes.lines[0].get_label() == "mean 3.7, largest 5"
    assert axes.get_yscale() == "linear"


def test_a_wide_range_of_staleness_shares_bars_and_loses_no_update(tmp_path: Path) -> None:
    staleness = [*range(37, 937), 1036]
    axes = figures(table([]), a_description(tmp_path), arrivals(staleness))["staleness"].axes[0]
    counts, edges = np.histogram(staleness, bins=np.arange(20, 1041, 20))
    assert [bar.get_height() for bar in axes.patches] == counts.tolist()
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    np.testing.assert_allclose(middles, edges[:-1] + 9.5)
    assert "bars of 20 values" in axes.get_xlabel()


def test_a_few_stragglers_are_seen_beside_many_fresh_updates(tmp_path: Path) -> None:
    axes = figures(table([]), a_description(tmp_path), arrivals([3] * 2000 + [40]))["staleness"].axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert 0 < low < 1
    assert high > 2000


def test_long_titles_stay_inside_their_figures(tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    title = "FedAsync with polynomial staleness weights, asynchronous sequential schedule, " * 3
    run = replace(a_description(tmp_path), title=title, dataset_name="a data set with a very long name " * 3)
    drawn = figures(table([an_asynchronous_round(0, group=1)]), run, arrivals([1]))
    for figure in [*drawn.values(), partition_figure(run)]:
        FigureCanvasAgg(figure).draw()
        extent = figure._suptitle.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.x1
        assert all(axes.get_tightbbox().y1 <= extent.y0 for axes in figure.axes)


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
        "import sys, fedbench.records.run_directory, fedbench.records.plots, fedbench.tracking;"
        "sys.exit('matplotlib' in sys.modules or 'mlflow' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_plots_of_another_task_are_of_the_metric_that_it_is_judged_by(tmp_path: Path) -> None:
    run = replace(a_description(tmp_path), task="next_token")
    records = [replace(a_round(i), test_perplexity=value) for i, value in enumerate((400.0, 9.0, 12.0))]
    drawn = figures(with_task(table(records), "next_token"), run)
    assert set(drawn) == {"perplexity_by_round", "perplexity_by_traffic", "perplexity_by_compute"}
    (axes,) = drawn["perplexity_by_round"].axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("test perplexity", "log")
    assert list(axes.lines[0].get_ydata()) == [400.0, 9.0, 12.0]
    assert [text.get_text() for text in axes.texts] == ["best 9 (round 2, chosen on test)"]


def test_a_share_is_drawn_in_percent_and_never_on_a_logarithmic_scale(tmp_path: Path) -> None:
    run = replace(a_description(tmp_path), task="segmentation")
    records = [replace(a_round(i), test_mean_iou=value) for i, value in enumerate((0.001, 0.5))]
    (axes,) = figures(with_task(table(records), "segmentation"), run)["mean_iou_by_round"].axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("test mean IoU (%)", "linear")
    assert [text.get_text() for text in axes.texts] == ["best 50.00 % (round 2, chosen on test)"]
