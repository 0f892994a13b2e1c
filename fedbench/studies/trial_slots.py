"""What a study asks of the places at which its trials run, on a cluster or in its own process."""

from collections.abc import Iterable
from typing import Any, Protocol

from fedbench.studies.trial_runner import Assignment, TrialOutcome


class TrialSlots(Protocol):
    """Places at which trials run.

    Attributes:
        count: the number of trials that run at a time.
    """

    count: int

    def idle(self) -> Iterable[Any]:
        """The slots that could run a trial now."""

    def running(self) -> int:
        """The number of trials that are being run."""

    def begin(self, slot: Any, assignment: Assignment) -> None:
        """Start a trial in an idle slot."""

    def where(self) -> dict[int, str]:
        """How far each running trial is, by number."""

    def stop(self) -> None:
        """Ask all running trials to end at their round."""

    def wait(self, seconds: float) -> Iterable[tuple[int, TrialOutcome]]:
        """Trials that have ended, by number, waiting so long for the first."""

    def close(self) -> None:
        """Give all places back; may be called twice."""
