"""FedMR: M. Hu et al., "Is Aggregation the Only Choice? Federated Learning via Layer-wise Model Recombination",
KDD 2024 (arXiv 2305.10730); first as arXiv 2208.07677.

The server keeps a pool of m models, m the participants of a round. Pool model i goes to the i-th drawn client, in
random order; the trained model replaces it; then for every layer a uniform permutation p of 0..m-1 is drawn and

    new[i][layer] <- old[p[i]][layer],      i = 0..m-1,

fixed points allowed. In the first `first_stage_rounds` rounds every pool model becomes the unweighted mean instead.
The global model, for evaluation only, is the unweighted mean of the pool.

With a partial schedule only the active layer groups are sent and shuffled.

Bytes: uplink, the active groups; downlink, the parts of its pool model that the client does not hold (in full rounds
the whole model, as FedAvg).
"""

from typing import ClassVar, Literal

from pydantic import Field

from fedbench.algorithms.base import Algorithm


class FedMR(Algorithm):
    """Layers shuffled between the participants' models instead of averaging (Hu et al., KDD 2024).

    Attributes:
        first_stage_rounds: rounds of averaging before the first recombination.
        granularity: what is shuffled as a whole: each tensor (the authors' published code), each layer group, or the
            model.
    """

    paper: ClassVar[str] = "Hu et al., KDD 2024, arXiv 2305.10730"
    sends: ClassVar[str] = "the active groups up; what the client does not hold of its pool model down"
    refuses: ClassVar[str] = "methods with further channels (scaffold) or a rule of their own (feddyn, fednova)"
    pool: ClassVar[bool] = True
    name: str = "fedmr"
    first_stage_rounds: int = Field(default=0, ge=0)
    granularity: Literal["tensor", "group", "model"] = "tensor"

    def weight(self, samples: int) -> float:
        return 1.0

    def averages(self, round_index: int) -> bool:
        return round_index < self.first_stage_rounds

    def shuffled_as(self) -> str:
        return self.granularity
