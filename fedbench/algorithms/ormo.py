"""OrMo: C.-W. Shi, Y.-R. Yang, W.-J. Li, "Ordered Momentum for Asynchronous SGD", NeurIPS 2024 (arXiv 2407.19234).

Iteration t is the t-th gradient that arrives, counted from 0, and `ite` the iteration of the parameters that it was
computed on. A gradient belongs to bucket ceil(ite / K): index 0 to bucket 0, indices (b-1) K + 1 to b K to bucket b.
Momentum u and parameters w are at any time what they would be if the gradients so far had come bucket by bucket:

    c = ceil(t / K); where it opens a bucket (c > ceil((t-1) / K)):  w <- w - beta u,  then  u <- beta u
    d = c - ceil(ite / K)                       how many buckets late, at least 0
    u <- u + beta^d eta g
    w <- w - (1 + beta + ... + beta^d) eta g    vanilla:  w <- w - eta g

Hence after n arrivals, with c = ceil((n-1) / K) and d_j = c - ceil(ite_j / K), whatever the order they came in,

    u = sum_j beta^(d_j) eta g_j,        w = w_0 - sum_j (1 + beta + ... + beta^(d_j)) eta g_j.

K = 1 is SGD with heavy-ball momentum, lock-step with K >= 2 is SGD with Nesterov's momentum (as PyTorch has it) on the
summed gradients, and beta = 0 is asynchronous SGD. A learning rate that changes multiplies g; u is not rescaled.

OrMo-DA replaces eta in the last two lines by min(eta, 1 / (4 L tau)) where the delay tau = t - ite exceeds 2K, L being
the smoothness constant. How the paper sets L was not established, so it has no default. The default momentum was not
checked against the paper's text.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm, UpdateKind

PAPER = "Shi, Yang, Li, NeurIPS 2024, arXiv 2407.19234"


def bucket(index: int, workers: int) -> int:
    """ceil(ite / K), the bucket of a gradient that was computed on the parameters of iteration ite = `index`."""
    return -(-index // workers)


class OrMo(AsyncAlgorithm):
    """Asynchronous SGD with momentum that keeps the gradients' order (Shi et al., NeurIPS 2024).

    Each layer group has a machine and counts its own buckets: a bucket of a group is K updates of that group, K being
    the tasks in flight over all groups. An arrival that did not train a group neither fills nor opens a bucket of it.

    Attributes:
        momentum: beta, the decay of the momentum in each bucket.
    """

    paper: ClassVar[str] = PAPER
    name: str = "ormo"
    momentum: float = Field(default=0.9, ge=0, lt=1)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return OrderedMomentum(parameters, workers, self.momentum)


class OrMoVanilla(OrMo):
    """OrMo whose late gradients move the parameters by no more than eta g (an ablation of its paper)."""

    paper: ClassVar[str] = f"ablation in {PAPER}"
    name: str = "ormo-vanilla"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return VanillaStep(parameters, workers, self.momentum)


class OrMoDA(OrMo):
    """OrMo with a learning rate that adapts to delays above 2K (Shi et al., NeurIPS 2024).

    Updates must be gradients: the rule compares the learning rate itself, which a delta already contains.

    Attributes:
        smoothness: L, the Lipschitz constant of the gradient; it has no default.
    """

    updates: ClassVar[tuple[UpdateKind, ...]] = ("gradient",)
    refuses: ClassVar[str] = "deltas of local training as updates"
    name: str = "ormo-da"
    smoothness: float = Field(gt=0, allow_inf_nan=False)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return DelayAdaptive(parameters, workers, self.momentum, self.smoothness)


class OrMoDAFree(OrMo):
    """OrMo with eta min(1, 2K / tau): this project's own stand-in for OrMo-DA without L, not in the paper."""

    paper: ClassVar[str] = f"this project's own variation of {PAPER}"
    name: str = "ormo-da-free"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return DelayScaled(parameters, workers, self.momentum)


class OrderedMomentum(ArrivalRule):
    """The state machine of OrMo; its variants change how far a gradient moves the parameters, or at what rate.

    Attributes:
        momentum: beta.
        buffer: float [n], u, the momentum.
    """

    def __init__(self, parameters: Array, workers: int, momentum: float) -> None:
        super().__init__(parameters, workers)
        self.momentum = momentum
        self.buffer = np.zeros_like(parameters)

    def rate(self, lr: float, delay: int) -> float:
        """The learning rate, given eta = `lr`, of a gradient with the delay tau = `delay`, in updates."""
        return lr

    def weight(self, late: int) -> float:
        """The factor 1 + beta + ... + beta^d on eta g in the parameters' step, with d = `late`."""
        return float((1 - self.momentum ** (late + 1)) / (1 - self.momentum))

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        current = bucket(self.index, self.workers)  # c = ceil(t / K)
        if current > bucket(self.index - 1, self.workers):
            self.parameters = self.parameters - self.momentum * self.buffer  # w <- w - beta u
            self.buffer *= self.momentum  # u <- beta u
        late = current - bucket(index, self.workers)  # d = c - ceil(ite / K)
        rate = self.rate(lr, self.index - index)  # eta, from tau = t - ite in OrMo-DA
        step = np.empty_like(self.parameters)  # a new array is the new parameters: the old ones may have been sent
        self.buffer += np.multiply(self.momentum**late * rate, update, out=step)  # u <- u + beta^d eta g
        np.multiply(self.weight(late) * rate, update, out=step)
        self.parameters = np.subtract(self.parameters, step, out=step)  # w <- w - (1 + ... + beta^d) eta g


class VanillaStep(OrderedMomentum):
    """The step w <- w - eta g, however late the gradient is."""

    def weight(self, late: int) -> float:
        return 1.0


class DelayAdaptive(OrderedMomentum):
    """The rate of OrMo-DA: min(eta, 1 / (4 L tau)) where tau > 2K, else eta."""

    def __init__(self, parameters: Array, workers: int, momentum: float, smoothness: float) -> None:
        super().__init__(parameters, workers, momentum)
        self.smoothness = smoothness

    def rate(self, lr: float, delay: int) -> float:
        return lr if delay <= 2 * self.workers else min(lr, 1 / (4 * self.smoothness * delay))


class DelayScaled(OrderedMomentum):
    """The rate eta min(1, 2K / tau)."""

    def rate(self, lr: float, delay: int) -> float:
        return lr if delay <= 2 * self.workers else lr * 2 * self.workers / delay
