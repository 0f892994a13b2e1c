"""Recording a run in MLflow, in the background: mlflow is imported by the tracking modules only, in this thread.

Operations are tried again after a lost answer, and yet nothing is doubled: a metric's timestamp is fixed when its
round ends, and (key, step, timestamp, value) is the identity of a metric in MLflow's database; parameters, tags,
inputs and artifacts replace themselves; the run carries a unique tag, by which it is found again.
"""

import json
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from fedbench.records.observers import RunDescription, Verdict
from fedbench.records.schema import ClientRecord, RoundRecord
from fedbench.tracking.pages import NOTE, charts_fragment, name_of_run
from fedbench.tracking.retry_queue import Delivery
from fedbench.tracking.store import (
    LONGEST_DATASET_NAME,
    LONGEST_DIGEST,
    LONGEST_PARAMETER,
    LONGEST_TAG,
    METRICS_PER_REQUEST,
    RECORDING_TAG,
    STATUS,
    absolute_store,
    check_experiment_name,
    environment_store,
    is_lasting,
    is_server,
    now,
    open_store,
    plain_name,
)

BATCH_SECONDS = 1.0
"""Metrics are sent at most this often; faster rounds share a batch."""


@dataclass(frozen=True)
class _Point:
    """One value of a metric. `timestamp` is in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class MlflowTracker:
    """Records one run in an MLflow store (an `Observer`).

    Its calls only queue; `run_finished` alone waits, a bounded time. Register it behind the `RunDirectory`, whose
    files it stores as artifacts.

    Attributes:
        run_id: MLflow's id of the run, None until the store has been reached.
        experiment_id: the same for the experiment.
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
        recording: str | None = None,
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
            recording: by which the run is known again when it goes on later; None: made up.
            judge: see `Membership`.
            close_timeout: seconds that `run_finished` waits at most.
            away_timeout: seconds that it waits at most for a store that is known to be away.

        Raises:
            ConfigError: the experiment's name is empty, or has a slash, which MLflow's pages take for a path.
        """
        check_experiment_name(experiment)
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.warning: str | None = None
        self._uri = absolute_store(environment_store(mlflow_uri))
        self._experiment = experiment
        self._tags = dict(tags or {})
        self._run_name = run_name
        self._parent_run_id = parent_run_id
        self._recording = recording or uuid.uuid4().hex
        self._judge = judge
        self._through = -1
        self._earlier: list[RoundRecord] = []
        self._close_timeout = close_timeout
        self._away_timeout = away_timeout
        self._delivery = Delivery("mlflow", is_lasting)
        self._opened = threading.Event()
        self._points: list[_Point] = []
        self._sent_at = 0.0
        self._run: RunDescription | None = None
        self._uplink = self._downlink = self._flops = 0

    def run_started(self, run: RunDescription) -> None:
        """Queue the opening of the store and the description of the run.

        The background thread begins with the first metrics: importing mlflow takes seconds of a core, and the first
        round is waited for.
        """
        self._run = run
        started, key = now(), self._recording
        self._delivery.submit(self._open_store, essential=True)
        self._delivery.submit(lambda: self._create_run(run, started, key), essential=True)
        self._delivery.submit(lambda: self._log_parameters(run))
        self._delivery.submit(lambda: self._log_dataset(run))
        for record in self._earlier:
            self.round_finished(record, ())

    def resumed(self, history: pa.Table) -> None:
        """The run goes on after these rounds: what the store does not have of them is sent, too."""
        self._earlier = [RoundRecord(**row) for row in history.to_pylist()]

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Queue the round's metrics."""
        self._uplink += record.uplink_bytes
        self._downlink += record.downlink_bytes
        self._flops += record.client_flops
        metrics: dict[str, float | None] = {
            "test/accuracy": record.test_accuracy,
            "test/loss": record.test_loss,
            "train/loss": record.train_loss,
            "comm/uplink_mb": self._uplink / 1e6,
            "comm/downlink_mb": self._downlink / 1e6,
            "compute/tflop": self._flops / 1e12,
            "paper/comm_gb": record.paper_comm_gb,
            "paper/comp_tflop": record.paper_comp_tflop,
            "schedule/group": record.group,
            "time/round_s": record.wall_seconds,
            "async/staleness_mean": record.staleness_mean,
            "async/staleness_max": record.staleness_max,
            "async/virtual_s": record.virtual_seconds,
            "async/epochs": record.epochs,
        }
        self.log(record.round, metrics)

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Send the rest and the run directory's files, and wait for it a bounded time; see `warning` then."""
        if self._run is None:
            return
        ended = now()
        outcome: dict[str, float | None] = {"best/accuracy": summary.get("best_accuracy")}
        if self._judge is not None:
            verdict = self._judge(summary)
            outcome |= verdict.metrics
            self._delivery.submit(lambda: self._set_tags(verdict.tags))
        self._delivery.submit(lambda: self._log_outcome(outcome, ended))
        self._delivery.start()  # a run without a round has not yet
        status = STATUS.get(str(summary.get("status")), "FAILED")
        directory = Path(self._run.directory)
        for path in recorded_files(directory):
            self._delivery.submit(lambda path=path: self._log_artifact(directory, path))  # type: ignore[misc]
        self._delivery.submit(lambda: self._client.set_terminated(self._id(), status, ended))
        delivered = self._delivery.finish(self._close_timeout, self._away_timeout)
        if not delivered:
            reason = self._delivery.last_error or f"it took longer than {self._close_timeout:g} s"
            self.warning = f"MLflow did not get the whole run ({reason}); everything is in {directory}"
        elif self._delivery.refused:
            self.warning = f"MLflow refused part of the run ({self._delivery.refused[0]}); everything is in {directory}"

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Queue metrics of one step; None is left out. Returns at once."""
        timestamp = now()
        self._points.extend(
            _Point(key, float(value), timestamp, step) for key, value in metrics.items() if value is not None
        )
        self._delivery.submit(self._send_points)
        self._delivery.start()

    def wait_open(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until `run_id` is known: for who nests runs below this one."""
        self._delivery.start()
        return self._opened.wait(timeout)

    def ui_command(self) -> str | None:
        """The command that opens MLflow's pages on this store; None where a server shows them itself."""
        if self._uri is None:
            return "mlflow ui"
        if is_server(self._uri):
            return None
        return f"mlflow ui --backend-store-uri {shlex.quote(self._uri)}"

    def ui_link_fragment(self) -> str:
        """What follows the address of MLflow's pages: this experiment's runs, as charts of model training."""
        return charts_fragment(self.experiment_id)

    # The rest runs in the background thread.

    def _open_store(self) -> None:
        self._client, self.experiment_id = open_store(self._uri, self._experiment)

    def _create_run(self, run: RunDescription, started: int, key: str) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        assert self.experiment_id is not None
        same = self._client.search_runs([self.experiment_id], f"tags.`{RECORDING_TAG}` = '{key}'", max_results=1)
        if same:  # made by an attempt whose answer was lost
            self.run_id = same[0].info.run_id
            points = self._client.get_metric_history(self.run_id, "time/round_s")
            self._through = max((point.step for point in points), default=-1)
            self._client.update_run(self.run_id, "RUNNING")
        else:
            tags = resolve_tags({**run.tags, **self._tags})
            tags |= {
                RECORDING_TAG: key,
                "fedbench.directory": run.directory,
                NOTE: run.note,
            }
            if self._parent_run_id is not None:
                tags["mlflow.parentRunId"] = self._parent_run_id
            created = self._client.create_run(
                self.experiment_id,
                start_time=started,
                tags={plain_name(name): str(value)[:LONGEST_TAG] for name, value in tags.items()},
                run_name=self._run_name or name_of_run(run.tags, Path(run.directory)),
            )
            self.run_id = created.info.run_id
        self._opened.set()

    def _log_parameters(self, run: RunDescription) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self._id(), params=[Param(name, value) for name, value in flatten(run.config)])

    def _log_dataset(self, run: RunDescription) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        remote = urlsplit(run.dataset_source).scheme in ("http", "https")
        profile = {
            "train_samples": sum(map(sum, run.client_class_counts)),
            "test_samples": run.test_samples,
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
        self._client.log_inputs(self._id(), [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _send_points(self) -> None:
        from mlflow.entities import Metric

        if not self._points:
            return
        self._delivery.pause(self._sent_at + BATCH_SECONDS - time.monotonic())
        while batch := self._points[:METRICS_PER_REQUEST]:
            metrics = [
                Metric(point.key, point.value, point.timestamp, point.step)
                for point in batch
                if point.step > self._through
            ]
            try:
                self._client.log_batch(self._id(), metrics=metrics)
            except Exception as error:
                if is_lasting(error):  # else they would take every later point down with them
                    del self._points[: len(batch)]
                raise
            del self._points[: len(batch)]
        self._sent_at = time.monotonic()

    def _log_outcome(self, outcome: Mapping[str, float | None], timestamp: int) -> None:
        """At step 0, so that MLflow's pages draw it as bars: at the last step it would be one dot in a line chart."""
        from mlflow.entities import Metric

        known = self._client.get_run(self._id()).data.metrics
        new = {key: value for key, value in outcome.items() if value is not None and known.get(key) != value}
        if new:
            metrics = [Metric(key, float(value), timestamp, 0) for key, value in new.items()]
            self._client.log_batch(self._id(), metrics=metrics)

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._client.set_tag(self._id(), plain_name(name), value[:LONGEST_TAG])

    def _log_artifact(self, directory: Path, path: Path) -> None:
        folder = path.relative_to(directory).parent.as_posix()
        self._client.log_artifact(self._id(), str(path), None if folder == "." else folder)

    def _id(self) -> str:
        assert self.run_id is not None
        return self.run_id


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as MLflow's parameters: dotted names and text, cut to what MLflow takes.

    >>> list(flatten({"seed": 3, "data": {"root": None, "sizes": [1, 2]}}))
    [('seed', '3'), ('data.root', 'null'), ('data.sizes', '[1, 2]')]
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield plain_name(name), text[:LONGEST_PARAMETER]


def recorded_files(directory: Path) -> list[Path]:
    """The files of a run directory without its checkpoints and without files that are being written."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path.relative_to(directory).parts[0] != "checkpoints"
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
