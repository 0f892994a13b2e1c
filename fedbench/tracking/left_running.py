"""Finds runs that MLflow shows as running though their process has ended, and marks how they ended.

A process that is killed cannot say so. Whoever opens the experiment next, for a run of its own, says it.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.errors import DataError
from fedbench.records.reader import load_summary
from fedbench.system.processes import has_ended
from fedbench.tracking.recording_key import RECORDING_TAG, key_file, read_key
from fedbench.tracking.store import DIRECTORY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROCESS_TAG = "fedbench.process"
"""The tag of a run that identifies the process which records it (`fedbench.system.processes`)."""

STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's status for each of fedbench's; any other counts as failed."""

RUNS_AT_MOST = 200
"""The number of running runs that are looked at."""


def mark_ended_runs(client: "MlflowClient", experiment_id: str) -> None:
    """Give every running run of an experiment whose process has ended the status with which it ended.

    Where the process recorded that in the run directory, it is taken from there; else the run was killed.
    """
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=RUNS_AT_MOST):
        if has_ended(run.data.tags.get(PROCESS_TAG, "")):
            status = STATUS.get(_recorded_status(run), "KILLED")
            client.set_terminated(run.info.run_id, status, _last_sign(client, run))


def _recorded_status(run: Any) -> str:
    """The status in the run directory; "" where the run has none, or it is not there."""
    directory = Path(run.data.tags.get(DIRECTORY_TAG, ""))
    with suppress(DataError):
        if read_key(key_file(directory)) == run.data.tags.get(RECORDING_TAG):
            return str(load_summary(directory)["status"])
    return ""


def _last_sign(client: "MlflowClient", run: Any) -> int:
    """When a run logged something last, in milliseconds since 1970."""
    times = [run.info.start_time]
    if run.data.metrics:  # any of them: most are logged in every round
        times += [point.timestamp for point in client.get_metric_history(run.info.run_id, max(run.data.metrics))]
    return int(max(times))
