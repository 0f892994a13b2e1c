"""Recorded runs in an MLflow experiment: their directories where these are still there, else their artifacts."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError, DataError
from fedbench.records.reader import CHECKPOINTS, CLIENTS, CONFIG, DESCRIPTION, EVENTS, PARTITION, ROUNDS, SUMMARY
from fedbench.tracking.store import (
    MLFLOW_SETTINGS,
    RECORDING_TAG,
    absolute_store,
    check_experiment_name,
    environment_store,
    sqlite_file,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = (CONFIG, DESCRIPTION, PARTITION, ROUNDS, CLIENTS, SUMMARY, EVENTS)
"""What is needed of a run to compare it: neither its model nor its plots."""

DIRECTORY_TAG = "fedbench.directory"
RUNS_PER_PAGE = 500


@dataclass(frozen=True)
class ArchivedRun:
    """One run of an experiment.

    Attributes:
        source: its name and MLflow's id.
        directory: where its files are; None: nowhere.
        reason: why there is no directory, or "".
    """

    source: str
    directory: Path | None
    reason: str = ""


def archived_runs(experiment: str, mlflow_uri: str | None, into: Path) -> list[ArchivedRun]:
    """The runs that fedbench recorded in an experiment; runs that merely hold others are passed over.

    Args:
        experiment: its name.
        mlflow_uri: the store or server; None: MLFLOW_TRACKING_URI, else the store in the working directory.
        into: folder for what has to be downloaded.

    Raises:
        ConfigError: there is no such store or experiment.
        DataError: the store cannot be read.
    """
    check_experiment_name(experiment)
    uri = absolute_store(environment_store(mlflow_uri))
    _require_store(uri)
    for name, value in {**MLFLOW_SETTINGS, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = [one.name for one in client.search_experiments()]
            raise ConfigError(f"--experiment {experiment}: is not in {_named(uri)}{did_you_mean(experiment, names)}")
        return [_locate(client, run, into) for run in _runs(client, found.experiment_id)]
    except (ConfigError, DataError):
        raise
    except Exception as error:  # of MLflow, its database or the network
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"--experiment {experiment}: {_named(uri)} cannot be read: {reason}") from error


def recording_key(directory: Path) -> str | None:
    """The key by which MLflow knows the recording in a run directory; None where none is kept."""
    try:
        key = json.loads((directory / CHECKPOINTS / "recording.json").read_text(encoding="utf-8"))["mlflow"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(key)


def _runs(client: "MlflowClient", experiment_id: str) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], max_results=RUNS_PER_PAGE, page_token=token)
        yield from (run for run in page if DIRECTORY_TAG in run.data.tags)
        token = page.token
        if not token:
            return


def _locate(client: "MlflowClient", run: Any, into: Path) -> ArchivedRun:
    source = f"{run.info.run_name} (MLflow run {run.info.run_id[:8]})"
    directory = Path(run.data.tags[DIRECTORY_TAG])
    if (directory / CONFIG).is_file() and recording_key(directory) == run.data.tags.get(RECORDING_TAG):
        return ArchivedRun(str(directory), directory)
    place = into / run.info.run_id
    place.mkdir(parents=True)
    try:
        there = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        for name in FILES:
            if name in there:
                client.download_artifacts(run.info.run_id, name, str(place))
    except Exception as error:
        return ArchivedRun(source, None, f"its artifacts cannot be fetched: {' '.join(str(error).split())[:200]}")
    if CONFIG not in there:
        status = run.info.status.lower()
        return ArchivedRun(source, None, f"{directory} is not there, and MLflow has none of its files ({status})")
    return ArchivedRun(source, place)


def _require_store(uri: str | None) -> None:
    """MLflow would make the store that it is asked to read."""
    database = sqlite_file(uri)
    if uri is None and not any(Path(name).exists() for name in ("mlflow.db", "mlruns")):
        raise ConfigError(f"{Path.cwd()}: has no mlflow.db; name the store or server with --mlflow-uri")
    if database is not None and not database.exists():
        raise ConfigError(f"--mlflow-uri {uri}: there is no such file")


def _named(uri: str | None) -> str:
    return uri or "the MLflow store here"
