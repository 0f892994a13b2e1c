"""SMEGA2: R. Cohen, I. Hakimi, A. Schuster, "SMEGA2: Distributed Asynchronous Deep Neural Network Training With a
Single Momentum Buffer", ICPP 2022.

There is one momentum m for all workers, to which the mean of every K updates is added. A worker is sent an estimate of
where the parameters will be when it answers. With the accumulator a and the counter s, each update does

    s <- (s + 1) mod K,        a <- a + g,        w <- w - eta (g + beta m)
    if s = 0:  m <- beta m + a / K,  a <- 0

and the worker is sent

    w - eta beta ((K + s (beta - 1)) m + (s / K) a).

With K = 1 this is w - eta beta m: then w follows SGD with heavy-ball momentum, and the estimates follow SGD with
Nesterov's momentum (as PyTorch has it), each on the same gradients. The eta of an estimate is that of the last update;
before the first one m = a = 0, and the estimate is w.

A weight decay lambda is added by the server with its own parameters w, g + lambda w in place of g, as in the authors'
published code (rafi-cohen/SMEGA2). The other asynchronous methods leave it to the workers, which have older parameters.

The default momentum follows common practice and was not checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm


class Smega2(AsyncAlgorithm):
    """Asynchronous SGD with one momentum buffer and estimates of the future parameters (Cohen et al., ICPP 2022).

    Attributes:
        momentum: beta, the decay of the momentum.
    """

    paper: ClassVar[str] = "Cohen, Hakimi, Schuster, ICPP 2022"
    sends: ClassVar[str] = "one update at a time: the active groups up, an estimate of them down"
    estimates: ClassVar[bool] = True
    decays_at_server: ClassVar[bool] = True
    name: str = "smega2"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return SingleBuffer(parameters, workers, self.momentum)


class SingleBuffer(ArrivalRule):
    """The state machine of SMEGA2.

    Attributes:
        momentum: beta.
        buffer: float [n], m, the momentum.
        accumulator: float [n], a, the sum of the updates since m changed last.
        counter: s, the number of these updates.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffer = np.zeros_like(parameters)
        self.accumulator = np.zeros_like(parameters)
        self.counter = 0
        self._lr = 0.0

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self._lr = lr
        self.counter = (self.counter + 1) % self.workers  # s <- (s + 1) mod K
        self.accumulator += update  # a <- a + g
        self.parameters = self.parameters - lr * (update + self.momentum * self.buffer)  # w <- w - eta (g + beta m)
        if self.counter == 0:
            self.buffer *= self.momentum
            self.buffer += self.accumulator / self.workers  # m <- beta m + a / K
            self.accumulator.fill(0)  # a <- 0

    def pull(self, worker: int) -> tuple[Array, int]:
        steps = self.workers + self.counter * (self.momentum - 1)  # K + s (beta - 1)
        ahead = steps * self.buffer + self.counter / self.workers * self.accumulator
        # w - eta beta ((K + s (beta - 1)) m + (s / K) a)
        return self.parameters - self._lr * self.momentum * ahead, self.index
