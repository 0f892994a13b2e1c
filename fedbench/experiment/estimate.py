"""What a run will cost, before it is run."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from fedbench.accounting.totals import Costs, total
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.arrivals.dry_run import DryRun
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.bookkeeping import FinishedRound
from fedbench.errors import DataError
from fedbench.experiment.device_memory import TrainingMemory
from fedbench.experiment.exchanging import sent_groups
from fedbench.experiment.federation import load_federation, outline_federation
from fedbench.experiment.kept_files import Kept, foreseen_kept
from fedbench.experiment.measure_costs import MeasureCost, measure_costs
from fedbench.experiment.remarks import work_left_out
from fedbench.experiment.setup import Problem, build_problem, full_update_costs, pace
from fedbench.planning.delays import DelaysSection
from fedbench.planning.exchange import Trained
from fedbench.planning.samplers import draw_cohort
from fedbench.planning.schedules import Feedback
from fedbench.planning.worlds import total_joules
from fedbench.protocol.layout import BYTES_PER_VALUE


@dataclass(frozen=True)
class RoundKind:
    """One client's round, or its task in an asynchronous run, with a given set of active groups.

    Attributes:
        name: "full", or the layer group's name.
        parameters: that train and travel.
        uplink_bytes: sent; the most of any of these rounds, where not all participants send the same.
        flops: of the local work, measured; of the largest client.
        share_of_full: those FLOPs against a full update's.
        peak_bytes: estimated peak memory of a training step.
        rounds: how many rounds of the run are of this kind.
    """

    name: str
    parameters: int
    uplink_bytes: int
    flops: int
    share_of_full: float
    peak_bytes: int
    rounds: int


@dataclass(frozen=True)
class Estimate:
    """What a run will cost.

    Attributes:
        title: what it is, in words.
        remark: what the figures rest on, where not on the data itself; else "".
        rounds_by_kind: the kinds of rounds of the run, full updates first.
        per_round: the costs of each round, all clients.
        total, full_updates: of all rounds, and of the same rounds as full network updates.
        virtual_seconds: on the virtual clock; None without one.
        joules: energy of all clients; None where it is not known.
        kept: the models and messages that the run keeps for later analysis.
        measures: what the measures of `analysis` cost.
    """

    title: str
    remark: str
    rounds_by_kind: tuple[RoundKind, ...]
    per_round: tuple[Costs, ...]
    total: Costs
    full_updates: Costs
    virtual_seconds: float | None = None
    kept: Kept = field(default_factory=Kept)
    measures: tuple[MeasureCost, ...] = ()
    joules: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Nested plain values."""
        return asdict(self)


def estimate(config: ExperimentConfig) -> Estimate:
    """Count what the configured run will cost, without training.

    Where the data is not there but its shape is known, the shape is enough.

    Raises:
        FedbenchError: as the run itself would.
    """
    outline = outline_federation(config)
    try:
        federation = load_federation(config) if outline is None or config.data.root else outline
    except DataError:
        if outline is None:
            raise
        federation = outline
    remarks = list(unforeseeable(config))
    if federation is outline:
        remarks.insert(0, f"{federation.data.name} is not there: counted from its published size and shape")
    problem = build_problem(config, federation, foresees=True)
    layout, costs = problem.layout, problem.costs
    remarks.extend(work_left_out(costs.uncounted))
    remarks.extend(server_memory(problem))
    memory = TrainingMemory(config, layout, federation.task, problem.spec.base)
    largest = max(range(len(federation.sizes)), key=federation.sizes.__getitem__)
    seen = Counter(
        config.schedule.active(r, layout.groups, config.seed, Feedback.none(layout)).groups
        for r in range(problem.rounds)
    )

    uplinks = {} if isinstance(config.chosen_exchange, Trained) else _uplinks(problem)

    def flops(active: tuple[int, ...]) -> int:
        if problem.arrivals is not None and problem.arrivals.gradient:
            return costs.minibatch_flops(active, min(config.local.batch_size, federation.sizes[largest]))
        return costs.client_flops(active, largest)

    kinds = [
        RoundKind(
            name="full" if active == layout.all_groups else " + ".join(layout.group_names[group] for group in active),
            parameters=layout.count(active),
            uplink_bytes=uplinks.get(active, costs.uplink_bytes(active)),
            flops=flops(active),
            share_of_full=flops(active) / flops(layout.all_groups),
            peak_bytes=memory.peak_bytes(active, memory.minibatch(federation.sizes[largest])),
            rounds=rounds,
        )
        for active, rounds in sorted(seen.items(), key=lambda item: (-len(item[0]), item[0]))
    ]
    exchange = config.chosen_exchange
    sent = "" if isinstance(exchange, Trained) else f"{exchange.name} exchange, "
    title = (
        f"{config.name}: {config.method.name}, {config.schedule.name} schedule, {sent}{config.model.name} "
        f"({layout.size:,} parameters, {layout.groups} layer groups), {pace(problem)}"
    )
    if problem.arrivals is not None:
        finished = foreseen(problem)
        per_round = list(costs_of(finished))
        full = total([row.full for row in finished if row.full])
        seconds = finished[-1].record.virtual_seconds
        summed = total(per_round)
        remark, kept = "; ".join(remarks), foreseen_kept(problem)
        known = [row.record.joules for row in finished] if problem.world is not None else [None]
        joules = total_joules(known)
        return Estimate(title, remark, tuple(kinds), tuple(per_round), summed, full, seconds, kept, joules=joules)
    per_round = costs.project(
        config.schedule,
        problem.rounds,
        problem.cohort_size,
        config.seed,
        config.participation.sampler,
        config.chosen_exchange,
        problem.server.clients,
        problem.world,
    )
    return Estimate(
        title,
        "; ".join(remarks),
        tuple(kinds),
        tuple(per_round),
        summed := total(per_round),
        total(full_update_costs(problem, problem.rounds)),
        kept=foreseen_kept(problem),
        measures=tuple(measure_costs(problem, summed.client_flops)),
        virtual_seconds=summed.virtual_seconds,
        joules=summed.joules,
    )


def _uplinks(problem: Problem) -> dict[tuple[int, ...], int]:
    """{active layer groups: the most bytes that a participant of such a round sends}."""
    config, layout = problem.config, problem.layout
    most: dict[tuple[int, ...], int] = {}

    def cohort(index: int) -> tuple[int, ...]:
        sizes, size = problem.federation.sizes, problem.cohort_size
        return draw_cohort(config.participation.sampler, index, size, sizes, config.seed)

    for index, sent in enumerate(sent_groups(config, layout, problem.rounds, cohort, problem.server.clients)):
        active = config.schedule.active(index, layout.groups, config.seed, Feedback.none(layout)).groups
        most[active] = max([most.get(active, 0), *map(problem.costs.uplink_bytes, set(sent))])
    return most


def foreseen(problem: Problem) -> list[FinishedRound]:
    """The rounds of an asynchronous run, without their computation.

    On the wall clock, whose arrivals nobody knows beforehand, they are those of the default virtual clock.
    """
    config = problem.config
    assert problem.arrivals is not None
    delays = DelaysSection() if config.delays.clock == "wall" else config.delays
    clock = VirtualClock(delays, config.seed, config.data.clients)
    arrivals = ArrivalLoop(problem.arrivals, DryRun(problem.arrivals, problem.costs), clock, problem.costs)
    return list(arrivals.rounds(problem.rounds, lambda: False))


def costs_of(finished: Iterable[FinishedRound]) -> Iterator[Costs]:
    """What each round has cost; in the records the paper's figures are cumulative."""
    comm_gb: float | None = 0.0
    comp_tflop = 0.0
    for record in (row.record for row in finished):
        yield Costs(
            record.uplink_bytes,
            record.downlink_bytes,
            record.client_flops,
            None if record.paper_comm_gb is None or comm_gb is None else record.paper_comm_gb - comm_gb,
            record.paper_comp_tflop - comp_tflop,
        )
        comm_gb, comp_tflop = record.paper_comm_gb, record.paper_comp_tflop


def server_memory(problem: Problem) -> Iterator[str]:
    """Says what the server of an asynchronous method keeps for its workers, if it keeps vectors for them."""
    if problem.arrivals is None or not (vectors := problem.arrivals.method.vectors_per_worker):
        return
    method, workers = problem.arrivals.method, problem.arrival_server.workers
    megabytes = vectors * workers * problem.layout.size * BYTES_PER_VALUE / 1e6
    whose = "clients" if method.workers_are == "clients" else "tasks in flight"
    yield f"the server of {method.name} keeps up to {megabytes:,.1f} MB for its {workers} {whose}"


def unforeseeable(config: ExperimentConfig) -> Iterator[str]:
    """Names the costs that depend on the run itself and how they are counted here, one line each."""
    if config.asynchronous and config.delays.clock == "wall":
        yield "who works when on the wall clock is not known beforehand: counted as on the default virtual clock"
    if config.schedule.reads_gradient_norms:
        name = config.schedule.name
        yield f"schedule.name={name} follows gradients that clients report: counted as if all were equal"
    elif config.schedule.follows_training:
        yield f"schedule.name={config.schedule.name} follows what the run measures: counted shallow to deep"
    if (sampler := config.participation.sampler).follows_training:
        yield f"participation.sampler={sampler.name} follows what clients report: counted as if none ever did"
    if config.chosen_exchange.follows_training:
        yield f"exchange.name={config.chosen_exchange.name} follows what the run measures: counted as at the start"
    if config.method.rule().own_models and config.schedule.name != "full":
        yield f"the downlink of {config.method.name} depends on who holds which layer: counted as FedAvg's"
