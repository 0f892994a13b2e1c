"""Sends an analysis of a recorded run to the run in MLflow: its files as artifacts, its figures as metrics."""

from collections.abc import Mapping
from pathlib import Path

from fedbench.records.reader import load_config
from fedbench.records.recorded_analysis import FOLDER, PAGE, RecordedAnalysis
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.recording_key import key_file, read_key
from fedbench.tracking.store import now, plain_name

LONGEST, LONGEST_AWAY = 60.0, 3.0
"""Seconds that sending may take at most, and at most where the store is known to be away."""


def analysis_metrics(analysis: RecordedAnalysis) -> dict[str, float]:
    """{name in MLflow: value} of an analysis; a slash makes a section of MLflow's page."""
    return {plain_name(f"{analysis.name}/{name}"): value for name, value in analysis.metrics.items()}


def send_analysis(directory: Path, analysis: RecordedAnalysis) -> str | None:
    """Send one analysis to the MLflow run of a run directory; sending it again doubles nothing.

    The state of the MLflow run and the time at which it ended stay as they are.

    Args:
        directory: the run directory; a run that was recorded without MLflow has nothing to be sent to.
        analysis: of this run, or of several that it is one of.

    Returns:
        One line on what MLflow did not get, or None.
    """
    tracking = load_config(directory).get("tracking") or {}
    key = read_key(key_file(directory))
    if key is None or not tracking.get("enabled", True):
        return None
    recording = MlflowRun(tracking.get("mlflow_uri"), tracking.get("experiment") or "fedbench", key)
    files = [file for file in analysis.folder.iterdir() if file.is_file()] + [directory / FOLDER / PAGE]
    metrics, timestamp = analysis_metrics(analysis), now()
    recording.find()
    recording.submit(lambda run: _send(run, directory, files, metrics, timestamp))
    problem = recording.finish(LONGEST, LONGEST_AWAY)
    if problem is None:
        return None
    if recording.delivery.refused and recording.run_id is None:
        problem = f"MLflow does not have the run of {directory} ({recording.delivery.refused[0]})"
    return f"{problem}; send the analysis later with: fedbench report --upload {directory}"


def _send(
    recording: MlflowRun, directory: Path, files: list[Path], metrics: Mapping[str, float], timestamp: int
) -> None:
    """Send files under their paths below `directory`, and metrics."""
    for file in files:
        recording.client.log_artifact(recording.id, str(file), file.relative_to(directory).parent.as_posix())
    send_metrics(recording, metrics, timestamp)


def send_metrics(recording: MlflowRun, metrics: Mapping[str, float], timestamp: int) -> None:
    """Send metrics that the run does not have yet, at step 0, where MLflow's pages draw bars.

    Args:
        recording: the open run.
        metrics: {name in MLflow: value}.
        timestamp: milliseconds since 1970.
    """
    from mlflow.entities import Metric

    known = recording.client.get_run(recording.id).data.metrics
    new = [Metric(name, value, timestamp, 0) for name, value in metrics.items() if known.get(name) != value]
    if new:
        recording.client.log_batch(recording.id, metrics=new)
