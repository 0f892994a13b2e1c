"""Synchronous SGD with momentum on K workers, the references of C.-W. Shi, Y.-R. Yang, W.-J. Li, "Ordered Momentum for
Asynchronous SGD", NeurIPS 2024 (arXiv 2407.19234).

In each lock-step all K workers compute on the same parameters, and the server takes its step when the last of them has
answered. With a the sum of eta g over the K updates,

    heavy ball:  u <- beta u + a,        w <- w - u
    Nesterov:    u <- beta u + a,        w <- w - (a + beta u).

At a constant learning rate these are PyTorch's SGD on the summed gradient, the second with nesterov=True; gradients are
summed, not averaged, as in the asynchronous methods. A learning rate that changes multiplies g; u is not rescaled.

The paper's SSGDm is the heavy ball, which it writes with a shift at t mod K = 0 (w <- w - beta u, u <- beta u) and then
w <- w - eta g, u <- u + eta g for each update: the same after each lock-step. OrMo in lock-step is Nesterov's form.

The default momentum was not checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm


class SyncSgdm(AsyncAlgorithm):
    """Synchronous SGD with heavy-ball momentum: one step when all K workers have answered.

    Attributes:
        momentum: beta, the decay of the momentum.
    """

    paper: ClassVar[str] = "as in Shi, Yang, Li, NeurIPS 2024, arXiv 2407.19234"
    sends: ClassVar[str] = "K updates to a step: the active groups, both ways"
    barrier: ClassVar[bool] = True
    name: str = "ssgdm"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return HeavyBall(parameters, workers, self.momentum)

    def period(self, workers: int) -> int:
        return workers


class SyncNesterov(SyncSgdm):
    """Synchronous SGD with Nesterov's momentum, as PyTorch has it: one step when all K workers have answered."""

    name: str = "ssgd-nesterov"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return Nesterov(parameters, workers, self.momentum)


class HeavyBall(ArrivalRule):
    """The heavy-ball step u <- beta u + a, w <- w - u, taken after K updates.

    Attributes:
        momentum: beta.
        buffer: float [n], u, the momentum.
        total: float [n], a: the sum of eta g over the updates of the lock-step so far.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffer = np.zeros_like(parameters)
        self.total = np.zeros_like(parameters)

    def step(self) -> Array:
        """float [n], what is subtracted from the parameters in a lock-step, with the new u."""
        return self.buffer

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self.total += lr * update  # a <- a + eta g
        if (self.index + 1) % self.workers:
            return
        self.buffer *= self.momentum
        self.buffer += self.total  # u <- beta u + a
        self.parameters = self.parameters - self.step()
        self.total.fill(0)


class Nesterov(HeavyBall):
    """Nesterov's step u <- beta u + a, w <- w - (a + beta u), taken after K updates."""

    def step(self) -> Array:
        return self.total + self.momentum * self.buffer
