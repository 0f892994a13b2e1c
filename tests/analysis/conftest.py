"""A tiny real run on digits, made once, with a checkpoint."""

import shutil
from pathlib import Path

import pytest
from small import config

from fedbench.experiment.run import run

SHORT = ("rounds=3", "data.clients=3", "model.width=4", "runtime.executor=inline", "runtime.checkpoint_every=1")


@pytest.fixture(scope="session")
def tiny_run(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: three rounds, with checkpoints after the first and the second."""
    directory = tmp_path_factory.mktemp("analysed") / "tiny"
    undone = pytest.MonkeyPatch()
    undone.setenv("FEDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    undone.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    run(config(*SHORT, f"output.directory={directory}"))
    undone.undo()
    return directory


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of that run directory, to be written to."""
    return Path(shutil.copytree(tiny_run, tmp_path / "tiny"))
