"""The server: the global parameters, the schedule, the rule, and who holds which version of what.

It needs NumPy alone. On a cluster it is an actor, inline a plain object; the same code either way.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.accounting.ledger import TransferLedger
from fedbench.algorithms.base import Algorithm, RoundUpdates, RuleContext, Values
from fedbench.checkpoints.files import Tree, attributes, restore_attributes, writable
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.errors import RunError
from fedbench.planning.participation import draw_cohort
from fedbench.planning.schedules import Feedback, Schedule
from fedbench.protocol.exact_sum import FixedPoint, decode
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline, add_message
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import LearningRate


@dataclass(frozen=True)
class ServerSpec:
    """What a server is made from.

    Attributes:
        table: the parts of a transfer.
        vector: float32 [P], the initial parameters; statistics: float32, the initial running statistics.
        sizes: samples of each client of the population.
        cohort_size: participants of a round.
        local: how many minibatches a client trains on.
        update: what is done to an update before it is sent.
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

    @property
    def layout(self) -> ParameterLayout:
        """Of the parameters."""
        return self.table.layout


class Server:
    """Plans rounds, hands out stale parts, sums what arrives, applies the method's rule.

    Memory does not grow with the number of participants, unless the rule looks at single updates: they are added as
    they arrive, in any order, with the same result (`fedbench.protocol.exact_sum`).
    """

    def __init__(self, spec: ServerSpec) -> None:
        """Args:
        spec: its vectors are copied.
        """
        self._spec = spec
        self._table = spec.table
        self._layout = spec.layout
        self._vectors = spec.table.zeros()
        self._vectors[PARAMETERS][:] = spec.vector
        self._vectors[STATISTICS][:] = spec.statistics
        self._rule = spec.algorithm.rule()
        self._ledger = TransferLedger(spec.table, len(spec.sizes))
        self._feedback = Feedback.none(self._layout)
        self._plan: RoundPlan | None = None
        self._union: tuple[int, ...] = ()
        self._total: FixedPoint = np.empty(0, np.int64)
        self._reference: Vector = np.empty(0, np.float32)
        self._messages: dict[int, Vector] = {}
        self._accepted: list[int] = []

    def plan(self, round_index: int) -> RoundPlan:
        """Open a round: draw the cohort, choose the groups, and count what each participant has to download."""
        plan = self._make_plan(round_index)
        self._plan = plan
        self._union = self._table.uploaded(plan.active.groups)
        self._reference = self._table.gather(self._vectors, self._union).copy()
        for part, segment in self._table.segments(self._union, self._union):
            if part.channel in self._table.channels:
                self._reference[segment] = 0
        self._total = np.zeros(len(self._reference), np.int64)
        self._messages = {}
        self._accepted = []
        return plan

    def _make_plan(self, round_index: int) -> RoundPlan:
        spec, groups = self._spec, self._layout.groups
        active = spec.schedule.active(round_index, groups, spec.seed, self._feedback)
        cohort = draw_cohort(spec.seed, round_index, len(spec.sizes), spec.cohort_size)
        chosen = tuple(spec.schedule.client_groups(client, round_index, groups, active) for client in cohort)
        raw = [spec.algorithm.weight(spec.sizes[client]) for client in cohort]
        weights = tuple(weight / sum(raw) for weight in raw)
        steps = [spec.local.steps_of(spec.sizes[client]) for client in cohort]
        return RoundPlan(
            round=round_index,
            active=active.of_all(chosen),
            cohort=cohort,
            groups=chosen,
            weights=weights,
            scales=spec.algorithm.scales(weights, steps),
            lr_factor=spec.learning_rate.factor(round_index, spec.rounds),
            versions=self._ledger.versions,
            downlink_bytes=self._download(round_index, cohort),
            uplink_bytes=tuple(spec.update.nbytes(self._table, self._table.uploaded(own)) for own in chosen),
        )

    def _download(self, round_index: int, cohort: tuple[int, ...]) -> tuple[int, ...]:
        return self._ledger.download(cohort)

    def payload(self, parts: tuple[int, ...]) -> Vector:
        """The current values of some parts, one after the other: what a host loads before it trains or scores."""
        return self._table.gather(self._vectors, parts) if parts else np.empty(0, np.float32)

    def receive(self, upload: npt.NDArray[np.int64] | Vector, clients: tuple[int, ...]) -> None:
        """Add what a host sent.

        Args:
            upload: an exact sum over `clients` (int64), or the messages of each, one after the other (float32).
            clients: whose updates these are; their host has found them summable.
        """
        assert self._plan is not None
        if upload.dtype == np.int64:
            np.add(self._total, upload, out=self._total)
            self._accepted += clients
            return
        place = {client: index for index, client in enumerate(self._plan.cohort)}
        start = 0
        for client in clients:
            parts = self._table.uploaded(self._plan.groups[place[client]])
            stop = start + self._table.values(parts)
            self._receive_one(client, place[client], parts, upload[start:stop].astype(np.float32, copy=False))
            start = stop

    def _receive_one(self, client: int, place: int, parts: tuple[int, ...], values: Vector) -> None:
        plan = self._plan
        assert plan is not None
        if self._rule.needs(plan.round) != "mean":
            self._messages[client] = values.copy()
        segments = self._table.segments(parts, self._union)
        reference = self._reference
        if parts != self._union:
            reference = np.concatenate([self._reference[segment] for _, segment in segments])
        if not add_message(
            self._total, self._union, self._table, parts, values, reference, plan.weights[place], plan.scales[place]
        ):
            raise RunError(f"round {plan.round}: client {client} sent an update that cannot be summed")
        self._accepted.append(client)

    def finish(self) -> RoundOutcome:
        """Close the round: apply the rule to what was trained, average the statistics, raise the versions.

        Raises:
            RunError: when no update was accepted.
        """
        plan = self._plan
        assert plan is not None
        if not self._accepted:
            raise self.nobody(plan)
        self._accepted.sort()
        factors = self._factors(plan)
        groups = tuple(group for group in plan.active.groups if group in factors)
        before = self._vectors[PARAMETERS].copy()
        for context in self._contexts(plan, groups):
            self._apply_rule(plan, context, factors)
        if -1 in (part.group for part in self._table.parts):
            statistics = self._vectors[STATISTICS]
            update = self._mean_update(STATISTICS, (-1,), factors)
            statistics[:] = (statistics.astype(np.float64) + update).astype(np.float32)
        self._ledger.changed(self._table.uploaded(groups), plan.round)
        norms = {}
        for group in groups:
            piece = self._layout.slices[group]
            norms[group] = float(np.linalg.norm(self._vectors[PARAMETERS][piece].astype(np.float64) - before[piece]))
        self._feedback = self._feedback.after(plan.active, groups, norms, self._layout)
        norm = math.sqrt(sum(value**2 for value in norms.values()))
        return RoundOutcome(norm, len(self._accepted), self._ledger.versions)

    def _contexts(self, plan: RoundPlan, groups: tuple[int, ...]) -> Iterator[RuleContext]:
        """What the rule is applied to at once.

        A rule that needs mean updates gets all groups that the same number of clients has trained, a rule that needs
        single updates one group at a time, a rule that needs the whole round everything.
        """
        accepted = set(self._accepted)
        trained = [own for client, own in zip(plan.cohort, plan.groups, strict=True) if client in accepted]
        counts = {group: sum(group in own for own in trained) for group in groups}
        needs, population, seed = self._rule.needs(plan.round), len(self._spec.sizes), self._spec.seed
        if needs == "round":
            yield RuleContext(self._layout, groups, plan.round, len(accepted), population, seed)
            return
        together = needs == "mean" and len(set(counts.values())) == 1
        for some in [groups] if together else [(group,) for group in groups]:
            yield RuleContext(self._layout, some, plan.round, counts[some[0]], population, seed)

    def _apply_rule(self, plan: RoundPlan, context: RuleContext, factors: dict[int, float]) -> None:
        parameters, groups = self._vectors[PARAMETERS], context.groups
        before = self._layout.gather(parameters, groups).astype(np.float64)
        needs = self._rule.needs(plan.round)
        if needs == "round":
            after = self._rule.combine_round(before, self._round_updates(plan, context, before), context)
        elif needs == "updates":
            after = self._rule.combine_each(before, *self._single_updates(plan, groups[0], before), context)
        else:
            after = self._rule.combine(before, self._mean_update(PARAMETERS, groups, factors), context)
        self._layout.scatter(self._checked(after, before, context), parameters, groups)
        for channel in self._table.channels:
            own = self._layout.gather(self._vectors[channel], groups).astype(np.float64)
            changed = self._rule.combine_channel(own, self._mean_update(channel, groups, factors), context)
            self._layout.scatter(self._checked(changed, own, context), self._vectors[channel], groups)

    def _checked(self, after: object, before: Values, context: RuleContext) -> Vector:
        """What a rule has returned, as float32.

        Raises:
            RunError: it is no array of one number for each value, or its numbers are not finite.
        """
        rule, method = type(self._rule), self._spec.algorithm.name
        name = f"round {context.round}: the server rule {rule.__module__}:{rule.__qualname__} of algorithm {method}"
        shape = after.shape if isinstance(after, np.ndarray) else type(after).__name__
        if not isinstance(after, np.ndarray) or after.shape != before.shape or after.dtype.kind != "f":
            dtype = f" of {after.dtype}" if isinstance(after, np.ndarray) else ""
            raise RunError(f"{name} returned {shape}{dtype}; it must return float64 {before.shape}, as it was given")
        if not np.isfinite(after).all():
            raise RunError(f"{name} returned values that are not finite; lower its learning rate, or look at the rule")
        return after.astype(np.float32)

    @staticmethod
    def nobody(plan: RoundPlan) -> RunError:
        """The error of a round in which no update was accepted."""
        return RunError(
            f"round {plan.round}: none of the {len(plan.cohort)} participants sent a finite update; "
            "lower local.optimizer.lr, or look at clients.parquet for who failed"
        )

    def _factors(self, plan: RoundPlan) -> dict[int, float]:
        """For each group that anyone accepted has trained (-1: all), what makes the weights of those sum to one.

        Exactly 1 where the whole cohort took part, so that nothing is rounded twice.
        """
        accepted = set(self._accepted)
        factors = {}
        for group in (-1, *plan.active.groups):
            trained = [group == -1 or group in own for own in plan.groups]
            weights = [
                weight
                for client, weight, has in zip(plan.cohort, plan.weights, trained, strict=True)
                if has and client in accepted
            ]
            if weights:
                factors[group] = 1.0 if len(weights) == len(plan.cohort) else 1.0 / sum(weights)
        return factors

    def _mean_update(self, channel: str, groups: tuple[int, ...], factors: dict[int, float]) -> Values:
        """float64, the mean update of a channel's `groups`, one after the other."""
        return np.concatenate(
            [
                decode(self._total[segment], factors[part.group])
                for part, segment in self._table.segments(self._union, self._union)
                if part.channel == channel and part.group in groups
            ]
        )

    def _single_updates(self, plan: RoundPlan, group: int, previous: Values) -> tuple[Values, Values]:
        """float64 [k, n] and [k]: the updates of one group by those who trained it, and their weights."""
        place = {client: index for index, client in enumerate(plan.cohort)}
        trained = [client for client in self._accepted if group in plan.groups[place[client]]]
        rows = []
        for client in trained:
            _, segment = self._table.segments((group,), self._table.uploaded(plan.groups[place[client]]))[0]
            rows.append(self._messages[client][segment] - previous)
        weights = np.array([plan.weights[place[client]] for client in trained])
        return np.array(rows), weights / weights.sum()

    def _round_updates(self, plan: RoundPlan, context: RuleContext, previous: Values) -> RoundUpdates:
        """All accepted updates, by client, over the groups of the context."""
        place = {client: index for index, client in enumerate(plan.cohort)}
        pieces, start = {}, 0
        for group in context.groups:
            stop = start + self._layout.group_size(group)
            pieces[group], start = slice(start, stop), stop
        messages, places = [], []
        for client in self._accepted:
            groups = plan.groups[place[client]]
            segments = self._table.segments(groups, self._table.uploaded(groups))
            messages.append(np.concatenate([self._messages[client][segment] for _, segment in segments]))
            places.append(tuple(pieces[group] for group in groups))
        weights = np.array([plan.weights[place[client]] for client in self._accepted])
        return RoundUpdates(previous, tuple(messages), tuple(places), weights / weights.sum())

    def start_parts(self) -> tuple[int, ...]:
        """What a model of a participant's own consists of; nothing where all start from the same."""
        return ()

    def starts(self, clients: tuple[int, ...]) -> Vector:
        """The models that these clients start from, one after the other, where each has its own."""
        return np.empty(0, np.float32)

    def versions(self) -> tuple[int, ...]:
        """Of each part, the round after which it last changed; 0 for the initial model."""
        return self._ledger.versions

    def state(self) -> Tree:
        """All that the server keeps between two rounds."""
        return {
            "vectors": self._vectors,
            "rule": attributes(self._rule),
            "ledger": attributes(self._ledger),
            "feedback": self._feedback,
        }

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        state = writable(state)
        self._vectors = state["vectors"]
        restore_attributes(self._rule, state["rule"])
        restore_attributes(self._ledger, state["ledger"])
        self._feedback = state["feedback"]

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""
        return self._vectors[PARAMETERS], self._vectors[STATISTICS]
