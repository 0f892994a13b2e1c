"""FedExP: D. Jhunjhunwala, S. Wang, G. Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023
(arXiv 2301.09604), Algorithm 1.

Participant i of m starts from w and sends its update Delta_i. With the mean update Delta = (1/m) sum_i Delta_i the
server takes

    w <- w + eta Delta,        eta = max(1, sum_i ||Delta_i||^2 / (2 m (||Delta||^2 + eps))).

The more the updates differ in direction, the shorter their mean is beside them, and the longer the step. Equal updates
give eta = 1, hence FedAvg with uniform weights. The norms are over the whole model, not over one layer group; with a
partial schedule they are over the groups that were trained, and where clients trained different groups the mean of each
group is over the clients that trained it.

Deviation: the paper evaluates the mean of the last two iterates, since the iterates oscillate; here the last one is
evaluated. Bytes: FedAvg's.
"""

from typing import ClassVar

from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RoundUpdates, RuleContext, ServerRule, Values


class FedExP(Algorithm):
    """A server step size from how much the updates differ (Jhunjhunwala et al., ICLR 2023).

    Attributes:
        eps: added to the squared norm of the mean update, in the units of squared parameters.
    """

    paper: ClassVar[str] = "Jhunjhunwala et al., ICLR 2023, arXiv 2301.09604"
    name: str = "fedexp"
    eps: float = Field(default=1e-3, ge=0)

    def rule(self) -> ServerRule:
        return Extrapolation(self.eps)

    def weight(self, samples: int) -> float:
        return 1.0


class Extrapolation(ServerRule):
    """Averaging with a step size of at least 1."""

    def __init__(self, eps: float) -> None:
        self._eps = eps

    def needs(self, round_index: int) -> Needs:
        return "round"

    def combine_round(self, previous: Values, updates: RoundUpdates, context: RuleContext) -> Values:
        mean = updates.mean()  # Delta
        return previous + step_size(updates.squared_norms(), float(mean @ mean), self._eps) * mean


def step_size(squared_norms: Values, squared_norm_of_mean: float, eps: float) -> float:
    """The server step size eta, which is at least 1.

    Args:
        squared_norms: float64 [m], ||Delta_i||^2 of each participant.
        squared_norm_of_mean: ||Delta||^2.
    """
    bound = 2 * len(squared_norms) * (squared_norm_of_mean + eps)
    return max(1.0, float(squared_norms.sum()) / bound) if bound else 1.0
