"""The MLflow run that others are nested below: a suite, a study."""

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.tracking.pages import NOTE, note_of_parent
from fedbench.tracking.retry_queue import Delivery
from fedbench.tracking.store import (
    LONGEST_TAG,
    METRICS_PER_REQUEST,
    RECORDING_TAG,
    STATUS,
    absolute_store,
    check_experiment_name,
    environment_store,
    is_lasting,
    now,
    open_store,
    plain_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ParentRun:
    """A run in an MLflow store under which others are nested; it never stops what it records.

    `open` waits until the run is known, since its id is what nests other runs. `log` and `artifacts` only queue,
    `close` waits a bounded time. When the store is away everything goes on without it, and `warning` says so.

        parent = ParentRun(enabled=config.tracking.enabled)
        run_id = parent.open("my-study", "fedbench", None, {"study": "my-study"}, "What it is, in words.", key)
        run(config, member=Membership(run_id, "trial 1", {"study": "my-study"}))
        parent.log({"best/best_accuracy": 0.9}, step=1)
        parent.artifacts(Path("figures"))
        parent.close("finished")

    Attributes:
        run_id: MLflow's id, None without a store.
        experiment_id: the same for the experiment.
        warning: one line on what MLflow lacks, or None.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        open_timeout: float = 60.0,
        away_timeout: float = 5.0,
        close_timeout: float = 60.0,
    ) -> None:
        """Args:
        enabled: `tracking.enabled`; without it nothing is recorded, and nothing warned of.
        open_timeout: seconds that `open` waits at most.
        away_timeout: seconds to wait at most for a store that is known to be away.
        close_timeout: seconds that `close` waits at most.
        """
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.warning: str | None = None
        self._enabled = enabled
        self._open_timeout = open_timeout
        self._away_timeout = away_timeout
        self._close_timeout = close_timeout
        self._opened = threading.Event()
        self._delivery: Delivery | None = None

    def open(
        self,
        name: str,
        experiment: str,
        uri: str | None,
        tags: Mapping[str, str],
        note: str,
        key: str,
    ) -> str | None:
        """Make the run, or find the one that was made with this `key` and go on with it.

        Args:
            name: of the run.
            experiment: made if it is not there.
            uri: the store or server; None: MLFLOW_TRACKING_URI, else the store that `mlflow ui` opens here.
            tags: of the run; found again, they are set anew.
            note: the run in words, Markdown; a link to the charts of the nested runs is added.
            key: unique to what is recorded, kept by the caller.

        Returns:
            The id to nest runs under; None when tracking is off or the store is away.

        Raises:
            ConfigError: the experiment's name is empty or has a slash.
        """
        check_experiment_name(experiment)
        if not self._enabled:
            return None
        store = absolute_store(environment_store(uri))
        started = now()
        self._delivery = Delivery("mlflow-parent", is_lasting)
        self._delivery.submit(lambda: self._open_store(store, experiment), essential=True)
        self._delivery.submit(lambda: self._find_or_create(name, dict(tags), note, key, started), essential=True)
        self._delivery.start()
        self._wait_open(self._delivery)
        if self.run_id is None:
            reason = [*self._delivery.refused, self._delivery.last_error, f"no answer in {self._open_timeout:g} s"]
            self.warning = (
                f"MLflow is away ({next(filter(None, reason))}); {name} goes on without a run of its own there"
            )
            self._delivery.finish(0.0, 0.0)
            self._delivery = None
        return self.run_id

    def log(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Queue metrics of one step; None is left out. Returns at once."""
        if self._delivery is None:
            return
        timestamp = now()
        points = [(plain_name(key), float(value)) for key, value in metrics.items() if value is not None]
        for first in range(0, len(points), METRICS_PER_REQUEST):
            batch = points[first : first + METRICS_PER_REQUEST]
            self._delivery.submit(lambda batch=batch: self._log_points(batch, timestamp, step))  # type: ignore[misc]

    def describe(self, note: str, tags: Mapping[str, str] | None = None) -> None:
        """Queue another note, to which the link is added, too, and more tags."""
        if self._delivery is not None:
            self._delivery.submit(lambda: self._describe(note, tags or {}))

    def artifacts(self, folder: Path) -> None:
        """Queue all files below `folder`, under their relative paths; a file sent before is replaced."""
        if self._delivery is None:
            return
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            self._delivery.submit(lambda path=path: self._log_artifact(folder, path))  # type: ignore[misc]

    def artifact(self, path: Path, below: str | None = None) -> None:
        """Queue one file, for the artifact folder `below`; a file sent before is replaced."""
        if self._delivery is not None:
            self._delivery.submit(lambda: self._client.log_artifact(self._id(), str(path), below))

    def close(self, status: str) -> None:
        """Send the rest and end the run; see `warning` then.

        Args:
            status: finished | interrupted | failed.
        """
        if self._delivery is None:
            return
        ended = now()
        self._delivery.submit(lambda: self._client.set_terminated(self._id(), STATUS.get(status, "FAILED"), ended))
        delivered = self._delivery.finish(self._close_timeout, self._away_timeout)
        if not delivered:
            reason = self._delivery.last_error or f"it took longer than {self._close_timeout:g} s"
            self.warning = f"MLflow did not get all of the parent run ({reason})"
        elif self._delivery.refused:
            self.warning = f"MLflow refused part of the parent run ({self._delivery.refused[0]})"
        self._delivery = None

    def _wait_open(self, delivery: Delivery) -> None:
        deadline = time.monotonic() + self._open_timeout
        away_deadline: float | None = None
        while not self._opened.wait(0.05) and not delivery.refused and time.monotonic() < deadline:
            if delivery.last_error is not None:
                away_deadline = away_deadline or time.monotonic() + self._away_timeout
                if time.monotonic() >= away_deadline:
                    return

    # The rest runs in the background thread.

    def _open_store(self, uri: str | None, experiment: str) -> None:
        self._client: MlflowClient
        self._client, self.experiment_id = open_store(uri, experiment)

    def _find_or_create(self, name: str, tags: dict[str, str], note: str, key: str, started: int) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        assert self.experiment_id is not None
        quoted = re.sub(r"['\\]", "_", key)
        same = self._client.search_runs([self.experiment_id], f"tags.`{RECORDING_TAG}` = '{quoted}'", max_results=1)
        if same:
            found = same[0].info.run_id
            self._client.update_run(found, "RUNNING", name)
        else:
            complete = resolve_tags({**tags, RECORDING_TAG: quoted})
            created = self._client.create_run(
                self.experiment_id, start_time=started, tags=_plain_tags(complete), run_name=name
            )
            found = created.info.run_id
        linked = note_of_parent(note, self.experiment_id, str(found))
        self._set_tags({**tags, NOTE: linked}, str(found))
        self.run_id = str(found)
        self._opened.set()

    def _log_points(self, points: list[tuple[str, float]], timestamp: int, step: int) -> None:
        from mlflow.entities import Metric

        self._client.log_batch(self._id(), metrics=[Metric(key, value, timestamp, step) for key, value in points])

    def _describe(self, note: str, tags: Mapping[str, str]) -> None:
        assert self.experiment_id is not None
        self._set_tags({NOTE: note_of_parent(note, self.experiment_id, self._id()), **tags})

    def _set_tags(self, tags: Mapping[str, str], run_id: str | None = None) -> None:
        from mlflow.entities import RunTag

        wanted = [RunTag(name, value) for name, value in _plain_tags(tags).items()]
        self._client.log_batch(run_id or self._id(), tags=wanted)

    def _log_artifact(self, folder: Path, path: Path) -> None:
        below = path.relative_to(folder).parent.as_posix()
        self._client.log_artifact(self._id(), str(path), None if below == "." else below)

    def _id(self) -> str:
        assert self.run_id is not None
        return self.run_id


def _plain_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """As MLflow takes them."""
    return {plain_name(name): str(value)[:LONGEST_TAG] for name, value in tags.items()}
