"""FedCross: M. Hu, P. Zhou, Z. Yue, Z. Ling, Y. Huang, A. Li, Y. Liu, X. Lian, M. Chen, "FedCross: Towards Accurate
Federated Learning via Multi-Model Cross-Aggregation", ICDE 2024 (arXiv 2210.08285).

The server keeps a pool of m middleware models, m the participants of a round. Pool model i goes to the i-th drawn
client, in random order, and v_i is what comes back. Each model moves a little towards a partner,

    w_i <- alpha v_i + (1 - alpha) v_co(i),      i = 0..m-1.

The partner is, in round r, the model (i + (r mod (m - 1)) + 1) mod m (`in-order`), or the model whose parameters have
the smallest or the largest cosine with those of v_i. In the first `first_stage_rounds` rounds every pool model becomes
the unweighted mean instead. The global model, for evaluation only, is the unweighted mean of the pool.

With a partial schedule only the active layer groups are sent, compared and mixed. Running statistics are mixed like the
parameters.

Bytes: those of FedMR, save that mixed parts are new to every client, so that each round downloads all that was mixed.

The defaults are those of a public implementation (PFLlib, whose measure of likeness is a sum of cosines, one for each
tensor or two, in place of one cosine), and were not checked against the paper's text.
"""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RuleContext, ServerRule
from fedbench.protocol.message import PARAMETERS
from fedbench.protocol.model_pool import ModelPool

Partner = Literal["in-order", "least-similar", "most-similar"]


class FedCross(Algorithm):
    """Each of the participants' models moves a little towards another one (Hu et al., ICDE 2024).

    Attributes:
        alpha: the share that a model keeps of itself.
        partner: the model that it moves towards.
        first_stage_rounds: number of rounds of averaging before.
    """

    paper: ClassVar[str] = "Hu et al., ICDE 2024, arXiv 2210.08285"
    sends: ClassVar[str] = "the active groups up; what the client does not hold of its pool model down"
    refuses: ClassVar[str] = "methods with further channels (scaffold) or a rule of their own (feddyn, fednova)"
    name: str = "fedcross"
    alpha: float = Field(default=0.99, ge=0.5, lt=1)
    partner: Partner = "least-similar"
    first_stage_rounds: int = Field(default=0, ge=0)

    def weight(self, samples: int) -> float:
        return 1.0

    def rule(self) -> ServerRule:
        return CrossAggregation(self.alpha, self.partner, self.first_stage_rounds)


class CrossAggregation(ServerRule):
    """The server rule of FedCross: w_i <- alpha v_i + (1 - alpha) v_co(i)."""

    own_models = True

    def __init__(self, alpha: float, partner: Partner, first_stage_rounds: int) -> None:
        self._alpha = alpha
        self._partner = partner
        self._first_stage_rounds = first_stage_rounds

    def needs(self, round_index: int) -> Needs:
        return "mean" if round_index < self._first_stage_rounds else "round"

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        if len(pool) == 1:
            return
        partners = self._partners(pool, context)
        for part in pool.table.uploaded(context.groups):
            trained = pool.values(part).astype(np.float64)
            # w_i <- alpha v_i + (1 - alpha) v_co(i)
            pool.rewrite(part, self._alpha * trained + (1 - self._alpha) * trained[partners])

    def _partners(self, pool: ModelPool, context: RuleContext) -> npt.NDArray[np.int64]:
        """int64 [m], co(i) for each model."""
        models = len(pool)
        if self._partner == "in-order":
            return (np.arange(models) + context.round % (models - 1) + 1) % models
        similarity = cosines(pool, context)
        if self._partner == "least-similar":
            similarity = -similarity
        np.fill_diagonal(similarity, -np.inf)  # a model is not its own partner
        partners: npt.NDArray[np.int64] = similarity.argmax(axis=1)
        return partners


def cosines(pool: ModelPool, context: RuleContext) -> npt.NDArray[np.float64]:
    """float64 [m, m], the cosine of each two models' parameters in the context's groups; 0 for a zero vector."""
    table, products = pool.table, np.zeros((len(pool), len(pool)))
    for number in table.uploaded(context.groups):
        if table.parts[number].channel == PARAMETERS:
            values = pool.values(number).astype(np.float64)
            products += values @ values.T
    lengths = np.sqrt(np.diag(products))
    norms = np.outer(lengths, lengths)
    ratio: npt.NDArray[np.float64] = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return ratio
