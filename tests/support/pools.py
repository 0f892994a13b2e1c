"""A small pool of models on a server, without clients: random uploads in their place."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedbench.algorithms.fedmr import FedMR
from fedbench.engine.messages import RoundPlan
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.planning.schedules import Cyclic, Full, Schedule
from fedbench.protocol.compression import Uncompressed
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import Constant

Granularity = Literal["tensor", "group", "model"]
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "group", "model")

LAYOUT = ParameterLayout.build(
    [
        ("conv", {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,)}),
        ("middle", {"middle.weight": (5, 4), "middle.bias": (5,)}),
        ("head", {"head.bias": (7,)}),
    ],
    statistics=[("a.mean", 0, (4,)), ("a.var", 0, (4,)), ("b.mean", 1, (5,))],
)
SIZES = (10, 30, 25, 60, 5, 40, 20, 35)
TENSORS = [(PARAMETERS, slot) for slot in LAYOUT.slots] + [(STATISTICS, slot) for slot in LAYOUT.statistics]
POOL = 6


def spec(
    granularity: Granularity = "tensor",
    *,
    cohort: int = POOL,
    schedule: Schedule | None = None,
    seed: int = 0,
    first_stage_rounds: int = 0,
    statistics: bool = True,
) -> ServerSpec:
    rng = np.random.default_rng(7)
    return ServerSpec(
        table=PartTable(LAYOUT, statistics),
        vector=rng.normal(size=LAYOUT.size).astype(np.float32),
        statistics=rng.normal(size=LAYOUT.statistics_size).astype(np.float32),
        sizes=SIZES,
        cohort_size=cohort,
        rounds=40,
        seed=seed,
        algorithm=FedMR(granularity=granularity, first_stage_rounds=first_stage_rounds),
        schedule=schedule or Full(),
        learning_rate=Constant(),
        local=LocalLength(16, epochs=1, steps=None),
        update=UpdatePipeline(clip_norm=None, noise_std=0.0, compression=Uncompressed()),
    )


def models(server: PoolServer) -> dict[str, np.ndarray]:
    """{channel: float32 [models, n]}, a copy of the pool."""
    return {name: vectors.copy() for name, vectors in server._pool.vectors.items()}


def send(
    server: Server, plan: RoundPlan, clients: Sequence[int] | None = None, seed: int = 0
) -> dict[int, dict[str, np.ndarray]]:
    """Random values from each of `clients` (default: all); what each sent, by client and channel."""
    rng = np.random.default_rng([seed, plan.round])
    table, sent = server._table, {}
    for client, groups in zip(plan.cohort, plan.groups, strict=True):
        vectors = {name: rng.normal(size=len(vector)).astype(np.float32) for name, vector in table.zeros().items()}
        if clients is None or client in clients:
            server.receive(table.gather(vectors, table.uploaded(groups)), (client,))
            sent[client] = vectors
    return sent


def recombined(server: PoolServer, round_index: int = 0, **options: object) -> tuple[dict, dict]:
    """The pool of a round as the clients left it, and as it was recombined."""
    send(server, server.plan(round_index), **options)  # type: ignore[arg-type]
    before = models(server)
    server.finish()
    return before, models(server)


def order_of(before: np.ndarray, after: np.ndarray) -> tuple[int, ...]:
    """The permutation p with after[i] = before[p[i]]; the rows of `before` differ."""
    found = [np.flatnonzero((before == row).all(axis=1)) for row in after]
    assert all(len(places) == 1 for places in found), "every row is one of those before"
    return tuple(int(places[0]) for places in found)


def orders(before: dict, after: dict) -> dict[str, tuple[int, ...]]:
    """{tensor name: its permutation}."""
    return {
        slot.name: order_of(before[channel][:, slot.offset : slot.stop], after[channel][:, slot.offset : slot.stop])
        for channel, slot in TENSORS
    }


class Lists(Cyclic):
    """Full and partial rounds as they are listed: -1, or the active group."""

    name: str = "lists"
    rounds: tuple[int, ...] = ()

    def place(self, round_index: int, groups: int) -> tuple[int, int, int] | None:
        return None if self.rounds[round_index] < 0 else (0, round_index, 0)

    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        return list(self.rounds)
