"""Analyses of a run on a table: computed on its rows as the run took them, or refused in one line."""

import warnings
from pathlib import Path

import pytest
import torch
from small_tasks import config

from fedbench.analysis.activations import Activations
from fedbench.analysis.landscape import Landscape
from fedbench.analysis.leakage import Leakage
from fedbench.analysis.loss_surface import LossSurface
from fedbench.analysis.recorded_model import open_model
from fedbench.analysis.results import silent
from fedbench.errors import ConfigError
from fedbench.experiment.run import run


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on normalised rows of four numbers."""
    directory = tmp_path_factory.mktemp("tables") / "table"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        run(config("classification", "data.dataset.scaled=true", f"output.directory={directory}"))
    return directory


def test_the_loss_on_a_table_is_the_one_that_the_run_recorded(table_run: Path) -> None:
    model = open_model(table_run)
    score = LossSurface(model, "test", 10**6, "recalibrated", 0).score(model.vector, model.statistics)
    recorded = model.experiment.run.rounds.to_pylist()[-1]
    assert (score.loss, score.accuracy) == (pytest.approx(recorded["test_loss"]), recorded["test_accuracy"])


def test_rows_that_can_only_be_read_are_scored_without_a_warning(table_run: Path) -> None:
    model = open_model(table_run)
    model.experiment.problem.federation.data.train.inputs.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LossSurface(model, "test", 10**6, "recalibrated", 0)
    finally:
        torch.set_warn_always(False)


def test_the_landscape_of_a_table_has_a_sharpness(table_run: Path) -> None:
    analysis = Landscape(points=3, samples=50).perform([open_model(table_run)], silent)
    assert all(row["sharpness"] > 0 for row in analysis.data["models"].to_pylist())


@pytest.mark.parametrize("settings", [Leakage(images=1, iterations=1), Activations()])
def test_what_is_of_images_is_refused_on_a_table(settings: Leakage | Activations, table_run: Path) -> None:
    with pytest.raises(ConfigError, match="array data"):
        settings.perform([open_model(table_run)], silent)
