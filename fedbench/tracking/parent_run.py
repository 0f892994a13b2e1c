"""The MLflow run below which the runs of a suite or a study are nested."""

from collections.abc import Mapping
from pathlib import Path

from fedbench.records.headline import ACCURACY
from fedbench.tasks.kinds import Headline
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.pages import NOTE, note_of_parent
from fedbench.tracking.store import check_experiment_name, now, plain_name


class ParentRun:
    """A run in an MLflow store under which others are nested; it never stops what it records.

    `open` waits until the run's id is known, since other runs are nested by it. `log` and `artifacts` only queue,
    `close` waits a bounded time. When the store is away everything goes on without it, and `warning` says so.

        parent = ParentRun(enabled=config.tracking.enabled)
        run_id = parent.open("my-study", "fedbench", None, {"study": "my-study"}, "What it is, in words.", key)
        run(config, member=Membership(run_id, "trial 1", {"study": "my-study"}))
        parent.log({"best/best_accuracy": 0.9}, step=1)
        parent.artifacts(Path("figures"))
        parent.close("finished")

    Attributes:
        run_id: MLflow's id, None without a store.
        experiment_id: MLflow's id of the experiment, None without a store.
        warning: one line on what MLflow lacks, or None.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        open_timeout: float = 60.0,
        away_timeout: float = 5.0,
        close_timeout: float = 60.0,
        headline: Headline = ACCURACY,
    ) -> None:
        """Args:
        enabled: `tracking.enabled`; without it nothing is recorded, and nothing warned of.
        open_timeout: seconds that `open` waits at most.
        away_timeout: seconds to wait at most for a store that is known to be away.
        close_timeout: seconds that `close` waits at most.
        headline: the metric that nested runs are judged by; the link to their charts has the best of them first.
        """
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.warning: str | None = None
        self._enabled = enabled
        self._open_timeout = open_timeout
        self._away_timeout = away_timeout
        self._close_timeout = close_timeout
        self._headline = headline
        self._recording: MlflowRun | None = None

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
            tags: of the run; set anew where the run is found.
            note: the run in words, Markdown; a link to the charts of the nested runs is added.
            key: unique to the suite or study, and kept by the caller.

        Returns:
            The id to nest runs under; None when tracking is off or the store is away.

        Raises:
            ConfigError: the experiment's name is empty or has a slash.
        """
        check_experiment_name(experiment)
        if not self._enabled:
            return None
        recording = MlflowRun(uri, experiment, key, "parent run")
        recording.open(name, tags, rename=True)
        recording.submit(lambda run: _describe(run, note, tags, self._headline))
        if recording.wait_open(self._open_timeout, self._away_timeout):
            self._recording = recording
            self.run_id, self.experiment_id = recording.run_id, recording.experiment_id
        else:
            delivery = recording.delivery
            reasons = [*delivery.refused, delivery.last_error, f"no answer in {self._open_timeout:g} s"]
            self.warning = (
                f"MLflow is away ({next(filter(None, reasons))}); {name} goes on without a run of its own there"
            )
            delivery.finish(0.0, 0.0)
        return self.run_id

    def log(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Queue metrics of one step; None is left out. Returns at once."""
        if self._recording is not None:
            self._recording.log(step, {plain_name(key): value for key, value in metrics.items()})

    def describe(self, note: str, tags: Mapping[str, str] | None = None) -> None:
        """Queue another note, to which the link is added, too, and more tags."""
        if self._recording is not None:
            self._recording.submit(lambda run: _describe(run, note, tags or {}, self._headline))

    def artifacts(self, folder: Path, below: str | None = None) -> None:
        """Queue all files below `folder`, under their relative paths; a file sent before is replaced.

        Args:
            folder: the folder.
            below: the artifact folder for them; None: the run's own.
        """
        if self._recording is not None:
            files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
            for file in sorted(files):
                parts = [*filter(None, [below]), *file.relative_to(folder).parent.parts]
                self._recording.log_artifact(file, "/".join(parts) or None)

    def artifact(self, path: Path, below: str | None = None) -> None:
        """Queue one file, for the artifact folder `below`; a file sent before is replaced."""
        if self._recording is not None:
            self._recording.log_artifact(path, below)

    def close(self, status: str) -> None:
        """Send the rest and end the run; see `warning` then.

        Args:
            status: finished | interrupted | failed.
        """
        if self._recording is not None:
            self.warning = self._recording.close(status, now(), self._close_timeout, self._away_timeout)
            self._recording = None


def _describe(run: MlflowRun, note: str, tags: Mapping[str, str], headline: Headline) -> None:
    """Set the note, with a link to the charts of the nested runs, and the tags."""
    assert run.experiment_id is not None
    run.write_tags({**tags, NOTE: note_of_parent(note, run.experiment_id, run.id, headline)})
