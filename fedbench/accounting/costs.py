"""Costs of clients and rounds, predicted or recorded: protocol bytes, measured FLOPs, and the FedPart paper's count."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.ledger import TransferLedger
from fedbench.accounting.paper import round_comm_gb, round_comp_tflop
from fedbench.accounting.totals import Costs
from fedbench.planning.capacities import ALL_ALIKE, Clients
from fedbench.planning.checked_exchange import checked_exchange
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.exchange import Exchange, Trained, TrainedRound
from fedbench.planning.samplers import UNIFORM, Sampler, draw_cohort
from fedbench.planning.schedules import Feedback, Schedule
from fedbench.planning.worlds import Work, World
from fedbench.protocol.layout import BYTES_PER_VALUE
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.minibatches import LocalLength


class CostModel:
    """Computes the costs of clients and rounds of one experiment.

    Attributes:
        table: the parts of a transfer.
        layout: layout of the parameters.
        extra_passes: additional forward passes of every minibatch, for a client that took part before, as a function
            of the active groups.
        reports_norms: whether clients report the gradient norms that a schedule reads.
    """

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
        rows_bytes: int | None = None,
        reports_norms: bool = False,
    ) -> None:
        """Args:
        table: the parts of a transfer.
        flops: counts the FLOPs of a training step.
        forward_macs: multiply-accumulates of one sample's forward pass, as the paper counts them.
        sizes: training samples of each client of the population.
        local: number and sizes of the minibatches that a client trains on.
        update: clipping, noise and compression of an update before it is sent.
        extra_passes: `Objective.extra_passes` of the method, as a function of the active groups.
        rows_bytes: where clients send their rows in the first round, and no updates: bytes of these; None: they keep
            them.
        reports_norms: whether clients of a synchronous run report the gradient norms that its schedule reads.
        """
        self.reports_norms = reports_norms
        self._rows_bytes = rows_bytes
        self.extra_passes = extra_passes
        self.table = table
        self.layout = table.layout
        self._flops = flops
        self._macs = forward_macs
        self._sizes = sizes
        self._local = local
        self._update = update
        self._flops_by_key: dict[tuple[tuple[int, ...], int, int], int] = {}

    def client_flops(self, groups: tuple[int, ...], client: int, passes: int = 0, reports_norms: bool = False) -> int:
        """FLOPs of one client's local training.

        Args:
            groups: layer groups that it trains.
            client: the client.
            passes: additional forward passes of every minibatch, beside that of the training step.
            reports_norms: whether it computes the gradient of all layer groups on its first minibatch beforehand.
        """
        if reports_norms:
            first = self._local.epoch(self._sizes[client])[0]
            return self.client_flops(groups, client, passes) + self._flops.flops(self.layout.all_groups, first)
        key = (groups, self._sizes[client], passes)
        if key not in self._flops_by_key:
            self._flops_by_key[key] = sum(
                times * (self._flops.flops(groups, size) + passes * self._flops.forward_flops(size))
                for size, times in self._local.by_size(self._sizes[client]).items()
            )
        return self._flops_by_key[key]

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators of the model whose work the FLOPs leave out, as in `StepFlops.uncounted`."""
        return self._flops.uncounted

    def minibatch_flops(self, groups: tuple[int, ...], samples: int) -> int:
        """FLOPs of the gradient of a minibatch of `samples` samples with respect to `groups`."""
        return self._flops.flops(groups, samples)

    def forward_flops(self, samples: int) -> int:
        """FLOPs of a forward pass of `samples` samples."""
        return self._flops.forward_flops(samples)

    def uplink_bytes(self, groups: Sequence[int]) -> int:
        """Bytes of one participant's message of `groups`, after compression."""
        return 0 if self._rows_bytes is not None else self._update.nbytes(self.table, self.table.uploaded(groups))

    @cached_property
    def paper_defines_comm(self) -> bool:
        """Whether FedPart's Comm. is defined for this experiment.

        Its Table 1 has methods whose clients send the trained parameters as float32 and nothing else. A method that
        sends more (SCAFFOLD's control variates), or an update that is compressed, would be given FedAvg's figure.
        """
        sent = self.table.uploaded(self.layout.all_groups)
        plain = self._update.compression.lossless and self._update.nbytes(self.table, sent) == self.table.nbytes(sent)
        return plain and not self.table.channels and self._rows_bytes is None

    def paper(
        self, cohort: Sequence[int], groups: Sequence[tuple[int, ...]], partial: bool
    ) -> tuple[float | None, float]:
        """Cost of one round as FedPart's Table 1 counts it (`fedbench.accounting.paper`).

        Args:
            cohort: the participants.
            groups: for each participant, the layer groups that it sends.
            partial: whether it is a partial round.

        Returns:
            Comm. of all participants in "GB" (None: not defined), and Comp. of one client, of the cohort's mean size,
            in "TFLOP".
        """
        comm = self._comm_gb(Counter(groups))
        passed = [self._sizes[client] * self._local.passes(self._sizes[client]) for client in cohort]
        mean_samples = sum(passed) / len(cohort)
        return comm, round_comp_tflop(self._macs, 1, mean_samples, partial)

    def paper_arrival(
        self, groups: tuple[int, ...], samples: float, partial: bool, workers: int
    ) -> tuple[float | None, float]:
        """Cost of one arrival of an asynchronous run, counted as in `paper`.

        Comp. is that of one worker, so that an arrival counts as a K-th of a round.

        Args:
            groups: layer groups that the task trained.
            samples: samples that it trained on, each counted as often as it was used.
            partial: whether the update is partial.
            workers: K, the number of tasks in flight.

        Returns:
            Comm. in "GB" (None: not defined) and Comp. in "TFLOP".
        """
        return self._comm_gb({groups: 1}), round_comp_tflop(self._macs, 1, samples, partial) / workers

    def _comm_gb(self, updates: Mapping[tuple[int, ...], int]) -> float | None:
        """Comm. of these updates.

        Args:
            updates: {layer groups: number of updates that consist of them}.
        """
        if not self.paper_defines_comm:
            return None
        return sum(round_comm_gb(self.layout.count(groups), times) for groups, times in updates.items())

    def project(
        self,
        schedule: Schedule,
        rounds: int,
        cohort_size: int,
        seed: int,
        sampler: Sampler = UNIFORM,
        exchange: Exchange | None = None,
        clients: Clients = ALL_ALIKE,
        world: World | None = None,
    ) -> list[Costs]:
        """Predict the costs of each round of a synchronous run without training.

        Args:
            schedule: which layer groups train in which round; asked as if training had changed nothing.
            rounds: number of rounds.
            cohort_size: participants of a round.
            seed: seed of the experiment, which fixes the cohorts.
            sampler: draws the participants; one that follows training as if no client ever reported anything.
            exchange: what of it is sent, asked likewise; None: what is trained.
            clients: what the clients can train.
            world: devices, links and times of the clients; None: rounds have no virtual time.
        """
        exchange = exchange or Trained()
        group_sizes = tuple(self.layout.group_size(group) for group in self.layout.all_groups)
        memory = exchange.first_memory(group_sizes)
        norms = schedule.reads_gradient_norms
        norm_bytes = BYTES_PER_VALUE * self.layout.groups if norms else 0
        population = len(self._sizes)
        ledger = TransferLedger(self.table, population)
        costs = []
        seen: set[int] = set()
        now = 0.0
        for index in range(rounds):
            opening = None if world is None else world.open(now, cohort_size, index)
            available = None if opening is None else opening.available
            cohort = draw_cohort(sampler, index, cohort_size, self._sizes, seed, available=available)
            active, client_groups = checked_groups(
                schedule, index, self.layout.groups, seed, Feedback.none(self.layout), cohort, clients=clients
            )
            trained = TrainedRound(index, seed, group_sizes, cohort, client_groups)
            sent = checked_exchange(exchange, trained, memory)
            comm, comp = self.paper(cohort, sent, active.partial)
            down_bytes = ledger.take_over(cohort, index - exchange.rounds_late).nbytes
            works = [
                Work(
                    self.client_flops(groups, client, self.extra_passes(groups) if client in seen else 0, norms),
                    down,
                    self.uplink_bytes(of_client) + norm_bytes,
                )
                for client, groups, of_client, down in zip(cohort, client_groups, sent, down_bytes, strict=True)
            ]
            times = None if world is None or opening is None else world.round(opening.start, cohort, works)
            dropped = frozenset[int]() if times is None else times.dropped
            arriving = {client: work for client, work in zip(cohort, works, strict=True) if client not in dropped}
            costs.append(
                Costs(
                    uplink_bytes=sum(work.up_bytes for work in arriving.values()),
                    downlink_bytes=sum(down_bytes),
                    client_flops=sum(work.flops for work in arriving.values()),
                    paper_comm_gb=comm,
                    paper_comp_tflop=comp,
                    virtual_seconds=None if times is None else times.end - now,
                    joules=None if times is None else times.joules,
                )
            )
            now = 0.0 if times is None else times.end
            seen.update(arriving)
            arrived = [of_client for client, of_client in zip(cohort, sent, strict=True) if client in arriving]
            ledger.changed(self.table.uploaded(set().union(*arrived)), index)
        if self._rows_bytes is not None:
            uplinks = [self._rows_bytes if index == 0 else 0 for index in range(rounds)]
            costs = [
                replace(cost, uplink_bytes=nbytes, downlink_bytes=0)
                for cost, nbytes in zip(costs, uplinks, strict=True)
            ]
        return costs
