"""FedMut: M. Hu, Y. Cao, A. Li, Z. Li, C. Liu, T. Li, M. Chen, Y. Liu, "FedMut: Generalized Federated Learning via
Stochastic Mutation", AAAI 2024.

The participants train m models; their unweighted mean w is the global model, and Delta = w - (the global model before)
its change in this round. In the next round, client j starts from a mutation of w along that change, tensor k by
tensor k:

    w_j,k = w_k + radius s_k,j Delta_k,      j = 0..m-1.

The signs s_k,j come in pairs of +1 and -1 + c_r that are dealt to the models in random order, for each tensor anew,

    c_r = rate (1 - min(r / bound, 1)),      r the round, from 0,

so that the mutations favour the direction of the change at first and are balanced from round `bound` on. Where m is
odd, the last model is w itself.

With a partial schedule only the active layer groups are sent and mutated. Running statistics are averaged and not
mutated, for a variance must not become negative; the authors' published code mutates them like all other tensors.

Bytes: uplink, the active groups; downlink, the parts that the client does not hold. Models that were dealt the same
signs are equal there, and running statistics are equal in all models.

The default hyperparameters are those of the authors' published code (HMHelloWorld/FedMut), and were not checked against
the paper's text.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RuleContext, ServerRule
from fedbench.protocol.model_pool import ModelPool


class FedMut(Algorithm):
    """Participants start from mutations of the average along its latest change (Hu et al., AAAI 2024).

    Attributes:
        radius: the length of a mutation, in lengths of the change.
        rate: how much the mutations favour the direction of the change at the start, 0..1.
        bound: number of rounds after which they no longer do.
    """

    paper: ClassVar[str] = "Hu et al., AAAI 2024"
    sends: ClassVar[str] = "the active groups up; the client's mutation down"
    refuses: ClassVar[str] = "methods with further channels (scaffold) or a rule of their own (feddyn, fednova)"
    name: str = "fedmut"
    radius: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    rate: float = Field(default=0.3, ge=0, le=1)
    bound: int = Field(default=50, ge=1)

    def weight(self, samples: int) -> float:
        return 1.0

    def rule(self) -> ServerRule:
        return Mutation(self.radius, self.rate, self.bound)


class Mutation(ServerRule):
    """The server rule of FedMut: w_j,k = w_k + radius s_k,j Delta_k."""

    own_models = True
    averages_trained = True

    def __init__(self, radius: float, rate: float, bound: int) -> None:
        self._radius = radius
        self._rate = rate
        self._bound = bound

    def needs(self, round_index: int) -> Needs:
        return "round"

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        favour = self._rate * (1 - min(context.round / self._bound, 1))  # c_r
        rng = context.generator("mutation")
        for number in pool.table.uploaded(context.groups):
            part = pool.table.parts[number]
            mean = pool.values(number).mean(axis=0, dtype=np.float64)
            mutated = np.repeat(mean[None], len(pool), axis=0)
            slots = [slot for slot in context.layout.slots if slot.group == part.group]
            dealt = np.array([signs(len(pool), favour, rng) for _ in slots]).reshape(len(slots), len(pool))
            change = mean - pool.global_model[part.channel][part.piece] if slots else mean
            for slot, of_tensor in zip(slots, dealt, strict=True):
                piece = slice(slot.offset - part.piece.start, slot.stop - part.piece.start)
                # w_j,k = w_k + radius s_k,j Delta_k
                mutated[:, piece] += self._radius * np.outer(of_tensor, change[piece])
            # Models that were dealt the same signs for every tensor of the part are equal there.
            _, kinds = np.unique(dealt, axis=1, return_inverse=True)
            pool.rewrite(number, mutated, kinds)


def signs(models: int, favour: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """float64 [m], s_k,j of one tensor: pairs of +1 and -1 + c_r in random order; where m is odd, 0 for the last model.

    Args:
        models: m.
        favour: c_r.
        rng: draws the order.
    """
    pairs = np.tile([1.0, -1.0 + favour], models // 2)
    return np.append(rng.permutation(pairs), [0.0] * (models % 2))
