"""The command line called within the test: faster than a process of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished, in_this_process

Call = Callable[..., Finished]


@pytest.fixture
def call(
    run_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Call:
    """`call("run", "rounds=2")` is `fedbench run rounds=2` in the empty folder `run_folder`."""
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    return in_this_process(monkeypatch, capfd)
