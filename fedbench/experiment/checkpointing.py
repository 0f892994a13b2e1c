"""Decides when a run writes checkpoints, and holds the lock of its run directory."""

import time
from collections.abc import Callable
from pathlib import Path

from fedbench.checkpoints.files import Checkpoint, Checkpoints, Codec
from fedbench.checkpoints.state import Tree
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import what_matters
from fedbench.errors import ConfigError, DataError, RunError
from fedbench.records.reader import CHECKPOINTS
from fedbench.records.run_directory import RunDirectory
from fedbench.records.run_lock import RunLock
from fedbench.tracking.recording_key import keep_key, key_file, read_key

SHARE = 0.01
"""The share of a run's time that checkpoints may take where they are written by time."""

FIRST_AFTER = 15.0
"""The least number of seconds between two checkpoints that are written by time."""


class Saving:
    """The checkpoints of one run.

    Attributes:
        warning: one line on a checkpoint that could not be written, or None.
        refused: one line for each checkpoint that was left out: it was torn, or belongs to another configuration.
        key: identifies the run's recording in MLflow.
    """

    def __init__(self, directory: RunDirectory, config: ExperimentConfig) -> None:
        """Lock the run directory.

        Raises:
            ConfigError: another process writes there.
        """
        self.warning: str | None = None
        self.refused: list[str] = []
        self.key = ""
        self._every = config.runtime.checkpoint_every
        self._lock = RunLock(directory.path, "run")
        self._path = directory.path / CHECKPOINTS
        self._checkpoints = Checkpoints(self._path, config.digest(), codec(), what_matters(config.to_mapping()))
        self._directory = directory
        self._last = time.monotonic()
        self._cost = 0.0

    @classmethod
    def reopen(cls, path: Path, config: ExperimentConfig) -> "tuple[Saving, Checkpoint | None]":
        """Open the checkpoints of a run that goes on, and read the newest that can be used; None: there is none at all.

        Raises:
            ConfigError: another process writes there, or nobody may.
            DataError: there are checkpoints, and none of them can be used.
        """
        saving = cls(RunDirectory(path.absolute()), config)
        try:
            newest = saving.latest()
            saving.check_usable(newest)
            if (key := read_key(key_file(path))) is not None:
                saving.key = key
            else:
                saving.remember(path.name)
        except OSError as error:
            saving.release()
            raise ConfigError(f"{path / CHECKPOINTS}: cannot be written to: {error.strerror or error}") from None
        except DataError:
            saving.release()
            raise
        return saving, newest

    def check_usable(self, newest: Checkpoint | None) -> None:
        """Refuse to begin anew where checkpoints are left that nobody can read.

        Raises:
            DataError: `newest` is None, although there are checkpoints.
        """
        if newest is None and self._checkpoints.refused:
            reasons = "; ".join(self._checkpoints.refused.values())
            raise DataError(
                f"none of the checkpoints can be used, and nothing was changed: {reasons}; to run again "
                f"from the first round, move the folders round-* out of {self._path}"
            )

    def refuse(self, checkpoint: Checkpoint, reason: str) -> None:
        """Leave out a checkpoint whose state cannot be taken up."""
        self._checkpoints.refuse(checkpoint, reason)
        self._note_refused()

    def attach(self, directory: RunDirectory) -> None:
        """Name the run directory whose tables are written before each checkpoint."""
        self._directory = directory

    def remember(self, key: str) -> None:
        """Keep the key that identifies the run's recording in MLflow."""
        self.key = key
        keep_key(key_file(self._directory.path), key)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be used."""
        newest = self._checkpoints.latest()
        self._note_refused()
        return newest

    def _note_refused(self) -> None:
        for reason in self._checkpoints.refused.values():
            if (line := f"refused a checkpoint: {reason}") not in self.refused:
                self.refused.append(line)

    def save_if_due(self, next_round: int, snapshot: Callable[[], Tree]) -> None:
        """Write a checkpoint if it is time for one."""
        due = time.monotonic() - self._last >= max(FIRST_AFTER, self._cost / SHARE)
        if self._every is not None:
            due = next_round % self._every == 0 or self.warning is not None
        if due:
            self.save(next_round, snapshot)

    def save(self, next_round: int, snapshot: Callable[[], Tree]) -> None:
        """Write a checkpoint; where that fails, `warning` says why and the run goes on."""
        began = time.monotonic()
        try:
            self._directory.flush()
            self._checkpoints.save(next_round, snapshot(), self._directory.tables_on_disk())
            self.warning = None
        except OSError as error:
            self.warning = f"no checkpoint could be written in {self._path}: {error}"
        except RunError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.warning = f"no checkpoint could be written in {self._path}: {error.__cause__}"
        self._last = time.monotonic()
        self._cost = self._last - began

    def release(self) -> None:
        """Let other processes write here."""
        self._lock.release()


def codec() -> Codec:
    """Makes the codec that knows the dataclasses in the state of any run."""
    from fedbench.accounting.totals import Costs
    from fedbench.engine.arrivals.clocks import TaskEnd
    from fedbench.engine.arrivals.progress import DispatchedTask
    from fedbench.engine.arrivals.server import SentParameters
    from fedbench.engine.messages import ClientReport, FinishedTask, TaskOrder
    from fedbench.planning.schedules import ActiveGroups, Feedback
    from fedbench.planning.worlds import ClientTimes
    from fedbench.protocol.client_state import ClientState

    return Codec(
        ActiveGroups,
        TaskOrder,
        ClientReport,
        ClientState,
        Costs,
        TaskEnd,
        Feedback,
        FinishedTask,
        DispatchedTask,
        ClientTimes,
        SentParameters,
    )
