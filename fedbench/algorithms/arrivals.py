"""What an asynchronous method is: a state machine that takes one update at a time.

The server keeps one machine per layer group, over that group's slice of the parameters. All methods here work on each
parameter by itself, so that for full updates M machines over slices are one machine over the whole. With a partial
schedule the momentum of a group that an arrival did not train is left alone, because nothing has happened to its
machine: indices, buckets and delays are counted in updates of that group.

A method of one's own is one file with two classes:

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
Work = Literal["gradient", "delta"]


class ArrivalRule(AttributeState, ABC):
    """The server's side of an asynchronous method, for one layer group; usable by itself.

    Attributes:
        parameters: float [n], the current values w. A change puts a new array here and never writes to one that was
            handed out, so that whoever was sent it holds a snapshot without a copy. All state has its dtype.
        index: t, the number of updates applied so far, which is the index of `parameters`.
        workers: K, updates in flight.
    """

    def __init__(self, parameters: Array, workers: int) -> None:
        """Args:
        parameters: float [n], the initial values; not written to.
        workers: K, at least 1.
        """
        self.parameters = parameters
        self.workers = workers
        self.index = 0

    def push(self, update: Array, index: int, worker: int, lr: float = 1.0) -> tuple[Array, int]:
        """Apply one update and say what its worker gets next.

        Args:
            update: float [n], a gradient, or the pseudo-gradient (sent - trained) of local training.
            index: t of the parameters that it was computed on.
            worker: 0..K-1, whose update it is.
            lr: eta, the learning rate at arrival; 1 for pseudo-gradients, which have it in them.

        Returns:
            As `pull`.
        """
        self.apply(update, index, worker, float(lr))
        self.index += 1
        return self.pull(worker)

    def pull(self, worker: int) -> tuple[Array, int]:
        """What the worker computes its next update on, and the index of that; called once for each that is sent."""
        return self.parameters, self.index

    @abstractmethod
    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        """Change the state; `self.index` is t before this update. Arguments as for `push`; `update` is not kept."""


class AsyncAlgorithm(Algorithm):
    """A method whose server takes updates as they arrive.

    Attributes:
        work: what an update may be: the gradient of one minibatch, or the delta of local training.
        barrier: workers wait until all K have answered (the synchronous references).
        estimates: a worker is sent an estimate made for it, which is not the server's parameters.
    """

    work: ClassVar[tuple[Work, ...]] = ("gradient", "delta")
    barrier: ClassVar[bool] = False
    estimates: ClassVar[bool] = False
    sends: ClassVar[str] = "one update at a time: the active groups up, what a worker lacks down"
    refuses: ClassVar[str] = "schedule importance, noise for differential privacy, objectives with channels (SCAFFOLD)"

    @abstractmethod
    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        """The state machine of one layer group.

        Args:
            parameters: float [n], its initial values.
            workers: K, updates in flight.
        """

    def period(self, workers: int) -> int:
        """After how many updates of a group its parameters change."""
        return 1

    def rule_is_special(self) -> bool:
        return True
