"""A working directory of its own for each study, and commands in it."""

import shutil
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
def made_store(here: Path, empty_store: Path) -> None:
    """MLflow's default store is there already."""
    shutil.copy(empty_store, here / "mlflow.db")


@pytest.fixture
def commands(here: Path) -> Iterator[Commands]:
    """Commands in this folder, as processes of their own; none outlives the test."""
    started = Commands(here)
    yield started
    started.end()
