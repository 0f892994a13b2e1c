"""The noise of a round's sum against what one client can change in it, for every combination that noise accepts."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small import config

from fedbench.algorithms.base import Algorithm, Values
from fedbench.components.base import Component
from fedbench.components.catalogue import BUILTIN, make_component
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.client_host import ClientHost
from fedbench.engine.messages import RoundPlan
from fedbench.engine.rounds.inline import make_server
from fedbench.errors import ConfigError
from fedbench.experiment import initial_model
from fedbench.experiment.federation import load_federation
from fedbench.experiment.privacy import privacy_entries
from fedbench.experiment.setup import Problem, build_problem
from fedbench.models.groups import build_module
from fedbench.planning.schedules import Schedule
from fedbench.protocol.exact_sum import decode
from fedbench.protocol.message import PARAMETERS

pytestmark = pytest.mark.slow

Z, S = 0.8, 1e-3
"""The noise multiplier, and a clipping norm that every update exceeds."""

AT_ONCE: dict[str, Any] = {"warmup_rounds": 0, "rounds_per_group": 1}
"""Settings of a schedule whose partial rounds begin with the first."""

TINY = (
    "model=small:TwoLayers",
    "model.hidden=48",
    "data.clients=4",
    "data.samples_per_client=null",
    "data.partition=quantity",
    "data.partition.alpha=1.0",
    "local.batch_size=128",
    "schedule=full",
    "local.optimizer.name=sgd",
    "local.optimizer.lr=0.5",
    "runtime.executor=inline",
    f"update.noise_multiplier={Z}",
    f"update.clip_norm={S}",
)

REQUIRED: dict[str, dict[str, Any]] = {"ormo-da": {"smoothness": 1.0}}
"""Parameters of methods that have no default."""

PARTS = {
    "participation.clients_per_round": ("null", "3"),
    "participation.round_deadline": ("null", "60"),
    "runtime.max_failed_clients": ("0", "1"),
    "update.compression": tuple(BUILTIN["compression"]),
}
"""Options that change who takes part, or what is done to an update after it is clipped."""


def components(section: str, kind: type[Component]) -> dict[str, Component]:
    """The built-in parts of a section; methods with uniform weights where there is a choice."""
    made = {}
    for name in BUILTIN[section]:
        part = make_component(section, kind, {"name": name, **REQUIRED.get(name, {})})
        uniform = {"name": name, "weighting": "uniform"}
        made[name] = make_component(section, kind, uniform) if "weighting" in type(part).model_fields else part
    return made


def with_methods() -> Iterator[tuple[tuple[str, ...], ExperimentConfig]]:
    """Every method with every server rule, FedAvg under every schedule, and each method and each rule under one more.

    What a schedule changes is the groups of a round: a crossing of methods is not asked about it again.
    """
    base = config(*TINY, "rounds=2", "algorithm.weighting=uniform")
    methods = components("algorithm", Algorithm)
    schedules = {
        name: make_component(
            "schedule", Schedule, {"name": name} if name in ("full", "selective") else {"name": name, **AT_ONCE}
        )
        for name in BUILTIN["schedule"]
    }
    partial = itertools.cycle(name for name in schedules if name != "full")
    for algorithm, server in itertools.product(methods, (None, *methods)):
        chosen = base.model_copy(
            update={"algorithm": methods[algorithm], "server": methods[server] if server else None}
        )
        try:
            chosen.method  # noqa: B018
        except ConfigError:
            continue
        under = ["full"]
        if (algorithm, server) == ("fedavg", None):
            under = list(schedules)
        elif server in (None, "fedavg") or algorithm == "fedavg":
            under.append(next(partial))
        for name in under:
            schedule = schedules[name]
            yield (algorithm, str(server), name), chosen.model_copy(update={"schedule": schedule})


def with_parts() -> Iterator[tuple[tuple[str, ...], ExperimentConfig]]:
    """Every combination of `PARTS`, under two methods and two schedules."""
    methods = (("algorithm.weighting=uniform",), ("algorithm=fednova", "server=fedavg", "server.weighting=uniform"))
    schedules = ((), ("schedule=per-client", *(f"schedule.{key}={value}" for key, value in AT_ONCE.items())))
    values = [[f"{key}={value}" if value != "null" else "" for value in allowed] for key, allowed in PARTS.items()]
    for method, schedule, options in itertools.product(methods, schedules, itertools.product(*values)):
        overrides = (*method, *schedule, *filter(None, options))
        yield overrides, config(*TINY, "rounds=2", *overrides)


Combinations = Iterator[tuple[tuple[str, ...], ExperimentConfig]]


def accepted(combinations: Combinations) -> dict[tuple[str, ...], Problem]:
    """The combinations that are not refused, made concrete; their network, which is one, is looked at once."""
    federation = load_federation(config(*TINY, "algorithm.weighting=uniform"))
    problems = {}
    module = build_module(config(*TINY, "algorithm.weighting=uniform").model, federation.task, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("derive_layer_groups", "forward_macs"):
            seen = getattr(initial_model, name)(module, federation.task)
            patch.setattr(initial_model, name, lambda module, task, seen=seen: seen)
        for names, chosen in combinations:
            with suppress(ConfigError):
                problems[names] = build_problem(chosen, federation)
    return problems


def host_of(problem: Problem, noise: bool) -> ClientHost:
    """A host of all clients, which adds noise to their updates or leaves it out."""
    host, spec = ClientHost(), problem.spec
    update = spec.update if noise else replace(spec.update, noise_std=0.0)
    host.prepare(replace(spec, update=update), problem.federation.data, problem.federation.rows)
    return host


def sum_of(problem: Problem, host: ClientHost, plan: RoundPlan, clients: tuple[int, ...]) -> Values:
    """float64, the weighted sum of the updates of `clients` in a round that starts from the initial model."""
    everything = tuple(range(len(problem.spec.table.parts)))
    order = plan.order(clients, stale=everything, combine=True, on_failure="raise")
    total, report = host.train(order, make_server(problem.server).payload(everything))
    assert all(client.status == "ok" for client in report.clients)
    return decode(total.astype(np.int64, copy=False))


def measured(problem: Problem, index: int = 0) -> float:
    """The standard deviation of a sum's noise over the most that one client changes in the sums, at its least.

    Z where no client changes anything, since none has trained what is combined.
    """
    table = problem.spec.table
    plan = make_server(problem.server).plan(index)
    union = table.uploaded(plan.combined)
    noisy, plain = host_of(problem, noise=True), host_of(problem, noise=False)
    noise = sum_of(problem, noisy, plan, plan.cohort) - sum_of(problem, plain, plan, plan.cohort)
    deviation = {}
    for part, segment in table.segments(union, union):
        assert part.channel == PARAMETERS
        deviation[part.group] = float(np.sqrt(np.square(noise[segment]).mean()))
    changes = [float(np.linalg.norm(sum_of(problem, plain, plan, (client,)))) for client in plan.cohort]
    sent = [(group, change) for change, groups in zip(changes, plan.sent, strict=True) for group in groups if change]
    return min((deviation[group] / change for group, change in sent), default=Z)


@pytest.mark.usefixtures("flops_counted_once")
@pytest.mark.parametrize("combinations", [with_methods, with_parts])
def test_the_noise_of_the_sum_is_z_times_what_one_client_can_change(combinations: Callable[[], Combinations]) -> None:
    pytest.importorskip("opacus")
    problems = accepted(combinations())
    assert len(problems) > 1
    for names, problem in problems.items():
        for index in range(1 if problem.config.schedule.name == "full" else problem.rounds):
            assert measured(problem, index) == pytest.approx(Z, rel=0.12), names


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build_problem(config(*TINY, *overrides), load_federation(config(*TINY)))
    return str(caught.value)


@pytest.mark.usefixtures("flops_counted_once")
def test_a_schedule_that_sums_a_group_over_fewer_clients_is_refused() -> None:
    pytest.importorskip("opacus")
    per_client = ("schedule=per-client", "schedule.warmup_rounds=1", "algorithm.weighting=uniform")
    assert "clients train different layer groups, so that round 2 has noise of only 0.566" in refusal(*per_client)


@pytest.mark.usefixtures("flops_counted_once")
def test_factors_after_clipping_are_refused() -> None:
    nova = ("algorithm=fednova", "server=fedavgm", "server.weighting=uniform")
    assert "multiplies clipped updates by factors of its own" in refusal(*nova)


@pytest.mark.usefixtures("flops_counted_once")
def test_all_reasons_are_named_at_once() -> None:
    text = refusal(
        "update.clip_norm=null",
        "update.compression=int8",
        "runtime.max_failed_clients=1",
        "participation.round_deadline=5",
        "algorithm=scaffold",
    )
    assert "\n" not in text
    for expected in (
        "set update.clip_norm",
        "scaffold would send control without noise",
        "update.compression=int8",
        "set runtime.max_failed_clients=0",
        "leave out participation.round_deadline=5.0",
    ):
        assert expected in text


@pytest.mark.parametrize(("participants", "estimated"), [(4, False), (3, True)])
def test_an_epsilon_of_fixed_cohorts_is_called_an_estimate(participants: int, estimated: bool) -> None:
    pytest.importorskip("opacus")
    columns = {"round": [0, 1], "rejected_clients": [0, 0], "dropped_clients": [0, 0]}
    entries = privacy_entries(config(*TINY), participants, columns)
    assert entries["privacy_epsilon"] > 0
    assert ("an estimate, not a proven bound" in (entries["privacy_note"] or "")) == estimated


def test_a_missing_share_of_noise_is_told() -> None:
    columns = {"round": [0, 1], "rejected_clients": [0, 1], "dropped_clients": [0, 0]}
    entries = privacy_entries(config(*TINY), 4, columns)
    assert entries["privacy_epsilon"] is None
    assert "the shares of the noise of 1 updates" in entries["privacy_note"]


def test_without_noise_there_is_no_epsilon() -> None:
    assert privacy_entries(ExperimentConfig(), 4, {}) == {"privacy_epsilon": None, "privacy_note": None}
