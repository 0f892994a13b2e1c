"""Server optimizers: FedAvgM, and the adaptive FedAdagrad, FedAdam and FedYogi.

T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019 (arXiv 1909.06335): the server keeps a velocity of the mean updates Delta,

    v <- beta v + Delta,        x <- x + eta v                       heavy ball
                                x <- x + eta (Delta + beta v)        Nesterov

Hsu et al. use Nesterov's momentum, which is the default of FedAvgM here; Reddi et al., below, the heavy ball. Both are
written as in PyTorch's SGD.

S. J. Reddi, Z. Charles, M. Zaheer, Z. Garrett, K. Rush, J. Konecny, S. Kumar, H. B. McMahan, "Adaptive Federated
Optimization", ICLR 2021 (arXiv 2003.00295), Algorithm 2: the mean update is a pseudo-gradient for an adaptive method,

    m <- beta_1 m + (1 - beta_1) Delta
    v <- v + Delta^2                                     FedAdagrad
    v <- v - (1 - beta_2) Delta^2 sign(v - Delta^2)      FedYogi
    v <- beta_2 v + (1 - beta_2) Delta^2                 FedAdam
    x <- x + eta m / (sqrt(v) + tau)

from m = 0 and v = tau^2, the smallest start that the algorithm allows, and without bias correction. The paper uses
beta_1 = 0.9, beta_2 = 0.99 and tau = 0.001, no momentum for FedAdagrad, 0.9 for FedAvgM (with `nesterov=false`), and
tunes eta for each task: the defaults of `server_lr` here are starting points, not the paper's results.

With a partial schedule only the active layer groups take a step, and only their moments change: a group that was not
trained in a round has no pseudo-gradient, which is not the same as one of zero.

The default hyperparameters were not checked against the text of these papers.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from fedbench.algorithms.base import RuleContext, ServerRule, Values
from fedbench.algorithms.fedavg import FedAvg

REDDI = "Reddi et al., ICLR 2021, arXiv 2003.00295"


class FedAvgM(FedAvg):
    """FedAvg with momentum on the server (Hsu et al., 2019).

    With momentum=0 and server_lr=1 it is FedAvg bit for bit.

    Attributes:
        server_lr: eta, the factor on the step; the paper has 1.
        momentum: beta, the decay of the velocity.
        nesterov: whether the momentum is Nesterov's, as with Hsu et al. (true unless set), or the heavy ball, as in the
            FedAvgM of Reddi et al. (false).
    """

    paper: ClassVar[str] = "Hsu et al., 2019, arXiv 1909.06335"
    name: str = "fedavgm"
    server_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool | None = None

    @model_validator(mode="after")
    def _nesterov_has_an_effect(self) -> Self:
        if self.nesterov is not None and not self.momentum:
            raise ValueError(f"nesterov={str(self.nesterov).lower()} has no effect with momentum=0; leave it out")
        return self

    def rule(self) -> ServerRule:
        return Momentum(self.server_lr, self.momentum, nesterov=self.nesterov is not False)


class FedAdagrad(FedAvg):
    """Adagrad on the server (Reddi et al., ICLR 2021).

    Attributes:
        server_lr: eta, the server's learning rate.
        beta1: beta_1, the decay of the first moment; the paper has none for this method.
        tau: tau, the degree of adaptivity, added to the denominator; v starts at tau^2.
    """

    paper: ClassVar[str] = REDDI
    name: str = "fedadagrad"
    server_lr: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    beta1: float = Field(default=0.0, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0, le=1e100)

    def rule(self) -> ServerRule:
        return Adagrad(self.server_lr, self.beta1, self.tau)


class FedAdam(FedAvg):
    """Adam on the server, without bias correction (Reddi et al., ICLR 2021).

    Attributes:
        server_lr: eta, the server's learning rate.
        beta1: beta_1, the decay of the first moment.
        beta2: beta_2, the decay of the second moment.
        tau: tau, the degree of adaptivity, added to the denominator; v starts at tau^2.
    """

    paper: ClassVar[str] = REDDI
    name: str = "fedadam"
    server_lr: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0, le=1e100)

    def rule(self) -> ServerRule:
        return Adam(self.server_lr, self.beta1, self.tau, self.beta2)


class FedYogi(FedAdam):
    """Yogi on the server: v moves by at most (1 - beta2) Delta^2 a round (Reddi et al., ICLR 2021).

    Attributes:
        server_lr: eta, the server's learning rate.
        beta1: beta_1, the decay of the first moment.
        beta2: beta_2; the second moment moves by at most (1 - beta_2) Delta^2 in a round.
        tau: tau, the degree of adaptivity, added to the denominator; v starts at tau^2.
    """

    name: str = "fedyogi"

    def rule(self) -> ServerRule:
        return Yogi(self.server_lr, self.beta1, self.tau, self.beta2)


class Momentum(ServerRule):
    """The server rule of FedAvgM: v <- beta v + Delta, then x <- x + eta v or x <- x + eta (Delta + beta v).

    Attributes:
        velocity: float64 [P], v; empty before the first round.
    """

    def __init__(self, server_lr: float, momentum: float, nesterov: bool) -> None:
        self.velocity: Values = np.empty(0)
        self._server_lr = server_lr
        self._momentum = momentum
        self._nesterov = nesterov

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        if not len(self.velocity):
            self.velocity = np.zeros(context.layout.size)
        velocity = self._momentum * context.gather(self.velocity) + update  # v <- beta v + Delta
        context.scatter(velocity, self.velocity)
        if self._nesterov:
            return previous + self._server_lr * (update + self._momentum * velocity)  # x <- x + eta (Delta + beta v)
        return previous + self._server_lr * velocity  # x <- x + eta v


class Adaptive(ServerRule, ABC):
    """Base of the adaptive server rules: x <- x + eta m / (sqrt(v) + tau); `second_moment` computes the new v.

    Attributes:
        first: float64 [P], m, the first moment; empty before the first round.
        second: float64 [P], v, the second moment; empty before the first round.
    """

    def __init__(self, server_lr: float, beta1: float, tau: float) -> None:
        self.first: Values = np.empty(0)
        self.second: Values = np.empty(0)
        self._server_lr = server_lr
        self._beta1 = beta1
        self._tau = tau

    @abstractmethod
    def second_moment(self, before: Values, squared: Values) -> Values:
        """The new v of the active groups.

        Args:
            before: float64 [n], v.
            squared: float64 [n], Delta^2.
        """

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        if not len(self.first):
            self.first = np.zeros(context.layout.size)
            self.second = np.full(context.layout.size, self._tau**2)
        first = self._beta1 * context.gather(self.first) + (1 - self._beta1) * update  # m
        second = self.second_moment(context.gather(self.second), np.square(update))  # v
        context.scatter(first, self.first)
        context.scatter(second, self.second)
        # x <- x + eta m / (sqrt(v) + tau)
        return previous + self._server_lr * first / (np.sqrt(second) + self._tau)


class Adagrad(Adaptive):
    """The server rule of FedAdagrad: v <- v + Delta^2."""

    def second_moment(self, before: Values, squared: Values) -> Values:
        return before + squared


class Adam(Adaptive):
    """The server rule of FedAdam: v <- beta_2 v + (1 - beta_2) Delta^2."""

    def __init__(self, server_lr: float, beta1: float, tau: float, beta2: float) -> None:
        super().__init__(server_lr, beta1, tau)
        self._beta2 = beta2

    def second_moment(self, before: Values, squared: Values) -> Values:
        return self._beta2 * before + (1 - self._beta2) * squared


class Yogi(Adam):
    """The server rule of FedYogi: v <- v - (1 - beta_2) Delta^2 sign(v - Delta^2)."""

    def second_moment(self, before: Values, squared: Values) -> Values:
        return before - (1 - self._beta2) * squared * np.sign(before - squared)
