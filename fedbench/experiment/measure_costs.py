"""What the measures of a run's `analysis` section cost, before it is run."""

from collections.abc import Iterator
from dataclasses import dataclass

from fedbench.data.client_holdout import KEY as CLIENT_TEST_KEY
from fedbench.experiment.setup import Problem
from fedbench.planning.samplers import draw_cohort
from fedbench.planning.schedules import Feedback
from fedbench.protocol.layout import BYTES_PER_VALUE
from fedbench.records.client_scores import CLIENT_SCORE_SCHEMA
from fedbench.records.measured import CKA_SCHEMA, DIVERGENCE_SCHEMA, STEP_SCHEMA

STEP_NORM_FLOPS = 5
"""FLOPs of a step's norms for each parameter that trains: a difference, and a square and a sum for change and gradient.
"""

DIVERGENCE_FLOPS = 7
"""FLOPs of the divergence for each value of a client's update: a difference, its share of the mean, two products."""

STEP_NORM_TIME = "measured on a CPU: 4 % of a round of ResNet-8 at batch 32, 6 to 8 % of a small network's at batch 16"
"""What its FLOPs do not tell: the norms wait for memory, and each is an operator of its own."""

DIVERGENCE_TIME = "measured on a CPU: 1 % of a round of ResNet-8 with 500 images a client, 2 % of a small network's"

BYTES_PER_COLUMN = 8
"""Bytes of a value in a table before compression, at most."""


@dataclass(frozen=True)
class MeasureCost:
    """What one measure costs.

    Attributes:
        name: the key of the section `analysis`, or a dotted key of another section.
        flops: what it computes in the whole run, all clients.
        share_of_work: those against the clients' own work.
        table_bytes: size of its table before compression, at most.
        server_bytes: memory that it takes on the server for the updates of a round.
        time: what was measured of its share of a round's time, where its FLOPs say little of it; else "".
    """

    name: str
    flops: int
    share_of_work: float
    table_bytes: int
    server_bytes: int = 0
    time: str = ""

    @property
    def key(self) -> str:
        """The dotted key of the configuration."""
        return self.name if "." in self.name else f"analysis.{self.name}"


def measure_costs(problem: Problem, client_flops: int) -> Iterator[MeasureCost]:
    """What each measure of the configuration costs.

    Args:
        problem: the run, in rounds.
        client_flops: the clients' own work in the whole run.
    """
    analysis, layout, length = problem.config.analysis, problem.layout, problem.server.local
    if analysis.step_norms:
        flops = rows = 0
        for cohort, groups in (_participants(problem, index) for index in range(problem.rounds)):
            steps = [length.steps_of(problem.federation.sizes[client]) for client in cohort]
            flops += sum(
                STEP_NORM_FLOPS * count * layout.count(trained) for count, trained in zip(steps, groups, strict=True)
            )
            rows += max(steps) * (1 + len(set().union(*groups)))
        table_bytes = rows * BYTES_PER_COLUMN * len(STEP_SCHEMA)
        yield MeasureCost("step_norms", flops, flops / client_flops, table_bytes, time=STEP_NORM_TIME)
    if analysis.divergence:
        flops = values = server_bytes = 0
        for _cohort, groups in (_participants(problem, index) for index in range(problem.rounds)):
            flops += sum(DIVERGENCE_FLOPS * layout.count(trained) for trained in groups)
            trainers = [(-1, *trained) for trained in groups]
            values += sum(map(len, trainers)) * 2 + len(set().union(*trainers)) * (len(DIVERGENCE_SCHEMA) - 2)
            server_bytes = max(server_bytes, sum(BYTES_PER_VALUE * layout.count(trained) for trained in groups))
        table_bytes = values * BYTES_PER_COLUMN
        yield MeasureCost("divergence", flops, flops / client_flops, table_bytes, server_bytes, DIVERGENCE_TIME)
    if problem.federation.test_rows:
        yield _client_scoring_cost(problem, client_flops)
    for name, rounds in (("cka", analysis.cka), ("barrier", analysis.barrier)):
        if rounds:
            yield _probe_cost(problem, name, rounds, client_flops)


def _probe_cost(problem: Problem, name: str, rounds: tuple[int, ...], client_flops: int) -> MeasureCost:
    """The cost of comparing clients' models with the global one after some rounds, counted from 1.

    Counted are the forward passes: of each client's and the global model for `cka`, of all points of the lines for
    `barrier`. The products of features of `cka` are not counted.
    """
    analysis, layout = problem.config.analysis, problem.layout
    samples = min(analysis.samples, problem.federation.data.scored_rows["test"])
    passes = values = 0
    for number in rounds:
        cohort, groups = _participants(problem, number - 1)
        lines = 1 + len(set().union(*groups))
        of_barrier = 1 + lines * (analysis.points - 1)
        passes += len(cohort) * (2 if name == "cka" else of_barrier)
        values += len(cohort) * (layout.groups * len(CKA_SCHEMA) if name == "cka" else lines * (4 + analysis.points))
    flops = passes * problem.costs.forward_flops(samples)
    return MeasureCost(name, flops, flops / client_flops, values * BYTES_PER_COLUMN)


def _client_scoring_cost(problem: Problem, client_flops: int) -> MeasureCost:
    """The cost of scoring clients on their held-out rows: participants twice as they train, all clients after a round.

    Counted are the forward passes.
    """
    scoring, sizes = problem.spec.client_scoring, [len(rows) for rows in problem.federation.test_rows]
    due = [index for index in range(problem.rounds) if scoring.is_due(index)]
    passes = len(due) * sum(sizes)
    if scoring.participants:
        passes += 2 * sum(sizes[client] for index in due for client in _participants(problem, index)[0])
    flops = problem.costs.forward_flops(passes)
    values = len(due) * sum(size > 0 for size in sizes) * len(CLIENT_SCORE_SCHEMA)
    return MeasureCost(CLIENT_TEST_KEY, flops, flops / client_flops, values * BYTES_PER_COLUMN)


def _participants(problem: Problem, round_index: int) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """A round's cohort, and the layer groups that each of it trains, as they are foreseen."""
    schedule, seed, layout = problem.config.schedule, problem.config.seed, problem.layout
    active = schedule.active(round_index, layout.groups, seed, Feedback.none(layout))
    sampler, sizes = problem.config.participation.sampler, problem.federation.sizes
    cohort = draw_cohort(sampler, round_index, problem.cohort_size, sizes, seed)
    return cohort, schedule.cohort_groups(cohort, round_index, layout.groups, active, problem.server.clients)
