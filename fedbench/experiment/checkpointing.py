"""Decides when a run writes checkpoints, and holds the lock of its run directory."""

import time
from collections.abc import Callable
from pathlib import Path

from fedbench.checkpoints.files import Checkpoints, Codec
from fedbench.checkpoints.state import Tree
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import RunError
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
        refused: one line for each checkpoint that was torn or belongs to another configuration.
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
        self._checkpoints = Checkpoints(self._path, config.digest(), codec())
        self._directory = directory
        self._last = time.monotonic()
        self._cost = 0.0

    @classmethod
    def reopen(cls, path: Path, config: ExperimentConfig) -> "tuple[Saving, tuple[int, Tree] | None]":
        """Open the checkpoints of a run that goes on, and read the newest whole one: (next round, state), or None.

        Raises:
            ConfigError: another process writes there.
        """
        saving = cls(RunDirectory(path.absolute()), config)
        if (key := read_key(key_file(path))) is not None:
            saving.key = key
        else:
            saving.remember(path.name)
        return saving, saving.latest()

    def attach(self, directory: RunDirectory) -> None:
        """Name the run directory whose tables are written before each checkpoint."""
        self._directory = directory

    def remember(self, key: str) -> None:
        """Keep the key that identifies the run's recording in MLflow."""
        self.key = key
        keep_key(key_file(self._directory.path), key)

    def latest(self) -> "tuple[int, Tree] | None":
        """(next round, state) of the newest whole checkpoint."""
        newest = self._checkpoints.latest()
        self.refused = [f"refused a checkpoint: {reason}" for reason in self._checkpoints.refused]
        return newest

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
            self._checkpoints.save(next_round, snapshot())
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
    from fedbench.engine.arrivals.loop import DispatchedTask
    from fedbench.engine.arrivals.server import SentParameters
    from fedbench.engine.messages import ClientReport, FinishedTask, TaskOrder
    from fedbench.planning.schedules import ActiveGroups, Feedback
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
        SentParameters,
    )
