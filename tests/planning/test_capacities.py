"""What clients can train: how shares are given out, and that a run, its costs and its records keep to them."""

from collections import Counter

import numpy as np
import pytest
from broken_runs import BreakAfter, Broken
from small import config

from fedbench import ConfigError, ExperimentConfig, resume
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import run
from fedbench.experiment.setup import build_problem
from fedbench.planning.capacities import CapacitiesSection, Clients
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.schedules import Feedback, PerClient

SIZES = (100, 10, 1000, 50, 5, 400)


def test_shares_are_given_out_by_the_seed_with_their_probabilities() -> None:
    section = CapacitiesSection(shares=(0.25, 0.5, 1.0), probabilities=(0.5, 0.3, 0.2))
    given = section.of_clients(10_000, seed=3)
    assert given == section.of_clients(10_000, seed=3) != section.of_clients(10_000, seed=4)
    counts = Counter(given)
    assert [counts[share] / 10_000 for share in (0.25, 0.5, 1.0)] == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert CapacitiesSection(clients=(0.1, 0.9)).of_clients(2, seed=0) == (0.1, 0.9)


def test_a_share_is_of_the_layer_groups_or_of_their_bytes_rounded_down() -> None:
    shares = (0.29, 0.5, 1.0)
    layers = CapacitiesSection(clients=shares).limits(3, 0, SIZES)
    assert layers == Clients((1, 3, 6), (1,) * 6, layers.gradient_norms)
    assert CapacitiesSection(clients=(0.29,)).limits(1, 0, (1,) * 100).budgets == (29,)
    of_bytes = CapacitiesSection(clients=shares, unit="bytes").limits(3, 0, SIZES)
    assert (of_bytes.budgets, of_bytes.costs) == ((453, 782, 1565), SIZES)


def windows(limits: Clients, clients: int) -> list[tuple[tuple[int, ...], ...]]:
    """By visit of a cycle, what each client trains."""
    schedule = PerClient(warmup_rounds=0, rounds_per_group=1)
    feedback = Feedback(None, SIZES, (0,) * 6)
    return [checked_groups(schedule, v, 6, 0, feedback, range(clients), clients=limits)[1] for v in range(6)]


def test_a_client_trains_as_many_consecutive_groups_as_it_can() -> None:
    rounds = windows(Clients((1, 2, 6), (1,) * 6), clients=3)
    assert rounds[0] == ((0,), (1, 2), (0, 1, 2, 3, 4, 5))
    assert rounds[4] == ((4,), (0, 5), (0, 1, 2, 3, 4, 5))


def test_bytes_end_a_window_and_a_group_too_large_is_left_out_of_it() -> None:
    rounds = windows(Clients((120, 1200), SIZES), clients=2)
    assert [of_client for of_client, _ in rounds] == [(0, 1), (1,), (3, 4), (3, 4), (4,), (0, 1)]
    assert all(sum(SIZES[group] for group in groups) <= 1200 for _, groups in rounds)
    assert rounds[0][1] == (1, 2, 3, 4)


def test_with_a_share_of_one_group_the_schedule_is_what_it_is_without_capacities() -> None:
    assert windows(Clients((1,) * 4, (1,) * 6), clients=4) == windows(Clients(), clients=4)


OPTIONS = (
    "schedule=per-client", "schedule.warmup_rounds=0", "schedule.full_rounds_between_cycles=0",
    "runtime.executor=inline", "rounds=3", "schedule.rounds_per_group=1", "data.samples_per_client=30",
)  # fmt: skip
GIVEN = ("participation.capacities={shares: [0.25, 0.5, 1.0]}",)

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


@pytest.mark.parametrize("unit", ["layers", "bytes"])
def test_bytes_and_flops_of_clients_that_train_different_parts_are_foreseen(unit: str) -> None:
    options = (*OPTIONS, "participation.capacities={shares: [0.5, 1.0], unit: " + unit + "}")
    foreseen, result = estimate(config(*options)), run(config(*options))
    for key in ("uplink_bytes", "downlink_bytes", "client_flops"):
        assert result.history[key].to_pylist() == [getattr(costs, key) for costs in foreseen.per_round], key
    counts = np.array(result.history["group_clients"].to_pylist())
    problem = build_problem(config(*options), load_federation(config(*options)))
    limits = problem.server.clients
    assert len(set(limits.budgets)) > 1
    values = counts[0] @ [problem.layout.group_size(group) for group in range(problem.layout.groups)]
    assert result.history["uplink_bytes"][0].as_py() == 4 * (values + 6 * problem.layout.statistics_size)


def test_a_run_with_capacities_goes_on_from_a_checkpoint() -> None:
    options = (*OPTIONS, *GIVEN, "runtime.checkpoint_every=1")
    whole = run(config(*options))
    with pytest.raises(Broken):
        run(config(*options, "output.directory=broken"), [BreakAfter(1)])
    assert resume("broken").summary["model_sha256"] == whole.summary["model_sha256"]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("participation.capacities={unit: layers}",), "shares=null and clients=null: set one of the two"),
        (("participation.capacities={shares: [0.5], clients: [0.5]}",), "set one of the two"),
        (("participation.capacities={shares: [0.5, 1], probabilities: [0.5, 0.6]}",), "must sum to 1, not 1.1"),
        (("participation.capacities={shares: [0.5, 1], probabilities: [1]}",), "one is needed for each of shares"),
        (("participation.capacities={clients: [0.5, 1]}",), "has 2 shares for data.clients=6; give one for each"),
        (
            ("participation.capacities={shares: [0.2]}",),
            "client 0 could train no layer group, of which",
        ),
        (
            (*GIVEN, "schedule.warmup_rounds=1"),
            "schedule.warmup_rounds=1: in these rounds clients would train",
        ),
        ((*GIVEN, "schedule=sequential"), "participation.capacities: schedule.name=sequential does not keep to it"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run(config(*OPTIONS, *overrides))


def test_asynchronous_runs_refuse_capacities() -> None:
    with pytest.raises(ConfigError, match=r"participation.capacities: has no effect with algorithm.name=ormo"):
        run(ExperimentConfig.load("ormo-digits", [*GIVEN, "tracking.enabled=false"]))
