"""Analyses in MLflow: artifacts and metrics of their run, whose state stays; a store that is away fails nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished

pytestmark = pytest.mark.slow

TINY = (
    "run", "rounds=1", "data.clients=2", "data.samples_per_client=60", "model=cnn-bn", "schedule=full",
    "runtime.executor=inline",
)  # fmt: skip


def test_an_analysis_is_in_its_run_and_one_that_could_not_be_sent_is_sent_later(
    call: Callable[..., Finished], run_folder: Path, empty_store: Path, no_figures: None, flops_counted_once: None
) -> None:
    from mlflow import MlflowClient

    store = run_folder / "store.db"
    shutil.copy(empty_store, store)
    uri = f"sqlite:///{store}"
    assert call(*TINY, f"tracking.mlflow_uri={uri}", "output.directory=run").status == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fedbench")
    (before,) = client.search_runs([experiment.experiment_id])

    sent = call("analyze", "kernels", "run")
    assert sent.status == 0
    assert "warning" not in sent.stderr
    (after,) = client.search_runs([experiment.experiment_id])
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
    assert "kernels/norm_mean/run" in after.data.metrics
    files = {file.path for file in client.list_artifacts(after.info.run_id, "analysis/kernels")}
    assert files == {f"analysis/kernels/{name}" for name in ("analysis.json", "kernels.parquet", "kernels.png")}
    assert "analysis/index.html" in {file.path for file in client.list_artifacts(after.info.run_id, "analysis")}

    store.rename(run_folder / "elsewhere.db")
    away = call("analyze", "kernels", "run", "--name", "later")
    assert away.status == 0
    assert "warning: MLflow does not have the run of" in away.stderr
    assert "fedbench report --upload" in away.stderr
    assert not store.exists()
    (run_folder / "elsewhere.db").rename(store)
    assert call("report", "--upload", "run").status == 0
    (after,) = MlflowClient(uri).search_runs([experiment.experiment_id])
    assert "later/norm_mean/run" in after.data.metrics
    assert client.list_artifacts(after.info.run_id, "analysis/later")


def test_a_run_that_was_recorded_without_mlflow_is_analysed_without_it(
    call: Callable[..., Finished], run_folder: Path, no_figures: None, flops_counted_once: None
) -> None:
    assert call(*TINY, "tracking.enabled=false", "output.directory=run").status == 0
    ended = call("analyze", "kernels", "run")
    assert (ended.status, "warning" in ended.stderr) == (0, False)
    assert not (run_folder / "mlflow.db").exists()
