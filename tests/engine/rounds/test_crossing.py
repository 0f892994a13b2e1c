"""Every local objective with every server rule, and both under every schedule: it works, or is refused by name."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import HUGE, config
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.interfaces import Executor
from fedbench.engine.messages import ClientReport, RoundPlan
from fedbench.engine.rounds.inline import InlineRoundExecutor
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared, run
from fedbench.experiment.setup import Problem, build_problem
from fedbench.protocol.layout import Vector, model_digest
from fedbench.training.scores import BatchScore

pytestmark = pytest.mark.slow

OBJECTIVES = ("fedavg", "fedprox", "moon", "scaffold", "feddyn", "fednova")
RULES = ("own", "fedavgm", "fedexp", "fedadam", "fedadagrad", "fedyogi", "median", "trimmed-mean", "fedmr")
SCHEDULES = ("full", "sequential", "reverse", "random", "width", "importance", "per-client")

REFUSED = {
    **{("feddyn", rule): "its server rule corrects what its objective adds" for rule in RULES if rule != "own"},
    ("scaffold", "fedmr"): "a pool does not average control variates",
    **{("fednova", rule): "factors act on a mean alone" for rule in ("fedexp", "median", "trimmed-mean", "fedmr")},
}

SMALL = ("data.clients=5", "participation.clients_per_round=3", "rounds=3", "model.width=4")
SGD = ("local.optimizer=sgd", "local.optimizer.lr=0.05")
TWO_STEPS = ("local.epochs=null", "local.steps=2")
UNEQUAL = ("data.partition=quantity", "data.partition.alpha=1.0")


def combinations() -> list[tuple[str, str, str]]:
    """Objective, rule and schedule, so that any two of them that are accepted meet; all three need not."""
    chosen: dict[tuple[str, str, str], None] = {}
    for (row, rule), (column, schedule) in itertools.product(enumerate(RULES), enumerate(SCHEDULES)):
        fitting = [objective for objective in OBJECTIVES if (objective, rule) not in REFUSED]
        chosen[fitting[(row + column) % len(fitting)], rule, schedule] = None
    met = {(objective, schedule) for objective, _, schedule in chosen}
    for objective, schedule in itertools.product(OBJECTIVES, SCHEDULES):
        if (objective, schedule) not in met:
            chosen[objective, "own", schedule] = None
    return list(chosen)


def crossed(objective: str, rule: str, schedule: str) -> tuple[str, ...]:
    server = () if rule == "own" else (f"server={rule}",)
    if rule == "trimmed-mean":
        server = (*server, "server.trim=0.34")  # of three participants one is left out on each side
    return (f"algorithm={objective}", *server, f"schedule={schedule}")


def inline(*overrides: str) -> ExperimentConfig:
    return config(*SMALL, *SGD, *TWO_STEPS, "runtime.executor=inline", *overrides)


@dataclass(frozen=True)
class Round:
    """What a round planned and did, the global model after it, and how that does."""

    plan: RoundPlan
    reports: tuple[ClientReport, ...]
    vector: Vector
    statistics: Vector
    scores: tuple[BatchScore, ...]

    @property
    def digest(self) -> str:
        """As `model_sha256` of a run that ends here."""
        return model_digest(self.vector, self.statistics)


def rounds_of(executor: Executor, count: int) -> Iterator[Round]:
    for index in range(count):
        plan = executor.plan(index)
        phase = executor.train(plan)
        executor.finish()
        vector, statistics = executor.model()
        yield Round(plan, phase.reports, vector.copy(), statistics.copy(), executor.evaluate(()).scores)


def followed(one: ExperimentConfig) -> tuple[Problem, list[Round]]:
    with prepared(one) as (problem, executor):
        return problem, list(rounds_of(executor, problem.rounds))


def problem_of(one: ExperimentConfig) -> Problem:
    return build_problem(one, load_federation(one))


@cache
def digest(*overrides: str) -> str:
    """The final model's."""
    return followed(inline(*overrides))[1][-1].digest


def check_round(problem: Problem, before: Vector, done: Round) -> None:
    """Bytes by formula; what nobody trained is as it was, what somebody trained is not."""
    layout, table, plan = problem.layout, problem.server.table, done.plan
    assert all(report.status == "ok" for report in done.reports)
    assert np.isfinite(done.vector).all()
    assert np.isfinite(done.statistics).all()
    trained = sorted(set().union(*plan.groups))
    assert plan.active.groups == tuple(trained)
    for group in layout.all_groups:
        piece = layout.slices[group]
        assert np.array_equal(done.vector[piece], before[piece]) == (group not in trained), group
    for groups, sent in zip(plan.groups, plan.uplink_bytes, strict=True):
        assert sent == 4 * (layout.count(groups) * (1 + len(table.channels)) + layout.statistics_size)


def states(executor: InlineRoundExecutor, problem: Problem, name: str) -> np.ndarray:
    """float64 [clients, P], what the clients keep; zeros where one has nothing yet."""
    found = np.zeros((len(problem.federation.sizes), problem.layout.size))
    for client, state in executor._host._states.items():
        found[client] = state.arrays.get(name, 0)
    return found


def check_control_variate(executor: InlineRoundExecutor, problem: Problem) -> None:
    """SCAFFOLD: c = (1/N) sum c_i at any time, also where a round trains other groups on other clients."""
    mean = states(executor, problem, "control").mean(axis=0)
    assert np.abs(mean).max() > 1e-3
    np.testing.assert_allclose(executor._server._vectors["control"], mean, rtol=1e-5, atol=1e-6)


def check_dual(executor: InlineRoundExecutor, problem: Problem) -> None:
    """FedDyn: h = (1/m) sum lambda_k at any time, also where a round trains other groups on other clients."""
    mean = states(executor, problem, "dual").mean(axis=0)
    assert np.abs(mean).max() > 1e-6
    np.testing.assert_allclose(executor._server._rule._h, mean, rtol=1e-4, atol=1e-9)  # type: ignore[attr-defined]


KEPT_BY_CLIENTS = {"scaffold": check_control_variate, "feddyn": check_dual}


@pytest.mark.parametrize(("objective", "rule", "schedule"), combinations())
def test_they_work_together(objective: str, rule: str, schedule: str) -> None:
    if rule in ("median", "trimmed-mean") and schedule == "per-client":
        with pytest.raises(ConfigError, match="leaves nobody out of fewer than 3"):
            problem_of(inline(*crossed(objective, rule, schedule)))
        return
    with prepared(inline(*crossed(objective, rule, schedule))) as (problem, executor):
        assert isinstance(executor, InlineRoundExecutor)
        before, phases = problem.vector.copy(), []
        for done in rounds_of(executor, problem.rounds):
            check_round(problem, before, done)
            before = done.vector
            phases.append(done.plan.active.phase)
            assert all(math.isfinite(score.loss_sum) for score in done.scores)
            if objective in KEPT_BY_CLIENTS:
                KEPT_BY_CLIENTS[objective](executor, problem)
        assert phases == ["full", *["full" if schedule == "full" else "partial"] * 2]


@pytest.mark.parametrize(("objective", "rule"), REFUSED)
def test_what_makes_no_sense_together_is_refused_by_both_names(objective: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught, prepared(inline(*crossed(objective, rule, "sequential"))):
        pass
    assert f"algorithm.name={objective}" in str(caught.value)
    assert f"server.name={rule}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["fedprox", "moon", "scaffold", "feddyn", "fednova"])
def test_a_method_that_is_more_than_a_rule_is_no_server(rule: str) -> None:
    with (
        pytest.raises(ConfigError, match=rf"algorithm\.name=fedavg with server\.name={rule}"),
        prepared(inline("algorithm=fedavg", f"server={rule}", "schedule=full")),
    ):
        pass


def test_a_methods_own_rule_is_not_replaced() -> None:
    with (
        pytest.raises(ConfigError, match=r"algorithm\.name=fedadam with server\.name=median"),
        prepared(inline("algorithm=fedadam", "server=median", "schedule=full")),
    ):
        pass


@pytest.mark.parametrize("rule", ["fedmr", "median", "trimmed-mean"])
def test_noise_in_shares_is_refused_where_no_sum_is_taken(rule: str) -> None:
    noisy = ("local.batchnorm=local", "update.clip_norm=1", "update.noise_multiplier=1")
    with (
        pytest.raises(ConfigError, match=rf"noise_multiplier=1.*{rule}"),
        prepared(inline(*noisy, *crossed("fedavg", rule, "full"))),
    ):
        pass


PLAIN = (*UNEQUAL, "local.epochs=1", "local.steps=null", "schedule=sequential")


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=fedprox", "algorithm.mu=0"),
        ("algorithm=moon", "algorithm.mu=0"),
        ("server=fedavgm", "server.momentum=0", "server.server_lr=1"),
        ("server=fedavg",),
        ("update.compression=none",),
    ],
    ids=" ".join,
)
def test_with_nothing_added_a_method_is_fedavg_bit_for_bit(overrides: tuple[str, ...]) -> None:
    assert digest(*PLAIN, *overrides) == digest(*PLAIN, "algorithm=fedavg")


def test_a_rule_that_adds_nothing_leaves_a_methods_own_weights_and_factors() -> None:
    for objective in ("fednova", "scaffold"):
        plain = digest(*PLAIN, f"algorithm={objective}")
        assert digest(*PLAIN, f"algorithm={objective}", "server=fedavgm", "server.momentum=0") == plain
        assert plain != digest(*PLAIN, "algorithm=fedavg")


@pytest.mark.parametrize(
    ("objective", "schedule"), [("fedavg", "full"), ("fedprox", "sequential"), ("moon", "per-client")]
)
def test_a_pool_that_always_averages_is_the_uniform_mean_bit_for_bit(objective: str, schedule: str) -> None:
    common = (*UNEQUAL, f"schedule={schedule}", f"algorithm={objective}")
    pool = digest(*common, "server=fedmr", "server.first_stage_rounds=3")
    assert pool == digest(*common, "server=fedavg", "server.weighting=uniform")
    assert pool != digest(*common, "server=fedmr", "server.first_stage_rounds=1")


def test_what_is_scored_is_the_mean_of_a_pool_also_where_clients_started_from_models_of_their_own() -> None:
    with prepared(inline("algorithm=fedmr", "schedule=sequential")) as (problem, executor):
        assert isinstance(executor, InlineRoundExecutor)
        for done in rounds_of(executor, problem.rounds):
            np.testing.assert_array_equal(executor._host._received["parameters"], done.vector)
            np.testing.assert_array_equal(executor._host._received["statistics"], done.statistics)


@cache
def ends(*overrides: str) -> tuple[Vector, Vector]:
    """The models after one round and after all."""
    rounds = followed(inline(*overrides))[1]
    return rounds[0].vector, rounds[-1].vector


def assert_one_rounding_apart(mine: tuple[Vector, Vector], theirs: tuple[Vector, Vector], ulps: int) -> None:
    """After one round within so many units of the last place (or 2**-40), after all within what training makes of it.

    Two more rounds of two steps each enlarge a difference of 1e-7 by less than a hundred.
    """
    np.testing.assert_allclose(mine[0], theirs[0], rtol=ulps * 2.0**-23, atol=2.0**-40)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=0, atol=1e-5)


def test_a_trimmed_mean_that_trims_nothing_is_the_uniform_mean_but_for_rounding() -> None:
    """It adds float64 in ascending order, the other rounds each update to a multiple of 2**-40."""
    mine = ends(*PLAIN, "server=trimmed-mean", "server.trim=0")
    assert_one_rounding_apart(mine, ends(*PLAIN, "algorithm.weighting=uniform"), ulps=1)


def test_top_k_of_everything_is_no_compression_but_for_rounding() -> None:
    """The server reads reference + update, each rounded to float32, where it would read the values themselves."""
    mine = ends(*PLAIN, "update.compression=topk", "update.compression.fraction=1")
    theirs = ends(*PLAIN)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=2.0**-22, atol=2.0**-26)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", ["full", "sequential"])
def test_scaffold_with_a_single_client_is_fedavg_but_for_rounding(schedule: str) -> None:
    """c and c_i are the same sum; single values below 2**-17 are rounded on their way to the server."""
    one = ("data.clients=1", "participation.clients_per_round=1", f"schedule={schedule}")
    mine, theirs = ends(*one, "algorithm=scaffold"), ends(*one, "algorithm=fedavg")
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_allclose(mine[1], theirs[1], rtol=0, atol=1e-6)


SINGLE_CLASS = (
    "data.clients=10",
    "participation.clients_per_round=null",
    "data.partition=shards",
    "data.partition.shards_per_client=1",
    "algorithm=small:Faulty",
    "local.epochs=1",
    "local.steps=null",
)


@pytest.mark.parametrize(
    "rule",
    [("server=median", "schedule=full"), ("server=trimmed-mean", "server.trim=0.2", "schedule=sequential")],
    ids=" ".join,
)
def test_robust_rules_survive_a_client_that_sends_far_too_much(rule: tuple[str, ...]) -> None:
    *rule_alone, schedule = rule
    bad = (*SINGLE_CLASS, "algorithm.how=huge", schedule)
    broken = followed(inline(*bad, "rounds=1"))[1][0]
    assert np.abs(broken.vector).min() > HUGE / 20, "the mean is carried away"
    problem, rounds = followed(inline(*bad, *rule_alone))
    before = problem.vector
    for done in rounds:
        assert all(report.status == "ok" for report in done.reports)
        assert np.abs(done.vector - before).max() < 1
        before = done.vector


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "fedmr", "fedadam"])
def test_rules_survive_a_client_whose_update_is_not_finite(rule: str) -> None:
    trim = ["server.trim=0"] if rule == "trimmed-mean" else []
    options = (*SINGLE_CLASS, "algorithm.how=nan", f"server={rule}", *trim, "schedule=sequential")
    problem, rounds = followed(inline(*options))
    for done in rounds:
        rejected = [report for report in done.reports if report.status == "rejected"]
        assert 1 <= len(rejected) < len(done.reports)
        assert np.isfinite(done.vector).all()
    assert not np.array_equal(rounds[0].vector, problem.vector)


FORMULAS: dict[str, Callable[[int], int]] = {
    "none": lambda size: 4 * size,
    "fp16": lambda size: 2 * size,
    "int8": lambda size: size + 4,
    "topk": lambda size: min(8 * math.ceil(size / 10), 4 * size),
}


@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize(("objective", "schedule"), [("fedavg", "sequential"), ("scaffold", "per-client")])
@pytest.mark.parametrize("name", FORMULAS)
def test_recorded_uplink_is_the_compressions_formula_for_each_participant(
    name: str, objective: str, schedule: str
) -> None:
    """Each group of each channel by the formula, running statistics as they are."""
    fraction = ("update.compression.fraction=0.1",) if name == "topk" else ()
    one = inline(f"update.compression={name}", *fraction, f"algorithm={objective}", f"schedule={schedule}")
    problem, rounds = followed(replace_evaluation(one))
    result = run(replace_evaluation(one))
    layout, times = problem.layout, 2 if objective == "scaffold" else 1
    expected = {
        (done.plan.round, client): 4 * layout.statistics_size
        + times * sum(FORMULAS[name](layout.group_size(group)) for group in groups)
        for done in rounds
        for client, groups in zip(done.plan.cohort, done.plan.groups, strict=True)
    }
    rows = pq.read_table(result.directory / "clients.parquet").to_pylist()
    assert {(row["round"], row["client"]): row["uplink_bytes"] for row in rows} == expected
    assert result.summary["uplink_bytes"] == sum(expected.values())
    assert result.summary["model_sha256"] == rounds[-1].digest


def replace_evaluation(one: ExperimentConfig) -> ExperimentConfig:
    """Scored at the end alone."""
    return one.model_copy(update={"evaluation": one.evaluation.model_copy(update={"every": 100})})


TELLING = {
    "scaffold sequential": ("algorithm=scaffold", "schedule=sequential"),
    "moon with local statistics": ("algorithm=moon", "schedule=sequential", "local.batchnorm=local"),
    "fedmr sequential": ("algorithm=fedmr", "schedule=sequential"),
    "feddyn random": ("algorithm=feddyn", "schedule=random"),
    "median by importance": ("server=median", "schedule=importance"),
    "fedadam by importance": ("server=fedadam", "schedule=importance"),
    "fednova of unequal clients per client": (
        "algorithm=fednova",
        "schedule=per-client",
        "local.epochs=1",
        "local.steps=null",
        *UNEQUAL,
    ),
    "top k with error feedback": (
        "algorithm=scaffold",
        "schedule=width",
        "update.compression=topk",
        "update.compression.fraction=0.1",
    ),
    "clipping and noise": (
        "algorithm.weighting=uniform",
        "schedule=sequential",
        "local.batchnorm=local",
        "update.clip_norm=0.5",
        "update.noise_multiplier=0.5",
    ),
}


SAMPLED = ("data.clients=7", "participation.clients_per_round=4", "rounds=4")


@cache
def in_one_process(name: str) -> tuple[Problem, list[Round]]:
    return followed(inline(*SAMPLED, *TELLING[name]))


@pytest.mark.parametrize("actors", [1, 3])
def test_one_model_whatever_the_cluster(actors: int, warm_pools: WarmPools) -> None:
    """Actors are made once for all methods; they forget everything when they are prepared for the next."""
    from fedbench.engine.on_ray.rounds import RayRoundExecutor

    on_ray = config(*SMALL, *SAMPLED, *SGD, *TWO_STEPS, f"runtime.actors={actors}", "runtime.cpus_per_client=0.1")
    differing = []
    with warm_pools.lent(on_ray.runtime) as cluster:
        for name in TELLING:
            problem, expected = in_one_process(name)
            data, rows = problem.federation.data, problem.federation.rows
            executor = RayRoundExecutor(cluster, problem.spec, data, rows, problem.server, on_ray.runtime)
            for mine, theirs in zip(rounds_of(executor, problem.rounds), expected, strict=True):
                same = mine.digest == theirs.digest and plain(mine) == plain(theirs)
                differing += [] if same else [(name, mine.plan.round)]
    assert not differing


def plain(done: Round) -> tuple[RoundPlan, list[ClientReport], tuple[BatchScore, ...]]:
    """What does not depend on the machine's speed."""
    return done.plan, [replace(report, seconds=0.0) for report in done.reports], done.scores
