"""FADAS: Y. Wang, S. Wang, S. Lu, J. Chen, "FADAS: Towards Federated Adaptive Asynchronous Optimization", ICML 2024
(arXiv 2407.18365).

Clients train asynchronously, and the server takes one adaptive step for every M answers. With Delta_i = trained - sent
and M answers in the buffer,

    Delta = (1/M) sum_i Delta_i
    m <- beta_1 m + (1 - beta_1) Delta
    v <- beta_2 v + (1 - beta_2) Delta^2
    u <- max(u, v)                                         AMSGrad's maximum
    w <- w + eta' m / (sqrt(u) + eps)

from m = v = u = 0 and without bias correction. `delay_adaptive` gives the step of the paper's delay-adaptive variant:
with tau the largest delay in the buffer,

    eta' = eta / tau  where tau > tau_c,                   else eta' = eta,

as in the authors' published code (yujiaw98/FADAS). That code also divides by Adam's bias corrections, 1 - beta_1^t and
sqrt(1 - beta_2^t), which the algorithm as stated here does not have: with the same Delta in
every step, those at the start are up to 2.1 times as long without them (at t = 13), and the difference vanishes with t.

Only server steps change the parameters, so indices and delays count server steps here. Each layer group has a buffer,
moments and delays of its own.

The default hyperparameters are those of that code and its command for the delay-adaptive variant. They were not
checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm, UpdateKind


class Fadas(AsyncAlgorithm):
    """The server takes one adaptive step for M answers, shorter where they are late (Wang et al., ICML 2024).

    Attributes:
        buffer_size: M, the answers in a step.
        server_lr: eta, the server's learning rate.
        beta1: beta_1, the decay of the first moment.
        beta2: beta_2, the decay of the second moment.
        eps: eps, added to the denominator.
        delay_adaptive: whether a step is shorter where an answer is late.
        delay_threshold: tau_c, the largest delay, in server steps, that does not shorten a step.
    """

    paper: ClassVar[str] = "Wang et al., ICML 2024, arXiv 2407.18365"
    refuses: ClassVar[str] = "gradients as updates: clients train"
    updates: ClassVar[tuple[UpdateKind, ...]] = ("delta",)
    name: str = "fadas"
    buffer_size: int = Field(default=5, ge=1)
    server_lr: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    delay_adaptive: bool = True
    delay_threshold: int = Field(default=1, ge=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return BufferedAdam(parameters, workers, self)

    def period(self, workers: int) -> int:
        return self.buffer_size


class BufferedAdam(ArrivalRule):
    """The state machine of FADAS: one adaptive step for M updates.

    Attributes:
        index: number of server steps so far, rather than of updates.
        held: number of updates in the buffer, below M between updates.
        latest: tau, the largest delay in the buffer.
        total: float [n], sum_i Delta_i over the updates in the buffer.
        first: float [n], m.
        second: float [n], v.
        largest: float [n], u.
    """

    def __init__(self, parameters: Array, workers: int, settings: Fadas) -> None:
        super().__init__(parameters, workers)
        self._settings = settings
        self.held = self.latest = 0
        self.total, self.first = np.zeros_like(parameters), np.zeros_like(parameters)
        self.second, self.largest = np.zeros_like(parameters), np.zeros_like(parameters)

    def push(self, update: Array, index: int, worker: int, lr: float = 1.0) -> tuple[Array, int]:
        self.apply(update, index, worker, lr)
        if self.held == self._settings.buffer_size:
            self._step()
        return self.pull(worker)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self.total -= lr * update  # Delta_i; an update is (sent - trained)
        self.latest = max(self.latest, self.index - index)
        self.held += 1

    def _step(self) -> None:
        beta1, beta2 = self._settings.beta1, self._settings.beta2
        mean = self.total / self._settings.buffer_size  # Delta
        self.first = beta1 * self.first + (1 - beta1) * mean  # m
        self.second = beta2 * self.second + (1 - beta2) * np.square(mean)  # v
        self.largest = np.maximum(self.largest, self.second)  # u
        # w <- w + eta' m / (sqrt(u) + eps)
        step = self.first / (np.sqrt(self.largest) + self._settings.eps)
        self.parameters = self.parameters + self._rate() * step
        self.total.fill(0)
        self.held = self.latest = 0
        self.index += 1

    def _rate(self) -> float:
        """eta', the learning rate of this step."""
        eta = self._settings.server_lr
        if self._settings.delay_adaptive and self.latest > self._settings.delay_threshold:
            return min(eta, eta / self.latest)
        return eta
