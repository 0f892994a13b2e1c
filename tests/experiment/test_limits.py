"""Runs that would not end, or not fit into memory, are refused before anything is computed."""

import time

import pytest
from small import asynchronous, config

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import preset_names
from fedbench.errors import ConfigError, RunError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation, outline_federation
from fedbench.experiment.remarks import no_step
from fedbench.experiment.run import run
from fedbench.experiment.setup import build_problem
from fedbench.experiment.work import check_work, estimated_tflop

pytestmark = pytest.mark.usefixtures("flops_counted_once", "run_folder", "no_figures")

ENDLESS = {
    "epochs": (config, "local.epochs=2147483648", "local steps in"),
    "steps": (asynchronous, "local.steps=2147483648", "local steps in"),
    "arrivals": (asynchronous, "delays.arrivals_per_round=2147483648", "delays.arrivals_per_round"),
    "seconds": (asynchronous, "delays.seconds_per_round=1e300", "delays.seconds_per_round"),
    "no seconds": (asynchronous, "delays.seconds_per_round=1e-300", "no update would arrive"),
    "cycles": (config, "schedule.cycles=9000000000000000000", "schedule.name=sequential: asks for"),
    "width beyond 64 bits": (
        config,
        "model.width=9000000000000000000",
        "model.name=cnn-bn: is too large to be laid out",
    ),
    "width": (config, "model.width=1000000", "model.name=cnn-bn: .* parameters need .* GB at least"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_would_never_end_is_refused_at_once(what: str) -> None:
    small, override, expected = ENDLESS[what]
    options = ["runtime.executor=inline", *(["algorithm=fedasync"] if what == "steps" else [])]
    endless = small(*options, override, *(["rounds=auto"] if what == "cycles" else []))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=expected):
        run(endless)
    assert time.monotonic() - began < 30


BEYOND = (
    ("runtime.torch_threads=1025",), ("runtime.cpus_per_client=1e-300",), ("runtime.gpus_per_client=1e-300",),
    ("runtime.resources={A100: 1e300}",), ("delays.concurrency=2147483648",),
    ("data.normalize={mean: 0.5, std: 1e-300}",),
    ("model=text-transformer", "model.layers=100000000"), ("algorithm=fedadam", "algorithm.tau=1e300"),
    ("algorithm=feddyn", "algorithm.alpha=1e300"), ("algorithm=fedprox", "algorithm.mu=1e300"),
    ("algorithm=moon", "algorithm.mu=1e300"), ("algorithm=ormo", "delays.distribution.cv=1e-300"),
)  # fmt: skip


@pytest.mark.parametrize("overrides", BEYOND, ids=lambda overrides: overrides[-1])
def test_a_value_with_which_nothing_can_be_computed_is_refused(overrides: tuple[str, ...]) -> None:
    key, _, _ = overrides[-1].partition("=")
    with pytest.raises(ConfigError, match=rf"^{key}.*(must be|more than data.clients=10)"):
        ExperimentConfig.load(None, overrides)


def test_more_rounds_than_can_be_recorded_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rounds=9000000000000000000: asks for .*, at most 1,000,000 are"):
        run(config("runtime.executor=inline", "schedule=full", "rounds=9000000000000000000"))


def test_the_limit_on_work_can_be_set_and_is_near_what_cost_foresees() -> None:
    small = config("runtime.executor=inline", "runtime.max_tflop=1e-9")
    problem = build_problem(small, load_federation(small))
    tflop = estimated_tflop(problem)
    assert tflop == pytest.approx(estimate(small).total.client_flops / 1e12, rel=0.1)
    with pytest.raises(ConfigError, match=r"runtime\.max_tflop=1e-09: the clients' work will be about"):
        check_work(problem)


def test_a_run_in_which_nothing_arrives_has_failed() -> None:
    with pytest.raises(RunError, match=r"no task ended in 3 rounds of 0\.01 s"):
        run(asynchronous("runtime.executor=inline", "delays.seconds_per_round=0.01"))


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_within_the_limit(name: str) -> None:
    preset = ExperimentConfig.load(name)
    outline = outline_federation(preset)
    if outline is not None:
        check_work(build_problem(preset, outline))


def test_a_run_with_fewer_arrivals_than_a_step_takes_says_that_nothing_is_learnt() -> None:
    settings = ["algorithm=fedbuff", "algorithm.buffer_size=9", "local.optimizer=sgd", "delays.arrivals_per_round=4"]
    config = ExperimentConfig.load("quickstart", settings)
    (line,) = no_step(config, 2)
    assert "takes a step for 9 updates, and rounds=2 has 8 arrivals" in line
    assert list(no_step(config, 3)) == []
    assert list(no_step(ExperimentConfig.load("quickstart"), 1)) == []
