"""One run in an MLflow store: made or found again, written to in the background, and closed.

Operations are tried again after a lost answer, and yet nothing is doubled: a metric's timestamp is fixed when it is
logged, and (key, step, timestamp, value) is the identity of a metric in MLflow's database; parameters, tags, inputs and
artifacts replace themselves; the run carries a unique tag, by which it is found again.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from fedbench.config.passwords import without_passwords
from fedbench.system.processes import this_process
from fedbench.tracking.left_running import PROCESS_TAG, STATUS, mark_ended_runs
from fedbench.tracking.recording_key import RECORDING_TAG
from fedbench.tracking.retry_queue import Delivery
from fedbench.tracking.store import (
    DIRECTORY_TAG,
    LONGEST_TAG,
    METRICS_PER_REQUEST,
    absolute_store,
    check_experiment_name,
    default_store,
    environment_store,
    is_lasting,
    now,
    open_store,
    plain_name,
    sqlite_file,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH_SECONDS = 1.0
"""Metrics are sent at most this often; faster rounds share a batch."""


@dataclass(frozen=True)
class _Point:
    """One value of a metric. `timestamp` is in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class MlflowRun:
    """A run in an MLflow store, written by one background thread that outlasts an absent store.

    `open`, `submit`, `log`, `set_tags` and `log_artifact` only queue; `wait_open` and `close` wait a bounded time.
    Nothing is sent before `start`.

    Attributes:
        uri: the store or server.
        is_default_store: whether nothing names it, so that it is the one that `mlflow ui` opens in this directory.
        run_id, experiment_id: MLflow's ids; None until the store has been reached.
        was_found: whether the store had a run with this key before.
        sent_through: points up to this step are in the store already, and are not sent again.
        delivery: the queue of operations.
    """

    def __init__(
        self, uri: str | None, experiment: str, key: str, kind: str = "run", *, identity: str | None = None
    ) -> None:
        """Describe where to write; nothing is opened before `open`.

        Args:
            uri: the store or server; None: MLFLOW_TRACKING_URI, else the store that `mlflow ui` opens in the working
                directory.
            experiment: its name; made if it is not there.
            key: unique to what is recorded; a run with this key is gone on with.
            kind: what warnings call it.
            identity: of the process that is recorded (`fedbench.system.processes`); None: this one.

        Raises:
            ConfigError: the experiment's name is empty, or has a slash, which MLflow's pages take for a path.
        """
        check_experiment_name(experiment)
        named = environment_store(uri)
        self.is_default_store = named is None
        self.uri = default_store() if named is None else absolute_store(named)
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.was_found = False
        self.sent_through = -1
        self.delivery = Delivery(f"mlflow {kind}", is_lasting)
        self._experiment = experiment
        self._key = re.sub(r"['\\]", "_", key)  # it stands in quotes where MLflow is searched
        self._kind = kind
        self._identity = identity or this_process()
        self._opened = Event()
        self._points: list[_Point] = []
        self._sent_at = 0.0

    def open(self, name: str, tags: Mapping[str, str], *, rename: bool = False, started: int | None = None) -> None:
        """Queue finding the run by its key, or making it; then runs of the experiment that were killed are marked.

        Args:
            name: of the run, where it is made.
            tags: of the run; those that say where and by whom it is recorded are set anew where it is found.
            rename: whether a run that is found gets this name, too.
            started: when a run that is made has started, in milliseconds since 1970; None: now.
        """
        begun = now() if started is None else started
        self.delivery.submit(self._open_store, essential=True)
        self.delivery.submit(lambda: self._find_or_create(name, tags, begun, rename), essential=True)
        self.delivery.submit(self._mark_ended_runs)

    def find(self) -> None:
        """Queue finding the run by its key, without changing it; where there is none, nothing after it is sent."""
        self.delivery.submit(self._find, essential=True)

    def start(self) -> None:
        """Begin to send what is queued; importing mlflow in the background takes seconds of a core."""
        self.delivery.start()

    def wait_open(self, timeout: float, away_timeout: float | None = None) -> bool:
        """Begin to send, and wait until `run_id` is known; returns whether it is.

        Args:
            timeout: seconds to wait at most.
            away_timeout: seconds to wait at most for a store that is known to be away; None: as long as for another.
        """
        self.start()
        deadline = time.monotonic() + timeout
        away_deadline: float | None = None
        while not self._opened.wait(0.05) and not self.delivery.refused and time.monotonic() < deadline:
            if away_timeout is not None and self.delivery.last_error is not None:
                away_deadline = away_deadline or time.monotonic() + away_timeout
                if time.monotonic() >= away_deadline:
                    break
        return self._opened.is_set()

    def submit(self, operation: Callable[["MlflowRun"], None], *, essential: bool = False) -> None:
        """Queue an operation on the open run.

        Args:
            operation: called in the background with this object; may be called twice.
            essential: where it is refused, nothing after it is sent.
        """
        self.delivery.submit(lambda: operation(self), essential)

    def log(self, step: int, metrics: Mapping[str, float | None], timestamp: int | None = None) -> None:
        """Queue metrics of one step; None is left out.

        Args:
            step: the step.
            metrics: {name: value}.
            timestamp: when they came up, in milliseconds since 1970; None: now.
        """
        timestamp = now() if timestamp is None else timestamp
        self._points.extend(
            _Point(key, float(value), timestamp, step) for key, value in metrics.items() if value is not None
        )
        self.delivery.submit(self._send_points)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Queue tags, which replace those of the same name."""
        self.submit(lambda run: run.write_tags(tags))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Queue one file, for a folder of the artifacts; a file sent before is replaced."""
        self.submit(lambda run: run.client.log_artifact(run.id, str(path), folder))

    def log_files(self, root: Path, paths: list[Path]) -> None:
        """Queue files below `root`, each under its relative path."""
        for path in paths:
            folder = path.relative_to(root).parent.as_posix()
            self.log_artifact(path, None if folder == "." else folder)

    def close(self, status: str, ended: int, timeout: float, away_timeout: float) -> str | None:
        """Send the rest and end the run; nothing can be queued after that.

        Args:
            status: finished | interrupted | failed.
            ended: milliseconds since 1970.
            timeout: seconds to wait at most.
            away_timeout: seconds to wait at most for a store that is known to be away.

        Returns:
            One line on what MLflow lacks, or None.
        """
        self.submit(lambda run: run.client.set_terminated(run.id, STATUS.get(status, "FAILED"), ended))
        return self.finish(timeout, away_timeout)

    def finish(self, timeout: float, away_timeout: float) -> str | None:
        """Send the rest without changing the state of the run; otherwise as `close`."""
        self.start()  # a run without a round has not begun yet
        if not self.delivery.finish(timeout, away_timeout):
            reason = self.delivery.last_error or f"it took longer than {timeout:g} s"
            return f"MLflow did not get {'the whole' if self.run_id else 'anything of the'} {self._kind} ({reason})"
        if self.delivery.refused:
            amount = "part of the" if self.run_id else "the whole"
            return f"MLflow refused {amount} {self._kind} ({self.delivery.refused[0]})"
        return None

    # The rest runs in the background thread: operations call it.

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client of the store, once it is open."""
        return self._client

    @property
    def id(self) -> str:
        """MLflow's id of the open run."""
        assert self.run_id is not None
        return self.run_id

    def write_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags now, cut to what MLflow takes."""
        self._write_tags(self.id, tags)

    def _write_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _plain_tags(tags).items()])

    def _open_store(self) -> None:
        self._client: MlflowClient
        self._client, self.experiment_id = open_store(self.uri, self._experiment)

    def _same(self) -> "list[Run]":
        """The runs with this key: one at most."""
        with_key = f"tags.`{RECORDING_TAG}` = '{self._key}'"
        return list(self.client.search_runs([str(self.experiment_id)], with_key, max_results=1))

    def _find(self) -> None:
        database = sqlite_file(self.uri)
        if database is not None and not database.exists():
            raise FileNotFoundError(f"{database} is not there")
        self._open_store()
        same = self._same()
        if not same:
            raise ValueError(f"experiment {self._experiment} has no run with the key of this {self._kind}")
        self.run_id, self.was_found = str(same[0].info.run_id), True
        self._opened.set()

    def _find_or_create(self, name: str, tags: Mapping[str, str], started: int, rename: bool) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        assert self.experiment_id is not None
        same = self._same()
        if same:  # also one that was made by an attempt whose answer was lost
            run_id = str(same[0].info.run_id)
            renewed = {name: value for name, value in tags.items() if name == DIRECTORY_TAG}
            self._write_tags(run_id, {**renewed, PROCESS_TAG: self._identity})
            self.client.update_run(run_id, "RUNNING", name if rename else None)
            self.was_found = True
        else:
            complete = _plain_tags(resolve_tags({**tags, RECORDING_TAG: self._key, PROCESS_TAG: self._identity}))
            created = self.client.create_run(self.experiment_id, start_time=started, tags=complete, run_name=name)
            run_id = str(created.info.run_id)
        self.run_id = run_id
        self._opened.set()

    def _mark_ended_runs(self) -> None:
        assert self.experiment_id is not None
        try:
            mark_ended_runs(self.client, self.experiment_id)
        except Exception as error:
            if not is_lasting(error):  # else other runs are not to be changed from here; this one can do without
                raise

    def _send_points(self) -> None:
        from mlflow.entities import Metric

        if not self._points:
            return
        self.delivery.pause(self._sent_at + BATCH_SECONDS - time.monotonic())
        while batch := self._points[:METRICS_PER_REQUEST]:
            metrics = [
                Metric(point.key, point.value, point.timestamp, point.step)
                for point in batch
                if point.step > self.sent_through
            ]
            try:
                self.client.log_batch(self.id, metrics=metrics)
            except Exception as error:
                if is_lasting(error):  # else they would take every later point down with them
                    del self._points[: len(batch)]
                raise
            del self._points[: len(batch)]
        self._sent_at = time.monotonic()


def _plain_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with the names and lengths that MLflow takes."""
    return {plain_name(name): without_passwords(str(value))[:LONGEST_TAG] for name, value in tags.items()}
