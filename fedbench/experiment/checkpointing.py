"""When a run's checkpoints are written, where they lie, and who may write there."""

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedbench.checkpoints.files import Checkpoints, Codec, Tree
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError, RunError
from fedbench.records.reader import CHECKPOINTS
from fedbench.records.run_directory import RunDirectory
from fedbench.tracking.recording_key import keep_key, key_file, read_key

SHARE = 0.01
"""Of a run's time, for checkpoints that are written by time."""

FIRST_AFTER = 15.0
"""Seconds without a checkpoint, at least, before one is written by time."""

LOCK = ".lock"


class Saving:
    """The checkpoints of one run.

    Attributes:
        warning: one line on a checkpoint that could not be written, or None.
        refused: one line for each that was found torn or foreign.
        key: by which MLflow knows the recording again.
    """

    def __init__(self, directory: RunDirectory, config: ExperimentConfig) -> None:
        self.warning: str | None = None
        self.refused: list[str] = []
        self.key = ""
        self._every = config.runtime.checkpoint_every
        self._lock = _locked(directory.path)
        self._path = directory.path / CHECKPOINTS
        self._checkpoints = Checkpoints(self._path, config.digest(), codec())
        self._directory = directory
        self._last = time.monotonic()
        self._cost = 0.0

    @classmethod
    def reopen(cls, path: Path, config: ExperimentConfig) -> "tuple[Saving, tuple[int, Tree] | None]":
        """Of a run that goes on: its checkpoints, and the newest whole one.

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
        """The tables to write before each checkpoint."""
        self._directory = directory

    def remember(self, key: str) -> None:
        """Keep the key by which MLflow knows the recording again."""
        self.key = key
        keep_key(key_file(self._directory.path), key)

    def latest(self) -> "tuple[int, Tree] | None":
        """(next round, state) of the newest whole checkpoint."""
        found = self._checkpoints.latest()
        self.refused = [f"refused a checkpoint: {reason}" for reason in self._checkpoints.refused]
        return found

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
        if not self._lock.closed:
            Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()


def codec() -> Codec:
    """Of everything that a run keeps."""
    from fedbench.accounting.totals import Costs
    from fedbench.engine.arrivals.clocks import Due
    from fedbench.engine.arrivals.loop import Flight
    from fedbench.engine.arrivals.server import Sent
    from fedbench.engine.messages import ArrivalOrder, ClientReport, Finished
    from fedbench.planning.schedules import ActiveGroups, Feedback
    from fedbench.protocol.client_state import ClientState

    return Codec(ActiveGroups, ArrivalOrder, ClientReport, ClientState, Costs, Due, Feedback, Finished, Flight, Sent)


def _locked(path: Path) -> IO[str]:
    """An exclusive lock on a run directory, held while the file is open.

    Raises:
        ConfigError: another process has it.
    """
    stream = (path / LOCK).open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise ConfigError(f"{path}: another process is at work on this run; wait for it, or stop it") from None
    except OSError:
        pass  # a file system without locks
    return stream
