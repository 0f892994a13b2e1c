"""Ordered Adam: EXPERIMENTAL, this project's own; no paper describes it.

It applies the buckets of OrMo (C.-W. Shi, Y.-R. Yang, W.-J. Li, "Ordered Momentum for Asynchronous SGD", NeurIPS 2024,
arXiv 2407.19234; see `fedbench.algorithms.ormo`) to both moments of Adam (D. P. Kingma, J. Ba, "Adam: A Method for
Stochastic Optimization", ICLR 2015, arXiv 1412.6980). With c the current bucket and a gradient g that is d buckets
late,

    p = 0
    where t opens a bucket:    p <- beta_1 m,  m <- beta_1 m,  v <- beta_2 v
    m <- m + beta_1^d (1 - beta_1) g / K
    v <- v + beta_2^d (1 - beta_2) g^2 / K
    p <- p + (1 + beta_1 + ... + beta_1^d) (1 - beta_1) g / K
    w <- w - eta (p / (1 - beta_1^(c+1))) / (sqrt(v / (1 - beta_2^(c+1))) + eps)

So the step of the old moment and that of the new gradient are one, made with the new v. With K = 1, p is m, and this is
PyTorch's Adam. Gradients are averaged over a bucket, not summed as in OrMo: K updates move a parameter by about eta.

After n arrivals, m is the sum of beta_1^(d_j) (1 - beta_1) g_j / K and v that of beta_2^(d_j) (1 - beta_2) g_j^2 / K.
Neither depends on the order of arrival. Three properties do not hold. w does depend on that order, because each step is
scaled by the v of its time. In lock-step it is not Adam on the mean gradient, because v averages the squares. The bias
corrections treat bucket 0 as complete when it is not: v is too small there, at t = 0 by a factor of K, and that step is
longer than eta / K by a factor of sqrt(K).

beta_1, beta_2 and eps are PyTorch's defaults for Adam.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.ormo import bucket


class OrderedAdam(AsyncAlgorithm):
    """EXPERIMENTAL: asynchronous Adam whose moments keep the gradients' order as OrMo's does.

    Adam divides out the size of its updates. With deltas, which come at a learning rate of 1, `server_lr` alone is the
    learning rate: 0.01 or so, with `eps` 1e-3, as FedAdam has it.

    Attributes:
        server_lr: factor on the learning rate.
        beta1: beta_1, the decay of the first moment in each bucket.
        beta2: beta_2, the decay of the second moment in each bucket.
        eps: eps, added to the denominator.
    """

    paper: ClassVar[str] = "experimental, this project's own, after arXiv 2407.19234 and arXiv 1412.6980"
    name: str = "ordered-adam"
    server_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return OrderedMoments(parameters, workers, self)


class OrderedMoments(ArrivalRule):
    """The state machine of ordered Adam.

    Attributes:
        method: the method, which has the hyperparameters.
        first: float [n], m, the first moment.
        second: float [n], v, the second moment.
    """

    def __init__(self, parameters: Array, workers: int, method: OrderedAdam) -> None:
        super().__init__(parameters, workers)
        self.method = method
        self.first = np.zeros_like(parameters)
        self.second = np.zeros_like(parameters)

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        beta1, beta2 = self.method.beta1, self.method.beta2
        current = bucket(self.index, self.workers)  # c
        opens = current > bucket(self.index - 1, self.workers)
        if opens:
            self.first *= beta1  # m <- beta_1 m
            self.second *= beta2  # v <- beta_2 v
        step = self.first.copy() if opens else np.zeros_like(self.first)  # p <- beta_1 m with the old m, or p = 0
        late = current - bucket(index, self.workers)  # d
        self.first += beta1**late * (1 - beta1) / self.workers * update
        self.second += beta2**late * (1 - beta2) / self.workers * np.square(update)
        # (1 + beta_1 + ... + beta_1^d) (1 - beta_1) = 1 - beta_1^(d+1)
        step += (1 - beta1 ** (late + 1)) / self.workers * update
        scale = np.sqrt(self.second / (1 - beta2 ** (current + 1))) + self.method.eps
        # w <- w - eta (p / (1 - beta_1^(c+1))) / scale
        self.parameters = self.parameters - lr * self.method.server_lr / (1 - beta1 ** (current + 1)) * step / scale
