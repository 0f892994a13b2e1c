"""FedDyn: D. A. E. Acar, Y. Zhao, R. Matas Navarro, M. Mattina, P. N. Whatmough, V. Saligrama, "Federated Learning
Based on Dynamic Regularization", ICLR 2021 (arXiv 2111.04263), Algorithm 1.

Device k keeps lambda_k, which estimates the gradient of its loss L_k at its own last model (zero at first; the paper
writes it as that gradient). From the server's theta the participants, a set S of the m devices, solve

    theta_k    = argmin_w  L_k(w) - <lambda_k, w> + (alpha / 2) ||w - theta||^2
    lambda_k  <- lambda_k - alpha (theta_k - theta),

the second line being the first-order condition of the first. Here the argmin is approached by the local steps, each
with -lambda_k + alpha (w - theta) added to the gradient. The server takes unweighted means:

    h     <- h - alpha (1/m) sum_{k in S} (theta_k - theta)        = h - alpha (|S|/m) mean(theta_k - theta)
    theta <- (1/|S|) sum_{k in S} theta_k - h / alpha.

So h = (1/m) sum_k lambda_k at any time. At a fixed point h = 0 and theta_k = theta: every lambda_k is its device's
gradient at theta, and the mean of the gradients is zero.

Where an update is clipped, gets noise or is compressed, theta_k is what the server reads, in both lines alike: what
was not sent is in neither lambda_k nor h, so that h = (1/m) sum_k lambda_k holds all the same.

With a partial schedule all of this holds on the active layer groups; lambda_k and h of the others stay as they are.
The training loss that is recorded is L_k, the cross-entropy part.

Bytes: FedAvg's. With n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a
participant sends 4 (n + s) and receives 4 bytes for every value that changed since it last downloaded; lambda_k and h
stay where they are.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.base import Algorithm, LocalContext, Objective, RuleContext, ServerRule, Values
from fedbench.protocol.message import PARAMETERS

if TYPE_CHECKING:
    from torch import Tensor

DUAL = "dual"
"""Name of lambda_k in the client's state."""


class FedDyn(Algorithm):
    """Dynamic regularisation that aligns the clients' minima with the global one (Acar et al., ICLR 2021).

    Attributes:
        alpha: alpha, the strength of the regulariser.
    """

    paper: ClassVar[str] = "Acar et al., ICLR 2021, arXiv 2111.04263"
    keeps: ClassVar[str] = "its last gradient estimate, one value per parameter"
    name: str = "feddyn"
    alpha: float = Field(default=0.01, gt=0, le=1e30)

    def objective(self) -> Objective:
        return Regularised(self.alpha)

    def rule(self) -> ServerRule:
        return DebiasedMean(self.alpha)

    def weight(self, samples: int) -> float:
        return 1.0


class Regularised(Objective):
    """Cross-entropy plus -<lambda_k, w> + (alpha / 2) ||w - theta||^2, which is added through its gradient.

    Args:
        alpha: strength of the regulariser, greater than 0.
    """

    keeps: tuple[str, ...] = (DUAL,)

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._dual: Tensor | None = None

    def begin(self, context: LocalContext) -> None:
        self._dual = context.state.get(DUAL)

    def variant(self) -> Hashable | None:
        return self._dual is not None if type(self) is Regularised else None

    def correct(self, context: LocalContext) -> None:
        model, dual = context.model, self._dual
        # gradient + alpha (w - theta) - lambda_k
        for piece in context.pieces:
            gradient = model.gradient[piece].add_(model.vector[piece] - context.anchor[piece], alpha=self._alpha)
            if dual is not None:
                gradient.sub_(dual[piece])

    def finish(self, context: LocalContext, steps: int) -> None:
        from torch import zeros_like

        vector, anchor = context.model.vector, context.anchor
        old = context.state.get(DUAL)
        dual = zeros_like(vector) if old is None else old.clone()
        # lambda_k <- lambda_k - alpha (theta_k - theta)
        for piece in context.pieces:
            dual[piece].sub_(vector[piece] - anchor[piece], alpha=self._alpha)
        context.state[DUAL] = dual

    def correct_state(
        self, state: "dict[str, Tensor]", difference: "dict[str, Tensor]", pieces: Sequence[slice]
    ) -> None:
        # theta_k - theta is what the server reads: lambda_k <- lambda_k - alpha (read - computed)
        state[DUAL] = state[DUAL] - self._alpha * difference[PARAMETERS]


class DebiasedMean(ServerRule):
    """The server rule of FedDyn: the mean minus h / alpha. It keeps h, float64 [P].

    Args:
        alpha: strength of the regulariser, greater than 0.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._h: Values | None = None

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        if self._h is None:
            self._h = np.zeros(context.layout.size)
        # h <- h - alpha (|S|/m) mean(theta_k - theta)
        h = context.gather(self._h) - self._alpha * (context.participants / context.population) * update
        context.scatter(h, self._h)
        # theta <- (1/|S|) sum_{k in S} theta_k - h / alpha
        combined: Values = previous + update - h / self._alpha
        return combined
