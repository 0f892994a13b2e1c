"""Sends to MLflow what it lacks of a recorded run: all of it, or the rounds and files that it did not get."""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedbench.errors import ConfigError, RunError
from fedbench.records.recorded_analysis import recorded_analyses
from fedbench.records.recorded_run import RecordedRun, read_run
from fedbench.records.run_lock import is_at_work
from fedbench.tracking.analysis_upload import analysis_metrics, send_metrics
from fedbench.tracking.recording_key import keep_key, key_file, read_key
from fedbench.tracking.run import MlflowTracker
from fedbench.tracking.store import now

LONGEST_UPLOAD = 600.0
"""Seconds that sending one run may take."""


@dataclass(frozen=True)
class Uploaded:
    """A run that MLflow has now.

    Attributes:
        directory: its run directory.
        run_id: MLflow's id of the run.
        experiment: the name of the experiment in MLflow.
    """

    directory: Path
    run_id: str
    experiment: str


def upload(directory: Path, mlflow_uri: str | None = None, experiment: str | None = None) -> Uploaded:
    """Send what MLflow lacks of a recorded run; sending it again doubles nothing.

    Args:
        directory: the run directory.
        mlflow_uri: the store or server; None: the run's own, else as for a run.
        experiment: None: the run's own.

    Raises:
        ConfigError: the run goes on at the moment.
        DataError: the directory is not a run's, or torn.
        RunError: the store is away, or refused a part.
    """
    run = read_run(directory)
    if run.status == "running" and is_at_work(directory):
        raise ConfigError(f"{directory}: is still running and sends its rounds itself; wait until it has ended")
    tracking = run.config.get("tracking") or {}
    uri, name = mlflow_uri or tracking.get("mlflow_uri"), experiment or tracking.get("experiment") or "fedbench"
    tracker = MlflowTracker(
        uri, name, tracking.get("tags"), key=_key(run), close_timeout=LONGEST_UPLOAD, away_timeout=10.0
    )
    tracker.resumed(run.rounds)
    tracker.run_started(run.description)
    analyses, sent_at = recorded_analyses(directory)[0], now()
    metrics = {name: value for analysis in analyses for name, value in analysis_metrics(analysis).items()}
    tracker.recording.submit(lambda recording: send_metrics(recording, metrics, sent_at))
    # A killed run never wrote how it ended.
    summary = run.summary if run.status != "running" else {**run.summary, "status": "interrupted"}
    tracker.run_finished(summary)
    if tracker.warning is not None or tracker.run_id is None:
        raise RunError(f"{directory}: {tracker.warning or 'MLflow did not take the run'}")
    return Uploaded(directory, tracker.run_id, name)


def _key(run: RecordedRun) -> str:
    """The key of the run's recording; a run that was recorded without MLflow gets one, and keeps it."""
    file = key_file(run.directory)
    if (key := read_key(file)) is not None:
        return key
    key = uuid.uuid5(uuid.NAMESPACE_URL, f"{run.name} {run.digest} {run.directory.resolve()}").hex
    with suppress(OSError):  # an archive that cannot be written to; the same place gives the same key again
        keep_key(file, key)
    return key
