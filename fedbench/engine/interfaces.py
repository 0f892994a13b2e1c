"""What runs the rounds: the interface that the coordination is written against, and its plain form without Ray."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.checkpoints.state import Tree
from fedbench.engine.messages import ArrivalOrder, ClientReport, RoundOutcome, RoundPlan
from fedbench.errors import RunError
from fedbench.planning.deadlines import UNLIMITED, Limit
from fedbench.protocol.layout import Vector
from fedbench.training.scores import BatchScore


@dataclass(frozen=True)
class TrainingPhase:
    """What a round's training came to.

    Attributes:
        reports: one per participant that was begun, ascending by client.
        transport_bytes: moved between processes: parameters, updates, client states.
        load_seconds, busy_seconds: of the host that took longest.
    """

    reports: tuple[ClientReport, ...]
    transport_bytes: int
    load_seconds: float
    busy_seconds: float


@dataclass(frozen=True)
class EvaluationPhase:
    """Scores of the whole test split, in order, and of single clients on their own rows."""

    scores: tuple[BatchScore, ...]
    client_accuracy: dict[int, float]
    transport_bytes: int


class Executor(ABC):
    """Where an experiment runs."""

    @abstractmethod
    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""

    @abstractmethod
    def peak_memory(self) -> list[int]:
        """Bytes, one entry per process that trains."""

    @abstractmethod
    def state(self) -> Tree:
        """All that server and clients keep between two rounds; works in flight are waited for."""

    @abstractmethod
    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave, with as many processes or more or fewer."""

    def could_grow(self) -> bool:
        """Whether more processes could work than do."""
        return False

    def rebuild(self) -> None:
        """Start all processes anew, as before the first round.

        Raises:
            RunError: there are none, or they do not start.
        """
        raise RunError("there is no process to start anew")

    @abstractmethod
    def close(self) -> None:
        """Release everything; may be called twice."""


class RoundExecutor(Executor):
    """Runs rounds, step by step: plan, train, finish, evaluate."""

    @abstractmethod
    def plan(self, round_index: int) -> RoundPlan:
        """Open a round."""

    @abstractmethod
    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        """Train the cohort and hand its updates to the server.

        Args:
            limit: what to do with slow participants.

        Raises:
            ClientFailure: as soon as more clients have failed than the run's budget allows.
            RunError: an actor died, or the round took too long.
        """

    @abstractmethod
    def finish(self) -> RoundOutcome:
        """Close the round: combine what arrived."""

    @abstractmethod
    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        """Score the global model on the test split, and on the own rows of `clients`."""


class Works(ABC):
    """Does works that are given out one at a time, and applies them in the order in which it is told to.

    The first argument of most is the number of the work.
    """

    @abstractmethod
    def dispatch(self, order: ArrivalOrder, versions: tuple[int, ...]) -> None:
        """Begin a work on the current parameters.

        Args:
            versions: of each part, as the ledger counts them; a host is sent what it holds an older version of.
        """

    @abstractmethod
    def ready(self, timeout: float) -> int | None:
        """The number of a finished work that was not collected, the earliest dispatched of several.

        Args:
            timeout: seconds to wait at most; inf: until there is one.

        Returns:
            None when there is none in time.

        Raises:
            RunError: no work was finished within `runtime.round_timeout`.
        """

    @abstractmethod
    def collect(self, number: int, round_index: int) -> ClientReport:
        """Wait for a work, which arrives in round `round_index`. Its update stays until `apply` or `discard`.

        Raises:
            ClientFailure: in the plain loop, at the failing client.
            RunError: it took too long, or its actor died too often.
        """

    @abstractmethod
    def apply(self, number: int, lr: float, steps: int) -> None:
        """Apply a collected update of so many local steps; `lr` is the factor on it."""

    @abstractmethod
    def discard(self, number: int) -> None:
        """Forget a collected work that sends nothing."""

    @abstractmethod
    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        """Score the global model on the test split."""

    @abstractmethod
    def end_round(self) -> tuple[float, int]:
        """L2 norm of the parameters' change, and bytes moved between processes, since the last call."""


class ArrivalExecutor(Works, Executor):
    """Does the works of an asynchronous run."""
