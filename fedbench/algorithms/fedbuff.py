"""FedBuff: J. Nguyen, K. Malik, H. Zhan, A. Yousefpour, M. Rabbat, M. Malek, D. Huba, "Federated Learning with Buffered
Asynchronous Aggregation", AISTATS 2022 (arXiv 2106.06639).

Clients train asynchronously, and the server takes one step for every M answers. An answer Delta_i = sent - trained,
which was computed on parameters that are tau_i server steps old by now, weighs 1 / sqrt(1 + tau_i), and with M answers
in the buffer

    w <- w - eta_s (1/M) sum_i Delta_i / sqrt(1 + tau_i).

The weights are not normalised: stale answers make the step smaller. Only server steps change the parameters, so
indices and delays count server steps here.

The default hyperparameters were not checked against the paper's text.
"""

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm, UpdateKind


class FedBuff(AsyncAlgorithm):
    """The server takes one step for M answers, weighted by their staleness (Nguyen et al., AISTATS 2022).

    Each layer group has a buffer and counts its own steps, each of M answers that trained the group.

    Attributes:
        buffer_size: M, the answers in a step.
        server_lr: eta_s, the server's learning rate.
    """

    paper: ClassVar[str] = "Nguyen et al., AISTATS 2022, arXiv 2106.06639"
    refuses: ClassVar[str] = "gradients as updates: clients train"
    updates: ClassVar[tuple[UpdateKind, ...]] = ("delta",)
    name: str = "fedbuff"
    buffer_size: int = Field(default=10, ge=1)
    server_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return Buffered(parameters, workers, self.buffer_size, self.server_lr)

    def period(self, workers: int) -> int:
        return self.buffer_size


class Buffered(ArrivalRule):
    """The state machine of FedBuff: one step for M updates.

    Attributes:
        index: number of server steps so far, rather than of updates.
        size: M, the updates in a step.
        server_lr: eta_s.
        held: number of updates in the buffer, below M between updates.
        total: float [n], sum_i Delta_i / sqrt(1 + tau_i) over the updates in the buffer.
    """

    def __init__(self, parameters: Array, workers: int, size: int, server_lr: float) -> None:
        super().__init__(parameters, workers)
        self.size = size
        self.server_lr = server_lr
        self.held = 0
        self.total = np.zeros_like(parameters)

    def push(self, update: Array, index: int, worker: int, lr: float = 1.0) -> tuple[Array, int]:
        self.apply(update, index, worker, lr)
        if self.held == self.size:
            self._step()
        return self.pull(worker)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self.total += lr / math.sqrt(1 + self.index - index) * update  # Delta_i / sqrt(1 + tau_i)
        self.held += 1

    def _step(self) -> None:
        # w <- w - eta_s (1/M) sum_i Delta_i / sqrt(1 + tau_i)
        self.parameters = self.parameters - self.server_lr / self.size * self.total
        self.total.fill(0)
        self.held = 0
        self.index += 1
