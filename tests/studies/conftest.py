"""A working directory of its own for each study, and commands in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_studies import Commands


@pytest.fixture
def here(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; a study's own processes follow into it."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("FEDBENCH_RUNS", raising=False)
    return run_folder


@pytest.fixture
def commands(here: Path) -> Iterator[Commands]:
    """Commands in this folder; none outlives the test."""
    started = Commands(here)
    yield started
    started.end()
