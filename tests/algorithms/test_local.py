"""Local training: a plain loop over single clients, with one client FedAvg, and the same on any number of actors."""

from pathlib import Path

import numpy as np
import pytest
import small_tasks
import torch
from broken_runs import CopyAfter, load, tables
from plain_training import accuracy, images, new_module, train_round
from warm_pools import WarmPools

from fedbench import ConfigError, resume
from fedbench.engine.own_models import scored_sample
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared, run
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.planning.samplers import UNIFORM, draw_cohort
from fedbench.protocol.client_state import LAYERS
from fedbench.records.schema import CLIENT_SCHEMA
from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.training.metrics import EvaluationMetrics
from fedbench.training.scores import Scores

pytestmark = pytest.mark.usefixtures("run_folder")
LOCAL = "algorithm=local"
SOME = "participation.clients_per_round=4"


def test_every_client_is_a_plain_loop_of_its_own() -> None:
    config = load(LOCAL, SOME, "rounds=3", "local.optimizer.momentum=0.9")
    federation = load_federation(config)
    modules, data = [new_module(config, federation) for _ in range(6)], images(config, federation)
    test = images(config, federation, "test")
    result = run(config)
    recorded = tables(result.directory)["clients.parquet"]
    for r in range(3):
        cohort = draw_cohort(UNIFORM, r, 4, federation.sizes, config.seed)
        for client in cohort:
            train_round(modules[client], config, data, federation.rows[client], r, client, steps=2)
        scores = [accuracy(module, test) for module in modules]
        assert result.history.to_pylist()[r]["test_accuracy"] == pytest.approx(np.mean(scores), abs=1e-9)
        rows = {row["client"]: row["own_test_accuracy"] for row in recorded if row["round"] == r}
        assert rows == pytest.approx({client: scores[client] for client in cohort}, abs=1e-9)
    for name, values in result.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            mean = np.mean([module.state_dict()[name].numpy().astype(float) for module in modules], axis=0)
            np.testing.assert_allclose(values.numpy(), mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("overrides", [(), ("schedule=sequential", "schedule.warmup_rounds=1")])
def test_with_one_client_it_is_fedavg(overrides: tuple[str, ...]) -> None:
    alone = ("data.clients=1", *overrides)
    expected, result = run(load("algorithm=fedavg", *alone)), run(load(LOCAL, *alone))
    assert result.summary["client_flops"] == expected.summary["client_flops"]
    for name, values in result.state_dict().items():
        np.testing.assert_allclose(values.numpy(), expected.state_dict()[name].numpy(), rtol=0, atol=1e-6)
    assert result.history.column("test_accuracy") == expected.history.column("test_accuracy")


def test_its_initial_model_travels_once_and_the_cost_is_foreseen() -> None:
    config = load(LOCAL, SOME, "schedule=sequential", "schedule.warmup_rounds=1")
    result, foreseen = run(config), estimate(config)
    sent, seen = 4 * result.summary["parameters"], set[object]()
    for row in tables(result.directory)["clients.parquet"]:
        assert (row["uplink_bytes"], row["downlink_bytes"]) == (0, 0 if row["client"] in seen else sent)
        seen.add(row["client"])
    assert foreseen.total.uplink_bytes == result.summary["uplink_bytes"] == 0
    assert foreseen.total.downlink_bytes == result.summary["downlink_bytes"] == len(seen) * sent
    assert foreseen.total.client_flops == result.summary["client_flops"]


def test_a_sample_of_the_clients_is_scored_where_there_are_many() -> None:
    config = load(LOCAL, "algorithm.scored_clients=2", "rounds=2", "evaluation.every=2")
    result = run(config)
    drawn = scored_sample(config.seed, 6, 2)
    rows = tables(result.directory)["clients.parquet"]
    assert [row["client"] for row in rows if row["own_test_accuracy"] is not None] == list(drawn)
    own = [row["own_test_accuracy"] for row in rows if row["own_test_accuracy"] is not None]
    assert result.summary["final_accuracy"] == pytest.approx(sum(own) / 2, abs=1e-12)  # type: ignore[arg-type]
    assert len({scored_sample(seed, 100, 5) for seed in range(5)}) == 5
    assert scored_sample(0, 5, 20) == (0, 1, 2, 3, 4)


def test_fedavg_has_no_accuracy_of_own_models() -> None:
    rows = tables(run(load("rounds=1")).directory)["clients.parquet"]
    assert list(rows[0]) == [name for name in CLIENT_SCHEMA.names if name != "seconds"]
    assert {row["own_test_accuracy"] for row in rows} == {None}


@pytest.mark.parametrize(
    "option",
    [
        "server=fedadam",
        "server=ormo",
        "update.clip_norm=1.0",
        "update.compression=topk",
        "participation.round_deadline=5",
        "exchange=rotate",
        "participation.byzantine=sign-flip",
        "local.batchnorm=aggregate",
        "evaluation.batchnorm=recalibrate",
        "evaluation.per_client=true",
        "schedule=importance",
        "analysis.divergence=true",
        "runtime.max_failed_clients=1",
        "runtime.keep_messages=[1]",
    ],
)
def test_what_needs_a_global_model_or_updates_is_refused(option: str) -> None:
    keeps = ("runtime.keep_models=[1]",) if "keep" in option else ()
    with pytest.raises(ConfigError, match="local"):
        run(load(LOCAL, option, *keeps))


def test_it_is_no_server_rule() -> None:
    with pytest.raises(ConfigError, match=r"server\.name=local"):
        run(load("algorithm=fedprox", "server=local"))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(SOME,), (SOME, "algorithm.scored_clients=3", "runtime.slots=2")])
def test_a_run_on_actors_or_resumed_leaves_the_same_model(overrides: tuple[str, ...], warm_pools: WarmPools) -> None:
    expected = run(load(LOCAL, *overrides, "output.directory=whole"), [CopyAfter(3, "broken")]).summary
    on_actors = warm_pools.run(load(LOCAL, *overrides, "runtime.executor=ray", "runtime.actors=3"))
    assert on_actors.summary["model_sha256"] == expected["model_sha256"]
    recorded = [tables(path)["clients.parquet"] for path in (Path("whole"), on_actors.directory)]
    assert recorded[0] == recorded[1]
    assert resume("broken").summary["model_sha256"] == expected["model_sha256"]
    assert tables(Path("whole")) == tables(Path("broken"))


@pytest.mark.parametrize("algorithm", ["local", "centralised"])
def test_clients_held_out_rows_are_scored_with_their_own_model_or_with_the_one_of_all(algorithm: str) -> None:
    config = load(f"algorithm={algorithm}", "rounds=2", "data.samples_per_client=40", "data.client_test_fraction=0.5")
    federation, result = load_federation(config), run(config)
    module, data = new_module(config, federation), images(config, federation)
    scores = []
    for client, held_out in enumerate(federation.test_rows):
        if algorithm == "local":
            module = new_module(config, federation)
        if algorithm == "local" or client == 0:
            rows = federation.rows[client]
            for r in range(2):
                train_round(module, config, data, rows, r, client, steps=-(-len(rows) // 10))
        scores.append(accuracy(module, (data[0][held_out], data[1][held_out])))
    assert not set(np.concatenate(federation.rows)) & set(np.concatenate(federation.test_rows))
    last = result.history.to_pylist()[-1]
    assert last["client_accuracy_mean"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert last["client_accuracy_worst"] == pytest.approx(min(scores), abs=1e-9)
    if algorithm == "local":
        assert last["client_accuracy_after_mean"] == pytest.approx(np.mean(scores), abs=1e-9)


@pytest.mark.slow
def test_the_error_of_a_regression_is_the_mean_over_the_models_of_all_clients() -> None:
    with prepared(small_tasks.config("regression", LOCAL)) as (problem, executor):
        executor.train(executor.plan(0))
        executor.finish()
        phase = executor.evaluate_own((0, 1, 2, 3))
        metrics = EvaluationMetrics(problem.spec.metrics, 1, task="regression")
        recorded = Scores.of(phase.scores, metrics)
        module = build_module(problem.spec.model, problem.spec.task, 0)
        model, test = FlatModel(module, problem.layout), problem.federation.data.test
        errors, squares = [], []
        for client in range(4):
            model.vector.copy_(torch.from_numpy(executor._host._states[client].arrays[LAYERS]))
            with torch.inference_mode():
                difference = model.module.eval()(torch.from_numpy(test.inputs)).numpy() - test.labels
            errors.append(np.abs(difference).mean())
            squares.append((difference**2).mean())
    assert len(set(errors)) == 4
    assert recorded.figures["test_mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert recorded.test_loss == pytest.approx(np.mean(squares), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression", "next_token", "segmentation"])
def test_with_one_client_other_tasks_have_the_scores_of_fedavg_too(task: TaskName) -> None:
    alone = ("data.clients=1", "rounds=2")
    expected, result = run(small_tasks.config(task, *alone)), run(small_tasks.config(task, LOCAL, *alone))
    for name in TASKS[task].metrics:
        mine, others = (history[f"test_{name}"].to_pylist() for history in (result.history, expected.history))
        assert mine == pytest.approx(others, rel=1e-4)
