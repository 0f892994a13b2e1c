"""A server with a pool of models, one per participant, that are recombined instead of averaged (FedMR).

M. Hu et al., "Is Aggregation the Only Choice? Federated Learning via Layer-wise Model Recombination", KDD 2024
(arXiv 2305.10730), Algorithm 1. The pool has as many models as a round has participants, equal at the start. Model i
goes to the i-th drawn client, in random order; what it trains replaces the active groups of that model; then layers are
shuffled between the models. The global model, for evaluation only, is their unweighted mean.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbench.checkpoints.files import Tree, writable
from fedbench.engine.messages import RoundOutcome, RoundPlan
from fedbench.engine.rounds.server import Server, ServerSpec
from fedbench.protocol.layout import BYTES_PER_VALUE, Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.randomness import generator


class PoolServer(Server):
    """Keeps the models of a pool; memory is that of as many models as a round has participants.

    Downlink: every part of its pool model that a client does not hold. Each part of each pool model has an identity,
    which is new whenever a client has trained it or tensors of several models meet in it; a client holds what it last
    downloaded. A full round so costs what FedAvg's does.
    """

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(spec)
        size, parts = spec.cohort_size, len(self._table.parts)
        self._pool = {name: np.repeat(vector[None], size, axis=0) for name, vector in self._vectors.items()}
        self._identities = np.zeros((size, parts), np.int64)
        self._held = np.full((len(spec.sizes), parts), -1, np.int64)
        self._next_identity = 1
        self._slots: dict[int, int] = {}

    def _make_plan(self, round_index: int) -> RoundPlan:
        return replace(super()._make_plan(round_index), own_starts=True)

    def _download(self, round_index: int, cohort: tuple[int, ...]) -> tuple[int, ...]:
        order = generator(self._spec.seed, "pool", round_index).permutation(len(cohort))
        self._slots = {client: int(slot) for client, slot in zip(cohort, order, strict=True)}
        sizes = np.array(self._table.sizes, np.int64)
        counts = []
        for client in cohort:
            wanted = self._identities[self._slots[client]]
            counts.append(int(sizes[self._held[client] != wanted].sum()) * BYTES_PER_VALUE)
            self._held[client] = wanted
        return tuple(counts)

    def state(self) -> Tree:
        """All that the server keeps between two rounds."""
        own = {"pool": self._pool, "identities": self._identities, "held": self._held, "next": self._next_identity}
        return super().state() | own

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        state = writable(state)
        super().restore(state)
        self._pool, self._identities, self._held = state["pool"], state["identities"], state["held"]
        self._next_identity = state["next"]

    def start_parts(self) -> tuple[int, ...]:
        """What a pool model consists of: everything that travels."""
        return tuple(range(len(self._table.parts)))

    def starts(self, clients: tuple[int, ...]) -> Vector:
        """The models that these clients start from, one after the other."""
        parts = self.start_parts()
        return np.concatenate([self._table.gather(self._model(self._slots[client]), parts) for client in clients])

    def _model(self, slot: int) -> dict[str, Vector]:
        return {name: vectors[slot] for name, vectors in self._pool.items()}

    def _receive_one(self, client: int, place: int, parts: tuple[int, ...], values: Vector) -> None:
        plan = self._plan
        assert plan is not None
        if self._spec.algorithm.averages(plan.round):
            # All start from the same model, as in FedAvg, and are added up as there.
            super()._receive_one(client, place, parts, values)
            return
        slot = self._slots[client]
        self._table.scatter(values, self._model(slot), parts)
        self._identities[slot, list(parts)] = self._next_identity + place
        self._accepted.append(client)

    def finish(self) -> RoundOutcome:
        """Close the round: shuffle (or, in the first stage, average) what was trained, and renew the mean model.

        Raises:
            RunError: when no update was accepted.
        """
        plan = self._plan
        assert plan is not None
        self._next_identity += len(plan.cohort)
        parts = self._table.uploaded(plan.active.groups)
        if self._spec.algorithm.averages(plan.round):
            outcome = super().finish()
            for part in (self._table.parts[index] for index in parts):
                self._pool[part.channel][:, part.piece] = self._vectors[part.channel][part.piece]
            self._renew_identities(parts)
            return outcome
        if not self._accepted:
            raise self.nobody(plan)
        recombine(self._pool, self._identities, self._table, plan, self._spec)
        if self._spec.algorithm.shuffled_as() == "tensor":
            self._renew_identities(parts, apart=True)
        else:
            # Units share this part, so that its contents are mixed even in the model of a client that sent nothing.
            mixed = tuple(part for part in parts if self._table.parts[part].channel == STATISTICS)
            self._renew_identities(mixed, apart=True)
        before = self._vectors[PARAMETERS].astype(np.float64)
        for name, vectors in self._pool.items():
            self._vectors[name][:] = vectors.mean(axis=0, dtype=np.float64)
        self._ledger.changed(parts, plan.round)
        change = self._vectors[PARAMETERS] - before
        norms = {group: float(np.linalg.norm(change[self._layout.slices[group]])) for group in plan.active.groups}
        self._feedback = self._feedback.after(plan.active, plan.active.groups, norms, self._layout)
        return RoundOutcome(float(np.linalg.norm(change)), len(self._accepted), self._ledger.versions)

    def _renew_identities(self, parts: tuple[int, ...], apart: bool = False) -> None:
        """New contents: the same in all models, or another in each."""
        size = len(self._identities)
        fresh = self._next_identity + (np.arange(size) if apart else np.zeros(size, np.int64))
        self._identities[:, list(parts)] = fresh[:, None]
        self._next_identity += size


def recombine(
    pool: dict[str, npt.NDArray[np.float32]],
    identities: npt.NDArray[np.int64],
    table: PartTable,
    plan: RoundPlan,
    spec: ServerSpec,
) -> None:
    """Shuffle what was trained between the models, in place: new[i] = old[p[i]], p uniform, one draw per unit.

    A unit is a tensor (each running statistic by itself, as in the authors' published code), a layer group with its
    statistics, or the whole model.

    Args:
        pool: {channel: float32 [models, n]}.
        identities: int64 [models, parts], shuffled along where a unit is a whole part.
    """
    layout, granularity = table.layout, spec.algorithm.shuffled_as()
    active = plan.active.groups
    statistics = layout.statistics if table.statistics else ()
    slots = [(PARAMETERS, slot) for slot in layout.slots] + [(STATISTICS, slot) for slot in statistics]
    pieces = [(channel, slot.group, slice(slot.offset, slot.stop)) for channel, slot in slots if slot.group in active]
    if granularity == "tensor":
        units = [[(channel, piece)] for channel, _, piece in pieces]
    else:
        wholes = [active] if granularity == "model" else [(group,) for group in active]
        units = [[(channel, piece) for channel, group, piece in pieces if group in whole] for whole in wholes]
    rng = generator(spec.seed, "recombination", plan.round)
    for index, unit in enumerate(units):
        order = rng.permutation(len(identities))
        for channel, piece in unit:
            pool[channel][:, piece] = pool[channel][order, piece]
        if granularity != "tensor":
            own = list(active) if granularity == "model" else [active[index]]
            identities[:, own] = identities[order][:, own]
