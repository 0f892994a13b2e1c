"""The code of the benchmarks on a GPU runs: in a tiny form, on random images and the CPU."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def jobs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_jobs", Path(__file__).parent / "gpu_jobs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_jobs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedpart", "pfl", "blazefl-cnn"])
def test_a_job_runs_and_prints_what_it_measures(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = jobs().main([name, "--tiny", "--device", "cpu", "--rounds", "6" if name == "fedpart" else "2"])
    assert line["steps_per_second"] > 0
    assert line["whole_seconds"] > 0
    printed = capsys.readouterr().out
    assert "steps/s" in printed
    assert "extrapolated from" in printed


def test_rounds_that_capture_steps_count_once_in_the_whole() -> None:
    rows = [
        {"phase": phase, "group": group, "wall_seconds": seconds}
        for phase, group, seconds in [
            ("full", -1, 9.0), ("full", -1, 1.0), ("full", -1, 1.0),
            ("partial", 0, 4.0), ("partial", 0, 0.5), ("partial", 1, 4.0), ("partial", 1, 0.5),
        ]
    ]  # fmt: skip
    whole = jobs().whole_seconds(rows, ["full"] * 5 + ["partial"] * 8)
    assert whole == pytest.approx(9 + 4 * 1 + 2 * 4 + 6 * 0.5)


def test_the_whole_of_fedpart_is_25_full_and_100_partial_rounds() -> None:
    module = jobs()
    phases = module.phases_of(module.JOBS["fedpart"], groups=10)
    assert phases.count("full") == 25
    assert phases.count("partial") == 100
