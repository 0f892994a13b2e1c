"""What rounds cost, before or after the fact: protocol bytes, measured FLOPs, and the FedPart paper's own counting."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.ledger import TransferLedger
from fedbench.accounting.paper import round_comm_gb, round_comp_tflop
from fedbench.parameters import ParameterLayout
from fedbench.participation import draw_cohort
from fedbench.schedules import ActiveGroups, Schedule
from fedbench.training.minibatches import epoch_sizes, steps_by_size


@dataclass(frozen=True)
class Costs:
    """What some rounds cost.

    Attributes:
        uplink_bytes, downlink_bytes: all participants, protocol.
        client_flops: all participants, as measured on the step that runs.
        paper_comm_gb, paper_comp_tflop: as FedPart's tables count (uplink of all clients; one client's computation).
    """

    uplink_bytes: int = 0
    downlink_bytes: int = 0
    client_flops: int = 0
    paper_comm_gb: float = 0.0
    paper_comp_tflop: float = 0.0

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.uplink_bytes + other.uplink_bytes,
            self.downlink_bytes + other.downlink_bytes,
            self.client_flops + other.client_flops,
            self.paper_comm_gb + other.paper_comm_gb,
            self.paper_comp_tflop + other.paper_comp_tflop,
        )


class CostModel:
    """The costs of clients and rounds of one experiment."""

    def __init__(
        self,
        layout: ParameterLayout,
        flops: StepFlops,
        forward_macs: int,
        *,
        sizes: Sequence[int],
        batch_size: int,
        epochs: int | None,
        steps: int | None,
        smallest_batch: int,
        aggregates_statistics: bool,
    ) -> None:
        """Args:
        forward_macs: multiply-accumulates of one sample's forward pass, as the paper counts them.
        sizes: samples of each client of the population.
        smallest_batch: as in `minibatches`.
        """
        self.layout = layout
        self._flops = flops
        self._macs = forward_macs
        self._sizes = sizes
        self._batch_size = batch_size
        self._epochs = epochs
        self._steps = steps
        self._smallest = smallest_batch
        self._aggregates = aggregates_statistics
        self._known: dict[tuple[tuple[int, ...], int], int] = {}

    def client_flops(self, groups: tuple[int, ...], client: int) -> int:
        """FLOPs of one client's local work when `groups` are active."""
        key = (groups, self._sizes[client])
        if key not in self._known:
            steps = steps_by_size(
                self._sizes[client], self._batch_size, epochs=self._epochs, steps=self._steps, smallest=self._smallest
            )
            self._known[key] = sum(times * self._flops.flops(groups, size) for size, times in steps.items())
        return self._known[key]

    def uplink_bytes(self, groups: Sequence[int]) -> int:
        """Bytes that one participant sends when `groups` are active."""
        return TransferLedger(self.layout, aggregates_statistics=self._aggregates, clients=1).upload(groups)

    def paper(self, active: ActiveGroups, cohort: Sequence[int]) -> tuple[float, float]:
        """(Comm. in GB, Comp. in TFLOP) of one round, as FedPart's Table 1 counts.

        Comp. is one client's: of the cohort's mean size, where sizes differ.
        """
        comm = round_comm_gb(self.layout.count(active.groups), len(cohort))
        passed = sum(self._sizes[client] * self._passes(client) for client in cohort) / len(cohort)
        return comm, round_comp_tflop(self._macs, 1, passed, active.partial)

    def _passes(self, client: int) -> float:
        if self._steps is None:
            return float(self._epochs or 1)
        return self._steps / len(epoch_sizes(self._sizes[client], self._batch_size, self._smallest))

    def project(self, schedule: Schedule, rounds: int, cohort_size: int, seed: int) -> list[Costs]:
        """The costs of each round under a schedule, without training."""
        population = len(self._sizes)
        ledger = TransferLedger(self.layout, aggregates_statistics=self._aggregates, clients=population)
        costs = []
        for index in range(rounds):
            active = schedule.active(index, self.layout.groups, seed)
            cohort = draw_cohort(seed, index, population, cohort_size)
            comm, comp = self.paper(active, cohort)
            costs.append(
                Costs(
                    uplink_bytes=ledger.upload(active.groups) * len(cohort),
                    downlink_bytes=sum(ledger.download(cohort)),
                    client_flops=sum(self.client_flops(active.groups, client) for client in cohort),
                    paper_comm_gb=comm,
                    paper_comp_tflop=comp,
                )
            )
            ledger.changed(active.groups, index)
        return costs


def total(costs: Sequence[Costs]) -> Costs:
    """The sum over rounds."""
    return sum(costs, Costs())
