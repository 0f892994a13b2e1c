"""Runs that would not end, or not fit into memory, are refused before anything is computed."""

import time

import pytest
from small import asynchronous, config

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import preset_names
from fedbench.errors import ConfigError, RunError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation, outline_federation
from fedbench.experiment.run import run
from fedbench.experiment.setup import build_problem
from fedbench.experiment.work import check_work, estimated_tflop

pytestmark = pytest.mark.usefixtures("flops_counted_once", "run_folder")

ENDLESS = {
    "epochs": (config, "local.epochs=2147483648", "local steps in"),
    "steps": (asynchronous, "local.steps=2147483648", "local steps in"),
    "arrivals": (asynchronous, "delays.arrivals_per_round=2147483648", "delays.arrivals_per_round"),
    "seconds": (asynchronous, "delays.seconds_per_round=1e300", "delays.seconds_per_round"),
    "no seconds": (asynchronous, "delays.seconds_per_round=1e-300", "no update would arrive"),
    "cycles": (config, "schedule.cycles=9000000000000000000", "schedule.name=sequential: asks for"),
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
