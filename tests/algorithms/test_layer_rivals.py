"""FedBCGD, FedBCGD+, Streaming DiLoCo, FedLAMA: whole runs on digits against plain NumPy, and limiting cases."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from broken_runs import CopyAfter, load
from numpy_clients import NumpyClients
from small import config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.experiment.run import prepared, run
from fedbench.protocol.layout import model_digest
from fedbench.randomness import generator

pytestmark = pytest.mark.usefixtures("flops_counted_once")

Floats = np.ndarray
Sent = Callable[[int, Sequence[int]], list[tuple[int, ...]]]

PLAIN = (
    "data.clients=4", "data.partition=quantity", "data.partition.alpha=3", "data.samples_per_client=null",
    "data.normalize=false", "participation.clients_per_round=3", "model=small:TwoLayers", "local.batch_size=64",
    "local.optimizer=sgd", "local.optimizer.lr=0.1", "local.optimizer.momentum=0", "schedule=full", "rounds=5",
    "runtime.executor=inline",
)  # fmt: skip
BOTH = (0, 1)


@dataclass
class Federation:
    """Clients that go on from their own values where nothing new is to be taken over, and bytes counted by hand."""

    clients: NumpyClients
    keeps: bool
    delay: int = 0
    mixing: float = 0.0
    layers: dict[int, Floats] = field(default_factory=dict)
    held: dict[tuple[int, int], int] = field(default_factory=dict)
    version: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    values: Floats = field(init=False)
    down: int = 0

    def __post_init__(self) -> None:
        self.values = self.clients.vector.copy()

    def piece(self, group: int) -> slice:
        return self.clients.layout.slices[group]

    def size(self, groups: Sequence[int]) -> int:
        return sum(self.piece(group).stop - self.piece(group).start for group in groups)

    def start(self, client: int, r: int) -> Floats:
        start = self.values.copy()
        for group in BOTH:
            held = self.held.get((client, group), -1)
            due = self.version[group] > held and (held < 0 or self.version[group] + self.delay <= r)
            if due:
                self.held[client, group] = self.version[group]
                self.down += 4 * self.size([group])
            if self.keeps and held >= 0:
                own, new = self.layers[client][self.piece(group)], self.values[self.piece(group)]
                start[self.piece(group)] = self.mixing * own + (1 - self.mixing) * new if due else own
        return start


def simulated(
    federation: Federation,
    cohorts: Sequence[Sequence[int]],
    sent: Sent,
    step: Callable[[Federation, int, Floats, slice], Floats],
    weights: Callable[[int], float] = lambda client: 1.0,
    after: Callable[[int, dict[int, list[Floats]]], None] = lambda r, trained: None,
) -> Iterator[tuple[Floats, int, int]]:
    """After each round the global parameters, and the bytes that were sent up and down in it."""
    for r, cohort in enumerate(cohorts):
        federation.down, up = 0, 0
        trained, groups_of = {}, dict(zip(cohort, sent(r, cohort), strict=True))
        for client in cohort:
            trained[client], _ = federation.clients.train(client, r, federation.start(client, r))
            federation.layers[client] = trained[client]
            up += 4 * federation.size(groups_of[client])
        of_group: dict[int, list[Floats]] = {}
        for group in BOTH:
            senders = [client for client in cohort if group in groups_of[client]]
            if senders:
                piece, shares = federation.piece(group), np.array([weights(client) for client in senders])
                updates = [trained[client][piece] - federation.values[piece] for client in senders]
                mean = np.tensordot(shares / shares.sum(), updates, 1)
                of_group[group] = [update - mean for update in updates]
                federation.values[piece] += step(federation, group, mean, piece)
                federation.version[group] = r + 1
        after(r, of_group)
        yield federation.values.copy(), up, federation.down


def check(overrides: Sequence[str], federation: Callable[[NumpyClients], Iterator[tuple[Floats, int, int]]]) -> None:
    with prepared(config(*PLAIN, *overrides)) as (problem, executor):
        plans = [executor.plan(0)]  # type: ignore[union-attr]
        expected = federation(NumpyClients(problem))
        for index in range(problem.rounds):
            plan = plans[-1] if index == 0 else executor.plan(index)  # type: ignore[union-attr]
            executor.train(plan)  # type: ignore[union-attr]
            executor.finish()  # type: ignore[union-attr]
            values, up, down = next(expected)
            np.testing.assert_allclose(executor.model()[0], values, rtol=0, atol=1e-6)
            assert (sum(plan.uplink_bytes), sum(plan.downlink_bytes)) == (up, down), index


def cohorts(count: int = 5, seed: int = 0) -> list[list[int]]:
    return [sorted(generator(seed, "cohort", r).choice(4, 3, replace=False).tolist()) for r in range(count)]


def average(federation: Federation, group: int, mean: Floats, piece: slice) -> Floats:
    return mean


def nesterov(lr: float, momentum: float) -> Callable[[Federation, int, Floats, slice], Floats]:
    velocity = {0: 0.0, 1: 0.0}

    def step(federation: Federation, group: int, mean: Floats, piece: slice) -> Floats:
        velocity[group] = momentum * velocity[group] + mean
        return lr * (mean + momentum * velocity[group])

    return step


def dealt(r: int, cohort: Sequence[int]) -> list[tuple[int, ...]]:
    """Two blocks of one group each, and no shared head."""
    return [(int(place) % 2,) for place in generator(0, "blocks", r).permutation(len(cohort))]


def test_fedbcgd_is_what_numpy_says() -> None:
    check(
        ("algorithm=fedbcgd", "exchange=rotate", "exchange.blocks=2", "exchange.shared=0"),
        lambda clients: simulated(Federation(clients, keeps=False), cohorts(), dealt, average),
    )


def test_fedbcgd_sends_the_head_with_every_block() -> None:
    check(
        ("algorithm=fedbcgd", "exchange=rotate", "exchange.blocks=2", "exchange.shared=1"),
        lambda clients: simulated(Federation(clients, keeps=False), cohorts(), lambda r, cohort: [BOTH] * 3, average),
    )


def test_fedbcgd_plus_is_what_numpy_says() -> None:
    def plus(clients: NumpyClients) -> Iterator[tuple[Floats, int, int]]:
        layout, lr = clients.layout, 0.1
        w, c, v = clients.vector.copy(), np.zeros(layout.size), np.zeros(layout.size)
        kept = {client: np.zeros(layout.size) for client in range(4)}
        for r, cohort in enumerate(cohorts()):
            changes, controls, up = {}, {}, 0
            for client in cohort:
                y, steps = clients.train(client, r, w, lambda gradient, client=client: gradient + c - kept[client])
                kept[client] = kept[client] - c + (w - y) / (steps * lr)
                changes[client], controls[client] = y - w, kept[client] - c
            for group in BOTH:
                piece = layout.slices[group]
                senders = [k for k, groups in zip(cohort, dealt(r, cohort), strict=True) if group in groups]
                v[piece] = 0.45 * v[piece] + np.mean([changes[client][piece] for client in senders], axis=0)
                w[piece] += v[piece]
                c[piece] += 0.1 * np.mean([controls[client][piece] for client in senders], axis=0)
                up += len(senders) * 2 * 4 * layout.group_size(group)
            # Each group changes in each round, so that a participant downloads all of w and c.
            down = 2 * 4 * layout.size * len(cohort)
            yield w.copy(), up, down

    check(("algorithm=fedbcgd-plus", "exchange=rotate", "exchange.blocks=2", "exchange.shared=0"), plus)


@pytest.mark.parametrize(("delay", "mixing"), [(0, 0.0), (1, 0.0), (1, 0.25), (0, 0.5)])
def test_streaming_diloco_is_what_numpy_says(delay: int, mixing: float) -> None:
    def due(r: int, cohort: Sequence[int]) -> list[tuple[int, ...]]:
        return [((0,) if r % 2 == 0 else (1,))] * len(cohort)

    check(
        ("algorithm=streaming-diloco", "exchange=strided", "exchange.every=2", "exchange.fragments=2",
         f"exchange.delay={delay}", f"exchange.mixing={mixing}"),
        lambda clients: simulated(
            Federation(clients, keeps=True, delay=delay, mixing=mixing), cohorts(), due, nesterov(0.7, 0.9)
        ),
    )  # fmt: skip


@pytest.mark.parametrize("every", [(1, 2), (3, 2), (3, 3)])
def test_layers_at_intervals_are_what_numpy_says(every: tuple[int, int]) -> None:
    def due(r: int, cohort: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(group for group in BOTH if (r + 1) % every[group] == 0)] * len(cohort)

    def of(clients: NumpyClients) -> Iterator[tuple[Floats, int, int]]:
        sizes = clients.sizes()
        federation = Federation(clients, keeps=True)
        return simulated(federation, cohorts(), due, average, weights=lambda client: float(sizes[client]))

    check(("algorithm=fedavg", "exchange=intervals", f"exchange.every={list(every)}"), of)


def test_fedlama_is_what_numpy_says() -> None:
    def of(clients: NumpyClients) -> Iterator[tuple[Floats, int, int]]:
        sizes, interval, discrepancy = clients.sizes(), {0: 1, 1: 1}, {0: 0.0, 1: 0.0}
        federation = Federation(clients, keeps=True)
        dims = [federation.size([group]) for group in BOTH]

        def due(r: int, cohort: Sequence[int]) -> list[tuple[int, ...]]:
            return [tuple(group for group in BOTH if (r + 1) % interval[group] == 0)] * len(cohort)

        def adapt(r: int, differences: dict[int, list[Floats]]) -> None:
            for group, of_clients in differences.items():
                shares = np.array([sizes[client] for client in cohorts()[r]], float)
                squares = [float(difference @ difference) for difference in of_clients]
                discrepancy[group] = float(shares / shares.sum() @ squares) / (interval[group] * dims[group])
            if (r + 1) % 2 == 0:
                first, second = sorted(BOTH, key=lambda group: discrepancy[group])
                share = discrepancy[first] * dims[first] / sum(discrepancy[group] * dims[group] for group in BOTH)
                interval[first] = 2
                interval[second] = 1 if 1 - dims[first] / sum(dims) < share else 2

        weight = lambda client: float(sizes[client])  # noqa: E731
        return simulated(federation, cohorts(), due, average, weights=weight, after=adapt)

    check(("algorithm=fedlama", "exchange=adaptive-intervals", "exchange.factor=2", "exchange.first=0"), of)


FEDAVG = ("algorithm=fedavg", "algorithm.weighting=uniform")
LIMITS = {
    "one block": (("algorithm=fedbcgd", "exchange=rotate", "exchange.blocks=1"), FEDAVG),
    "H = 1 and a plain step": (
        ("algorithm=streaming-diloco", "algorithm.server_lr=1", "algorithm.momentum=0", "exchange=strided",
         "exchange.every=1"),
        FEDAVG,
    ),
    "intervals of 1": (("algorithm=fedavg", "exchange=intervals", "exchange.every=1"), ("algorithm=fedavg",)),
    "phi = 1": (("algorithm=fedlama", "exchange=adaptive-intervals", "exchange.factor=1"), ("algorithm=fedavg",)),
    "everything": (("algorithm=fedavg", "exchange=full"), ("algorithm=fedavg",)),
}  # fmt: skip


def figures(overrides: Sequence[str]) -> tuple[str, list[tuple[int, ...]]]:
    """The model's digest after three rounds, and the bytes of each."""
    sent = []
    with prepared(config(*PLAIN, *overrides)) as (_, executor):
        for index in range(3):
            plan = executor.plan(index)  # type: ignore[union-attr]
            executor.train(plan)  # type: ignore[union-attr]
            executor.finish()  # type: ignore[union-attr]
            sent.append((*plan.uplink_bytes, *plan.downlink_bytes))
        return model_digest(*executor.model()), sent


@pytest.mark.parametrize("limit", LIMITS)
def test_in_its_limiting_case_each_is_fedavg_bit_for_bit(limit: str) -> None:
    of_method, of_fedavg = map(figures, LIMITS[limit])
    assert of_method == of_fedavg


@pytest.mark.parametrize("method", ["fedbcgd-plus", "streaming-diloco", "fedlama"])
def test_clients_in_slots_of_one_host_leave_the_same_model(method: str) -> None:
    assert figures((f"algorithm={method}", "runtime.slots=3")) == figures((f"algorithm={method}",))


def test_who_was_not_accepted_starts_anew_from_the_global_model() -> None:
    """A client of one label alone is broken in its first round, in which nothing is combined."""
    overrides = (
        "data.clients=10", "data.partition=shards", "data.partition.shards_per_client=1", "participation.fraction=1",
        "model=small:TwoLayers", "schedule=full", "exchange=intervals", "exchange.every=3", "rounds=3",
        "runtime.executor=inline", "runtime.max_failed_clients=2", "local.batch_size=8", "algorithm=small:Faulty",
    )  # fmt: skip
    with prepared(config(*overrides)) as (problem, executor):
        plan = executor.plan(0)  # type: ignore[union-attr]
        assert plan.kept == ((),) * 10
        reports = executor.train(plan).reports  # type: ignore[union-attr]
        executor.finish()  # type: ignore[union-attr]
        statuses = [report.status for report in reports]
        assert statuses.count("failed") == 1
        again = executor.plan(1)  # type: ignore[union-attr]
        assert again.kept == tuple(BOTH if status == "ok" else () for status in statuses)
        whole = 4 * problem.layout.size
        assert again.downlink_bytes == tuple(0 if status == "ok" else whole for status in statuses)


RUNS = {
    "fedbcgd-plus": ("algorithm=fedbcgd-plus",),
    "streaming-diloco": ("algorithm=streaming-diloco", "exchange=strided", "exchange.delay=1", "exchange.mixing=0.3"),
    "fedlama": ("algorithm=fedlama", "exchange=adaptive-intervals", "exchange.first=2", "local.batchnorm=local"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_actors_or_resumed_leaves_the_same_model(name: str, warm_pools: WarmPools) -> None:
    overrides = (*RUNS[name], "participation.clients_per_round=5", "local.optimizer.momentum=0")
    expected = run(load(*overrides, "output.directory=whole"), [CopyAfter(3, "broken")]).summary
    on_actors = warm_pools.run(load(*overrides, "runtime.executor=ray", "runtime.actors=3"))
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops"):
        assert on_actors.summary[key] == expected[key], key
    assert resume("broken").summary["model_sha256"] == expected["model_sha256"]
