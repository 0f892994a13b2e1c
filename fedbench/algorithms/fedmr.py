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

from fedbench.algorithms.base import Algorithm, Needs, RuleContext, ServerRule
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.model_pool import ModelPool, Region

Granularity = Literal["tensor", "group", "model"]


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
    name: str = "fedmr"
    first_stage_rounds: int = Field(default=0, ge=0)
    granularity: Granularity = "tensor"

    def weight(self, samples: int) -> float:
        return 1.0

    def rule(self) -> ServerRule:
        return Recombination(self.first_stage_rounds, self.granularity)


class Recombination(ServerRule):
    """Shuffles layers between the models of the pool; in the first stage the pool is averaged."""

    own_models = True

    def __init__(self, first_stage_rounds: int, granularity: Granularity) -> None:
        self._first_stage_rounds = first_stage_rounds
        self._granularity = granularity

    def needs(self, round_index: int) -> Needs:
        return "mean" if round_index < self._first_stage_rounds else "round"

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        # Algorithm 1: new[i][layer] <- old[p[i]][layer], with one uniform permutation p for each unit.
        rng = context.generator("recombination")
        for regions in units(pool.table, context.groups, self._granularity):
            pool.permute(regions, rng.permutation(len(pool)))


def units(table: PartTable, groups: tuple[int, ...], granularity: Granularity) -> list[list[Region]]:
    """What is shuffled as a whole, of the layer groups that were trained.

    A unit is a tensor (each running statistic by itself, as in the authors' published code), a layer group with its
    statistics, or all groups together.
    """
    layout = table.layout
    tensors = [(PARAMETERS, slot) for slot in layout.slots]
    if table.statistics:
        tensors += [(STATISTICS, slot) for slot in layout.statistics]
    regions = [(slot.group, (channel, slice(slot.offset, slot.stop))) for channel, slot in tensors]
    if granularity == "tensor":
        return [[region] for group, region in regions if group in groups]
    wholes = [groups] if granularity == "model" else [(group,) for group in groups]
    return [[region for group, region in regions if group in whole] for whole in wholes]
