"""Asynchronous runs followed round by round, without a run directory; and what their events must agree with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import make_clock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.interfaces import ArrivalExecutor
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import Problem
from fedbench.planning.schedules import Feedback
from fedbench.protocol.layout import Vector, model_digest
from fedbench.records.schema import ArrivalRecord, RoundRecord


@dataclass(frozen=True)
class Followed:
    """A run.

    Attributes:
        rows: one record a round; models: parameters and statistics at its end.
        arrivals: all of them.
    """

    problem: Problem
    rows: tuple[RoundRecord, ...]
    models: tuple[tuple[Vector, Vector], ...]
    arrivals: tuple[ArrivalRecord, ...]

    @property
    def digest(self) -> str:
        """As `model_sha256` of the run."""
        return model_digest(*self.models[-1])

    def plain(self) -> list[dict[str, Any]]:
        """The arrivals without what depends on the machine's speed."""
        return [asdict(arrival) | {"wall_seconds": 0.0} for arrival in self.arrivals]

    def scores(self) -> list[tuple[float | None, float | None]]:
        """(loss, accuracy) of each round on the test split."""
        return [(row.test_loss, row.test_accuracy) for row in self.rows]


def followed(config: ExperimentConfig) -> Followed:
    """Run where the configuration says."""
    with prepared(config) as (problem, executor):
        assert isinstance(executor, ArrivalExecutor)
        return follow(problem, executor)


def follow(problem: Problem, executor: ArrivalExecutor) -> Followed:
    """Run on an executor that is there."""
    config = problem.config
    assert problem.arrivals is not None
    clock = make_clock(config, executor.ready)
    arrivals = ArrivalLoop(problem.arrivals, executor, clock, problem.costs, config.runtime.max_failed_clients)
    rounds, models = [], []
    for finished in arrivals.rounds(config.evaluation.every, lambda: False):
        rounds.append(finished)
        vector, statistics = executor.model()
        models.append((vector.copy(), statistics.copy()))
    return Followed(
        problem,
        tuple(one.record for one in rounds),
        tuple(models),
        tuple(arrival for one in rounds for arrival in one.arrivals),
    )


class Oracle:
    """What the events of a run on the virtual clock say, told from their order alone.

    A slot whose task has arrived is given its next one before the next arrival; so a task was given out right after
    the arrival before it in the same slot, in the round of the arrival that came next. Holds for rounds of a number
    of arrivals, and methods without a lock-step.
    """

    def __init__(self, problem: Problem, events: Sequence[dict[str, Any]]) -> None:
        self.problem = problem
        self.events = events
        self._accepted = [0]
        last_of_slot: dict[int, int] = {}
        self.given: list[int] = []
        for place, event in enumerate(events):
            self.given.append(last_of_slot.get(event["worker"], -1))
            last_of_slot[event["worker"]] = place
            self._accepted.append(self._accepted[-1] + (event["status"] == "ok"))

    def index(self, place: int) -> int:
        """Updates applied before the task was given out."""
        return self._accepted[self.given[place] + 1]

    def staleness(self, place: int) -> int:
        """Updates applied between that and its arrival."""
        return self._accepted[place] - self.index(place)

    def visit(self, place: int) -> int:
        """Tasks that the client has had before."""
        return sum(event["client"] == self.events[place]["client"] for event in self.events[:place])

    def groups(self, place: int) -> tuple[int, ...]:
        """Layer groups that the task trains."""
        schedule, layout = self.problem.config.schedule, self.problem.layout
        index = self.events[self.given[place] + 1]["round"]
        active = schedule.active(index, layout.groups, self.problem.config.seed, Feedback.none(layout))
        return schedule.client_groups(self.events[place]["client"], index, layout.groups, active)

    def uplink(self, groups: Sequence[int]) -> int:
        """4 bytes a value: these groups, and the statistics where they travel."""
        table = self.problem.spec.table
        return 4 * (table.layout.count(groups) + table.layout.statistics_size * table.statistics)

    def downlink(self, place: int, period: int = 1) -> int:
        """Everything the first time; then what has changed since the task that the client had before.

        Args:
            period: a group changes once in so many of its updates.
        """
        layout, table = self.problem.layout, self.problem.spec.table
        client = self.events[place]["client"]
        before = [other for other in range(place) if self.events[other]["client"] == client]
        if not before:
            return self.uplink(layout.all_groups)
        since, now = self.index(before[-1]), self.index(place)
        updates, changed = Counter[int](), set()
        applied = [other for other, event in enumerate(self.events) if event["status"] == "ok"]
        for number, other in enumerate(applied[:now]):
            for group in self.groups(other):
                updates[group] += 1
                if number >= since and updates[group] % period == 0:
                    changed.add(group)
        return 4 * (layout.count(changed) + layout.statistics_size * (table.statistics and now > since))
