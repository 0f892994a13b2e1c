"""Shifted momentum: N. Giladi, M. Shpigel Nacson, E. Hoffer, D. Soudry, "At Stability's Edge: How to Adjust
Hyperparameters to Preserve Minima Selection in Asynchronous Training of Neural Networks?", ICLR 2020 (arXiv
1909.12340).

Each worker's momentum is as old as its gradient: each worker k has a buffer, which changes only when k's update
arrives,

    v_k <- beta v_k + g,        w <- w - eta v_k.

With K = 1 it is SGD with heavy-ball momentum. The server keeps K buffers of the parameters' size. In federated runs k
is a slot among the tasks in flight: the buffer stays with the slot when another client takes it.

The default momentum follows common practice and was not checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm


class ShiftedMomentum(AsyncAlgorithm):
    """Asynchronous SGD with a momentum buffer for each worker (Giladi et al., ICLR 2020).

    Attributes:
        momentum: beta, the decay of the momentum.
    """

    paper: ClassVar[str] = "Giladi et al., ICLR 2020, arXiv 1909.12340"
    name: str = "shifted-momentum"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return WorkerMomentum(parameters, workers, self.momentum)


class WorkerMomentum(ArrivalRule):
    """The step v_k <- beta v_k + g, w <- w - eta v_k.

    Attributes:
        momentum: beta.
        buffers: float [K, n], v_1..v_K, the momentum of each worker.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffers = np.zeros((workers, *parameters.shape), parameters.dtype)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        buffer = self.buffers[worker]  # v_k
        buffer *= self.momentum
        buffer += update  # v_k <- beta v_k + g
        self.parameters = self.parameters - lr * buffer  # w <- w - eta v_k
