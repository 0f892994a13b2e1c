"""Modules with buffers, shared, frozen, parametrised and recurrent parts: one result everywhere, and saved whole."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_modules import PARTS, WIDTH, Noisy, Odd
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench.components.catalogue import component_class
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.convert import describe
from fedbench.engine.client_host import ClientHost
from fedbench.errors import ConfigError, ModelError, RunError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result, run
from fedbench.experiment.setup import Problem, build_problem
from fedbench.models.base import Model, Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.models.kept_state import UnsynchronisedBatchNorm
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import torch_seed
from fedbench.training.evaluation import score_batches
from fedbench.training.scores import BatchScore

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures")

# Shrinking would train many more networks to make a failure a little smaller.
SETTINGS = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

TASK = Task("image", (8, 8, 1), 10)


def odd(parts: str, *overrides: str) -> ExperimentConfig:
    return config(
        "model=odd_modules:Odd", f"model.parts={parts}", "rounds=2", "schedule=full", "data.clients=3",
        "data.samples_per_client=40", *overrides,
    )  # fmt: skip


def inline(parts: str, *overrides: str) -> Result:
    return run(odd(parts, "runtime.executor=inline", *overrides))


def accuracy_of(result: Result, problem: Problem, parts: str) -> float:
    """The accuracy on the test rows of a fresh module that has loaded the saved model."""
    module = build_module(problem.config.model, problem.federation.task, seed=99)
    module.load_state_dict(result.state_dict(), strict=True)
    module.eval()
    data = problem.federation.data.test
    images = torch.from_numpy(data.inputs.copy()).permute(0, 3, 1, 2).float() / 255
    if problem.spec.mean is not None and problem.spec.std is not None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (problem.spec.mean, problem.spec.std))
        images = (images - mean) / std
    with torch.no_grad():
        return float((module(images).argmax(1) == torch.from_numpy(data.labels)).double().mean())


@pytest.mark.slow
@SETTINGS
@given(chosen=st.sets(st.sampled_from(PARTS), min_size=3, max_size=6))
def test_two_runs_agree_and_the_saved_model_scores_what_the_summary_says(chosen: set[str]) -> None:
    parts = "+".join(sorted(chosen))
    result, again = inline(parts), inline(parts)
    assert result.summary["model_sha256"] == again.summary["model_sha256"]
    problem = build_problem(odd(parts), load_federation(odd(parts)))
    if not chosen & {"dropout", "global_random", "scored"}:
        assert accuracy_of(result, problem, parts) == pytest.approx(result.summary["final_accuracy"], abs=1e-9)
    saved = result.state_dict()
    if "frozen" in chosen:
        assert {"first.weight", "first.bias"} <= problem.constants.keys()
    for name, values in problem.constants.items():
        assert saved[name].numpy().tolist() == values.tolist(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        "centres+assigned+counter+attribute+dropout",
        "cumulative+spectral_norm+global_random+frozen",
        "recurrent+weight_norm+synchronised+shared+twice",
        "scored+centres+assigned+counter+attribute",
    ],
)
def test_one_result_on_several_actors(parts: str, warm_pools: WarmPools) -> None:
    small = "evaluation.batch_size=70"
    expected = inline(parts, small)
    result = warm_pools.run(odd(parts, small, "runtime.actors=3", "runtime.cpus_per_client=0.1"))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert result.history.column("test_accuracy").equals(expected.history.column("test_accuracy"))


@pytest.mark.parametrize("statistics", ["aggregate", "local"])
def test_nothing_of_a_client_reaches_the_next(statistics: str) -> None:
    """Float buffers are averaged, or stay with the clients; counters start anew with each client and are never sent."""
    parts = "centres+counter+attribute"
    problem = build_problem(odd(parts), load_federation(odd(parts)))
    result = inline(parts, f"local.batchnorm={statistics}")
    start = dict(zip((slot.name for slot in problem.layout.statistics), slots(problem), strict=True))
    moved = result.state_dict()["centres"].numpy()
    assert (abs(moved - start["centres"]) > 1e-3).any() == (statistics == "aggregate")
    assert int(result.state_dict()["steps"]) == 0


def slots(problem: Problem) -> list[Any]:
    return [slot.view(problem.statistics) for slot in problem.layout.statistics]


def test_asynchronous_clients_add_their_change_of_a_buffer() -> None:
    overrides = ("model=odd_modules:Odd", "model.parts=centres+recurrent+counter", "runtime.executor=inline")
    result, again = run(asynchronous(*overrides)), run(asynchronous(*overrides))
    assert result.summary["model_sha256"] == again.summary["model_sha256"]
    assert int(result.state_dict()["steps"]) == 0


def test_a_module_that_keeps_its_own_list_of_parameters_learns() -> None:
    module = inline("recurrent").state_dict()
    problem = build_problem(odd("recurrent"), load_federation(odd("recurrent")))
    start = problem.layout.unflatten(problem.vector)
    assert (module["memory.weight_ih_l0"].numpy() != start["memory.weight_ih_l0"]).any()


def test_frozen_parameters_neither_train_nor_travel() -> None:
    frozen = build_problem(odd("frozen"), load_federation(odd("frozen")))
    assert all(not slot.name.startswith("first.") for slot in frozen.layout.slots)
    saved = inline("frozen").state_dict()
    assert (saved["first.weight"].numpy() == frozen.constants["first.weight"]).all()


class Given(Model):
    """Builds the module that it is given, for refusals."""

    name: str = "given"

    def build(self, task: Task) -> torch.nn.Module:
        return MODULES[-1]


MODULES: list[torch.nn.Module] = []


class ExtraState(torch.nn.Linear):
    def get_extra_state(self) -> Any:
        return {"scale": 1}


def double_buffer() -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("codebook", torch.zeros(2, dtype=torch.float64))
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (torch.nn.LazyLinear(3), "'weight' has no shape before the first batch"),
        (ExtraState(2, 2), "get_extra_state"),
        (double_buffer(), "'codebook' is torch.float64, float32 is needed"),
    ],
)
def test_what_cannot_be_kept_rightly_is_refused(module: torch.nn.Module, message: str) -> None:
    MODULES.append(module)
    with pytest.raises(ModelError, match=message):
        build_module(Given(), TASK, seed=0)


def test_synchronised_normalisation_is_that_of_the_minibatch() -> None:
    module = Odd((8, 8, 1), 10, "synchronised")
    MODULES.append(module)
    built = build_module(Given(), TASK, seed=0)
    assert isinstance(built.norm, UnsynchronisedBatchNorm)
    built.train()
    assert built(torch.randn(4, 1, 8, 8)).shape == (4, 10)


def test_buffers_whose_mean_may_have_no_meaning_are_named() -> None:
    problem = build_problem(odd("centres"), load_federation(odd("centres")))
    assert any("buffers centres, average are averaged over clients" in remark for remark in problem.remarks)
    local = odd("centres", "local.batchnorm=local")
    assert not any("averaged over clients" in remark for remark in build_problem(local, load_federation(local)).remarks)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.samples_per_client=1",), "^data.partition: client 0 and 2 others would hold one training row"),
        (("local.batch_size=1",), "^local.batch_size=1: model.name=odd_modules:Odd normalises over the minibatch"),
    ],
)
def test_normalisation_over_a_single_row_is_refused_before_a_run(overrides: tuple[str, ...], message: str) -> None:
    refused = odd("synchronised", *overrides)
    with pytest.raises(ConfigError, match=message):
        build_problem(refused, load_federation(refused))
    allowed = odd("centres", *overrides)
    build_problem(allowed, load_federation(allowed))


def test_normalisation_over_the_pixels_of_a_single_image_is_allowed() -> None:
    images = config("schedule=full", "rounds=1", "local.batch_size=1")
    build_problem(images, load_federation(images))


@pytest.mark.parametrize("parts", ["dropout", "scored+centres", "scored+assigned", "scored+counter+attribute"])
def test_scoring_is_the_same_whichever_host_scores_a_minibatch(parts: str) -> None:
    """With dropout left on, and with buffers and attributes that change in evaluation, too."""
    problem = build_problem(odd(parts), load_federation(odd(parts)))
    test = problem.federation.data.test
    images, labels = torch.from_numpy(test.inputs.copy()), torch.from_numpy(test.labels)
    model = FlatModel(Odd((8, 8, 1), 10, parts), problem.layout)

    def scores(batches: list[tuple[int, int]]) -> list[BatchScore]:
        return score_batches(model, images, labels, batches, lambda rows, _: rows.permute(0, 3, 1, 2).float(), seed=0)

    borders, statistics = [(0, 100), (100, 200), (200, 300)], model.statistics.clone()
    assert scores(borders) == scores(borders[:1]) + scores(borders[1:])
    assert scores(borders)[1:] == scores(borders[1:])
    assert torch.equal(model.statistics, statistics)


def test_a_name_in_the_running_script_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model=__main__:Net: .* write 'module:Net'$"):
        component_class("model", "__main__:Net")


def test_data_that_draw_from_global_generators_are_a_function_of_the_seed() -> None:
    def drawn(seed: int) -> tuple[list[int], list[int]]:
        parts = ("data.dataset=odd_modules:Noisy", "data.partition=odd_modules:NoisyPartition")
        torch.rand(1), np.random.rand(1)
        state = torch.random.get_rng_state()
        federation = load_federation(odd("centres", *parts, f"seed={seed}"))
        assert torch.equal(state, torch.random.get_rng_state())
        return federation.data.train.labels.tolist(), federation.rows[0].tolist()

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert describe(Noisy(), None) == describe(Noisy(), None)


def test_a_server_rule_that_draws_from_global_generators_is_a_function_of_the_seed() -> None:
    first, again, other = (inline("centres", "algorithm=odd_modules:NoisyRule", f"seed={seed}") for seed in (0, 0, 1))
    assert first.summary["model_sha256"] == again.summary["model_sha256"] != other.summary["model_sha256"]


def test_a_schedule_that_draws_from_global_generators_is_a_function_of_the_seed() -> None:
    def groups(seed: int) -> list[int]:
        result = inline("centres", "schedule=odd_modules:NoisySchedule", "rounds=12", f"seed={seed}")
        return result.frame()["group"].tolist()

    assert groups(0) == groups(0) != groups(1)


def test_an_asynchronous_method_that_draws_from_global_generators_is_a_function_of_the_seed() -> None:
    first, again, other = (
        run(asynchronous("algorithm=odd_modules:NoisyArrivals", f"seed={seed}", "runtime.executor=inline"))
        for seed in (0, 0, 1)
    )
    assert first.summary["model_sha256"] == again.summary["model_sha256"] != other.summary["model_sha256"]


def host_after_training(parts: str) -> tuple[ClientHost, ExperimentConfig]:
    """A host on which client 0 has trained for a round."""
    settled = odd(parts)
    federation = load_federation(settled)
    problem = build_problem(settled, federation)
    host = ClientHost()
    host.prepare(problem.spec, federation.data, federation.rows)
    host.load(tuple(range(len(problem.spec.table.parts))), whole_model(problem))
    host._train_one(0, problem.layout.all_groups, 0, 1.0)
    return host, settled


def whole_model(problem: Problem) -> Vector:
    vectors = {PARAMETERS: problem.vector, STATISTICS: problem.statistics}
    return np.concatenate([vectors[part.channel][part.piece] for part in problem.spec.table.parts])


def test_a_buffer_that_training_replaces_is_taken_over() -> None:
    host, _ = host_after_training("assigned")
    model = host._model
    slot = next(slot for slot in model.layout.statistics if slot.name == "average")
    assert float(model.statistics[slot.offset : slot.stop].abs().sum()) > 0


def test_counters_and_attributes_start_anew_with_each_client() -> None:
    host, _ = host_after_training("counter+attribute+frozen")
    module = host._model.module
    assert int(module.steps) > 0
    assert module.calls > 0
    module.first.weight.data.zero_()
    host._set_statistics(host._spec.statistics)
    assert (int(module.steps), module.calls) == (0, 0)
    assert float(module.first.weight.abs().sum()) > 0


def test_a_host_builds_the_module_that_the_initial_model_was_drawn_from() -> None:
    host, settled = host_after_training("frozen+global_random")
    problem = build_problem(settled, load_federation(settled))
    module = host._model.module
    assert module.first.weight.tolist() == problem.constants["first.weight"].tolist()
    assert module.scale == build_module(settled.model, TASK, torch_seed(settled.seed, "model")).scale


def test_tied_parameters_are_one_and_saved_under_each_name() -> None:
    parts = "shared+twice"
    problem, module = build_problem(odd(parts), load_federation(odd(parts))), Odd((8, 8, 1), 10, parts)
    assert not {slot.name for slot in problem.layout.slots} & {"fourth.weight", "after.0.weight"}
    assert problem.layout.size == sum(parameter.numel() for parameter in module.parameters())
    assert any("fourth.weight is third.weight, after.0.weight is before.0.weight" in line for line in problem.remarks)
    saved = inline(parts).state_dict()
    assert saved.keys() == module.state_dict().keys()
    for name, further in (("third.weight", "fourth.weight"), ("before.1.running_var", "after.1.running_var")):
        assert torch.equal(saved[name], saved[further])
        assert not torch.equal(saved[name], module.state_dict()[name])


def test_a_network_that_changes_its_parameters_in_evaluation_is_refused_when_it_is_scored() -> None:
    clamped = config("model=odd_modules:Clamped", "schedule=full", "rounds=1", "runtime.executor=inline")
    assert run(clamped).summary["status"] == "finished"
    scored = config(
        "model=odd_modules:Clamped", "model.in_evaluation=true", "schedule=full", "rounds=1", "runtime.executor=inline"
    )
    with pytest.raises(
        RunError, match=r"odd_modules:Clamped: its forward pass changes parameter 'first.weight' in eval"
    ):
        run(scored)


def test_what_a_network_writes_into_frozen_layer_groups_does_not_reach_the_next_client() -> None:
    clamped = config("model=odd_modules:Clamped", "schedule=full")
    federation = load_federation(clamped)
    problem = build_problem(clamped, federation)
    host = ClientHost()
    host.prepare(problem.spec, federation.data, federation.rows)
    host.load(tuple(range(len(problem.spec.table.parts))), whole_model(problem))
    host._train_one(0, (1,), 0, 1.0)
    frozen = problem.layout.slices[0]
    assert (
        float(host._model.vector[frozen][: 64 * WIDTH].abs().max()) < 0.051 < float(abs(problem.vector[frozen]).max())
    )
    host._reset_parameters()
    assert host._model.vector.numpy().tolist() == problem.vector.tolist()
