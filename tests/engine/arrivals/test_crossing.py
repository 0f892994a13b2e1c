"""Every asynchronous method with every schedule, and with every kind of work; what is refused; clients that fail."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from arrival_runs import Followed, follow, followed
from small import asynchronous

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.components.catalogue import BUILTIN, component_class
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.inline import InlineArrivalExecutor
from fedbench.errors import ClientFailure, ConfigError, RunError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared, run
from fedbench.experiment.setup import build_problem

pytestmark = pytest.mark.slow

METHODS = [name for name in BUILTIN["algorithm"] if issubclass(component_class("algorithm", name), AsyncAlgorithm)]
WORKS = ("gradient", "delta")
SCHEDULES = {
    "full": (),
    "sequential": ("schedule.warmup_rounds=0", "schedule.rounds_per_group=1"),
    "width": ("schedule.warmup_rounds=0", "schedule.rounds_per_group=1", "schedule.k=3"),
    "per-client": ("schedule.warmup_rounds=0", "schedule.rounds_per_group=1"),
}
OWN = {
    "ormo-da": ("algorithm.smoothness=1",),
    **dict.fromkeys(("fedbuff", "fadas", "ca2fl"), ("algorithm.buffer_size=2",)),
}
REFUSED = {
    **{
        (name, "gradient"): "it needs the clients' own parameters" for name in ("fedasync", "fedbuff", "fadas", "ca2fl")
    },
    ("ormo-da", "delta"): "it compares the learning rate itself",
    ("ssgdm", "per-client"): "a lock-step takes one update of a group from every worker",
    ("ssgd-nesterov", "per-client"): "a lock-step takes one update of a group from every worker",
}


def inline(*overrides: str) -> ExperimentConfig:
    return asynchronous("runtime.executor=inline", "rounds=2", "data.samples_per_client=20", *overrides)


def refusal(*overrides: str) -> str:
    """The one line with which a configuration is refused before anything starts."""
    with pytest.raises(ConfigError) as caught, prepared(inline(*overrides)):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parts(method: str, schedule: str, work: str) -> tuple[str, ...]:
    under = (f"algorithm={method}", *OWN.get(method, ()), f"schedule={schedule}", *SCHEDULES[schedule])
    return (*under, f"delays.work={work}", "delays.arrivals_per_round=6", "evaluation.every=2")


def combinations() -> Iterator[tuple[str, str, str]]:
    """Method, schedule and work, so that any two of them that are accepted meet."""
    for (row, method), (column, schedule) in itertools.product(enumerate(METHODS), enumerate(SCHEDULES)):
        works = [work for work in WORKS if (method, work) not in REFUSED]
        if (method, schedule) not in REFUSED:
            yield method, schedule, works[(row + column) % len(works)]


@pytest.mark.parametrize(("method", "schedule", "work"), list(combinations()))
def test_every_method_with_every_schedule_and_work(method: str, schedule: str, work: str) -> None:
    check(followed(inline(*parts(method, schedule, work))))


@pytest.mark.parametrize(("method", "other"), REFUSED)
def test_what_a_method_cannot_go_with_is_refused_by_both_names(method: str, other: str) -> None:
    schedule, work = ("full", other) if other in WORKS else (other, "gradient")
    told = refusal(*parts(method, schedule, work))
    assert REFUSED[method, other] in told
    assert f"algorithm.name={method}" in told
    assert other in told


def check(done: Followed) -> None:
    """What was trained often enough has changed, nothing else has; bytes by formula."""
    problem, layout = done.problem, done.problem.layout
    vector, statistics = done.models[-1]
    assert np.isfinite(vector).all()
    assert np.isfinite(statistics).all()
    assert (statistics != problem.statistics).all(), "running statistics of frozen layers move, too"
    updates = Counter[int]()
    for arrival in done.arrivals:
        assert arrival.status == "ok"
        groups = trained_by(done, arrival.group)
        updates.update(groups)
        assert arrival.uplink_bytes == 4 * (layout.count(groups) + layout.statistics_size)
    assert problem.arrivals is not None
    period = problem.arrivals.method.period(problem.arrivals.workers)
    for group in layout.all_groups:
        piece = layout.slices[group]
        assert np.array_equal(vector[piece], problem.vector[piece]) == (updates[group] < period), group
    assert done.rows[-1].test_loss is not None


def trained_by(done: Followed, label: int) -> tuple[int, ...]:
    """The groups of a task: one, all, or, of Width here, the first three of four."""
    if label >= 0:
        return (label,)
    groups = done.problem.layout.all_groups
    return groups[:3] if done.problem.config.schedule.name == "width" else groups


@cache
def plain_digest(*overrides: str) -> str:
    return followed(inline(*overrides)).digest


@pytest.mark.parametrize(
    ("overrides", "work"),
    [
        (("algorithm=fedprox", "server=ormo", "local.steps=2"), "delta"),
        (("algorithm=fedprox", "server=fedasync", "local.epochs=1"), "delta"),
        (("algorithm=moon", "server=asgd", "local.steps=2"), "delta"),
        (("algorithm=fedavg", "server=ormo"), "gradient"),
        (("algorithm=ormo", "local.epochs=1"), "delta"),
        (("algorithm=ormo", "local.steps=1"), "delta"),
        (("algorithm=ormo", "local.steps=2", "local.optimizer=adam", "local.optimizer.lr=0.001"), "delta"),
        (("algorithm=fedbuff", "algorithm.buffer_size=2"), "delta"),
        (("algorithm=ormo",), "gradient"),
        (("update.compression=topk", "update.compression.fraction=0.2"), "gradient"),
        (("update.compression=int8",), "gradient"),
        (("update.compression=int8", "local.steps=2", "schedule=sequential"), "delta"),
        (("update.clip_norm=0.1",), "gradient"),
        (("local.batchnorm=local",), "gradient"),
        (("local.batchnorm=local", "local.steps=2", "evaluation.batchnorm=recalibrate"), "delta"),
        (("local.precision=bf16",), "gradient"),
        (("data.augment.flip=true",), "gradient"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_is_there_for_rounds_goes_with_arrivals(overrides: Sequence[str], work: str) -> None:
    done = followed(inline(*overrides))
    assert done.problem.arrivals is not None
    assert done.problem.arrivals.gradient == (work == "gradient")
    assert [arrival.status for arrival in done.arrivals] == ["ok"] * 8
    vector, _ = done.models[-1]
    assert np.isfinite(vector).all()
    assert (vector != done.problem.vector).mean() > 0.2
    plain = plain_digest(*(["local.steps=2"] if "local.steps=2" in overrides else []))
    changes = {"algorithm=fedavg", "algorithm=ormo"}
    assert (done.digest == plain) == (set(overrides) <= {*changes, "server=ormo", "local.steps=2"})


def test_a_proximal_term_of_zero_is_none() -> None:
    one = ("server=ormo", "local.steps=2")
    plain = followed(inline("algorithm=fedavg", *one)).digest
    assert followed(inline("algorithm=fedprox", "algorithm.mu=0", *one)).digest == plain
    assert followed(inline("algorithm=fedprox", "algorithm.mu=5", *one)).digest != plain


@pytest.mark.parametrize(("name", "schedule"), [("topk", "sequential"), ("int8", "full"), ("fp16", "sequential")])
def test_compressed_updates_are_counted_by_their_formula(name: str, schedule: str) -> None:
    formulas = {
        "topk": lambda size: min(8 * -(-size // 10), 4 * size),
        "int8": lambda size: size + 4,
        "fp16": lambda size: 2 * size,
    }
    key = ("update.compression.fraction=0.1",) if name == "topk" else ()
    config = inline(f"update.compression={name}", *key, f"schedule={schedule}", *SCHEDULES[schedule])
    done = followed(config)
    layout = done.problem.layout
    for arrival in done.arrivals:
        groups = layout.all_groups if arrival.group == -1 else (arrival.group,)
        sent = sum(formulas[name](layout.group_size(group)) for group in groups)
        assert arrival.uplink_bytes == sent + 4 * layout.statistics_size


def test_what_top_k_leaves_out_is_kept_to_be_sent_later() -> None:
    """sent + kept = all gradients; at a rate so small that they are those of an uncompressed run."""
    one = ("data.clients=1", "algorithm=asgd", "delays.arrivals_per_round=4", "local.optimizer.lr=0.001")
    compressed = inline(*one, "update.compression=topk", "update.compression.fraction=0.3")
    plain = followed(inline(*one)).models[-1][0]
    with prepared(compressed) as (problem, executor):
        assert isinstance(executor, InlineArrivalExecutor)
        sent, _ = follow(problem, executor).models[-1]
        kept = executor._host._states[0].arrays["residual parameters"]
    missing = (sent - plain) / 0.001
    assert np.linalg.norm(kept) > 0.1
    assert np.linalg.norm(kept - missing) < 0.05 * np.linalg.norm(kept)


def test_statistics_of_ones_own_stay_with_the_client() -> None:
    done = followed(inline("local.batchnorm=local"))
    layout = done.problem.layout
    np.testing.assert_array_equal(done.models[-1][1], done.problem.statistics)
    assert all(arrival.uplink_bytes == 4 * layout.size for arrival in done.arrivals)


GRADIENT = "delays.work=gradient"
REFUSALS = {
    ("algorithm=fedavg", "delays.concurrency=2"): (
        "delays.concurrency=2: has no effect with algorithm.name=fedavg, which works in rounds; "
        "leave it out, or choose an asynchronous algorithm or server"
    ),
    ("algorithm=fedavg", "delays.distribution=pareto"): "delays.distribution=pareto: has no effect with",
    ("algorithm=fedavg", "delays.clock=wall"): "delays.clock=wall: has no effect with algorithm.name=fedavg",
    ("algorithm=fedprox", "server=fedadam", "delays.drop_rate=0.5"): (
        "delays.drop_rate=0.5: has no effect with algorithm.name=fedprox+fedadam"
    ),
    ("participation.clients_per_round=2",): (
        "participation.clients_per_round=2: has no effect with algorithm.name=ormo; set delays.concurrency"
    ),
    ("participation.fraction=0.5",): "participation.fraction=0.5: has no effect with algorithm.name=ormo",
    ("local.epochs=2", GRADIENT): "local.epochs=2: has no effect with delays.work=gradient; leave it out, or set work",
    ("local.steps=2", GRADIENT): "local.steps=2: has no effect with delays.work=gradient; leave it out, or set work",
    ("local.optimizer=adam",): "local.optimizer.name=adam: a worker that sends gradients takes no step; set name=sgd",
    ("local.optimizer.momentum=0.5",): "local.optimizer.momentum=0.5: a worker that sends gradients takes no step",
    ("schedule=importance",): "schedule.name=importance with algorithm.name=ormo: follows what whole rounds",
    ("update.clip_norm=1", "update.noise_multiplier=1", "local.batchnorm=local"): "update.noise_multiplier=1",
    ("evaluation.per_client=true",): (
        "evaluation.per_client=true: has no effect with algorithm.name=ormo, where no cohort ends together; leave it"
    ),
    ("delays.concurrency=5",): "delays.concurrency=5: more than data.clients=4",
    ("algorithm=fedasync", GRADIENT): "delays.work=gradient with algorithm.name=fedasync: it needs the clients' own",
    ("algorithm=ormo-da", "algorithm.smoothness=1", "delays.work=delta"): (
        "delays.work=delta with algorithm.name=ormo-da: it compares the learning rate itself; set delays.work=gradient"
    ),
    ("algorithm=fedprox", "server=ormo", GRADIENT): "delays.work=gradient with algorithm.name=fedprox+ormo: its obj",
    ("algorithm=scaffold", "server=ormo"): (
        "algorithm.name=scaffold with server.name=ormo: scaffold sends control beside the parameters"
    ),
    ("algorithm=fednova", "server=ormo"): "algorithm.name=fednova with server.name=ormo: fednova gives each update",
    ("algorithm=feddyn", "server=ormo"): "algorithm.name=feddyn with server.name=ormo: the server rule of feddyn",
    ("algorithm=fedadam", "server=ormo"): "algorithm.name=fedadam with server.name=ormo: the server rule of fedadam",
    ("algorithm=ormo", "server=fedavg"): "algorithm.name=ormo with server.name=fedavg: the server rule of ormo",
    ("delays.clock=wall", "delays.seconds_per_round=1"): "delays.seconds_per_round with clock=wall: runtime.executor",
    ("delays.clock=wall", "delays.distribution=constant"): "delays.distribution=constant has no effect with clock=wall",
    ("delays.clock=wall", "delays.drop_rate=0.1"): "delays.drop_rate=0.1 has no effect with clock=wall; leave it out",
    ("delays.slow_factor=3",): "delays.slow_factor=3.0 has no effect with slow_fraction=0; leave it out",
    ("delays.away_seconds=3",): "delays.away_seconds=3.0 has no effect with drop_rate=0; leave it out",
    ("delays.arrivals_per_round=3", "delays.seconds_per_round=3"): (
        "delays.arrivals_per_round=3 and seconds_per_round=3.0: set one of the two"
    ),
}


@pytest.mark.parametrize("overrides", REFUSALS, ids=" ".join)
def test_what_has_no_effect_or_no_sense_is_refused_with_key_and_way_out(overrides: tuple[str, ...]) -> None:
    told = refusal(*overrides)
    expected = REFUSALS[overrides]
    prefix = "delays: " if told.startswith("delays: ") else ""
    assert told.removeprefix(prefix).startswith(expected.removeprefix("delays.") if prefix else expected)
    assert ";" in told or "set one of the two" in told or "more than" in told, "the way out"


def test_more_actors_than_works_in_flight_are_refused() -> None:
    config = asynchronous("runtime.actors=3", "delays.concurrency=2")
    with pytest.raises(ConfigError, match=r"^runtime\.actors=3: more than the 2 tasks in flight; the rest would idle$"):
        build_problem(config, load_federation(config))


def test_a_refused_run_leaves_nothing(run_folder: Path) -> None:
    with pytest.raises(ConfigError):
        run(inline("delays.concurrency=5"))
    assert not list(run_folder.iterdir())


SINGLE_CLASS = (
    "algorithm=small:Faulty",
    "server=asgd",
    "data.clients=10",
    "data.partition=shards",
    "data.partition.shards_per_client=1",
    "data.samples_per_client=null",
    "local.steps=2",
    "local.batch_size=4",
    "evaluation.every=9",
)


def test_the_plain_loop_stops_at_the_exception_itself() -> None:
    with pytest.raises(
        ClientFailure, match=r"^client \d failed in round 1: ValueError: this client is broken$"
    ) as caught:
        followed(inline(*SINGLE_CLASS))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_failure_is_told_with_its_round() -> None:
    """Not with the number of tasks that the client has had."""
    one = ("delays.concurrency=1", "delays.arrivals_per_round=2", "rounds=20")
    survived = followed(inline(*SINGLE_CLASS, *one, "runtime.max_failed_clients=1"))
    first = next(arrival for arrival in survived.arrivals if arrival.status == "failed")
    assert first.round > 0, "else this tells nothing; choose another seed"
    with pytest.raises(ClientFailure) as caught:
        followed(inline(*SINGLE_CLASS, *one))
    assert (caught.value.client, caught.value.round_index) == (first.client, first.round)


def test_failures_within_the_budget_are_survived() -> None:
    done = followed(inline(*SINGLE_CLASS, "runtime.max_failed_clients=2", "rounds=3"))
    failed = [arrival for arrival in done.arrivals if arrival.status == "failed"]
    assert {arrival.round for arrival in failed} == {0, 1, 2}
    assert all(arrival.uplink_bytes == 0 for arrival in failed)
    assert [row.clients for row in done.rows] == [10] * 3
    assert [row.rejected_clients for row in done.rows] == [0] * 3
    applied = 0
    for arrival in done.arrivals:
        assert arrival.index + arrival.staleness == applied
        applied += arrival.status == "ok"


def test_one_failure_more_than_the_budget_ends_the_run() -> None:
    """Budgets are a round's: with all arrivals in one round the same clients fail too often."""
    with pytest.raises(ClientFailure, match="ValueError: this client is broken") as caught:
        followed(inline(*SINGLE_CLASS, "runtime.max_failed_clients=1", "rounds=1", "delays.arrivals_per_round=60"))
    assert "in loss" in caught.value.traceback


def test_an_update_that_is_not_finite_is_rejected_counted_and_without_effect() -> None:
    """The model is the one that it is when these clients raise instead."""
    nan = followed(inline(*SINGLE_CLASS, "algorithm.how=nan", "rounds=3"))
    raising = followed(inline(*SINGLE_CLASS, "runtime.max_failed_clients=9", "rounds=3"))
    statuses = [arrival.status for arrival in nan.arrivals]
    assert [{"rejected": "failed"}.get(status, status) for status in statuses] == [
        arrival.status for arrival in raising.arrivals
    ]
    assert statuses.count("rejected") >= 3
    assert [row.rejected_clients for row in nan.rows] == [
        sum(arrival.status == "rejected" for arrival in nan.arrivals if arrival.round == row.round) for row in nan.rows
    ]
    assert all(arrival.uplink_bytes > 0 for arrival in nan.arrivals if arrival.status == "rejected")
    assert nan.digest == raising.digest
    assert np.isfinite(nan.models[-1][0]).all()
    assert np.isfinite(nan.models[-1][1]).all()
    assert not np.array_equal(nan.models[-1][0], nan.problem.vector)


def test_a_large_update_is_applied_and_a_huge_one_is_not() -> None:
    moved = followed(inline(*SINGLE_CLASS, "algorithm.how=huge"))
    assert np.abs(moved.models[-1][0]).min() > 1e3
    with pytest.raises(
        RunError, match=r"^round 1: none of the 4 updates can be used: 4 were not finite.*; lower local"
    ):
        followed(inline("local.optimizer.lr=1e30", "local.steps=3"))


@pytest.mark.parametrize("method", ["ssgdm", "dana-zero", "fedbuff"])
def test_a_slot_whose_client_fails_gets_another_work(method: str) -> None:
    """A lock-step waits until all K have sent something that can be applied."""
    rule = (f"server={method}", *(["server.buffer_size=2"] if method == "fedbuff" else []))
    parts = [part for part in SINGLE_CLASS if not part.startswith("server=")]
    done = followed(inline(*parts, *rule, "delays.concurrency=4", "algorithm.how=nan", "delays.arrivals_per_round=30"))
    statuses = [arrival.status for arrival in done.arrivals]
    assert 0 < statuses.count("rejected") < len(statuses) / 2
    assert {arrival.worker for arrival in done.arrivals} == {0, 1, 2, 3}
    assert np.isfinite(done.models[-1][0]).all()
    if method != "ssgdm":
        return
    applied = [arrival for arrival in done.arrivals if arrival.status == "ok"]
    for step in range(0, len(applied) - len(applied) % 4, 4):
        assert {arrival.worker for arrival in applied[step : step + 4]} == {0, 1, 2, 3}


def test_a_lock_step_trains_the_same_groups_in_every_slot() -> None:
    """Also where the round ends within it and a lost task is given out again in the next; else the step of a group
    would be taken from fewer than K updates, and later ones between two workers that should start alike."""
    one = ("algorithm=ssgdm", "schedule=sequential", *SCHEDULES["sequential"], "delays.drop_rate=0.4", "rounds=4")
    done = followed(inline(*one, "delays.away_seconds=1", "delays.arrivals_per_round=6", "evaluation.every=9"))
    applied = [arrival for arrival in done.arrivals if arrival.status == "ok"]
    steps = [applied[start : start + 4] for start in range(0, 24, 4)]
    assert [len({arrival.worker for arrival in step}) for step in steps] == [4] * 6
    assert [len({arrival.group for arrival in step}) for step in steps] == [1] * 6
