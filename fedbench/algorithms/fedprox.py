"""FedProx: T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar, V. Smith, "Federated Optimization in Heterogeneous
Networks", MLSys 2020 (arXiv 1812.06127), Eq. 2 and Algorithm 2.

Participant k minimises its own loss F_k, but stays near the global parameters w^t from which it started (Eq. 2):

    min_w  h_k(w; w^t) = F_k(w) + (mu / 2) ||w - w^t||^2.

The norm is squared, as in the paper; its gradient mu (w - w^t) is added to that of F_k before every step. With a
partial schedule the norm runs over the active layer groups: frozen tensors do not move. mu = 0 is FedAvg bit for bit.

The training loss that is recorded is F_k, the cross-entropy part, so that it compares with FedAvg's.

Bytes: FedAvg's. With n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a
participant sends 4 (n + s) and receives 4 bytes for every value that changed since it last downloaded.
"""

from collections.abc import Hashable
from typing import ClassVar

from pydantic import Field

from fedbench.algorithms.base import Algorithm, LocalContext, Objective


class FedProx(Algorithm):
    """FedAvg with a proximal term that keeps clients near the global model (Li et al., MLSys 2020).

    Attributes:
        mu: mu, the strength of the proximal term; 0 is FedAvg.
    """

    paper: ClassVar[str] = "Li et al., MLSys 2020, arXiv 1812.06127"
    name: str = "fedprox"
    mu: float = Field(default=0.01, ge=0, le=1e30)

    def objective(self) -> Objective:
        return Proximal(self.mu) if self.mu else Objective()


class Proximal(Objective):
    """Cross-entropy plus (mu / 2) ||w - w^t||^2, which is added through its gradient.

    Args:
        mu: strength of the proximal term, greater than 0.
    """

    def __init__(self, mu: float) -> None:
        self._mu = mu

    def variant(self) -> Hashable | None:
        return () if type(self) is Proximal else None

    def correct(self, context: LocalContext) -> None:
        model = context.model
        # Gradient of h_k: that of F_k, and mu (w - w^t).
        for piece in context.pieces:
            model.gradient[piece].add_(model.vector[piece] - context.anchor[piece], alpha=self._mu)
