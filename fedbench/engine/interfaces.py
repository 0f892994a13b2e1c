"""The interfaces between the loops that coordinate a run and the executors that compute it, inline or on Ray."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedbench.checkpoints.state import Tree
from fedbench.engine.client_scoring import ClientScoringPhase
from fedbench.engine.messages import (
    ClientReport,
    DeviceRecord,
    KeptMessage,
    RoundOutcome,
    RoundPlan,
    TaskOrder,
)
from fedbench.engine.probing import ClientProbe
from fedbench.errors import RunError
from fedbench.planning.deadlines import UNLIMITED, Limit
from fedbench.protocol.layout import Vector
from fedbench.training.scores import BatchScore, RowsScore, Scores


@dataclass(frozen=True)
class TrainingPhase:
    """The outcome of a round's training.

    Attributes:
        reports: one report for each participant whose training began, ascending by client.
        transport_bytes: bytes moved between processes: parameters, updates and client states.
        load_seconds: longest time that a host spent on loading parameters and preparing its answer.
        busy_seconds: longest time that a host spent on its whole share of the round.
        kept: the messages that are kept for later analysis.
        scoring_seconds: longest time that a host spent on scoring its clients on their held-out rows.
        remarks: what a user should know of how the hosts train, one line each.
    """

    reports: tuple[ClientReport, ...]
    transport_bytes: int
    load_seconds: float
    busy_seconds: float
    kept: tuple[KeptMessage, ...] = ()
    scoring_seconds: float = 0.0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationPhase:
    """The outcome of an evaluation of the global model.

    Attributes:
        scores: one score for each minibatch of the test split and of the validation split, if there is one, in their
            order.
        client_scores: {client: score on its own training rows}, for the clients that were asked for.
        transport_bytes: bytes moved between processes.
        own_test_accuracy: {client: accuracy in 0..1 of its own model on the test split}, where these are scored.
    """

    scores: tuple[BatchScore, ...]
    client_scores: dict[int, RowsScore]
    transport_bytes: int
    own_test_accuracy: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of_own_models(cls, scores: Mapping[int, Sequence[BatchScore]], transport_bytes: int) -> "EvaluationPhase":
        """The outcome where clients' own models were scored; together the scores are those of the mean client.

        Args:
            scores: {client: the scores of its own model}.
            transport_bytes: bytes moved between processes.
        """
        by_client = dict(sorted(scores.items()))
        accuracy = {client: Scores.of(of_client).test_accuracy for client, of_client in by_client.items()}
        return cls(
            tuple(score for of_client in by_client.values() for score in of_client),
            {},
            transport_bytes,
            {client: value for client, value in accuracy.items() if value is not None},
        )


class Executor(ABC):
    """Holds the server and the clients of one experiment, in this process or on a Ray cluster."""

    @abstractmethod
    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and the global running statistics, both float32."""

    @abstractmethod
    def devices(self) -> list[DeviceRecord]:
        """What is recorded of the devices that clients train on, one entry for each process that trains."""

    @abstractmethod
    def peak_memory(self) -> list[int]:
        """Peak memory in bytes, one entry for each process that trains."""

    @abstractmethod
    def state(self) -> Tree:
        """Everything that server and clients keep between two rounds, for a checkpoint.

        Waits for the asynchronous tasks that are in flight, so that their results are part of the state.
        """

    @abstractmethod
    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned; the number of processes may differ from that of then."""

    def could_grow(self) -> bool:
        """Whether the cluster has room for more processes than the executor uses."""
        return False

    def rebuild(self) -> None:
        """Start all processes again, in the state before the first round.

        Raises:
            RunError: the executor has no processes of its own, or they do not start.
        """
        raise RunError("there is no process to start anew")

    @abstractmethod
    def close(self) -> None:
        """Release all resources; may be called twice."""


class RoundExecutor(Executor):
    """Runs synchronous rounds step by step: plan, train, finish, evaluate."""

    @abstractmethod
    def plan(self, round_index: int, available: Sequence[int] | None = None) -> RoundPlan:
        """Open round `round_index`, counted from 0: draw its cohort and choose its layer groups.

        Args:
            round_index: the round.
            available: the clients that may take part, ascending; None: all.
        """

    @abstractmethod
    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        """Train the cohort and hand its updates to the server.

        Args:
            plan: what `plan` returned for this round.
            limit: how slow participants are dropped.

        Raises:
            ClientFailure: as soon as more clients have failed than the run's budget allows.
            RunError: an actor died, or the round took too long.
        """

    @abstractmethod
    def finish(self) -> RoundOutcome:
        """Close the round: combine the updates that arrived into the new global model."""

    @abstractmethod
    def probe(self) -> tuple[tuple[ClientProbe, ...], int]:
        """Compare the model of each accepted client of the round, which has been closed, with the new global model.

        Returns:
            What was found, by client, and the bytes moved between processes.
        """

    @abstractmethod
    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        """Score the global model on the test and validation split, and on the training rows of each of `clients`."""

    @abstractmethod
    def score_clients(self) -> ClientScoringPhase:
        """Score the global model on the held-out rows of every client that has any, participant or not."""

    @abstractmethod
    def evaluate_own(self, clients: Sequence[int]) -> EvaluationPhase:
        """Score the own models of `clients` on the test and validation split."""


class TaskExecutor(ABC):
    """Runs asynchronous client tasks and applies their updates in the order the clock dictates.

    A task is one client's computation of one update. It is known by its number, which counts the tasks in the order
    of dispatch, from 0.
    """

    @abstractmethod
    def dispatch(self, order: TaskOrder, versions: tuple[int, ...], due: float) -> None:
        """Begin a task on the current parameters. It may be computed later, on the parameters of now.

        Args:
            order: what to compute, and by which client.
            versions: for each part, the server's version; a host is sent the parts of which it holds another one.
            due: time of the clock at which the update will be collected, infinity where that is not known: of tasks
                that wait for a place, the one that is due first is computed first.
        """

    @abstractmethod
    def ready(self, timeout: float) -> int | None:
        """The number of a finished task that is not yet collected; of several, the earliest dispatched.

        Args:
            timeout: seconds to wait at most; infinity waits until a task has finished.

        Returns:
            None when no task has finished in time.

        Raises:
            RunError: no task has finished within `runtime.round_timeout`.
        """

    @abstractmethod
    def collect(self, number: int, round_index: int) -> ClientReport:
        """Wait for task `number` and return its report; its update is held until `apply` or `discard`.

        Args:
            number: the task.
            round_index: the round in which it arrives, for error messages.

        Raises:
            ClientFailure: the client raised an exception, and the run tolerates no failures (inline only).
            RunError: the task took too long, or its actor died too often.
        """

    @abstractmethod
    def apply(self, number: int, lr: float, steps: int) -> None:
        """Apply the collected update of task `number` to the global model.

        Args:
            number: the task.
            lr: factor on the update.
            steps: local minibatches that the client trained on.
        """

    @abstractmethod
    def discard(self, number: int) -> None:
        """Forget the collected task `number` without applying its update."""

    @abstractmethod
    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        """Score the global model on the test and validation split."""

    @abstractmethod
    def end_round(self) -> tuple[float, int]:
        """Close a row of the records.

        Returns:
            The L2 norm of the parameters' change and the bytes moved between processes, both since the last call.
        """


class ArrivalExecutor(TaskExecutor, Executor):
    """Runs the tasks of an asynchronous experiment, with a server and clients that really compute."""
