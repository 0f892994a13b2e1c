"""Finds the recorded runs of an MLflow experiment: their directories where they still exist, else their artifacts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.components.suggestions import did_you_mean
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError, DataError
from fedbench.records.reader import CLIENTS, CONFIG, DESCRIPTION, EVENTS, PARTITION, ROUNDS, SUMMARY
from fedbench.tracking.recording_key import RECORDING_TAG, key_file, read_key
from fedbench.tracking.store import (
    DIRECTORY_TAG,
    absolute_store,
    check_experiment_name,
    connect,
    default_store,
    environment_store,
    sqlite_file,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = (CONFIG, DESCRIPTION, PARTITION, ROUNDS, CLIENTS, SUMMARY, EVENTS)
"""The files of a run that a comparison needs: neither its model nor its plots."""

RUNS_PER_PAGE = 500


@dataclass(frozen=True)
class ArchivedRun:
    """One run of an MLflow experiment.

    Attributes:
        source: the run's name and MLflow's id, or its directory, for messages.
        directory: where its files are now; None: they cannot be had.
        reason: why they cannot be had, or "".
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
    named = environment_store(mlflow_uri)
    uri = default_store() if named is None else absolute_store(named)
    _require_store(uri, named is None)
    try:
        client = connect(uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            names = [other.name for other in client.search_experiments()]
            raise ConfigError(f"--experiment {experiment}: is not in {_named(uri)}{did_you_mean(experiment, names)}")
        return [_locate(client, run, into) for run in _runs(client, known.experiment_id)]
    except (ConfigError, DataError):
        raise
    except Exception as error:  # of MLflow, its database or the network
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"--experiment {experiment}: {_named(uri)} cannot be read: {reason}") from error


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
    if (directory / CONFIG).is_file() and read_key(key_file(directory)) == run.data.tags.get(RECORDING_TAG):
        return ArchivedRun(str(directory), directory)
    copy = into / run.info.run_id
    copy.mkdir(parents=True)
    try:
        artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        for name in FILES:
            if name in artifacts:
                client.download_artifacts(run.info.run_id, name, str(copy))
    except Exception as error:
        return ArchivedRun(source, None, f"its artifacts cannot be fetched: {' '.join(str(error).split())[:200]}")
    if CONFIG not in artifacts:
        status = run.info.status.lower()
        return ArchivedRun(source, None, f"{directory} is not there, and MLflow has none of its files ({status})")
    return ArchivedRun(source, copy)


def _require_store(uri: str, is_default: bool) -> None:
    """Refuse a store that is not there: MLflow would make the store that it is asked to read."""
    database = sqlite_file(uri)
    if database is not None and is_default and not database.exists():
        raise ConfigError(f"{Path.cwd()}: has no mlflow.db; name the store or server with --mlflow-uri")
    if database is not None and not database.exists():
        raise ConfigError(f"--mlflow-uri {_named(uri)}: there is no such file")


def _named(uri: str) -> str:
    return without_passwords(uri)
