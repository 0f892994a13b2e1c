"""Asynchronous runs on Ray: the same run as in one process, whatever the cluster, and whoever dies."""

import copy
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arrival_runs import Followed, follow, followed
from ray.exceptions import RayActorError
from small import asynchronous, process_of
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.runtime import RuntimeSection
from fedbench.engine.arrivals.clocks import make_clock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.arrivals.task_queue import WaitingTask
from fedbench.engine.interfaces import EvaluationPhase
from fedbench.engine.messages import TaskOrder
from fedbench.engine.on_ray.actor_slots import ActorSlots
from fedbench.engine.on_ray.actors import ActorCluster
from fedbench.engine.on_ray.arrivals import RayArrivalExecutor, _is_done
from fedbench.engine.on_ray.batches import Batch
from fedbench.errors import ClientFailure, RunError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.protocol.layout import model_digest
from fedbench.records.schema import ARRIVAL_SCHEMA

pytestmark = pytest.mark.slow

SEQUENTIAL = ("schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1")
WANDERING = ("data.clients=7", "delays.concurrency=4", "delays.arrivals_per_round=9")
FAULTY = (
    "algorithm=small:Faulty",
    "data.clients=10",
    "data.partition=shards",
    "data.partition.shards_per_client=1",
    "data.samples_per_client=null",
    "delays.concurrency=4",
    "delays.arrivals_per_round=15",
    "local.batch_size=4",
    "local.steps=2",
)
VARIANTS = {
    "ormo": (),
    "estimates of partial updates": ("algorithm=dana-zero", *SEQUENTIAL, "delays.arrivals_per_round=9"),
    "buffered": ("algorithm=fedbuff", "algorithm.buffer_size=3", "local.steps=2", *WANDERING),
    "by client": ("algorithm=ca2fl", "algorithm.buffer_size=3", "local.steps=2", *SEQUENTIAL, *WANDERING),
    "own statistics": ("local.batchnorm=local", "local.steps=1", "algorithm=ormo", *WANDERING),
    "residuals": ("update.compression=topk", "update.compression.fraction=0.2", *WANDERING),
    "failures": (*FAULTY, "server=asgd", "runtime.max_failed_clients=5"),
}


def on_ray(*overrides: str) -> ExperimentConfig:
    return asynchronous("runtime.cpus_per_client=0.2", "evaluation.batch_size=100", *overrides)


@cache
def inline(*overrides: str) -> Followed:
    return followed(asynchronous("runtime.executor=inline", "evaluation.batch_size=100", *overrides))


@pytest.fixture
def single(warm_pools: WarmPools) -> Iterator[ActorCluster]:
    """Actors are made once for all runs; they forget everything when they are prepared for the next."""
    with warm_pools.lent(RuntimeSection(actors=1, server="head")) as made:
        yield made


@pytest.fixture
def pair(warm_pools: WarmPools) -> Iterator[ActorCluster]:
    """The server is in this process, and what goes to and fro is in shared memory."""
    with warm_pools.lent(RuntimeSection(actors=2, server="driver")) as made:
        yield made


@pytest.fixture
def pair_with_server(warm_pools: WarmPools) -> Iterator[ActorCluster]:
    """The server is an actor, too, and what goes to and fro is in the object store."""
    with warm_pools.lent(RuntimeSection(actors=2, server="head")) as made:
        yield made


def follow_on(
    cluster: ActorCluster, config: ExperimentConfig, kind: type[RayArrivalExecutor] = RayArrivalExecutor
) -> Followed:

    problem = build_problem(config, load_federation(config))
    data, rows = problem.federation.data, problem.federation.rows
    return follow(problem, kind(cluster, problem.spec, data, rows, problem.arrival_server, config.runtime))


def plain_rows(done: Followed) -> list[str]:
    """The rounds without what depends on the machine; as text, in which NaN equals itself."""
    return [
        str({key: value for key, value in asdict(row).items() if not key.endswith(("_seconds", "transport_bytes"))})
        for row in done.rows
    ]


def assert_alike(mine: Followed, theirs: Followed) -> None:
    assert mine.plain() == theirs.plain()
    assert mine.digest == theirs.digest
    assert plain_rows(mine) == plain_rows(theirs)


def test_one_actor_gives_the_run_that_one_process_gives(single: ActorCluster) -> None:
    overrides = VARIANTS["estimates of partial updates"]
    assert_alike(follow_on(single, on_ray(*overrides)), inline(*overrides))


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_actors_give_the_run_that_one_process_gives(variant: str, pair: ActorCluster) -> None:
    overrides = VARIANTS[variant]
    assert_alike(follow_on(pair, on_ray(*overrides)), inline(*overrides))


def log_of(done: Followed, folder: Path) -> str:
    """The override that follows its `events.parquet`."""
    file = folder / "events.parquet"
    pq.write_table(pa.Table.from_pylist([asdict(arrival) for arrival in done.arrivals], schema=ARRIVAL_SCHEMA), file)
    return f"delays.replay={file}"


def test_what_really_happened_is_replayed_in_one_process(pair: ActorCluster, tmp_path: Path) -> None:
    wall = ("delays.clock=wall", "data.clients=6", "delays.concurrency=4", "delays.arrivals_per_round=12", *SEQUENTIAL)
    recorded = follow_on(pair, on_ray(*wall))
    times = [arrival.arrived_seconds for arrival in recorded.arrivals]
    assert times == sorted(times)
    assert sum(arrival.staleness for arrival in recorded.arrivals) <= 3 * 36
    assert_alike(inline(*wall, log_of(recorded, tmp_path)), recorded)


def test_rounds_of_real_seconds_are_replayed_with_the_same_arrivals_in_each(pair: ActorCluster, tmp_path: Path) -> None:
    """In one process, too, which could not keep to the time by itself."""
    wall = ("delays.clock=wall", "delays.seconds_per_round=0.4", *SEQUENTIAL, "rounds=5")
    recorded = follow_on(pair, on_ray(*wall))
    assert recorded.arrivals
    assert_alike(inline(*wall, log_of(recorded, tmp_path)), recorded)


NOTICED: list[str] = []
"""By whom a death was noticed."""


class Mortal(RayArrivalExecutor):
    """The actor that is given task 4 dies while the run waits for updates, and one more when the model is scored.

    The batches that they were given are lost.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stopped: int | None = None
        self._scorings = 0

    def _process(self, actor: int) -> int:
        import ray

        process: int = ray.get(self._cluster.client_actors[actor].__ray_call__.remote(process_of))
        return process

    def _submit(self, actor: int, tasks: tuple[WaitingTask, ...]) -> None:
        if not NOTICED and any(task.number == 4 for task in tasks):
            self._stopped = self._process(actor)
            os.kill(self._stopped, signal.SIGSTOP)
        super()._submit(actor, tasks)

    def _take_batch(self, timeout: float) -> bool:
        if self._stopped is not None and timeout > 0:
            os.kill(self._stopped, signal.SIGKILL)
            self._stopped = None
            NOTICED.append("collecting")
        return super()._take_batch(timeout)

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        self._scorings += 1
        if self._scorings == 2:
            os.kill(self._process(0), signal.SIGKILL)
            NOTICED.append("scoring")
        return super().evaluate(versions)


@pytest.mark.parametrize("actors", ["pair", "pair_with_server"])
def test_an_actor_that_dies_is_replaced_and_its_tasks_are_done_again(
    actors: str, request: pytest.FixtureRequest
) -> None:
    """On the parameters that they were given out with, though others have been applied meanwhile."""
    NOTICED.clear()
    overrides = ("delays.arrivals_per_round=8", *SEQUENTIAL, "algorithm=dana-zero")
    assert_alike(follow_on(request.getfixturevalue(actors), on_ray(*overrides), Mortal), inline(*overrides))
    assert NOTICED == ["collecting", "scoring"]


MANY = ("data.clients=16", "data.samples_per_client=20", "delays.arrivals_per_round=37", "rounds=4")
"""Enough tasks in flight for batches of several; a round ends in the middle of one."""

SIZES: list[int] = []
"""Tasks of the batches that actors were given."""


class Sized(RayArrivalExecutor):
    """Notes how many tasks each batch has."""

    def _submit(self, actor: int, tasks: tuple[WaitingTask, ...]) -> None:
        SIZES.append(len(tasks))
        super()._submit(actor, tasks)


@pytest.mark.parametrize("actors", ["pair", "pair_with_server"])
def test_batches_of_several_tasks_give_the_run_that_one_process_gives(
    actors: str, request: pytest.FixtureRequest
) -> None:
    SIZES.clear()
    overrides = (*MANY, *SEQUENTIAL, "delays.distribution=lognormal", "delays.drop_rate=0.1")
    assert_alike(follow_on(request.getfixturevalue(actors), on_ray(*overrides), Sized), inline(*overrides))
    assert max(SIZES) > 1


class FewSlots(Sized):
    """There is shared memory for three tasks, and the other five go through the object store."""

    def _make_slots(self) -> ActorSlots | None:
        self._workers = 3
        return super()._make_slots()


def test_tasks_without_a_slot_go_through_the_object_store(pair: ActorCluster) -> None:
    """Their batches have tasks with a slot, too, and a client that keeps its update keeps the slot."""
    SIZES.clear()
    overrides = (*MANY, "algorithm=ca2fl", "algorithm.buffer_size=3", "local.steps=1", *SEQUENTIAL)
    assert_alike(follow_on(pair, on_ray(*overrides), FewSlots), inline(*overrides))
    assert max(SIZES) > 1


class LosesBatches(Sized):
    """An actor that has been given a batch of several tasks late in the run dies; its memory is not used again."""

    def __init__(self, *arguments: Any) -> None:
        self._lost_memory: set[int] = set()
        super().__init__(*arguments)

    def _submit(self, actor: int, tasks: tuple[WaitingTask, ...]) -> None:
        super()._submit(actor, tasks)
        assert not memory_of(self._outstanding[-1]) & self._lost_memory
        if not NOTICED and len(tasks) > 1 and tasks[0].number > 40:
            self._cluster.client_actors[actor].__ray_call__.remote(end_process)
            NOTICED.append("batch")

    def _revive(self, actor: int, error: RayActorError) -> None:
        lost = [batch for batch in self._outstanding if batch.actor == actor and not _is_done(batch)]
        self._lost_memory |= set().union(*map(memory_of, lost))
        super()._revive(actor, error)
        assert self._lost_memory


def memory_of(batch: Batch) -> set[int]:
    """Addresses of the slots of a batch."""
    return {slot.ctypes.data for slot in batch.slots if slot is not None}


def end_process(actor: object) -> None:
    """End the process that an actor is, once it has done what it was asked before; to be called there."""
    os._exit(1)


def test_lost_batches_are_computed_again_on_the_parameters_of_their_tasks(pair: ActorCluster) -> None:
    NOTICED.clear()
    assert_alike(follow_on(pair, on_ray(*MANY), LosesBatches), inline(*MANY))
    assert NOTICED == ["batch"]


@pytest.mark.parametrize("kept", [(), ("local.batchnorm=local",)], ids=["plain", "own statistics"])
def test_a_checkpoint_in_the_middle_of_batches_goes_on_with_fewer_actors(
    kept: tuple[str, ...], warm_pools: WarmPools
) -> None:
    config = on_ray(*MANY, *kept)
    problem = build_problem(config, load_federation(config))
    assert problem.arrivals is not None
    saved: Any = None
    for actors, rounds in ((2, 2), (1, 2)):
        with warm_pools.lent(RuntimeSection(actors=actors)) as cluster:
            data, rows = problem.federation.data, problem.federation.rows
            executor = Sized(cluster, problem.spec, data, rows, problem.arrival_server, config.runtime)
            loop = ArrivalLoop(problem.arrivals, executor, make_clock(config, executor.ready), problem.costs)
            if saved is not None:
                loop.restore(saved["loop"])
                executor.restore(saved["executor"])
            running = loop.rounds(config.evaluation.every, lambda: False)
            for _ in range(rounds):
                next(running)
            assert loop.state()["kept"]["_in_flight"], "tasks are in flight when the checkpoint is written"
            saved = copy.deepcopy({"loop": loop.state(), "executor": executor.state()})
            digest = model_digest(*executor.model())
    assert digest == inline(*MANY, *kept).digest


def test_with_what_clients_keep_a_dead_actor_ends_the_run(single: ActorCluster) -> None:
    told = r"^the actor with the tasks of clients \[.*\] died, and with it the state of these clients: "
    with pytest.raises(RunError, match=told):
        follow_on(single, on_ray("delays.arrivals_per_round=8", "local.batchnorm=local"), Mortal)


def test_a_failure_is_told_with_its_round_and_traceback(pair: ActorCluster) -> None:
    with pytest.raises(
        ClientFailure, match=r"^client \d failed in round 1: ValueError: this client is broken$"
    ) as told:
        follow_on(pair, on_ray(*FAULTY, "server=asgd", "delays.arrivals_per_round=60"))
    assert "in loss" in told.value.traceback
    assert "small.py" in told.value.traceback


MOVED: list[tuple[TaskOrder, Any, Any]] = []
"""Tasks, with references to what they were sent and to what came back."""


class Watched(RayArrivalExecutor):
    """Keeps hold of what goes to the actors and comes from them; their server is an actor, too."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._payloads: list[Any] = []

    def _submit(self, actor: int, tasks: tuple[WaitingTask, ...]) -> None:
        super()._submit(actor, tasks)
        (task,) = tasks
        assert actor == task.order.client, "one client for each"
        MOVED.append((task.order, self._payloads[-1], self._outstanding[-1].uploads))

    def _send_steps(self, wanted: Sequence[tuple[int, tuple[int, ...]]] = ()) -> Any:
        self._payloads.append(super()._send_steps(wanted))
        return self._payloads[-1]


def test_with_one_client_per_actor_protocol_bytes_cross_the_object_store(pair_with_server: ActorCluster) -> None:
    """Ray's own account of every object that goes to or comes from a client actor, next to the protocol's."""
    MOVED.clear()
    one = ("data.clients=2", "model=cnn-bn", "model.width=16", "evaluation.every=99", "rounds=5")
    done = follow_on(pair_with_server, on_ray(*one, *SEQUENTIAL, "delays.arrivals_per_round=6"), Watched)
    for worker in range(2):
        moved = [(payload, upload) for order, payload, upload in MOVED if order.worker == worker]
        arrivals = [arrival for arrival in done.arrivals if arrival.worker == worker]
        assert len(arrivals) > 8
        assert {arrival.group for arrival in arrivals} == {-1, 0, 1, 2, 3}
        for arrival, (payload, upload) in zip(arrivals, moved, strict=False):
            assert size_of(payload) == pytest.approx(arrival.downlink_bytes, abs=64)
            assert size_of(upload) == pytest.approx(arrival.uplink_bytes, abs=64)
    MOVED.clear()


def size_of(reference: object) -> int:
    """Bytes of the only array of a tuple as Ray stores it, without the envelope that every such tuple has."""
    import ray
    from ray._private.worker import global_worker

    def stored(value: object) -> int:
        return int(global_worker.get_serialization_context().serialize(value).total_bytes)

    large = np.zeros(100_000, np.float32)
    (array,) = ray.get(reference)
    return stored((array,)) - (stored((large,)) - large.nbytes)
