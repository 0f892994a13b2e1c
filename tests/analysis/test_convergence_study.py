"""A convergence study: slopes of exact power laws, what is read of them, and what the command leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Finished, in_this_process

from fedbench.analysis.convergence.scalings import count_slopes, delay_record, horizon_slope, read_together
from fedbench.analysis.convergence.series import Measurement, Series
from fedbench.analysis.convergence.slopes import Slope, fit, slope_over_seeds
from fedbench.analysis.convergence.study import Study
from fedbench.tables.seed_statistics import Spread

HORIZONS = (16, 32, 64, 128)


@pytest.mark.parametrize("exponent", [-0.5, -1.0, 0.25])
def test_the_slope_of_a_power_law_is_its_exponent(exponent: float) -> None:
    assert fit(HORIZONS, [7 * t**exponent for t in HORIZONS]) == pytest.approx(exponent)


def test_slopes_are_fitted_seed_by_seed_and_over_the_longer_horizons() -> None:
    by_seed = {
        seed: {float(t): (99.0 if t == 16 else t**exponent) for t in HORIZONS}
        for seed, exponent in enumerate((-0.4, -0.5, -0.6))
    }
    slope = slope_over_seeds(by_seed, -0.5, at_least=32)
    assert slope.values.values == pytest.approx((-0.4, -0.5, -0.6))
    assert slope.values.interval == pytest.approx((-0.5 - 0.2484, -0.5 + 0.2484), abs=1e-4)
    assert slope.reading == "rate"


@pytest.mark.parametrize(
    ("exponents", "reading"),
    [
        ((-0.51, -0.49, -0.5), "rate"),
        ((-0.61, -0.62, -0.615), "faster"),
        ((-0.31, -0.32, -0.315), "slower"),
        ((-0.61, -0.62), None),
        ((-0.9,), None),
    ],
)
def test_a_slope_by_itself_is_read_by_its_interval(exponents: tuple[float, ...], reading: str | None) -> None:
    assert Slope(Spread.of(exponents), -0.5).reading == reading
    assert Slope(Spread.of(exponents), None).reading is None


def measured(
    series: Series, horizon: int, seed: int, masked: float | None, whole: float, **more: object
) -> Measurement:
    made = Measurement(series, horizon, seed, step_size=0.1, capped=False, masked=masked, whole=whole)
    return replace(made, **more)  # type: ignore[arg-type]


def test_masked_and_whole_are_fitted_by_themselves_and_the_bound_is_compared_at_every_horizon() -> None:
    series = Series("quadratic", "FedPart", groups=4, clients=4)
    runs = [measured(series, t, seed, t**-0.5, 2 * t**-0.25, bound=1.5 * t**-0.5) for t in HORIZONS for seed in (0, 1)]
    masked, whole = horizon_slope(runs, "masked", 32, -0.5), horizon_slope(runs, "whole", 32, None)
    assert (masked.slope.values.mean, whole.slope.values.mean) == pytest.approx((-0.5, -0.25))
    assert masked.is_below is True
    assert (whole.bound, whole.is_below) == (None, None)
    above = [replace(run, bound=0.9 * run.horizon**-0.5) if run.horizon == 16 else run for run in runs]
    assert horizon_slope(above, "masked", 32, -0.5).is_below is False


def test_slopes_of_one_table_are_read_with_a_correction_for_all_of_them() -> None:
    series = Series("quadratic", "FedAvg")
    exponents = (-0.53, -0.54, -0.535)  # the interval of three seeds leaves -1/2 out, with p = 0.007
    runs = [measured(series, t, seed, None, t**p) for t in HORIZONS for seed, p in enumerate(exponents)]
    slope = horizon_slope(runs, "whole", 16, -0.5)
    assert slope.slope.p_value == pytest.approx(0.0067, abs=1e-4)
    assert [one.slope.reading for one in read_together([slope])] == ["faster"]
    assert {one.slope.reading for one in read_together([slope] * 10)} == {"rate"}
    assert read_together([slope] * 10)[0].slope.judgement is not None


def test_counts_are_varied_one_at_a_time() -> None:
    value = {(groups, clients): (groups * clients) ** -0.5 for groups in (1, 4) for clients in (1, 4, 16)}
    runs = [
        measured(Series("quadratic", "", groups, clients), 64, seed, masked, 3.0 * masked)
        for (groups, clients), masked in value.items()
        for seed in (0, 1)
    ]
    runs += [measured(Series("quadratic", "", workers=k), 64, 0, None, 5.0) for k in (2, 8)]
    found = {(slope.against, slope.label): slope for slope in count_slopes(runs)}
    assert {key: slope.slope.values.mean for key, slope in found.items()} == pytest.approx(
        {("M", "N=4"): -0.5, ("N", "M=1"): -0.5, ("N", "M=4"): -0.5, ("K", "OrMo"): 0.0}, abs=1e-12
    )
    assert found["N", "M=1"].counts == (1, 4, 16)


def test_the_delays_of_a_series_are_taken_over_all_of_its_runs() -> None:
    series = Series("quadratic", "OrMo", workers=3)
    runs = [
        measured(series, 10, 0, None, 1.0, largest_delay=9, delay_sum=20),
        measured(series, 20, 0, None, 1.0, largest_delay=4, delay_sum=30),
    ]
    record = delay_record(runs, 3)
    assert (record.largest, record.longest, record.mean, record.share) == (9, 20, 1.5, 1.0)


@pytest.mark.slow
def test_a_study_is_the_same_in_this_process_and_in_others() -> None:
    study = Study(("quadratic",), (0,), scale=1 / 16)
    told: list[int] = []
    alone = study.measure(lambda done, total, text: told.append(done), processes=1)
    assert told == sorted(told)
    assert told[-1] == 1000
    assert alone == study.measure(lambda done, total, text: None, processes=2)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    return in_this_process(monkeypatch, capfd)


@pytest.mark.slow
def test_the_command_writes_tables_figures_and_a_page(tmp_path: Path, call: Callable[..., Finished]) -> None:
    output = tmp_path / "theory"
    options = ("--problems", "quadratic", "--seeds", "0,1", "--scale", "0.125", "--processes", "1")
    finished = call("analyze", "convergence", *options, "--output", str(output), "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    folder = output / "analysis" / "convergence"
    assert sorted(path.name for path in folder.iterdir()) == [
        "analysis.json",
        "convergence.parquet",
        "convergence_quadratic.png",
        "slopes.parquet",
    ]
    page = (output / "analysis" / "index.html").read_text()
    assert "must not be compared with the other" in " ".join(page.split())
    rows = pq.read_table(folder / "convergence.parquet").to_pylist()
    assert {row["horizon"] for row in rows} == {16, 32, 64, 128, 256, 512, 1024}
    assert all(row["delay_sum"] <= row["delay_limit"] for row in rows if row["workers"])
    slopes = pq.read_table(folder / "slopes.parquet").to_pylist()
    (against,) = (row for row in slopes if (row["series"], row["against"]) == ("FedAvg, N=4", "T"))
    squares = {
        seed: [row["whole_square"] for row in rows if row["series"] == "FedAvg, N=4" and row["seed"] == seed][-4:]
        for seed in (0, 1)
    }
    exponents = [np.polyfit(np.log([128, 256, 512, 1024]), np.log(values), 1)[0] for values in squares.values()]
    assert against["exponent"] == pytest.approx(np.mean(exponents))
    assert document["metrics"]["exponent/quadratic/FedAvg, N=4/whole/T"] == pytest.approx(np.mean(exponents))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--problems", "cubic"), "must be 'quadratic', 'logistic' or 'digits'"),
        (("--seeds", "1,1"), "must be different whole numbers"),
        (("--scale", "3"), "must be a power of two"),
        (("--name", "a/b"), "--name a/b"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: tuple[str, ...], message: str, tmp_path: Path, call: Callable[..., Finished]
) -> None:
    finished = call("analyze", "convergence", *options, "--output", str(tmp_path / "out"))
    assert finished.status == 2
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
