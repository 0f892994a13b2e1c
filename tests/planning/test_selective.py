"""Selective layers: the choice against all others, and whole runs against FedAvg and plain NumPy."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from broken_runs import BreakAfter, Broken
from small import config

from fedbench import ConfigError, ExperimentConfig, resume
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result, run
from fedbench.experiment.setup import build_problem
from fedbench.models.groups import build_module
from fedbench.planning.capacities import Clients
from fedbench.planning.selective import best_within, chosen_groups, known_norms, objective
from fedbench.randomness import generator
from fedbench.records.kept import load_message, load_model


def by_hand(norms: np.ndarray, x: np.ndarray, agreement: float) -> float:
    """J(x), pair by pair."""
    pairs = itertools.combinations(range(len(x)), 2)
    return float((norms * x).sum() - agreement * sum(((x[i] - x[k]) ** 2).sum() for i, k in pairs))


def affordable(costs: list[int], budget: int) -> list[tuple[int, ...]]:
    sets = [s for size in range(1, len(costs) + 1) for s in itertools.combinations(range(len(costs)), size)]
    return [groups for groups in sets if sum(costs[group] for group in groups) <= budget]


@pytest.mark.parametrize("seed", range(40))
def test_of_all_choices_it_finds_the_one_with_the_largest_objective(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clients, groups = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    norms = rng.exponential(size=(clients, groups))
    costs = [1] * groups if seed % 2 else rng.integers(1, 6, groups).tolist()
    budgets = [int(rng.integers(min(costs), sum(costs) + 1)) for _ in range(clients)]
    agreement = (0.0, 0.1, 0.3, 1.0, 100.0)[seed % 5]
    chosen = chosen_groups(norms, budgets, costs, agreement)
    assert all(groups in affordable(costs, budget) for groups, budget in zip(chosen, budgets, strict=True))
    everything = itertools.product(*(affordable(costs, budget) for budget in budgets))
    x = [[[float(g in groups) for g in range(len(costs))] for groups in choice] for choice in (chosen, *everything)]
    values = [by_hand(norms, np.array(each), agreement) for each in x]
    assert objective(norms, chosen, agreement) == pytest.approx(values[0])
    assert values[0] == pytest.approx(max(values[1:]))


def test_a_large_agreement_makes_all_clients_choose_the_same_layers() -> None:
    norms = np.random.default_rng(0).exponential(size=(10, 8))
    for budgets in ([3] * 10, [2, 3, 8, 5, 4, 2, 7, 3, 6, 8]):
        chosen = chosen_groups(norms, budgets, [1] * 8, 1e3)
        assert set(chosen) == {tuple(sorted(np.argsort(-norms.sum(axis=0))[: min(budgets)].tolist()))}


def test_without_it_each_client_chooses_its_own_largest_norms() -> None:
    norms = np.random.default_rng(1).exponential(size=(6, 9))
    budgets = [1, 2, 3, 4, 9, 5]
    for own, budget, chosen in zip(norms, budgets, chosen_groups(norms, budgets, [1] * 9, 0.0), strict=True):
        assert chosen == tuple(sorted(np.argsort(-own)[:budget].tolist()))


def test_a_layer_without_gradient_is_trained_where_there_is_room_and_one_layer_always() -> None:
    assert best_within(np.array([0.0, 2.0, 0.0]), [1, 1, 1], 2) == (0, 1)
    assert best_within(np.array([-3.0, -1.0, -0.5]), [1, 1, 9], 2) == (1,)


def test_a_client_that_has_reported_nothing_counts_as_the_mean_of_the_others() -> None:
    norms = np.array([[1.0, 3.0], [np.nan, np.nan], [3.0, 5.0]])
    np.testing.assert_array_equal(known_norms((0, 1), 2, Clients(gradient_norms=norms)), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(known_norms((0, 1), 2, Clients()), np.ones((2, 2)))
    np.testing.assert_array_equal(known_norms((1,), 2, Clients(gradient_norms=norms[1:2])), np.ones((1, 2)))


SMALL = (
    "rounds=3",
    "data.samples_per_client=30",
    "runtime.executor=inline",
    "local.optimizer=sgd",
    "local.batch_size=10",
)
SELECTIVE = ("schedule={name: selective}", *SMALL)
HALF = ("participation.capacities={shares: [0.25, 0.5, 0.75]}",)
KEPT = ("runtime.keep_models=[1-3]", "runtime.keep_messages=[0-5]")


def selective(*overrides: str, agreement: float = 0.0) -> ExperimentConfig:
    return config("schedule=selective", f"schedule.agreement={agreement}", *SMALL, *overrides)


pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


@pytest.mark.parametrize("method", ["fedavg", "scaffold", "fedadam"])
def test_with_room_for_all_layers_it_is_the_full_schedule_bit_for_bit(method: str) -> None:
    full = run(config("schedule=full", *SMALL, f"algorithm={method}"))
    whole = run(selective(f"algorithm={method}"))
    assert whole.summary["model_sha256"] == full.summary["model_sha256"]
    assert whole.history["phase"].to_pylist() == ["full"] * 3
    norms = 6 * 4 * 4  # six clients, four layer groups, four bytes
    assert [a - b for a, b in zip(whole.history["uplink_bytes"].to_pylist(), full.history["uplink_bytes"].to_pylist(),
            strict=True)] == [norms] * 3  # fmt: skip
    assert whole.history["downlink_bytes"].equals(full.history["downlink_bytes"])


def gradients(result: Result, configuration: ExperimentConfig, number: int, client: int) -> list[float]:
    """By PyTorch alone: the norms of a client's first minibatch of round `number`, at the model of its start."""
    federation = load_federation(configuration)
    problem = build_problem(configuration, federation)
    module = build_module(configuration.model, federation.task, 0)
    start = load_model(result.directory, number - 1)
    module.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in start.items()})
    rows = federation.rows[client]
    order = generator(configuration.seed, "minibatches", number - 1, client).permutation(len(rows))
    chosen = rows[order[:10]]
    images = torch.from_numpy(federation.data.train.inputs[chosen]).permute(0, 3, 1, 2).float() / 255
    spec = problem.spec
    if spec.mean is not None:
        images = (images - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
    labels = torch.from_numpy(federation.data.train.labels[chosen])
    module.train()
    torch.nn.functional.cross_entropy(module(images), labels).backward()
    squares = [0.0] * problem.layout.groups
    parameters = dict(module.named_parameters())
    for slot in problem.layout.slots:
        squares[slot.group] += float(parameters[slot.name].grad.double().square().sum())  # type: ignore[union-attr]
    return np.sqrt(squares).tolist()


def test_three_rounds_are_those_of_numpy_on_norms_of_pytorch() -> None:
    """What each client trains, and what the server makes of it, from the recorded messages and models alone."""
    configuration = selective(*HALF, *KEPT, agreement=0.05)
    result = run(configuration)
    problem = build_problem(configuration, load_federation(configuration))
    layout, budgets = problem.layout, problem.server.clients.budgets
    group_of = {slot.name: slot.group for slot in layout.slots}
    norms = np.ones((6, layout.groups))
    for number in (1, 2, 3):
        expected = chosen_groups(norms, budgets, [1] * layout.groups, 0.05)
        messages = [load_message(result.directory, number, client)[0] for client in range(6)]
        sent = [tuple(sorted({group_of[name] for name in message if name in group_of})) for message in messages]
        assert sent == list(expected)
        before, after = (load_model(result.directory, count) for count in (number - 1, number))
        for name, group in group_of.items():
            updates = [message[name].astype(float) for message, groups in zip(messages, sent, strict=True)
                       if group in groups]  # fmt: skip
            mean = np.mean(updates, axis=0) if updates else 0.0
            np.testing.assert_allclose(after[name], before[name].astype(float) + mean, rtol=0, atol=1e-6)
        norms = np.array([gradients(result, configuration, number, client) for client in range(6)])
    assert len({tuple(row) for row in result.history["group_clients"].to_pylist()}) > 1


def test_its_work_and_bytes_are_foreseen_where_all_gradients_are_equal_and_counted_where_they_are_not() -> None:
    configuration = selective(*HALF)
    foreseen, result = estimate(configuration), run(configuration)
    first = foreseen.per_round[0]  # before any norm is known
    for key in ("uplink_bytes", "downlink_bytes", "client_flops"):
        assert result.history[key][0].as_py() == getattr(first, key), key
    assert "follows gradients that clients report" in foreseen.remark
    problem = build_problem(configuration, load_federation(configuration))
    rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
    probe = problem.costs.minibatch_flops(problem.layout.all_groups, 10)
    trained = chosen_groups(np.ones((6, 4)), problem.server.clients.budgets, [1] * 4, 0.0)
    for row, groups in zip(rows[:6], trained, strict=True):
        assert row["flops"] == problem.costs.client_flops(groups, row["client"]) + probe
        assert row["uplink_bytes"] == 4 * (problem.layout.count(groups) + problem.layout.statistics_size) + 4 * 4


def test_a_run_goes_on_from_a_checkpoint_with_the_norms_that_were_reported() -> None:
    options = (*HALF, "runtime.checkpoint_every=1", "participation.clients_per_round=3")
    whole = run(selective(*options))
    with pytest.raises(Broken):
        run(selective(*options, "output.directory=broken"), [BreakAfter(1)])
    assert resume("broken").summary["model_sha256"] == whole.summary["model_sha256"]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("algorithm=krum", "algorithm.f=1"),
            "krum with schedule.name=selective: compares whole updates",
        ),
        (("algorithm=centralised",), "schedule.name=selective: algorithm.name=centralised sends no updates"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run(selective(*overrides))
