"""DANA-Zero: I. Hakimi, S. Barkai, M. Gabel, A. Schuster, "Taming Momentum in a Distributed Asynchronous Environment",
2019 (arXiv 1907.11612).

Each worker k has a momentum buffer v_k. A worker is sent an estimate of where the buffers of all workers will have
carried the parameters by the time it answers,

    v_k <- beta v_k + g,        w <- w - eta v_k,        send  w - eta beta sum_j v_j.

With K = 1, w follows SGD with heavy-ball momentum, and what is sent follows SGD with Nesterov's momentum (as PyTorch
has it), each on the same gradients. The eta of what is sent is that of the last update; before the first one all v_j
are 0.

The server keeps K + 1 buffers of the parameters' size: one for each worker, and their sum. In federated runs k is a
slot among the tasks in flight: the buffer stays with the slot when another client takes it.

The default momentum follows common practice and was not checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm


class DanaZero(AsyncAlgorithm):
    """Asynchronous SGD with a momentum buffer for each worker and a look-ahead over all (Hakimi et al., 2019).

    Attributes:
        momentum: beta, the decay of the momentum.
    """

    paper: ClassVar[str] = "Hakimi et al., 2019, arXiv 1907.11612"
    sends: ClassVar[str] = "one update at a time: the active groups up, an estimate of them down"
    vectors_per_worker: ClassVar[int] = 1
    estimates: ClassVar[bool] = True
    name: str = "dana-zero"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return LookAhead(parameters, workers, self.momentum)


class LookAhead(ArrivalRule):
    """The state machine of DANA-Zero.

    Attributes:
        momentum: beta.
        buffers: float [K, n], v_1..v_K, the momentum of each worker.
        total: float [n], sum_j v_j.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffers = np.zeros((workers, *parameters.shape), parameters.dtype)
        self.total = np.zeros_like(parameters)
        self._lr = 0.0

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self._lr = lr
        buffer = self.buffers[worker]  # v_k
        self.total -= buffer
        buffer *= self.momentum
        buffer += update  # v_k <- beta v_k + g
        self.total += buffer
        self.parameters = self.parameters - lr * buffer  # w <- w - eta v_k
        if (self.index + 1) % self.workers == 0:
            self._sum_afresh()

    def pull(self, worker: int) -> tuple[Array, int]:
        # w - eta beta sum_j v_j
        return self.parameters - self._lr * self.momentum * self.total, self.index

    def _sum_afresh(self) -> None:
        """Compute sum_j v_j again, once in K updates, because its rounding errors do not decay as the buffers do."""
        self.total.fill(0)
        # Not np.sum, whose order of addition depends on n.
        for buffer in self.buffers:
            self.total += buffer
