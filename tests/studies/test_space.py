"""What a study varies: which parameters a trial draws, and what they set."""

from typing import Any

import optuna
import pytest

from fedbench.errors import ConfigError
from fedbench.studies.file import parse_study
from fedbench.studies.space import Space, Values

OBJECTIVES = [{"metric": "best_accuracy", "direction": "maximize"}]


def space(**entries: Any) -> Space:
    renamed = {name.replace("__", "."): entry for name, entry in entries.items()}
    return parse_study({"name": "a", "space": renamed, "objectives": OBJECTIVES, "overrides": ["rounds=3"]}).drawn_from


ALGORITHMS = {"type": "categorical", "choices": ["fedavg", "fedprox", "moon"]}
MU = {"type": "float", "low": 0.01, "high": 1.0, "log": True, "when": {"algorithm": "fedprox"}}


def draws(drawn_from: Space, count: int) -> list[Values]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [drawn_from.draw(study.ask()) for _ in range(count)]


def test_a_conditional_parameter_is_drawn_where_its_condition_holds_and_nowhere_else() -> None:
    drawn = draws(space(algorithm__mu=MU, algorithm=ALGORITHMS), 60)
    assert {one["algorithm"] for one in drawn} == {"fedavg", "fedprox", "moon"}
    for one in drawn:
        assert ("algorithm.mu" in one) == (one["algorithm"] == "fedprox")
        assert 0.01 <= one.get("algorithm.mu", 0.01) <= 1.0


def test_a_condition_on_a_parameter_that_is_not_drawn_does_not_hold() -> None:
    chained = space(
        algorithm=ALGORITHMS,
        algorithm__mu={"type": "categorical", "choices": [0.1, 1.0], "when": {"algorithm": ["fedprox"]}},
        local__batch_size={"type": "categorical", "choices": [8, 16], "when": {"algorithm.mu": [1.0]}},
    )
    for one in draws(chained, 60):
        assert ("local.batch_size" in one) == (one.get("algorithm.mu") == 1.0)
    assert sum(1 for _ in chained.combinations()) == 5 == chained.size()


def test_one_key_may_have_other_bounds_with_another_component() -> None:
    two = space(
        algorithm=ALGORITHMS,
        prox_mu={"key": "algorithm.mu", "type": "float", "low": 0.0, "high": 0.5, "when": {"algorithm": "fedprox"}},
        moon_mu={"key": "algorithm.mu", "type": "float", "low": 1.0, "high": 5.0, "when": {"algorithm": "moon"}},
    )
    for one in draws(two, 40):
        texts = dict(text.split("=") for text in two.overrides(one))
        expected = {"fedavg": None, "fedprox": one.get("prox_mu"), "moon": one.get("moon_mu")}[one["algorithm"]]
        assert texts.get("algorithm.mu") == (None if expected is None else repr(expected))


def test_a_choice_may_set_several_keys_and_hold_whole_components() -> None:
    bundle = space(
        how={
            "type": "categorical",
            "choices": {
                "small": {"update.compression": {"name": "topk", "fraction": 0.1}, "local.epochs": 2},
                "whole": {"update.compression": "none"},
            },
        },
        schedule={"type": "categorical", "choices": ["full", {"name": "sequential", "cycles": 3}]},
    )
    study = {"name": "a", "overrides": ["rounds=3"], "objectives": OBJECTIVES}
    file = parse_study(study | {"space": {name: entry.model_dump() for name, entry in bundle._entries.items()}})
    config = file.config({"how": "small", "schedule": '{"cycles": 3, "name": "sequential"}'}, seed=5)
    assert config.update.compression.model_dump() == {"name": "topk", "fraction": 0.1}
    assert (config.local.epochs, config.seed) == (2, 5)
    assert config.schedule.model_dump()["cycles"] == 3
    assert file.config({"how": "whole", "schedule": "full"}, seed=0).schedule.name == "full"


def test_branches_try_every_choice_every_way_through_the_conditions_and_both_ends() -> None:
    tried = list(
        space(
            algorithm=ALGORITHMS, algorithm__mu=MU, local__batch_size={"type": "categorical", "choices": [8, 16, 32]}
        ).branches()
    )
    assert {one["algorithm"] for one in tried} == {"fedavg", "fedprox", "moon"}
    assert {one["local.batch_size"] for one in tried} == {8, 16, 32}
    assert {one["algorithm.mu"] for one in tried if "algorithm.mu" in one} == {0.01, 1.0}


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ({"algorthm": ALGORITHMS}, ["algorthm", "'algorithm'"]),
        ({"algorithm": {**ALGORITHMS, "choices": ["fedavg", "fedprx"]}}, ["algorithm=fedprx", "'fedprox'"]),
        ({"algorithm": ALGORITHMS, "algorithm__mu": {**MU, "when": {}}}, ["algorithm.mu", "fedavg"]),
        ({"algorithm": ALGORITHMS, "algorithm__mu": {**MU, "when": {"algo": "fedprox"}}}, ["when.algo", "'algorithm'"]),
        (
            {"algorithm": ALGORITHMS, "algorithm__mu": {**MU, "when": {"algorithm": "x"}}},
            ["algorithm=x", "never drawn"],
        ),
        ({"local__epochs": {"type": "int", "low": 0, "high": 3}}, ["local.epochs=0", "local.epochs=0)"]),
        ({"local__epochs": {"type": "int", "low": 3, "high": 1}}, ["low=3", "high=1"]),
        ({"local__epochs": {"type": "int", "low": 1, "high": 9, "step": 2, "log": True}}, ["step=2", "log"]),
        ({"seed": {"type": "int", "low": 0, "high": 3}}, ["space.seed", "seeds"]),
        ({"runtime__actors": {"type": "int", "low": 1, "high": 2}}, ["runtime.actors", "not varied"]),
        (
            {
                "local__epochs": {"type": "int", "low": 1, "high": 2, "when": {"local.batch_size": 8}},
                "local__batch_size": {"type": "int", "low": 8, "high": 9, "when": {"local.epochs": 1}},
            },
            ["local.epochs", "local.batch_size", "circle"],
        ),
        (
            {
                "local__epochs": {"type": "int", "low": 1, "high": 2},
                "b": {"key": "local.epochs", "type": "int", "low": 1, "high": 2},
            },
            ["local.epochs", "another entry"],
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_starts(entries: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        space(**entries)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)
