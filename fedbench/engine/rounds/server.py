"""The server of a synchronous run: global parameters, schedule, server rule, and the versions that clients hold.

It needs NumPy alone. On a cluster it runs inside a Ray actor, inline it is a plain object, with the same code.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from fedbench.accounting.ledger import TransferLedger
from fedbench.algorithms.base import Needs, RuleContext, ServerRule, Values
from fedbench.checkpoints.state import Tree, check_alike, writable
from fedbench.engine.divergence import too_few_updates
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.engine.rounds.averaging import average_groups, averages, changes, mean_update
from fedbench.engine.rounds.comparison import divergences_of
from fedbench.engine.rounds.normalisation import normalisers, scale_correction
from fedbench.engine.rounds.round_memory import RoundMemory
from fedbench.engine.rounds.rule_result import check_norms, checked, checked_weights
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.engine.rounds.single_updates import updates_of_part, updates_of_round
from fedbench.engine.rounds.starts import Starts
from fedbench.errors import RunError
from fedbench.measures.divergence import Divergence
from fedbench.planning.capacities import Clients
from fedbench.planning.checked_exchange import checked_exchange
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.exchange import TrainedRound
from fedbench.planning.samplers import ClientHistory, draw_cohort
from fedbench.planning.schedules import Feedback
from fedbench.protocol.exact_sum import FixedPoint
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.protocol.update_pipeline import add_message
from fedbench.randomness import global_generators_seeded, torch_seed
from fedbench.system.threads import OneThread


class Server:
    """Plans rounds, hands out stale parts, sums the updates that arrive and applies the method's rule.

    Updates are added as they arrive, and the sum is the same in any order (`fedbench.protocol.exact_sum`). Memory
    therefore does not grow with the number of participants, unless the rule needs the single updates.
    """

    def __init__(self, spec: ServerSpec) -> None:
        """Args:
        spec: everything that the server is made from; its vectors are copied.
        """
        self._spec = spec
        self._table = spec.table
        self._layout = spec.layout
        self._vectors = spec.table.zeros()
        self._vectors[PARAMETERS][:] = spec.vector
        self._vectors[STATISTICS][:] = spec.statistics
        self._rule = spec.algorithm.rule()
        self._one_thread = OneThread()
        self._ledger = TransferLedger(spec.table, len(spec.sizes))
        self._feedback = Feedback.none(self._layout)
        reads_norms = spec.schedule.reads_gradient_norms
        self._history = ClientHistory(len(spec.sizes), self._layout.groups if reads_norms else 0)
        self._memory = spec.exchange.first_memory(self._feedback.sizes)
        self._plan: RoundPlan | None = None
        self._union: tuple[int, ...] = ()
        self._round_memory = RoundMemory()
        self._total: FixedPoint = np.empty(0, np.int64)
        self._reference: Vector = np.empty(0, np.float32)
        self._messages: dict[int, Vector] = {}
        self._accepted: list[int] = []
        self._client_weights: Values | None = None

    def plan(self, round_index: int, available: Sequence[int] | None = None) -> RoundPlan:
        """Open round `round_index`: draw the cohort, choose the layer groups, count each participant's download.

        Args:
            round_index: the round, from 0.
            available: the clients that may take part, ascending; None: all.
        """
        plan = self._make_plan(round_index, available)
        if (rows_bytes := self._spec.rows_bytes) is not None:
            plan = replace(plan, uplink_bytes=(0 if round_index else rows_bytes,), downlink_bytes=(0,))
        self._plan = plan
        self._union = self._table.uploaded(plan.combined)
        # Perhaps a view: the vectors change when the round is closed, not before.
        memory = self._round_memory.reference(self._table.values(self._union))
        self._reference = self._table.gather(self._vectors, self._union, memory)
        if self._table.channels:
            self._reference = self._reference.copy()
            for part, segment in self._table.segments(self._union, self._union):
                if part.channel in self._table.channels:
                    self._reference[segment] = 0
        self._total = self._round_memory.total(len(self._reference))
        self._messages = {}
        self._accepted = []
        self._client_weights = None
        return plan

    def _make_plan(self, round_index: int, available: Sequence[int] | None) -> RoundPlan:
        spec, groups = self._spec, self._layout.groups
        cohort = draw_cohort(
            spec.sampler, round_index, spec.cohort_size, spec.sizes, spec.seed, self._history, RunError, available
        )
        active, client_groups = checked_groups(
            spec.schedule, round_index, groups, spec.seed, self._feedback, cohort, RunError, self._clients()
        )
        sizes = [spec.sizes[client] for client in cohort]
        steps = [spec.local.steps_of(size) for size in sizes]
        weights, scales = spec.algorithm.weights_and_scales(sizes, steps)
        trained = TrainedRound(round_index, spec.seed, self._feedback.sizes, cohort, client_groups)
        sent = checked_exchange(spec.exchange, trained, self._memory, RunError)
        starts = self._download(round_index, cohort)
        return RoundPlan(
            round=round_index,
            active=active.union_of(client_groups),
            cohort=cohort,
            groups=client_groups,
            sent=sent,
            weights=weights,
            scales=scales,
            lr_factor=spec.learning_rate.factor(round_index, spec.rounds),
            versions=self._ledger.versions,
            downlink_bytes=starts.downlink_bytes,
            uplink_bytes=tuple(
                spec.update.nbytes(self._table, self._table.uploaded(groups)) + spec.norm_bytes for groups in sent
            ),
            kept=starts.kept,
            mixed=starts.mixed,
        )

    def _download(self, round_index: int, cohort: tuple[int, ...]) -> Starts:
        """Bring the participants up to date at the start of the round."""
        exchange = self._spec.exchange
        download = self._ledger.take_over(cohort, round_index - exchange.rounds_late)
        return Starts.of(download, exchange, self._layout.all_groups)

    def payload(self, parts: tuple[int, ...]) -> Vector:
        """float32, the current values of `parts`, one after the other, for a host to load."""
        return self._table.gather(self._vectors, parts) if parts else np.empty(0, np.float32)

    def receive(self, upload: npt.NDArray[np.int64] | Vector, clients: tuple[int, ...]) -> None:
        """Add an upload of a host, or of the hosts of one node, to the round.

        Args:
            upload: the exact sum over `clients` (int64), or the message of each, one after the other (float32).
            clients: the clients whose updates these are; their host has checked that they can be summed.

        Raises:
            RunError: a message cannot be summed.
        """
        assert self._plan is not None
        if upload.dtype == np.int64:
            np.add(self._total, upload, out=self._total)
            self._accepted += clients
            return
        position = {client: index for index, client in enumerate(self._plan.cohort)}
        start = 0
        for client in clients:
            parts = self._table.uploaded(self._plan.sent[position[client]])
            stop = start + self._table.values(parts)
            self._receive_one(client, position[client], parts, upload[start:stop].astype(np.float32, copy=False))
            start = stop

    def _receive_one(self, client: int, position: int, parts: tuple[int, ...], values: Vector) -> None:
        """Add one client's message: float32 `values` of `parts`; `position` is the client's place in the cohort."""
        plan = self._plan
        assert plan is not None
        if self._rule.needs(plan.round) != "mean" or self._spec.compares_updates:
            self._messages[client] = values.copy()
        segments = self._table.segments(parts, self._union)
        reference = self._reference
        if parts != self._union:
            reference = np.concatenate([*(self._reference[segment] for _, segment in segments), values[:0]])
        if not add_message(
            self._total,
            self._union,
            self._table,
            parts,
            values,
            reference,
            plan.weights[position],
            plan.scales[position],
        ):
            raise RunError(f"round {plan.round + 1}: client {client} sent an update that cannot be summed")
        self._accepted.append(client)

    def _clients(self) -> Clients:
        """What is known of the clients at the start of a round."""
        if not self._spec.schedule.reads_gradient_norms:
            return self._spec.clients
        return replace(self._spec.clients, gradient_norms=self._history.gradient_norms)

    def finish(
        self, losses: Mapping[int, float] | None = None, norms: Mapping[int, Sequence[float]] | None = None
    ) -> RoundOutcome:
        """Close the round: apply the server rule, average the running statistics and count up the versions.

        Args:
            losses: {client: `rms_loss` of its report}, of the clients whose updates were accepted, for a sampler that
                follows training.
            norms: {client: `gradient_norms` of its report}, of the same clients, for a schedule that reads them.

        Raises:
            RunError: no update was accepted, or the rule returned an array that is not usable.
        """
        with self._one_thread():
            outcome = self._close()
        if self._spec.sampler.follows_training or norms:
            assert self._plan is not None
            self._history.reported(self._plan.round, losses or {}, norms)
        return outcome

    def _close(self) -> RoundOutcome:
        """Close the round, in one thread; result and errors as for `finish`."""
        plan = self._plan
        assert plan is not None
        if not self._accepted:
            raise self.no_update_error(plan)
        self._accepted.sort()
        factors = normalisers(plan, self._accepted)
        groups = tuple(group for group in plan.combined if group in factors)
        divergences: tuple[Divergence, ...] = ()
        if self._spec.compares_updates and groups:
            divergences = divergences_of(plan, self._table, self._union, self._reference, self._messages, groups)
        norms: dict[int, float] = {}
        with global_generators_seeded(torch_seed(self._spec.seed, "server rule", plan.round)):
            for context in self._contexts(plan, groups):
                norms |= self._apply_rule(plan, context, factors)
        if -1 in (part.group for part in self._table.parts):
            statistics = self._vectors[STATISTICS]
            update = self._statistics_update(factors)
            statistics[:] = (statistics.astype(np.float64) + update).astype(np.float32)
        self._ledger.changed(self._table.uploaded(groups), plan.round)
        discrepancies = {of_group.group: of_group.discrepancy for of_group in divergences if of_group.group != -1}
        self._feedback = self._feedback.after(plan.active, groups, norms, self._layout, discrepancies)
        self._memory = self._spec.exchange.remember(self._memory, plan.round, self._feedback)
        if self._spec.exchange.keeps_layers:
            for client in set(plan.cohort) - set(self._accepted):
                self._ledger.invalidate(client, self._layout.all_groups)
        norm = math.sqrt(sum(value**2 for value in norms.values()))
        return RoundOutcome(norm, len(self._accepted), self._ledger.versions, divergences)

    def _contexts(self, plan: RoundPlan, groups: tuple[int, ...]) -> Iterator[RuleContext]:
        """Split `groups` into the sets that the rule is applied to at once, one context for each.

        A rule that needs the whole round gets all groups at once. A rule that needs single updates gets one group at a
        time. A rule that needs mean updates gets all groups at once where each was sent by the same number of
        clients, else one at a time.
        """
        if not groups:
            return
        accepted = set(self._accepted)
        accepted_groups = [sent for client, sent in zip(plan.cohort, plan.sent, strict=True) if client in accepted]
        counts = {group: sum(group in sent for sent in accepted_groups) for group in groups}
        needs, population, seed = self._rule.needs(plan.round), len(self._spec.sizes), self._spec.seed
        if needs == "round":
            yield RuleContext(self._layout, groups, plan.round, len(accepted), population, seed)
            return
        together = needs == "mean" and len(set(counts.values())) == 1
        for subset in [groups] if together else [(group,) for group in groups]:
            yield RuleContext(self._layout, subset, plan.round, counts[subset[0]], population, seed)

    def _apply_rule(self, plan: RoundPlan, context: RuleContext, factors: dict[int, float]) -> dict[int, float]:
        """Replace parameters and further channels in the context's groups by what the rule makes of them.

        Returns:
            {group: L2 norm of the change of its parameters}.
        """
        parameters, groups = self._vectors[PARAMETERS], context.groups
        needs = self._rule.needs(plan.round)
        if needs == "mean" and averages(self._rule):
            pieces = self._pieces(PARAMETERS, groups, factors)
            result = self._round_memory.result(self._layout.count(pieces))
            after, norms = average_groups(parameters, self._total, pieces, self._layout, result)
            check_norms(norms, self._rule_name(plan.round))
        else:
            after = self._combined(plan, context, factors, needs)
            norms = changes(after, parameters, groups, self._layout)
        self._layout.scatter(after, parameters, groups)
        for channel in self._table.channels:
            previous = self._layout.gather(self._vectors[channel], groups).astype(np.float64)
            changed = self._rule.combine_channel(previous, self._mean_update(channel, groups, factors), context)
            self._layout.scatter(
                checked(changed, previous, self._rule_name(plan.round)), self._vectors[channel], groups
            )
        return norms

    def _combined(self, plan: RoundPlan, context: RuleContext, factors: dict[int, float], needs: Needs) -> Vector:
        """float32, the parameters of the context's groups as the rule makes them, one group after the other."""
        groups = context.groups
        before = self._layout.gather(self._vectors[PARAMETERS], groups).astype(np.float64)
        if needs not in get_args(Needs):
            raise RunError(f"{self._rule_name(plan.round)}: needs returned {needs!r}; allowed: mean, updates, round")
        if needs == "round":
            updates = updates_of_round(plan, self._table, self._messages, self._accepted, context.groups, before)
            if (weights := self._rule.client_weights(updates, context)) is not None:
                self._client_weights = checked_weights(weights, len(updates), self._rule_name(plan.round))
                updates = replace(updates, weights=self._client_weights)
            after = self._rule.combine_round(before, updates, context)
        elif needs == "updates":
            if context.participants < self._rule.fewest:
                raise RunError(too_few_updates(self._spec.algorithm, context, self._rule.fewest))
            singles = self._single_updates(plan, PARAMETERS, groups[0], before)
            after = self._rule.combine_each(before, *singles, context)
        else:
            after = self._rule.combine(before, self._mean_update(PARAMETERS, groups, factors), context)
        return checked(after, before, self._rule_name(plan.round))

    def _rule_name(self, round_index: int) -> str:
        """The round, the class of the rule and the method, for an error message."""
        rule, method = type(self._rule), self._spec.algorithm.name
        return f"round {round_index + 1}: the server rule {rule.__module__}:{rule.__qualname__} of algorithm {method}"

    @staticmethod
    def no_update_error(plan: RoundPlan) -> RunError:
        """The error of a round in which no update was accepted."""
        return RunError(
            f"round {plan.round + 1}: no update of the {len(plan.cohort)} participants was accepted; "
            "look at their reports"
        )

    def _mean_update(self, channel: str, groups: tuple[int, ...], factors: dict[int, float]) -> Values:
        """float64 [n], the weighted mean update of a channel in `groups`, one group after the other."""
        return mean_update(self._total, tuple(self._pieces(channel, groups, factors).values()))

    def _pieces(
        self, channel: str, groups: tuple[int, ...], factors: dict[int, float]
    ) -> dict[int, tuple[slice, float]]:
        """{group: place in the round's sum, and the factor that makes a mean of it}, in the order of the sum."""
        plan, spec = self._plan, self._spec
        assert plan is not None
        rescaling = dict.fromkeys(groups, 1.0)
        if channel == PARAMETERS and spec.algorithm.scales_are_special():
            rescaling = {
                group: scale_correction(plan, self._accepted, group, spec.algorithm, spec.sizes, spec.local)
                for group in groups
            }
        return {
            part.group: (segment, factors[part.group] * rescaling[part.group])
            for part, segment in self._table.segments(self._union, self._union)
            if part.channel == channel and part.group in groups
        }

    def _statistics_update(self, factors: dict[int, float]) -> Values:
        """float64 [n], the update of the running statistics from those of the accepted clients.

        It is their weighted mean, by the weights of the rule where it has some (`ServerRule.client_weights`), or what a
        rule that looks at single updates takes in its place.
        """
        plan, rule, weights = self._plan, self._rule, self._client_weights
        assert plan is not None
        if weights is not None:
            previous = self._vectors[STATISTICS].astype(np.float64)
            chosen: Values = weights @ self._single_updates(plan, STATISTICS, -1, previous)[0]
            return chosen
        if rule.needs(plan.round) != "updates" or type(rule).location is ServerRule.location:
            return self._mean_update(STATISTICS, (-1,), factors)
        previous = self._vectors[STATISTICS].astype(np.float64)
        return rule.location(*self._single_updates(plan, STATISTICS, -1, previous))

    def _single_updates(self, plan: RoundPlan, channel: str, group: int, previous: Values) -> tuple[Values, Values]:
        """The updates of one part by the accepted clients, as `updates_of_part` gives them."""
        return updates_of_part(plan, self._table, self._messages, self._accepted, channel, group, previous)

    def start_parts(self) -> tuple[int, ...]:
        """Parts of the model that each participant is given for itself; empty where all start from the global one."""
        return ()

    def starts(self, clients: tuple[int, ...]) -> Vector:
        """float32, the models that `clients` start from, one after the other; empty where all start from one model."""
        return np.empty(0, np.float32)

    def versions(self) -> tuple[int, ...]:
        """For each part, the number of rounds after which it last changed; 0 is the initial model."""
        return self._ledger.versions

    def state(self) -> Tree:
        """Everything that the server keeps between two rounds, for a checkpoint."""
        return {
            "vectors": self._vectors,
            "rule": self._rule.state(),
            "ledger": self._ledger.state(),
            "feedback": self._feedback,
            "history": self._history.state(),
            "exchange": list(self._memory),
        }

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""
        state = writable(state)
        check_alike(self._vectors, state["vectors"])
        self._vectors = state["vectors"]
        self._rule.restore(state["rule"])
        self._ledger.restore(state["ledger"])
        self._feedback = state["feedback"]
        self._history.restore(state["history"])
        self._memory = tuple(state["exchange"])

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and the global running statistics, both float32."""
        return self._vectors[PARAMETERS], self._vectors[STATISTICS]
