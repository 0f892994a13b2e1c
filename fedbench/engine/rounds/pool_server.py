"""A server that keeps a pool of models, one for each participant of a round to start from.

The pool has as many models as a round has participants, all equal at the start. In each round the models are dealt to
the participants in random order. The layer groups that a client has trained replace those of its pool model; then the
method's rule changes the pool (`ServerRule.recombine`). The global model, for evaluation only, is the unweighted mean
of the pool, as the rule left it or as the clients did (`ServerRule.averages_trained`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedbench.checkpoints.state import Tree, writable
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.engine.rounds.server import Server
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.engine.rounds.starts import Starts
from fedbench.errors import RunError
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS
from fedbench.protocol.model_pool import ModelPool
from fedbench.randomness import generator, global_generators_seeded, torch_seed


class PoolServer(Server):
    """A server whose participants start from the models of a pool.

    Its memory grows with the number of participants of a round. A client downloads every part of its pool model that
    it does not hold yet (`ModelPool`), so that a full round costs as many bytes as one of FedAvg.
    """

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(spec)
        self._pool = ModelPool(spec.table, self._vectors, spec.cohort_size, len(spec.sizes))
        self._models_of: dict[int, int] = {}

    def _make_plan(self, round_index: int, available: Sequence[int] | None) -> RoundPlan:
        return replace(super()._make_plan(round_index, available), own_starts=True)

    def _download(self, round_index: int, cohort: tuple[int, ...]) -> Starts:
        order = generator(self._spec.seed, "pool", round_index).permutation(len(cohort))
        self._models_of = {client: int(index) for client, index in zip(cohort, order, strict=True)}
        return Starts(tuple(self._pool.download(client, self._models_of[client]) for client in cohort))

    def state(self) -> Tree:
        """Everything that the server keeps between two rounds, for a checkpoint."""
        return super().state() | {"pool": self._pool.state()}

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""
        super().restore(state)
        self._pool.restore(writable(state["pool"]))

    def start_parts(self) -> tuple[int, ...]:
        """The parts of a pool model: all parts of the table."""
        return tuple(range(len(self._table.parts)))

    def starts(self, clients: tuple[int, ...]) -> Vector:
        """float32, the pool models that `clients` start from, one after the other."""
        models = (self._pool.model(self._models_of[client]) for client in clients)
        return np.concatenate([self._table.gather(model, self.start_parts()) for model in models])

    def _receive_one(self, client: int, position: int, parts: tuple[int, ...], values: Vector) -> None:
        plan = self._plan
        assert plan is not None
        if self._rule.needs(plan.round) == "mean":
            super()._receive_one(client, position, parts, values)
            return
        self._pool.trained(self._models_of[client], parts, values)
        self._accepted.append(client)

    def _close(self) -> RoundOutcome:
        """Close the round: let the rule recombine the pool, or average it, and compute the mean model again.

        Raises:
            RunError: no update was accepted.
        """
        plan = self._plan
        assert plan is not None
        parts = self._table.uploaded(plan.active.groups)
        if self._rule.needs(plan.round) == "mean":
            outcome = super()._close()
            self._pool.level(parts, self._vectors)
            return outcome
        if not self._accepted:
            raise self.no_update_error(plan)
        self._pool.global_model = self._vectors
        mean = self._pool.mean() if self._rule.averages_trained else None
        with global_generators_seeded(torch_seed(self._spec.seed, "server rule", plan.round)):
            for context in self._contexts(plan, plan.active.groups):
                self._rule.recombine(self._pool, context)
        self._check_pool(plan.round)
        self._pool.settle()
        before = self._vectors[PARAMETERS].astype(np.float64)
        for channel, values in (mean or self._pool.mean()).items():
            self._vectors[channel][:] = values
        self._ledger.changed(parts, plan.round)
        change = self._vectors[PARAMETERS] - before
        norms = {group: float(np.linalg.norm(change[self._layout.slices[group]])) for group in plan.active.groups}
        self._feedback = self._feedback.after(plan.active, plan.active.groups, norms, self._layout)
        return RoundOutcome(float(np.linalg.norm(change)), len(self._accepted), self._ledger.versions)

    def _check_pool(self, round_index: int) -> None:
        """Check the models that the rule has left in the pool.

        Raises:
            RunError: a channel is gone or has another shape, or values that are not finite.
        """
        for channel, vector in self._vectors.items():
            values, shape = self._pool.vectors.get(channel), (len(self._pool), len(vector))
            if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype != np.float32:
                raise RunError(
                    f"{self._rule_name(round_index)} left {channel} that are not float32 {shape} in the pool"
                )
            if not np.isfinite(values).all():
                raise RunError(f"{self._rule_name(round_index)} left values that are not finite in the pool")
