"""A server whose participants each start from a model of their own, out of a pool of models.

The pool has as many models as a round has participants, equal at the start. Model i goes to the i-th drawn client, in
random order; what the client trains replaces the active groups of that model; then the method's rule changes the pool
(`ServerRule.recombine`). The global model, for evaluation only, is the unweighted mean of the pool.
"""

from dataclasses import replace

import numpy as np

from fedbench.checkpoints.files import Tree, writable
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.engine.rounds.server import Server, ServerSpec
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS
from fedbench.protocol.model_pool import ModelPool
from fedbench.randomness import generator


class PoolServer(Server):
    """Keeps the models of a pool; memory is that of as many models as a round has participants.

    Downlink: every part of its pool model that a client does not hold (`ModelPool`). A full round so costs what
    FedAvg's does.
    """

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(spec)
        self._pool = ModelPool(spec.table, self._vectors, spec.cohort_size, len(spec.sizes))
        self._models_of: dict[int, int] = {}

    def _make_plan(self, round_index: int) -> RoundPlan:
        return replace(super()._make_plan(round_index), own_starts=True)

    def _download(self, round_index: int, cohort: tuple[int, ...]) -> tuple[int, ...]:
        order = generator(self._spec.seed, "pool", round_index).permutation(len(cohort))
        self._models_of = {client: int(index) for client, index in zip(cohort, order, strict=True)}
        return tuple(self._pool.download(client, self._models_of[client]) for client in cohort)

    def state(self) -> Tree:
        """All that the server keeps between two rounds."""
        return super().state() | {"pool": self._pool.state()}

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        state = writable(state)
        super().restore(state)
        self._pool.restore(state["pool"])

    def start_parts(self) -> tuple[int, ...]:
        """What a pool model consists of: everything that travels."""
        return tuple(range(len(self._table.parts)))

    def starts(self, clients: tuple[int, ...]) -> Vector:
        """The models that these clients start from, one after the other."""
        models = (self._pool.model(self._models_of[client]) for client in clients)
        return np.concatenate([self._table.gather(model, self.start_parts()) for model in models])

    def _receive_one(self, client: int, place: int, parts: tuple[int, ...], values: Vector) -> None:
        plan = self._plan
        assert plan is not None
        if self._rule.needs(plan.round) == "mean":
            super()._receive_one(client, place, parts, values)
            return
        self._pool.trained(self._models_of[client], parts, values)
        self._accepted.append(client)

    def finish(self) -> RoundOutcome:
        """Close the round: let the rule change the pool, or average it, and renew the mean model.

        Raises:
            RunError: when no update was accepted.
        """
        plan = self._plan
        assert plan is not None
        parts = self._table.uploaded(plan.active.groups)
        if self._rule.needs(plan.round) == "mean":
            outcome = super().finish()
            self._pool.level(parts, self._vectors)
            return outcome
        if not self._accepted:
            raise self.nobody(plan)
        for context in self._contexts(plan, plan.active.groups):
            self._rule.recombine(self._pool, context)
        self._pool.settle()
        before = self._vectors[PARAMETERS].astype(np.float64)
        for channel, values in self._pool.mean().items():
            self._vectors[channel][:] = values
        self._ledger.changed(parts, plan.round)
        change = self._vectors[PARAMETERS] - before
        norms = {group: float(np.linalg.norm(change[self._layout.slices[group]])) for group in plan.active.groups}
        self._feedback = self._feedback.after(plan.active, plan.active.groups, norms, self._layout)
        return RoundOutcome(float(np.linalg.norm(change)), len(self._accepted), self._ledger.versions)
