"""Records a run in MLflow, in the background (an `Observer`): parameters, data set, metrics, artifacts, status."""

import json
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from fedbench.config.identity import OWN_CODE, flattened
from fedbench.config.passwords import without_passwords
from fedbench.records.kept import KEPT
from fedbench.records.observers import RunDescription, Verdict
from fedbench.records.reader import CHECKPOINTS
from fedbench.records.schema import DIVERGENCE_FIGURES, PROBE_FIGURES, STEP_FIGURES, ClientRecord, RoundRecord
from fedbench.records.trained_groups import numbered
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.pages import NOTE, charts_fragment, name_of_run
from fedbench.tracking.store import (
    DIRECTORY_TAG,
    LONGEST_DATASET_NAME,
    LONGEST_DIGEST,
    LONGEST_PARAMETER,
    LONGEST_TAG,
    is_server,
    now,
    plain_name,
)

ROUND_SECONDS = "time/round_s"
"""The one metric that every round has."""


class MlflowTracker:
    """Records one run in an MLflow store (an `Observer`).

    Its calls only queue; `run_finished` alone waits, a bounded time. Register it behind the `RunDirectory`, whose
    files it stores as artifacts.

    Attributes:
        recording: the run in the store.
        warning: one line on what MLflow lacks and where it is, or None.
    """

    def __init__(
        self,
        mlflow_uri: str | None = None,
        experiment: str = "fedbench",
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
        *,
        parent_run_id: str | None = None,
        key: str | None = None,
        judge: Callable[[Mapping[str, Any]], Verdict] | None = None,
        close_timeout: float = 60.0,
        away_timeout: float = 3.0,
    ) -> None:
        """Describe the recording; nothing is opened before `run_started`.

        Args:
            mlflow_uri: the store or server; None: MLFLOW_TRACKING_URI, else the store that `mlflow ui` opens in
                the working directory.
            experiment: made if it is not there.
            tags: added to the run's own.
            run_name: None: the method and the run directory's name.
            parent_run_id: the MLflow run under which this one is nested.
            key: identifies the recording, so that a run that goes on finds its MLflow run again; None: a new one.
            judge: see `Membership`.
            close_timeout: seconds that `run_finished` waits at most.
            away_timeout: seconds that it waits at most for a store that is known to be away.

        Raises:
            ConfigError: the experiment's name is empty, or has a slash, which MLflow's pages take for a path.
        """
        self.recording = MlflowRun(mlflow_uri, experiment, key or uuid.uuid4().hex)
        self.warning: str | None = None
        self._tags = dict(tags or {})
        self._run_name = run_name
        self._parent_run_id = parent_run_id
        self._judge = judge
        self._earlier: list[RoundRecord] = []
        self._close_timeout = close_timeout
        self._away_timeout = away_timeout
        self._run: RunDescription | None = None
        self._uplink = self._downlink = self._flops = 0

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the store has been reached."""
        return self.recording.run_id

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None until the store has been reached."""
        return self.recording.experiment_id

    def run_started(self, run: RunDescription) -> None:
        """Queue the opening of the store and the description of the run.

        The background thread begins with the first metrics: importing mlflow takes seconds of a core, and the first
        round is waited for.
        """
        self._run = run
        tags = {**run.tags, **self._tags, DIRECTORY_TAG: run.directory, NOTE: run.note}
        if run.group_names:
            tags["layer_groups"] = numbered(run.group_names)[:LONGEST_TAG]
        if self._parent_run_id is not None:
            tags["mlflow.parentRunId"] = self._parent_run_id
        self.recording.open(self._run_name or name_of_run(run.tags, Path(run.directory)), tags)
        self.recording.submit(_skip_what_is_there, essential=True)
        self.recording.submit(lambda recording: _log_parameters(recording, run))
        self.recording.submit(lambda recording: _log_dataset(recording, run))
        for record in self._earlier:
            self.round_finished(record, ())

    def resumed(self, history: pa.Table) -> None:
        """The run goes on after these rounds: those that the store does not have are sent, too."""
        self._earlier = [RoundRecord(**row) for row in history.to_pylist()]

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Queue the round's metrics, at the step that is its number, from 1."""
        self._uplink += record.uplink_bytes
        self._downlink += record.downlink_bytes
        self._flops += record.client_flops
        metrics: dict[str, float | None] = {
            "test/accuracy": record.test_accuracy,
            "test/loss": record.test_loss,
            "validation/accuracy": record.validation_accuracy,
            "validation/loss": record.validation_loss,
            "train/loss": record.train_loss,
            "comm/uplink_mb": self._uplink / 1e6,
            "comm/downlink_mb": self._downlink / 1e6,
            "compute/tflop": self._flops / 1e12,
            "paper/comm_gb": record.paper_comm_gb,
            "paper/comp_tflop": record.paper_comp_tflop,
            "schedule/group": record.group,
            ROUND_SECONDS: record.wall_seconds,
            "async/staleness_mean": record.staleness_mean,
            "async/staleness_max": record.staleness_max,
            "async/virtual_s": record.virtual_seconds,
            "async/epochs": record.epochs,
            **{f"steps/{name}": getattr(record, name) for name in STEP_FIGURES},
            **{f"probe/{name}": getattr(record, name) for name in PROBE_FIGURES},
            **{f"divergence/{name}": getattr(record, name) for name in DIVERGENCE_FIGURES},
        }
        self.log(record.round + 1, metrics)

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Send the rest and the run directory's files, and wait for it a bounded time; see `warning` then."""
        if self._run is None:
            return
        ended = now()
        outcome: dict[str, float | None] = {
            "best/accuracy": summary.get("best_accuracy"),
            "best/validation_accuracy": summary.get("best_validation_accuracy"),
        }
        if self._judge is not None:
            verdict = self._judge(summary)
            outcome |= verdict.metrics
            self.recording.set_tags(verdict.tags)
        self.recording.submit(lambda recording: _log_outcome(recording, outcome, ended))
        self.recording.start()
        directory = Path(self._run.directory)
        self.recording.log_files(directory, recorded_files(directory))
        status = str(summary.get("status"))
        problem = self.recording.close(status, ended, self._close_timeout, self._away_timeout)
        self.warning = problem and f"{problem}; everything is in {directory}"

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Queue metrics of one step; None is left out. Returns at once."""
        self.recording.log(step, metrics)
        self.recording.start()

    def ui_command(self) -> str | None:
        """The command that opens MLflow's pages on this store; None where a server shows them, or has nothing of it."""
        uri = self.recording.uri
        if is_server(uri) or (self.warning is not None and self.recording.run_id is None):
            return None
        if self.recording.is_default_store:
            return "mlflow ui"
        return f"mlflow ui --backend-store-uri {shlex.quote(without_passwords(uri))}"

    def ui_link_fragment(self) -> str:
        """The part of a link, behind the address of MLflow's pages, that shows this experiment's runs as charts."""
        return charts_fragment(self.experiment_id)


# Operations on the open run, for the background thread.


def _skip_what_is_there(recording: MlflowRun) -> None:
    if recording.was_found:
        points = recording.client.get_metric_history(recording.id, ROUND_SECONDS)
        recording.sent_through = max((point.step for point in points), default=-1)


def _log_parameters(recording: MlflowRun, run: RunDescription) -> None:
    from mlflow.entities import Param

    config = run.config | ({OWN_CODE: run.own_code} if run.own_code else {})
    recording.client.log_batch(recording.id, params=[Param(name, value) for name, value in flatten(config)])


def _log_dataset(recording: MlflowRun, run: RunDescription) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    remote = urlsplit(run.dataset_source).scheme in ("http", "https")
    profile = {
        "train_samples": sum(map(sum, run.client_class_counts)),
        "test_samples": run.test_samples,
        "validation_samples": run.validation_samples,
        "clients": len(run.client_class_counts),
        "classes": len(run.class_names),
    }
    dataset = Dataset(
        name=run.dataset_name[:LONGEST_DATASET_NAME],
        digest=run.dataset_digest[:LONGEST_DIGEST],
        source_type="http" if remote else "local",
        source=json.dumps({"url" if remote else "uri": run.dataset_source}),
        profile=json.dumps(profile),
    )
    training = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
    recording.client.log_inputs(recording.id, [training])


def _log_outcome(recording: MlflowRun, outcome: Mapping[str, float | None], timestamp: int) -> None:
    """At step 0 MLflow's pages draw a metric as a bar; at the last step it would be one dot in a line chart."""
    from mlflow.entities import Metric

    known = recording.client.get_run(recording.id).data.metrics
    new = {name: value for name, value in outcome.items() if value is not None and known.get(name) != value}
    if new:
        metrics = [Metric(name, float(value), timestamp, 0) for name, value in new.items()]
        recording.client.log_batch(recording.id, metrics=metrics)


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A nested configuration as MLflow's parameters: dotted names and text, cut to what MLflow takes.

    >>> list(flatten({"seed": 3, "data": {"root": None, "sizes": [1, 2]}}))
    [('seed', '3'), ('data.root', 'null'), ('data.sizes', '[1, 2]')]
    """
    for name, value in flattened(config).items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        yield plain_name(name), text[:LONGEST_PARAMETER]


def recorded_files(directory: Path) -> list[Path]:
    """The files of a run directory that are sent.

    These are all but its checkpoints, the models and messages that are kept for later analysis, and files that are
    being written.
    """
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path.relative_to(directory).parts[0] not in (CHECKPOINTS, KEPT)
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
