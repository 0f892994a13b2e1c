"""What rounds cost, before or after the fact: protocol bytes, measured FLOPs, and the FedPart paper's own counting."""

from collections import Counter
from collections.abc import Callable, Sequence

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.ledger import TransferLedger
from fedbench.accounting.paper import round_comm_gb, round_comp_tflop
from fedbench.accounting.totals import Costs
from fedbench.planning.participation import draw_cohort
from fedbench.planning.schedules import Feedback, Schedule
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.minibatches import LocalLength


class CostModel:
    """The costs of clients and rounds of one experiment."""

    def __init__(
        self,
        table: PartTable,
        flops: StepFlops,
        forward_macs: int,
        *,
        sizes: Sequence[int],
        local: LocalLength,
        update: UpdatePipeline,
        extra_passes: Callable[[tuple[int, ...]], int] = lambda groups: 0,
    ) -> None:
        """Args:
        forward_macs: multiply-accumulates of one sample's forward pass, as the paper counts them.
        sizes: samples of each client of the population.
        local: how many minibatches a client trains on.
        update: what is done to an update before it is sent.
        extra_passes: of a client that took part before, when these groups are active.
        """
        self.extra_passes = extra_passes
        self.table = table
        self.layout = table.layout
        self._flops = flops
        self._macs = forward_macs
        self._sizes = sizes
        self._local = local
        self._update = update
        self._known: dict[tuple[tuple[int, ...], int, int], int] = {}

    def client_flops(self, groups: tuple[int, ...], client: int, passes: int = 0) -> int:
        """FLOPs of one client's local work when `groups` are active.

        Args:
            passes: forward passes of every minibatch beside the training step's own.
        """
        key = (groups, self._sizes[client], passes)
        if key not in self._known:
            self._known[key] = sum(
                times * (self._flops.flops(groups, size) + passes * self._flops.forward_flops(size))
                for size, times in self._local.by_size(self._sizes[client]).items()
            )
        return self._known[key]

    def minibatch_flops(self, groups: tuple[int, ...], samples: int) -> int:
        """FLOPs of the gradient of one minibatch when `groups` are active."""
        return self._flops.flops(groups, samples)

    def uplink_bytes(self, groups: Sequence[int]) -> int:
        """Bytes that one participant sends when `groups` are active."""
        return self._update.nbytes(self.table, self.table.uploaded(groups))

    def paper(self, cohort: Sequence[int], groups: Sequence[tuple[int, ...]], partial: bool) -> tuple[float, float]:
        """(Comm. in GB, Comp. in TFLOP) of one round, as FedPart's Table 1 counts.

        Comp. is one client's: of the cohort's mean size, where sizes differ.

        Args:
            groups: one per participant: the layer groups that it trains.
        """
        comm = sum(round_comm_gb(self.layout.count(own), times) for own, times in Counter(groups).items())
        passed = sum(self._sizes[client] * self._local.passes(self._sizes[client]) for client in cohort) / len(cohort)
        return comm, round_comp_tflop(self._macs, 1, passed, partial)

    def paper_arrival(
        self, groups: tuple[int, ...], samples: float, partial: bool, workers: int
    ) -> tuple[float, float]:
        """(Comm., Comp.) of one arrival, counted alike; Comp. is one worker's, so an arrival is a K-th of a round.

        Args:
            samples: trained on, each as often as it was.
            workers: K.
        """
        comm = round_comm_gb(self.layout.count(groups), 1)
        return comm, round_comp_tflop(self._macs, 1, samples, partial) / workers

    def project(self, schedule: Schedule, rounds: int, cohort_size: int, seed: int) -> list[Costs]:
        """The costs of each round under a schedule, without training."""
        population = len(self._sizes)
        ledger = TransferLedger(self.table, population)
        costs = []
        seen: set[int] = set()
        for index in range(rounds):
            active = schedule.active(index, self.layout.groups, seed, Feedback.none(self.layout))
            cohort = draw_cohort(seed, index, population, cohort_size)
            groups = [schedule.client_groups(client, index, self.layout.groups, active) for client in cohort]
            comm, comp = self.paper(cohort, groups, active.partial)
            costs.append(
                Costs(
                    uplink_bytes=sum(self.uplink_bytes(own) for own in groups),
                    downlink_bytes=sum(ledger.download(cohort)),
                    client_flops=sum(
                        self.client_flops(own, client, self.extra_passes(own) if client in seen else 0)
                        for client, own in zip(cohort, groups, strict=True)
                    ),
                    paper_comm_gb=comm,
                    paper_comp_tflop=comp,
                )
            )
            seen.update(cohort)
            ledger.changed(self.table.uploaded(active.union_of(groups).groups), index)
        return costs
