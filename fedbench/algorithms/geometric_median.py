"""The geometric median of the updates: K. Pillutla, S. M. Kakade, Z. Harchaoui, "Robust Aggregation for Federated
Learning", IEEE Transactions on Signal Processing 2022 (arXiv 1912.13445), the smoothed Weiszfeld algorithm.

With the updates u_k and weights alpha_k in proportion to the clients' samples, the v that minimises
sum_k alpha_k ||v - u_k|| over the whole model (with a partial schedule: over the layer groups that were trained) is
approached, from the weighted mean on, by

    beta_k = alpha_k / max(nu, ||v - u_k||),        v <- sum_k beta_k u_k / sum_k beta_k.

Every v is a mean of the updates, so that their scalar products are all that is needed. The last weights are those of
the clients' running statistics, too. A method's further channels stay averaged, since SCAFFOLD's c is the mean of what
the clients keep.

Deviation: the paper stops after 3 iterations, since each costs one more secure sum; here none costs a byte.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RoundUpdates, RuleContext, ServerRule, Values
from fedbench.algorithms.krum import refuse_other_groups


class GeometricMedian(Algorithm):
    """The point whose summed distance to all updates is smallest (Pillutla et al., IEEE TSP 2022).

    Attributes:
        iterations: steps of the Weiszfeld algorithm; 0 is the mean.
        nu: nu, the smallest distance that counts, in the units of the parameters.
        weighting: whether clients count by their samples, or all the same.
    """

    paper: ClassVar[str] = "Pillutla et al., IEEE TSP 2022, arXiv 1912.13445"
    refuses: ClassVar[str] = "clients that send different layer groups"
    name: str = "geometric-median"
    iterations: int = Field(default=32, ge=0)
    nu: float = Field(default=1e-6, gt=0)
    weighting: Literal["samples", "uniform"] = "samples"

    def rule(self) -> ServerRule:
        return Weiszfeld(self.iterations, self.nu)

    def weight(self, samples: int) -> float:
        return float(samples) if self.weighting == "samples" else 1.0

    def check(self, config: Any) -> None:
        """Refuse schedules and exchanges by which clients send different layer groups."""
        refuse_other_groups(self.name, config)


class Weiszfeld(ServerRule):
    """The server rule of the geometric median: a mean whose weights fall with the distance to it."""

    def __init__(self, iterations: int, nu: float) -> None:
        self._iterations = iterations
        self._nu = nu

    def needs(self, round_index: int) -> Needs:
        return "round"

    def client_weights(self, updates: RoundUpdates, context: RuleContext) -> Values:
        products = updates.products()
        weights = updates.weights
        for _ in range(self._iterations):
            # ||v - u_k||^2 = v v - 2 v u_k + u_k u_k, with v = sum_k weight_k u_k
            along = products @ weights
            squared = weights @ along - 2 * along + np.diag(products)
            betas = updates.weights / np.maximum(self._nu, np.sqrt(np.maximum(squared, 0.0)))
            weights = betas / betas.sum()
        return weights
