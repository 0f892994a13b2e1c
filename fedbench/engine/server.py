"""The server: the global parameters, the schedule, the rule, and who holds which version of what.

It needs NumPy alone. On a cluster it is an actor, inline a plain object; the same code either way.
"""

import numpy as np
import numpy.typing as npt

from fedbench.accounting.ledger import TransferLedger
from fedbench.algorithms.base import Algorithm
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.errors import RunError
from fedbench.exact import FixedPoint, accumulate, decode
from fedbench.parameters import ParameterLayout, Vector
from fedbench.participation import draw_cohort
from fedbench.schedules import Schedule
from fedbench.training.optimizers import LearningRate


class Server:
    """Plans rounds, hands out stale parts, sums what arrives, applies the method's rule.

    Memory does not grow with the number of participants: updates are added as they arrive, in any order, with the
    same result (`fedbench.exact`).
    """

    def __init__(
        self,
        layout: ParameterLayout,
        vector: Vector,
        statistics: Vector,
        *,
        aggregates_statistics: bool,
        sizes: tuple[int, ...],
        cohort_size: int,
        rounds: int,
        seed: int,
        algorithm: Algorithm,
        schedule: Schedule,
        learning_rate: LearningRate,
    ) -> None:
        """Args:
        vector: float32 [layout.size], the initial parameters; copied.
        statistics: float32 [layout.statistics_size], the initial running statistics; copied.
        aggregates_statistics: they travel and are averaged with the parameters.
        sizes: samples of each client of the population.
        cohort_size: participants of a round.
        """
        self.layout = layout
        self._vector = vector.copy()
        self._statistics = statistics.copy()
        self._sizes = sizes
        self._cohort_size = cohort_size
        self._rounds = rounds
        self._seed = seed
        self._algorithm = algorithm
        self._rule = algorithm.rule()
        self._schedule = schedule
        self._learning_rate = learning_rate
        self._ledger = TransferLedger(layout, aggregates_statistics=aggregates_statistics, clients=len(sizes))
        self._plan: RoundPlan | None = None
        self._total: FixedPoint = np.empty(0, np.int64)
        self._reference: Vector = np.empty(0, np.float32)
        self._accepted: list[int] = []

    def plan(self, round_index: int) -> RoundPlan:
        """Open a round: draw the cohort, choose the groups, and count what each participant has to download."""
        active = self._schedule.active(round_index, self.layout.groups, self._seed)
        cohort = draw_cohort(self._seed, round_index, len(self._sizes), self._cohort_size)
        raw = [self._algorithm.weight(self._sizes[client]) for client in cohort]
        self._plan = RoundPlan(
            round=round_index,
            active=active,
            cohort=cohort,
            weights=tuple(weight / sum(raw) for weight in raw),
            lr_factor=self._learning_rate.factor(round_index, self._rounds),
            versions=self._ledger.versions,
            downlink_bytes=self._ledger.download(cohort),
            uplink_bytes=self._ledger.upload(active.groups),
        )
        self._reference = self.payload(self._ledger.parts(active.groups)).copy()
        self._total = np.zeros(len(self._reference), np.int64)
        self._accepted = []
        return self._plan

    def payload(self, parts: tuple[int, ...]) -> Vector:
        """The current values of some parts, one after the other: what a host loads before it trains or scores."""
        groups = [part for part in parts if part < self.layout.groups]
        pieces = [self._vector[piece] for piece in self.layout.ranges(groups)]
        if self.layout.groups in parts:
            pieces.append(self._statistics)
        return pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, self._vector[:0]])

    def receive(self, upload: npt.NDArray[np.int64] | Vector, clients: tuple[int, ...]) -> None:
        """Add what a host sent.

        Args:
            upload: int64 [n], an exact sum over `clients`; or float32 [len(clients), n], the values of each.
            clients: whose updates these are; their host has found them summable.
        """
        assert self._plan is not None
        if upload.dtype == np.int64:
            np.add(self._total, upload, out=self._total)
        else:
            weights = dict(zip(self._plan.cohort, self._plan.weights, strict=True))
            for client, values in zip(clients, upload, strict=True):
                if not accumulate(self._total, values, self._reference, weights[client]):
                    raise RunError(f"round {self._plan.round}: client {client} sent an update that cannot be summed")
        self._accepted += clients

    def finish(self) -> RoundOutcome:
        """Close the round: apply the rule to the active groups, average the statistics, raise the versions.

        Raises:
            RunError: when no update was accepted.
        """
        plan = self._plan
        assert plan is not None
        if not self._accepted:
            raise RunError(
                f"round {plan.round}: none of the {len(plan.cohort)} participants sent a finite update; "
                "lower local.optimizer.lr, or look at clients.parquet for who failed"
            )
        weights = dict(zip(plan.cohort, plan.weights, strict=True))
        # Exactly 1 when all took part, so that nothing is rounded twice.
        factor = 1.0
        if len(self._accepted) < len(plan.cohort):
            factor = 1.0 / sum(weights[client] for client in sorted(self._accepted))
        update = decode(self._total, factor)
        count = self.layout.count(plan.active.groups)
        before = self._reference.astype(np.float64)
        after = self._rule.combine(before[:count], update[:count]).astype(np.float32)
        self.layout.scatter(after, self._vector, plan.active.groups)
        if len(before) > count:
            self._statistics = (before[count:] + update[count:]).astype(np.float32)
        self._ledger.changed(plan.active.groups, plan.round)
        return RoundOutcome(
            update_norm=float(np.linalg.norm(after - before[:count])),
            accepted=len(self._accepted),
            versions=self._ledger.versions,
        )

    def versions(self) -> tuple[int, ...]:
        """Of each part, the round after which it last changed; 0 for the initial model."""
        return self._ledger.versions

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""
        return self._vector, self._statistics
