"""The gradient norms that recorded runs measured: their running means, slopes, and which runs belong together."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command_line import Finished, in_this_process
from small import config

from fedbench.experiment.run import run

Call = Callable[..., Finished]

SHORT = (
    "data.clients=2",
    "model.width=2",
    "local.epochs=null",
    "local.steps=6",
    "runtime.executor=inline",
    "analysis.step_norms=true",
)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capfd)


@pytest.mark.slow
def test_running_means_of_full_and_partial_runs_stay_apart(
    flops_counted_once: None, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbench.records.plots.save_figures", lambda *arguments, **more: None)
    for name, seed, schedule in (("a", 0, "full"), ("b", 1, "full"), ("c", 0, "sequential")):
        overrides = [f"seed={seed}", f"output.directory={tmp_path / name}", f"name={schedule}", "rounds=3"]
        run(config(*SHORT, *overrides, f"schedule={schedule}"))
    finished = call("analyze", "convergence", *(str(tmp_path / name) for name in "abc"), "--json")
    assert finished.status == 0, finished.stderr
    document = json.loads(finished.stdout)
    whole, masked = document["tables"]
    assert "the whole gradient" in whole["title"]
    assert [label for label, _ in whole["rows"]] == ["full, 2 seeds"]
    assert "the layer groups that train" in masked["title"]
    assert [label for label, _ in masked["rows"]] == ["c"]
    rows = pq.read_table(tmp_path / "a" / "analysis" / "convergence-compared" / "convergence.parquet").to_pylist()
    exponents = []
    for name in "ab":
        steps = pq.read_table(tmp_path / name / "steps.parquet")
        norms = steps.filter(pc.equal(steps["group"], -1))["gradient_norm_mean"].to_numpy()
        means = np.cumsum(norms**2) / np.arange(1, 19)
        recorded = {row["step"]: row["running_mean"] for row in rows if row["run"] == name}
        assert recorded == pytest.approx({t: means[t - 1] for t in range(1, 19)})
        exponents.append(np.polyfit(np.log(range(3, 19)), np.log(means[2:]), 1)[0])
    assert document["metrics"]["exponent/full, 2 seeds/whole"] == pytest.approx(np.mean(exponents))


def test_what_a_run_lacks_or_an_option_cannot_do_is_one_line(tiny_run: Path, call: Call) -> None:
    finished = call("analyze", "convergence", str(tiny_run))
    assert finished.status == 2
    assert finished.stderr.startswith(f"error: {tiny_run}: has no steps.parquet; measure its gradients by analysis.")
    for option, value in (("--seeds", "1,2"), ("--scale", "0.5"), ("--output", "elsewhere"), ("--problems", "digits")):
        finished = call("analyze", "convergence", str(tiny_run), option, value)
        assert finished.status == 2
        assert finished.stderr == f"error: {option} {value}: has no effect on recorded runs; leave it out\n"
