"""Asynchronous SGD, plain and with momentum applied naively.

Plain: each gradient g is applied as it arrives, computed on parameters that are `delay` updates old,

    w <- w - eta g.

Naive momentum (the ASGDm of arXiv 2407.19234, Section 1): one buffer u for all workers, which decays at every arrival,
so that with K workers a gradient's weight has shrunk by beta^(K-1) when its own worker returns,

    u <- beta u + eta g,        w <- w - u.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm


class Asgd(AsyncAlgorithm):
    """Asynchronous SGD: every update applied as it arrives."""

    paper: ClassVar[str] = "as in Shi, Yang, Li, NeurIPS 2024, arXiv 2407.19234"
    name: str = "asgd"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return PlainStep(parameters, workers)


class NaiveAsgdm(AsyncAlgorithm):
    """Asynchronous SGD with one momentum buffer, decayed at every arrival.

    Attributes:
        momentum: beta, the decay of the momentum.
    """

    paper: ClassVar[str] = "as in Shi, Yang, Li, NeurIPS 2024, arXiv 2407.19234"
    name: str = "asgdm"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return NaiveMomentum(parameters, workers, self.momentum)


class PlainStep(ArrivalRule):
    """The step w <- w - eta g."""

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self.parameters = self.parameters - lr * update  # w <- w - eta g


class NaiveMomentum(ArrivalRule):
    """The step u <- beta u + eta g, w <- w - u.

    Attributes:
        momentum: beta, the decay of the momentum.
        buffer: float [n], u, the momentum.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffer = np.zeros_like(parameters)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        self.buffer *= self.momentum
        self.buffer += lr * update  # u <- beta u + eta g
        self.parameters = self.parameters - self.buffer  # w <- w - u
