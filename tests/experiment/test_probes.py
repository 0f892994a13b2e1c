"""Clients' models beside the global one: features and losses on the way, as kept models say, the same everywhere."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from small import asynchronous, config
from torch import nn
from torch.nn.functional import cross_entropy
from warm_pools import WarmPools

from fedbench import resume
from fedbench.errors import ConfigError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result, run
from fedbench.experiment.setup import build_problem
from fedbench.measures.similarity import linear_cka
from fedbench.models.base import Model, Task
from fedbench.models.groups import build_module
from fedbench.records.kept import message_name, model_name
from fedbench.records.measured import BARRIER, BARRIER_SCHEMA, CKA, CKA_SCHEMA
from fedbench.records.reader import load_measured

pytest.importorskip("cka", reason="needs pytorch-cka")
pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")

ON = ("analysis.cka=[1,3]", "analysis.barrier=[2-3]", "analysis.samples=40", "analysis.points=3")
ALL_SKEWED = ("data.partition=dirichlet", "data.partition.alpha=0.5")
SKEWED = (*ALL_SKEWED, "data.test_fraction=0.75")
"""Such a partition deals out every row that is not held out for testing."""
FEW = "data.samples_per_client=60"
ALL_ROWS = "analysis.samples=100000"
BY_ROUND = [("round", "ascending"), ("client", "ascending"), ("group", "ascending")]

KINDS = {
    "partial updates": SKEWED,
    "local statistics": ("local.batchnorm=local", *SKEWED),
    "another group for each client": ("schedule=per-client", "participation.clients_per_round=4", FEW),
    "SCAFFOLD": ("algorithm=scaffold", FEW, "local.optimizer=sgd", "local.optimizer.lr=0.05"),
    "int8 compression in slots": ("update.compression=int8", "runtime.slots=3", FEW),
}


def inline(*overrides: str) -> Result:
    return run(config("rounds=3", "runtime.executor=inline", *overrides))


def rows_of(result: Result, name: str) -> list[dict[str, object]]:
    return list(load_measured(result.directory, name).sort_by(BY_ROUND).to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_probes_leave_no_trace_in_the_model(kind: str) -> None:
    probed, plain = inline(*ON, *KINDS[kind]), inline(*KINDS[kind])
    assert probed.summary["model_sha256"] == plain.summary["model_sha256"]
    assert probed.history["test_loss"].equals(plain.history["test_loss"])
    cka, barrier = (load_measured(probed.directory, name) for name in (CKA, BARRIER))
    assert (cka.schema, barrier.schema) == (CKA_SCHEMA, BARRIER_SCHEMA)
    assert pc.unique(cka["round"]).to_pylist() == [0, 2]
    assert pc.unique(barrier["round"]).to_pylist() == [1, 2]
    assert probed.history["cka"].is_valid().to_pylist() == [True, False, True]
    assert probed.history["barrier"].is_valid().to_pylist() == [False, True, True]
    assert min(cka["similarity"].to_pylist()) >= 0
    assert min(barrier["barrier"].to_pylist()) >= 0
    assert not (plain.directory / CKA).exists()


def probed_round(*overrides: str) -> tuple[Result, torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A run whose round 2 is probed on all test rows and kept; a network of its kind, and the test split."""
    names = ("analysis.cka=2", "analysis.barrier=2", ALL_ROWS, "runtime.keep_models=2", "runtime.keep_messages=[0-5]")
    result = inline(*names, *overrides)
    federation = load_federation(config(*overrides))
    problem = build_problem(config(*overrides), federation)
    test = federation.data.test
    images = torch.from_numpy(np.asarray(test.inputs)).permute(0, 3, 1, 2).float() / 255
    if problem.spec.mean is not None and problem.spec.std is not None:
        shape = (1, -1, 1, 1)
        images = (images - torch.tensor(problem.spec.mean).view(shape)) / torch.tensor(problem.spec.std).view(shape)
    return result, build_module(problem.spec.model, federation.task, 0).eval(), images, torch.from_numpy(test.labels)


def weights(directory: Path, client: int | None) -> dict[str, torch.Tensor]:
    """The global model after round 2, or a client's before it was averaged."""
    if client is None:
        return load_file(directory / model_name(2))
    start, update = load_file(directory / model_name(1)), load_file(directory / message_name(2, client))
    return {name: value + update.get(name, torch.zeros(())) for name, value in start.items()}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["full", "sequential"])
def test_the_tables_are_what_the_kept_models_say(schedule: str) -> None:
    result, module, images, labels = probed_round(f"schedule={schedule}", *ALL_SKEWED)

    def outputs(client: int | None, group: int = -1, share: float = 0.0) -> torch.Tensor:
        """Of a client's model, one group of which, or all, has gone that share of the way to the global model."""
        mine, mean = weights(result.directory, client), weights(result.directory, None)
        names = [name for name, place in group_of.items() if group in (-1, place)]
        module.load_state_dict(mine | {name: torch.lerp(mine[name], mean[name], share) for name in names}, strict=False)
        with torch.no_grad():
            output: torch.Tensor = module(images)
        return output

    layout = build_problem(config(*ALL_SKEWED), load_federation(config(*ALL_SKEWED))).layout
    group_of = {slot.name: slot.group for slot in (*layout.slots, *layout.statistics)}
    for row in load_measured(result.directory, BARRIER).to_pylist():
        points = np.linspace(0, 1, len(row["losses"]))
        expected = [float(cross_entropy(outputs(row["client"], row["group"], t), labels)) for t in points]
        assert row["losses"] == pytest.approx(expected, rel=1e-4)
        above = [loss - (1 - t) * expected[0] - t * expected[-1] for t, loss in zip(points, expected, strict=True)]
        assert row["barrier"] == pytest.approx(max(0.0, *above), abs=1e-5)
        if row["group"] == -1:
            assert row["losses"][-1] == pytest.approx(result.history["test_loss"][1].as_py())
    last = load_measured(result.directory, CKA).filter(pc.field("group") == layout.groups - 1).to_pylist()
    assert [row["client"] for row in last] == list(range(6))
    for row in last:
        assert row["similarity"] == pytest.approx(linear_cka(outputs(row["client"]), outputs(None)), abs=1e-5)


def test_a_client_that_is_alone_is_the_mean() -> None:
    result = inline("analysis.cka=1", "analysis.barrier=1", "participation.clients_per_round=1", "schedule=full")
    assert {row["barrier"] for row in rows_of(result, BARRIER)} == {0.0}
    assert [row["similarity"] for row in rows_of(result, CKA)] == pytest.approx([1.0] * 4)


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["aggregate", "local"])
def test_the_tables_are_the_same_on_any_number_of_actors(statistics: str, warm_pools: WarmPools) -> None:
    overrides = (*ON, *SKEWED, "schedule=per-client", f"local.batchnorm={statistics}")
    expected = inline(*overrides)
    for actors in (1, 3):
        wide = ("rounds=3", f"runtime.actors={actors}", "runtime.cpus_per_client=0.1")
        result = warm_pools.run(config(*wide, *overrides))
        for name in (CKA, BARRIER):
            tables: list[pa.Table] = [load_measured(one.directory, name) for one in (result, expected)]
            assert tables[0].equals(tables[1]), (actors, name)


@pytest.mark.slow
def test_the_rows_survive_a_resume() -> None:
    whole = inline(*ON, FEW)
    rounds: list[int] = []

    def after_two() -> bool:
        rounds.append(1)
        return len(rounds) >= 2

    part = run(config("rounds=3", "runtime.executor=inline", *ON, FEW), should_stop=after_two)
    resumed = resume(part.directory)
    for name in (CKA, BARRIER):
        assert load_measured(resumed.directory, name).equals(load_measured(whole.directory, name))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("analysis.cka=[4]",), r"analysis\.cka=\[4\]: there is no round 4; the run has 3"),
        (("analysis.barrier=2", "algorithm=fedmr"), r"analysis\.barrier=\[2\]: the clients of fedmr start from"),
    ],
)
def test_rounds_that_cannot_be_probed_are_refused(overrides: tuple[str, ...], message: str) -> None:
    refused = config("rounds=3", *overrides)
    with pytest.raises(ConfigError, match=message):
        build_problem(refused, load_federation(refused))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("analysis.samples=50",), r"analysis\.samples=50: has no effect without cka or barrier"),
        (("analysis.cka=1", "analysis.points=9"), r"analysis\.points=9: has no effect without barrier"),
    ],
)
def test_an_option_without_effect_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*overrides)


def test_an_asynchronous_run_has_no_mean_to_compare_with() -> None:
    with pytest.raises(ConfigError, match=r"analysis\.cka=\[1\]: an asynchronous run has no mean of a round's models"):
        asynchronous("analysis.cka=1")


def test_the_cost_of_probes_is_foreseen() -> None:
    costs = {cost.name: cost for cost in estimate(config("rounds=3", *ON)).measures}
    result = inline(*ON)
    assert list(costs) == ["cka", "barrier"]
    assert costs["cka"].table_bytes == 8 * 4 * len(rows_of(result, CKA))
    assert costs["barrier"].table_bytes == 8 * (4 + 3) * len(rows_of(result, BARRIER))
    assert all(cost.flops > 0 for cost in costs.values())


class Sideways(Model):
    """A network whose first layer puts its samples into columns."""

    name: str = "test_probes:Sideways"

    def build(self, task: Task) -> nn.Module:
        return SidewaysNetwork(task)


class SidewaysNetwork(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.first, self.turned, self.last = nn.Linear(64, 40), Turned(), nn.Linear(40, task.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.last(self.turned(self.first(images.flatten(1))).T)
        return output


class Turned(nn.Module):
    """Scales features, and gives [features, samples]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(40))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features * self.scale).T


def test_a_layer_without_a_row_for_each_sample_has_no_similarity_even_with_as_many_rows_as_samples() -> None:
    names = (f"model={__name__}:Sideways", "analysis.cka=1", "analysis.samples=40", "schedule=full", "rounds=1")
    rows = rows_of(run(config(*names, "runtime.executor=inline")), CKA)
    assert [row["similarity"] is None for row in rows[:3]] == [False, True, False]
