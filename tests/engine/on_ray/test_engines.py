"""The engine end to end on digits: one result whatever runs it, bytes that are really sent, failures that are heard."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import config
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ClientFailure, ConfigError, RunError
from fedbench.experiment.run import Result, run

pytestmark = pytest.mark.usefixtures("run_folder")


def inline(*overrides: str) -> Result:
    return run(config("runtime.executor=inline", *overrides))


def few_cpus(actors: int, *overrides: str) -> ExperimentConfig:
    return config(f"runtime.actors={actors}", "runtime.cpus_per_client=0.1", *overrides)


OnRay = Callable[..., Result]


@pytest.fixture
def on_ray(warm_pools: WarmPools) -> OnRay:
    """`on_ray(2, "rounds=3")` is a run on two actors, which may have served other runs before."""
    return lambda actors, *overrides: warm_pools.run(few_cpus(actors, *overrides))


VARIANTS = {
    "averaged statistics": (),
    "local statistics": ("local.batchnorm=local", "evaluation.per_client=true"),
    "sampled cohorts of unequal clients": (
        "data.partition=dirichlet",
        "data.partition.alpha=0.5",
        "data.clients=12",
        "participation.clients_per_round=6",
        "participation.sampler=oort",
        "participation.byzantine=sign-flip",
        "participation.capacities={shares: [0.25, 0.5, 1.0]}",
        "schedule=selective",
        "schedule.agreement=0.05",
        "local.batchnorm=local",
        "evaluation.batchnorm=recalibrate",
    ),
    "a validation split": (
        "data.validation_fraction=0.2",
        "evaluation.batch_size=100",
        "participation.byzantine=noise",
        "algorithm=krum",
        "algorithm.f=1",
    ),
}


COMPARED = (
    "train_loss", "test_loss", "test_accuracy", "validation_loss", "validation_accuracy", "uplink_bytes",
    "downlink_bytes", "client_flops",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_result_whatever_the_cluster(variant: str, on_ray: OnRay) -> None:
    overrides = VARIANTS[variant]
    expected = inline(*overrides)
    for actors in (1, 3):
        result = on_ray(actors, *overrides)
        assert result.summary["model_sha256"] == expected.summary["model_sha256"], actors
        for column in COMPARED:
            assert result.history.column(column).equals(expected.history.column(column)), (actors, column)
        mine, theirs = (pq.read_table(one.directory / "clients.parquet") for one in (result, expected))
        assert mine.drop_columns(["seconds"]).equals(theirs.drop_columns(["seconds"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("local.batchnorm=aggregate",),
        ("local.batchnorm=local",),
        ("local.batchnorm=aggregate", "schedule=full", "exchange=rotate"),
        ("local.batchnorm=local", "schedule=full", "exchange=strided"),
    ],
    ids=" ".join,
)
def test_with_one_client_per_actor_protocol_bytes_cross_the_object_store(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, on_ray: OnRay
) -> None:
    """Ray's own account of every object that goes to or comes from a client actor, next to the protocol's."""
    from fedbench.engine.on_ray import rounds as ray_rounds

    sizes: list[list[int]] = []

    class Watched(ray_rounds.RayRoundExecutor):
        def train(self, plan, limit):  # type: ignore[no-untyped-def]
            self.seen: list[object] = []
            phase = super().train(plan, limit)
            sizes.append([object_size(reference) for reference in self.seen])
            return phase

        def _collect(self, plan, orders, payloads, reports):  # type: ignore[no-untyped-def]
            for _actor, upload, order in orders.values():
                self.seen += [payloads._references[order.stale], upload]
            return super()._collect(plan, orders, payloads, reports)

    monkeypatch.setattr(ray_rounds, "RayRoundExecutor", Watched)
    result = on_ray(3, "data.clients=3", "evaluation.every=100", "model.width=64", *overrides)
    empty = array_overhead()
    for index, objects in enumerate(sizes):
        protocol = sum(result.history.column(name)[index].as_py() for name in ("uplink_bytes", "downlink_bytes"))
        assert sum(objects) - len(objects) * empty == pytest.approx(protocol, abs=64 * len(objects))
    rounds = result.history.slice(0, len(sizes) - 1)
    for row in rounds.to_pylist():
        assert row["transport_bytes"] == row["uplink_bytes"] + row["downlink_bytes"]


def object_size(reference: object) -> int:
    """Bytes of an object as Ray stores it."""
    import ray

    return serialized_size(ray.get(reference))


def serialized_size(value: object) -> int:
    from ray._private.worker import global_worker

    return int(global_worker.get_serialization_context().serialize(value).total_bytes)


def array_overhead() -> int:
    """Ray's envelope around an array."""
    large = np.zeros(100_000, np.float32)
    return serialized_size(large) - large.nbytes


@pytest.mark.slow
def test_combined_answers_move_less_than_the_protocol(on_ray: OnRay) -> None:
    row = on_ray(2, "data.clients=10").history.to_pylist()[1]
    assert row["uplink_bytes"] == 10 * row["uplink_bytes"] // 10
    assert row["transport_bytes"] < (row["uplink_bytes"] + row["downlink_bytes"]) / 2


SINGLE_CLASS = ("data.partition=shards", "data.partition.shards_per_client=1", "data.clients=10", "rounds=2")


@pytest.mark.slow
def test_a_clients_own_traceback_reaches_the_driver(on_ray: OnRay) -> None:
    with pytest.raises(ClientFailure) as caught:
        on_ray(2, "algorithm=small:Faulty", *SINGLE_CLASS)
    error = caught.value
    assert error.round_index == 0
    assert str(error) == f"client {error.client} failed in round 1: ValueError: this client is broken"
    assert "in loss" in error.traceback
    assert "small.py" in error.traceback


@pytest.mark.parametrize("rule", ["fedavg", "trimmed-mean"])
def test_an_update_of_the_wrong_shape_is_rejected_counted_and_named(rule: str) -> None:
    result = inline(
        "algorithm=small:Misshapen",
        *([] if rule == "fedavg" else [f"server={rule}"]),
        *(["server.trim=0"] if rule == "trimmed-mean" else []),
        "data.partition=quantity",
        "data.partition.alpha=1.0",
        "rounds=2",
    )
    rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"ok", "rejected"}
    assert all((row["status"] == "rejected") == (row["steps"] % 2 == 1) for row in rows)
    assert result.summary["rejected_clients"] == sum(row["status"] == "rejected" for row in rows)


def test_the_inline_executor_stops_at_the_exception_itself() -> None:
    with pytest.raises(ClientFailure) as caught:
        inline("algorithm=small:Faulty", *SINGLE_CLASS)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.slow
def test_a_budget_of_failures_is_survived_and_recorded_alike_everywhere(on_ray: OnRay) -> None:
    overrides = ("algorithm=small:Faulty", "runtime.max_failed_clients=2", *SINGLE_CLASS)
    results = [inline(*overrides), on_ray(2, *overrides)]
    assert results[0].summary["model_sha256"] == results[1].summary["model_sha256"]
    for result in results:
        rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
        failed = [row for row in rows if row["status"] == "failed"]
        assert 1 <= len(failed) / 2 <= 2
        assert all(row["uplink_bytes"] == 0 and row["flops"] == 0 for row in failed)


@pytest.mark.slow
def test_updates_that_are_not_finite_are_rejected_counted_and_named(on_ray: OnRay) -> None:
    overrides = ("algorithm=small:Faulty", "algorithm.how=nan", *SINGLE_CLASS)
    results = [inline(*overrides), on_ray(2, *overrides), on_ray(3, *overrides)]
    assert len({result.summary["model_sha256"] for result in results}) == 1
    for result in results:
        rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
        rejected = {row["client"] for row in rows if row["status"] == "rejected"}
        assert rejected
        assert result.history.column("rejected_clients").to_pylist() == [len(rejected)] * 2
        assert result.summary["final_accuracy"] is not None


def test_a_round_in_which_all_are_rejected_ends_the_run(run_folder: Path) -> None:
    with pytest.raises(RunError, match="round 1: none of the 6 updates can be used: 6 were not finite"):
        inline("local.optimizer=sgd", "local.optimizer.lr=1e30")
    summary = next(run_folder.glob("runs/*/summary.json")).read_text()
    assert '"status": "failed"' in summary


@pytest.mark.slow
def test_what_raises_in_the_set_up_of_an_actor_is_told(on_ray: OnRay) -> None:
    with pytest.raises(RunError, match="nothing left to minimise"):
        on_ray(1, "algorithm=small:Exhausted")


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_more_than_the_cluster_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 actors x 1 CPU = 5 CPUs asked, 2 present"):
        run(config("runtime.actors=5"))
    with pytest.raises(ConfigError, match=r"0\.5 GPU.*0 present"):
        run(config("runtime.device=auto", "runtime.gpus_per_client=0.5"))


def test_one_client_taking_part_is_centralised_training() -> None:
    """A round of one client with all the data leaves the model that the client arrived at, to 2**-40."""
    from fedbench.experiment.federation import load_federation
    from fedbench.experiment.setup import build_problem
    from fedbench.models.flat import FlatModel
    from fedbench.training.local import LocalTraining, train_client

    one = config("runtime.executor=inline", "data.clients=1", "rounds=1", "local.epochs=2")
    result = run(one)
    federation = load_federation(one)
    problem = build_problem(one, federation)
    import torch

    from fedbench.data.augment import prepare
    from fedbench.models.groups import build_module
    from fedbench.randomness import torch_seed

    torch.set_num_threads(1)
    module = build_module(one.model, federation.task, torch_seed(one.seed, "model"))
    model = FlatModel(module, problem.layout)
    spec = problem.spec
    work = LocalTraining(
        spec.optimizer, spec.algorithm.objective(), spec.batch_size, spec.epochs, spec.steps, False, one.seed
    )
    train_client(
        model,
        torch.tensor(federation.data.train.inputs),
        torch.tensor(federation.data.train.labels),
        federation.rows[0],
        lambda batch, rng: prepare(batch, None, spec.mean, spec.std, rng),
        work,
        anchor=model.vector.clone(),
        groups=problem.layout.all_groups,
        round_index=0,
        client=0,
        lr_factor=1.0,
    )
    for name, tensor in result.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        expected = model.module.state_dict()[name]
        large = expected.abs() >= 2.0**-16
        assert torch.equal(tensor[large], expected[large]), name
        torch.testing.assert_close(tensor, expected, rtol=0, atol=2.0**-40)


def test_the_statistics_of_frozen_layers_move_and_are_averaged() -> None:
    result = inline("rounds=3", "schedule.warmup_rounds=0")
    first = [row["group"] for row in result.history.to_pylist()]
    assert first == [0, 1, 2]
    moved = {name: tensor for name, tensor in result.state_dict().items() if name.endswith("running_mean")}
    assert all(float(tensor.abs().sum()) > 0 for tensor in moved.values())


def test_without_running_statistics_the_option_is_refused() -> None:
    perceptron = ("model=small:TwoLayers", "model.hidden=8")
    result = inline(*perceptron, "rounds=2")
    assert result.summary["layer_groups"] == 2
    assert math.isfinite(result.summary["final_accuracy"])
    with pytest.raises(ConfigError, match=r"local\.batchnorm=local: has no effect"):
        inline(*perceptron, "rounds=2", "local.batchnorm=local")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("local_ray")
def test_ten_actors_agree_too() -> None:
    overrides = ("data.clients=10", "rounds=3")
    result = run(few_cpus(10, *overrides))
    assert result.summary["model_sha256"] == inline(*overrides).summary["model_sha256"]
