"""A server rule that breaks its contract, in whichever round, is refused in one line that names rule and method."""

from pathlib import Path

import pytest
from broken_rules import BREAKAGES, Breakage
from small import config

from fedbench.errors import RunError
from fedbench.experiment.run import run

MESSAGES: dict[Breakage, str] = {
    "short": r"returned \(\d+,\) of float64; it must return float64 \(\d+,\)",
    "nested": r"returned \(1, \d+\) of float64",
    "nothing": "returned NoneType",
    "list": "returned list",
    "bool": r"returned \(\d+,\) of bool",
    "nan": "returned values that are not finite",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_a_rule_returns_is_checked(breakage: Breakage, run_folder: Path) -> None:
    broken = config(
        "runtime.executor=inline", "rounds=2", "algorithm=broken_rules:BrokenRule", f"algorithm.breakage={breakage}"
    )
    rule = "round 2: the server rule broken_rules:Broken of algorithm broken_rules:BrokenRule "
    with pytest.raises(RunError, match=rule + MESSAGES[breakage]) as error:
        run(broken)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "BrokenPool",
            "round 1: .*NotFinitePool of algorithm .*BrokenPool left values that are not finite in the pool",
        ),
        (
            "FickleNeeds",
            "round 2: .*Fickle of algorithm .*FickleNeeds: needs returned 'rounds'; allowed: mean, updates",
        ),
    ],
)
def test_what_a_rule_does_with_the_whole_round_is_checked(method: str, message: str, run_folder: Path) -> None:
    with pytest.raises(RunError, match=message):
        run(config("runtime.executor=inline", "rounds=2", f"algorithm=broken_rules:{method}"))
