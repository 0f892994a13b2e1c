"""CA2FL: Y. Wang, Y. Cao, J. Wu, R. Chen, J. Chen, "Tackling the Data Heterogeneity in Asynchronous Federated Learning
with Cached Update Calibration", ICLR 2024.

Clients train asynchronously, and the server takes one step for every M answers. It caches each client's latest answer
h_i, zero before the first one, and the mean h of these over all N clients, which stands for the clients that are not in
the buffer. With Delta_i = sent - trained and the M answers S in the buffer,

    v   = h + (1/M) sum_{i in S} (Delta_i - h_i)
    w  <- w - eta v
    h_i <- Delta_i  for i in S,        h <- (1/N) sum_i h_i.

h and h_i are those of the last server step: they change together with w, after v is computed. A client that answers
twice in a buffer counts twice in v, each time against the same h_i, and its later answer is cached. Answers do not
weigh less where they are stale. With h_i = 0 throughout, this is FedBuff without its staleness weights; with N = 1 and
M = 1 it is w <- w - eta Delta, for then h = h_1.

Only server steps change the parameters, so indices and delays count server steps here. Each layer group has a buffer
and caches of its own, and h is its mean over all N clients, those that have not trained the group yet with zero.

Memory: the server keeps up to N vectors of the parameters' size, one for each client that has answered, and up to M for
the answers in the buffer. The paper's variant for little memory, MF-CA2FL, which caches quantized answers, is not here.

The rule is that of the public implementations. They differ on what the paper's text was not at hand to settle: a client
that answers twice in a buffer is compared with its answer of the same buffer in one of them. The default
hyperparameters follow one of them (FLGo: eta = 1 and M = 10 for 100 clients) and were not checked against the paper's
text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm, UpdateKind, WorkerKind


class Ca2fl(AsyncAlgorithm):
    """Steps of M answers, calibrated with every client's latest answer (Wang et al., ICLR 2024).

    Attributes:
        buffer_size: M, the answers in a step.
        server_lr: eta, the server's learning rate.
    """

    paper: ClassVar[str] = "Wang et al., ICLR 2024"
    refuses: ClassVar[str] = "gradients as updates: clients train"
    updates: ClassVar[tuple[UpdateKind, ...]] = ("delta",)
    workers_are: ClassVar[WorkerKind] = "clients"
    vectors_per_worker: ClassVar[int] = 1
    name: str = "ca2fl"
    buffer_size: int = Field(default=10, ge=1)
    server_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return Calibrated(parameters, workers, self.buffer_size, self.server_lr)

    def period(self, workers: int) -> int:
        return self.buffer_size


class Calibrated(ArrivalRule):
    """The state machine of CA2FL: one step for M updates, calibrated with what is cached of each client.

    Attributes:
        index: number of server steps so far, rather than of updates.
        workers: N, the number of clients.
        size: M, the updates in a step.
        server_lr: eta.
        held: number of updates in the buffer, below M between updates.
        total: float [n], sum_i (Delta_i - h_i) over the updates in the buffer.
        cached: {client: float [n], h_i}, for the clients that had answered at the last server step.
        cached_sum: float [n], sum_i h_i.
        latest: {client: float [n], Delta_i}, the latest update of each client in the buffer.
        changes: number of cached updates that have changed since sum_i h_i was computed afresh.
    """

    def __init__(self, parameters: Array, workers: int, size: int, server_lr: float) -> None:
        super().__init__(parameters, workers)
        self.size = size
        self.server_lr = server_lr
        self.held = self.changes = 0
        self.total, self.cached_sum = np.zeros_like(parameters), np.zeros_like(parameters)
        self.cached: dict[int, Array] = {}
        self.latest: dict[int, Array] = {}

    def push(self, update: Array, index: int, worker: int, lr: float = 1.0) -> tuple[Array, int]:
        self.apply(update, index, worker, lr)
        if self.held == self.size:
            self._step()
        return self.pull(worker)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        delta = lr * update  # Delta_i
        self.total += delta
        if worker in self.cached:
            self.total -= self.cached[worker]  # h_i
        self.latest[worker] = delta
        self.held += 1

    def _step(self) -> None:
        # v = h + (1/M) sum_i (Delta_i - h_i),        w <- w - eta v
        direction = self.cached_sum / self.workers + self.total / self.size
        self.parameters = self.parameters - self.server_lr * direction
        self._cache()
        self.total.fill(0)
        self.held = 0
        self.index += 1

    def _cache(self) -> None:
        """Let h_i <- Delta_i for the clients in the buffer, and sum_i h_i follow.

        Once in N changes the sum is computed afresh, because its rounding errors do not decay.
        """
        for client, delta in sorted(self.latest.items()):
            self.cached_sum += delta
            if client in self.cached:
                self.cached_sum -= self.cached[client]
            self.cached[client] = delta
        self.changes += len(self.latest)
        self.latest.clear()
        if self.changes >= self.workers:
            self.changes = 0
            self.cached_sum.fill(0)
            # Not np.sum, whose order of addition depends on n.
            for _, cached in sorted(self.cached.items()):
                self.cached_sum += cached
