"""FedAsync: C. Xie, S. Koyejo, I. Gupta, "Asynchronous Federated Optimization", 2019 (arXiv 1903.03934).

The server mixes each client's model into its own, with a weight that falls with its staleness. With tau = t - ite, the
updates applied between the client's download and its answer,

    alpha_tau = alpha s(tau),        w <- (1 - alpha_tau) w + alpha_tau w_client

    s(tau) = 1                                               constant
    s(tau) = 1 if tau <= b, else 1 / (a (tau - b) + 1)       hinge
    s(tau) = (1 + tau)^-a                                    polynomial

so that s(0) = 1. The client answers with the delta (sent - trained), from which the server computes w_client = sent -
delta. For that it keeps what each worker was sent, as snapshots without copies.

The paper's clients add a proximal term to their loss: that is `algorithm=fedprox` with `server=fedasync`.

The default hyperparameters were not checked against the paper's text.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm, UpdateKind

TAKES = {"constant": "", "hinge": "ab", "polynomial": "a"}
"""{staleness function: which of the parameters a and b it has}."""


class FedAsync(AsyncAlgorithm):
    """Each client's model is mixed into the server's, with a weight that falls with staleness (Xie et al., 2019).

    Attributes:
        mixing: alpha, the weight of a fresh model.
        staleness: s, how the weight falls with the delay.
        a: slope of the hinge (10 unless set) or exponent of the polynomial (0.5 unless set).
        b: delay up to which the hinge is flat (4 unless set).
    """

    paper: ClassVar[str] = "Xie, Koyejo, Gupta, 2019, arXiv 1903.03934"
    refuses: ClassVar[str] = "gradients as updates: models are mixed"
    updates: ClassVar[tuple[UpdateKind, ...]] = ("delta",)
    name: str = "fedasync"
    mixing: float = Field(default=0.6, gt=0, le=1)
    staleness: Literal["constant", "hinge", "polynomial"] = "polynomial"
    a: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    b: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _a_and_b_have_an_effect(self) -> Self:
        for key, value in (("a", self.a), ("b", self.b)):
            if value is not None and key not in TAKES[self.staleness]:
                raise ValueError(f"{key}={value} has no effect with staleness={self.staleness}; leave it out")
        return self

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return Mixing(parameters, workers, self.mixing, self.factor)

    def factor(self, delay: int) -> float:
        """s(tau), the factor on the weight of a model that is tau = `delay` updates old."""
        if self.staleness == "constant":
            return 1.0
        if self.staleness == "polynomial":
            return float((1 + delay) ** -(0.5 if self.a is None else self.a))  # (1 + tau)^-a
        slope, flat = 10.0 if self.a is None else self.a, 4 if self.b is None else self.b
        return 1 / (slope * max(delay - flat, 0) + 1)  # 1 / (a (tau - b) + 1), and 1 up to tau = b


class Mixing(ArrivalRule):
    """The step w <- (1 - alpha_tau) w + alpha_tau w_client.

    Attributes:
        mixing: alpha, the weight of a fresh model.
        factor: s, the function from delays to factors.
        sent: {worker: float [n], the parameters that it was sent last}.
    """

    def __init__(self, parameters: Array, workers: int, mixing: float, factor: Callable[[int], float]) -> None:
        super().__init__(parameters, workers)
        self.mixing = mixing
        self.factor = factor
        self.sent: dict[int, Array] = {}

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        share = self.mixing * self.factor(self.index - index)  # alpha_tau = alpha s(tau), tau = t - ite
        client = self.sent[worker] - lr * update  # w_client
        self.parameters = (1 - share) * self.parameters + share * client

    def pull(self, worker: int) -> tuple[Array, int]:
        self.sent[worker] = self.parameters
        return super().pull(worker)
