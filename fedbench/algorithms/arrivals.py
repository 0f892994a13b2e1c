"""The base classes of asynchronous methods: a method is a state machine that takes one update at a time.

The server keeps one machine for each layer group, over that group's slice of the parameters. The methods here treat
each parameter by itself, so that with full updates the machines over slices act as one machine over all parameters.
With a partial schedule an arrival leaves the machines of the groups that it did not train as they are, with their
momentum: indices, buckets and delays are counted in updates of each group.

To write another method, write one file with two classes:

    from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm

    class HalfSpeed(AsyncAlgorithm):
        '''Asynchronous SGD at half the learning rate.'''
        name: str = "mypkg.half:HalfSpeed"

        def machine(self, parameters, workers):
            return Half(parameters, workers)

    class Half(ArrivalRule):
        def apply(self, update, index, worker, lr):
            self.parameters = self.parameters - lr / 2 * update
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedbench.algorithms.base import Algorithm
from fedbench.checkpoints.state import AttributeState

Array = npt.NDArray[np.floating[Any]]
"""A floating-point array: float32 in runs, float64 in numerical checks."""

UpdateKind = Literal["gradient", "delta"]
"""The kind of an update: the gradient of one minibatch, or the delta (start - trained) of local training."""

WorkerKind = Literal["slots", "clients"]
"""What a rule's workers are: the slots of tasks in flight, which clients take in turn, or the clients themselves."""


class ArrivalRule(AttributeState, ABC):
    """The server's state machine of an asynchronous method, for one layer group; also usable outside of runs.

    Attributes:
        parameters: float [n], the current values w. A change puts a new array here and never writes to the old one, so
            that tasks that were sent the old one hold a snapshot without a copy. All state has its dtype.
        index: t, the number of updates applied so far, which is the index of `parameters`.
        workers: K, the number of workers: of slots for tasks in flight, or of clients (`AsyncAlgorithm.workers_are`).
    """

    def __init__(self, parameters: Array, workers: int) -> None:
        """Args:
        parameters: float [n], the initial values; not written to.
        workers: K, the number of workers, at least 1.
        """
        self.parameters = parameters
        self.workers = workers
        self.index = 0

    def push(self, update: Array, index: int, worker: int, lr: float = 1.0) -> tuple[Array, int]:
        """Apply one update and return what its worker computes on next.

        Args:
            update: float [n], g: a gradient, or the pseudo-gradient (sent - trained) of local training.
            index: ite, the index of the parameters that it was computed on.
            worker: k in 0..K-1, the worker that computed it.
            lr: eta, the learning rate at arrival; 1 for pseudo-gradients, which contain it.

        Returns:
            What `pull` returns.
        """
        self.apply(update, index, worker, float(lr))
        self.index += 1
        return self.pull(worker)

    def pull(self, worker: int) -> tuple[Array, int]:
        """The values that a worker computes its next update on, and their index; called once for each task."""
        return self.parameters, self.index

    @abstractmethod
    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        """Change the state by one update; arguments as for `push`.

        `self.index` is t before this update. The array `update` must not be kept, since it may be reused.
        """


class AsyncAlgorithm(Algorithm):
    """Base of the methods whose server applies updates as they arrive.

    Attributes:
        updates: the kinds of update that the method takes: gradients of one minibatch, deltas of local training, or
            both. The first one is suggested where the configuration asks for another.
        barrier: whether workers wait until all K have answered (the synchronous references).
        workers_are: what the rule's workers are. With "slots" there are as many as tasks in flight, and each always has
            one; with "clients" there is one for each client of the population, and most have no task in flight.
        vectors_per_worker: vectors of the parameters' size that the server keeps for each worker, for estimates of its
            memory.
        estimates: whether a worker is sent an estimate made for it alone in place of the server's parameters.
        decays_at_server: whether the server adds the weight decay to a gradient, with its parameters at that moment,
            in place of the worker with those that it was sent. Deltas contain that of the local steps in any case.
    """

    updates: ClassVar[tuple[UpdateKind, ...]] = ("gradient", "delta")
    barrier: ClassVar[bool] = False
    workers_are: ClassVar[WorkerKind] = "slots"
    vectors_per_worker: ClassVar[int] = 0
    estimates: ClassVar[bool] = False
    decays_at_server: ClassVar[bool] = False
    sends: ClassVar[str] = "one update at a time: the active groups up, what a worker lacks down"
    refuses: ClassVar[str] = "schedule importance, noise for differential privacy, objectives with channels (SCAFFOLD)"

    @abstractmethod
    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        """Make the state machine of one layer group.

        Args:
            parameters: float [n], the initial values of the group.
            workers: K, the number of workers.
        """

    def period(self, workers: int) -> int:
        """Number of updates of a group after which its parameters change.

        Args:
            workers: K, the number of workers.
        """
        return 1

    def count_workers(self, tasks: int, clients: int) -> int:
        """K, the number of the rule's workers in a run.

        Args:
            tasks: number of tasks in flight.
            clients: number of clients in the population.
        """
        return clients if self.workers_are == "clients" else tasks

    def rule_is_special(self) -> bool:
        return True
