"""Trials one after the other in the process of the command itself: nothing of Ray is started."""

import queue
import threading
from collections.abc import Iterator

from fedbench.config.experiment import ExperimentConfig
from fedbench.studies.file import StudyFile
from fedbench.studies.trial_runner import Assignment, Surroundings, TrialOutcome, TrialRunner


def runs_here(study: StudyFile, config: ExperimentConfig, most: int | None) -> bool:
    """Whether a study has at most one trial at a time, and that trial no actors.

    Args:
        config: the configuration of a trial.
        most: the number of trials that there can be at all; None: no bound.
    """
    return config.runtime.executor == "inline" and 1 in (study.concurrency, most)


class LocalSlot:
    """The only slot of a study, in a thread of this process (a `TrialSlots`).

    Attributes:
        number: the number of the running trial; None between trials.
        count: 1.
    """

    count = 1

    def __init__(self, study: StudyFile, storage: str) -> None:
        self._runner = TrialRunner(study, storage, Surroundings.here())
        self._outcomes: queue.SimpleQueue[TrialOutcome] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.number: int | None = None

    def idle(self) -> Iterator["LocalSlot"]:
        """The slot itself, while no trial runs."""
        if self.number is None:
            yield self

    def running(self) -> int:
        """The number of trials that are being run."""
        return int(self.number is not None)

    def begin(self, slot: object, assignment: Assignment) -> None:
        """Start a trial."""
        self.number = assignment.number
        # A daemon: a second interrupt ends the process without waiting for the round.
        self._thread = threading.Thread(target=self._run, args=(assignment,), daemon=True)
        self._thread.start()

    def _run(self, assignment: Assignment) -> None:
        try:
            outcome = self._runner.run(assignment)
        except BaseException as error:
            outcome = TrialOutcome("failed", {}, 0.0, (), (), f"{type(error).__name__}: {error}")
        self._outcomes.put(outcome)

    def where(self) -> dict[int, str]:
        """How far the running trial is, by its number."""
        return {} if self.number is None else {self.number: self._runner.where()}

    def stop(self) -> None:
        """Ask the running trial to end at its round."""
        self._runner.stop()

    def wait(self, seconds: float) -> Iterator[tuple[int, TrialOutcome]]:
        """The trial that has ended, waiting so long for it."""
        if self.number is None:
            return
        try:
            outcome = self._outcomes.get(timeout=seconds)
        except queue.Empty:
            return
        number, self.number = self.number, None
        yield number, outcome

    def close(self) -> None:
        """End the running trial at its round, and give the storage's connections back; may be called twice."""
        self._runner.stop()
        if self._thread is not None:
            self._thread.join()
        self._runner.close()
