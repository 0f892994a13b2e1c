"""FedAsync: C. Xie, S. Koyejo, I. Gupta, "Asynchronous Federated Optimization", 2019 (arXiv 1903.03934).

The server mixes each client's model into its own, with a weight that falls with its staleness. In Algorithm 1 the
server computes w_t from w_{t-1} and from the model of a client that has trained from w_tau, where tau <= t - 1. The
staleness of that model is t - tau:

    alpha_t = alpha s(t - tau),        w_t = (1 - alpha_t) w_{t-1} + alpha_t w_client

    s(t - tau) = 1                                                     constant
    s(t - tau) = 1 if t - tau <= b, else 1 / (a (t - tau - b) + 1)     hinge
    s(t - tau) = (t - tau + 1)^-a                                      polynomial

So the staleness is 1 + the number of updates that were applied between the client's download and its answer: a model
that no other has overtaken has the staleness 1, and with the polynomial the weight alpha 2^-a.

The client answers with the delta (sent - trained), from which the server computes w_client = sent - delta. For that it
keeps what each worker was sent, as snapshots without copies.

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
        mixing: alpha, the weight of a model before it is reduced for its staleness.
        staleness: s, how the weight falls with the staleness, which is 1 for a model that no other has overtaken.
        a: slope of the hinge (10 unless set) or exponent of the polynomial (0.5 unless set).
        b: staleness up to which the hinge is flat (4 unless set).
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

    def factor(self, staleness: int) -> float:
        """s(t - tau), the factor on the weight of a model.

        Args:
            staleness: t - tau, 1 + the number of updates that were applied since the client's download.
        """
        if self.staleness == "constant":
            return 1.0
        if self.staleness == "polynomial":
            return float((staleness + 1) ** -(0.5 if self.a is None else self.a))  # (t - tau + 1)^-a
        slope, flat = 10.0 if self.a is None else self.a, 4 if self.b is None else self.b
        return 1 / (slope * max(staleness - flat, 0) + 1)  # 1 / (a (t - tau - b) + 1), and 1 up to t - tau = b


class Mixing(ArrivalRule):
    """The step w_t = (1 - alpha_t) w_{t-1} + alpha_t w_client.

    Attributes:
        mixing: alpha, the weight of a model before it is reduced for its staleness.
        factor: s, the function from staleness to factors.
        sent: {worker: float [n], the parameters that it was sent last}.
    """

    def __init__(self, parameters: Array, workers: int, mixing: float, factor: Callable[[int], float]) -> None:
        super().__init__(parameters, workers)
        self.mixing = mixing
        self.factor = factor
        self.sent: dict[int, Array] = {}

    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        # alpha_t = alpha s(t - tau): this update computes w_t with t = self.index + 1, and tau = index.
        share = self.mixing * self.factor(self.index + 1 - index)
        client = self.sent[worker] - lr * update  # w_client
        self.parameters = (1 - share) * self.parameters + share * client

    def pull(self, worker: int) -> tuple[Array, int]:
        self.sent[worker] = self.parameters
        return super().pull(worker)
