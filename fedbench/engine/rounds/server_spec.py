"""Everything that the server of a synchronous run is made from."""

from dataclasses import dataclass, field

from fedbench.algorithms.base import Algorithm
from fedbench.planning.capacities import ALL_ALIKE, Clients
from fedbench.planning.exchange import Exchange, Trained
from fedbench.planning.samplers import UNIFORM, Sampler
from fedbench.planning.schedules import Schedule
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout, Vector
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import LearningRate


@dataclass(frozen=True)
class ServerSpec:
    """Everything that a server is made from.

    Attributes:
        table: the parts of a transfer.
        vector: float32 [P], the initial parameters.
        statistics: float32, the initial running statistics.
        sizes: training samples of each client of the population.
        cohort_size: participants of a round.
        rounds: rounds of the run.
        seed: seed of the experiment.
        algorithm: the method; it gives the server rule and the weights.
        schedule: which layer groups train in which round.
        learning_rate: factor on the learning rate by round.
        local: number of minibatches that a client trains on.
        update: clipping, noise and compression of an update before it is sent.
        sampler: draws the participants of a round.
        exchange: what of it is sent, and what participants take over.
        clients: what the clients can train.
        compares_updates: whether the server keeps a round's updates, to find out how far they point apart.
        rows_bytes: where clients send their rows in the first round, and no updates: bytes of these; None: they keep
            them.
    """

    table: PartTable
    vector: Vector
    statistics: Vector
    sizes: tuple[int, ...]
    cohort_size: int
    rounds: int
    seed: int
    algorithm: Algorithm
    schedule: Schedule
    learning_rate: LearningRate
    local: LocalLength
    update: UpdatePipeline
    sampler: Sampler = UNIFORM
    exchange: Exchange = field(default_factory=Trained)
    clients: Clients = ALL_ALIKE
    compares_updates: bool = False
    rows_bytes: int | None = None

    @property
    def sums_updates(self) -> bool:
        """Whether the server does its work on the sum of the updates, which hosts may then add up beforehand."""
        return self.algorithm.sums() and not self.compares_updates

    @property
    def layout(self) -> ParameterLayout:
        """Layout of the parameters in the flat vector."""
        return self.table.layout

    @property
    def norm_bytes(self) -> int:
        """Bytes of the gradient norms that a participant reports; 0 where the schedule does not read them."""
        return BYTES_PER_VALUE * self.layout.groups if self.schedule.reads_gradient_norms else 0
