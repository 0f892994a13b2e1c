"""Configurations from Python: values over a preset are what the same words on a command line make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.python_values import override_texts
from fedbench.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({"rounds": 3, "data": {"clients": 4}}, ["rounds=3", "data.clients=4"]),
        ({"data.clients": 4, "data": {"dataset": "digits"}}, ["data.clients=4", "data.dataset=digits"]),
        ({"schedule": "reverse"}, ["schedule=reverse"]),
        ({"schedule": {"name": "reverse", "cycles": 1}}, ["schedule=reverse", "schedule.cycles=1"]),
        ({"algorithm": "fedpart", "rounds": 8}, ["algorithm=fedpart", "rounds=8"]),
        ({"local": {"optimizer": "sgd"}}, ["local.optimizer=sgd"]),
        ({"model": "cnn-bn", "model.width": 4}, ["model=cnn-bn", "model.width=4"]),
        ({"seed": np.int64(7), "local.optimizer.lr": np.float64(0.5)}, ["seed=7", "local.optimizer.lr=0.5"]),
        ({"data": {"root": Path("a b")}}, ["data.root=a b"]),
        ({"name": "010", "data.partition": {"name": "dirichlet", "alpha": 1}}, [
            'name="010"', "data.partition=dirichlet", "data.partition.alpha=1"
        ]),
        ({"participation.fraction": None}, ["participation.fraction=null"]),
        ({"tracking": {"tags": {"my.tag": "x: 1"}}}, ["tracking.tags={my.tag: 'x: 1'}"]),
        ({"runtime": {"resources": {"A100": 0.25}}}, ["runtime.resources={A100: 0.25}"]),
        ({"local.optimizer": {"name": "adam", "betas": (0.8, 0.9)}}, [
            "local.optimizer=adam", "local.optimizer.betas=[0.8,0.9]"
        ]),
        ({}, []),
    ],
)  # fmt: skip
def test_values_over_a_preset_are_the_same_overrides_as_texts(values: dict[str, Any], texts: list[str]) -> None:
    assert ExperimentConfig.load("quickstart", values) == ExperimentConfig.load("quickstart", texts)
    assert ExperimentConfig.load(values | {"rounds": 2}) == ExperimentConfig.load(
        None, [*(text for text in texts if not text.startswith("rounds=")), "rounds=2"]
    )


def test_a_configuration_is_a_base_for_others() -> None:
    base = ExperimentConfig.load("quickstart", {"data.clients": 4})
    assert ExperimentConfig.load(base) == base
    seeds = [ExperimentConfig.load(base, {"seed": seed}) for seed in range(3)]
    assert [(config.seed, config.data.clients, config.name) for config in seeds] == [
        (seed, 4, "quickstart") for seed in range(3)
    ]
    full = ExperimentConfig.load(base, {"schedule": "full", "rounds": 3})
    assert full == ExperimentConfig.load("quickstart", ["data.clients=4", "schedule=full", "rounds=3"])


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


CIRCLE: dict[str, Any] = {"data": {}}
CIRCLE["data"]["again"] = CIRCLE


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"rouns": 3}, ["rouns: unknown key", "'rounds'"]),
        ({"data": {"clents": 3}}, ["data.clents", "unknown key", "'clients'"]),
        ({"data": {"clients": 0}}, ["data.clients=0", "greater than or equal to 1"]),
        ({"data.clients": 3, "data": {"clients": 4}}, ["data.clients: is given twice"]),
        ({"model": "cnn-bn", "model.name": "cnn"}, ["model.name: is given twice"]),
        ({"seed": 1.5}, ["seed=1.5"]),
        ({"data": 3}, ["data"]),
        ({1: 3}, ["1: a key is a text"]),
        ({"data": {2: 3}}, ["data.2: a key is a text"]),
        ({"": 3}, ["'': a key is a text"]),
        ({"seed=3": 3}, ["seed=3", "equals sign"]),
        ({"model": object()}, ["model=<object", "a object has no place", '"module:Class"']),
        ({"model": Unprintable()}, ["model=...: a Unprintable has no place"]),
        ({"name": "a\nb"}, ["name"]),
        ({"name": "a\x00b"}, ["name"]),
        ({"local": {"optimizer": {"lr": [1, {"x": {1}}]}}}, ["local.optimizer.lr[1].x={1}: a set has no place"]),
        ({"local.optimizer.lr": float("inf")}, ["local.optimizer.lr"]),
        (CIRCLE, ["data: is nested too deeply, or contains itself"]),
        ("rounds=3", ["rounds=3", "a list of texts"]),
        (["rounds=3", 4], ["4: an override is a text"]),
    ],
)
def test_what_is_no_override_is_refused_in_one_line_that_names_the_key(values: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.load("quickstart", values)
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("source", [3, ["quickstart"], object])
def test_what_is_no_configuration_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError, match="a preset, the path of a file or nested values, not a"):
        ExperimentConfig.load(source)


def test_a_name_with_a_dot_within_nested_values_stays_one_name() -> None:
    assert override_texts({"tracking": {"tags": {"my.tag": 1, "b": [True, None]}}}) == [
        'tracking.tags={"my.tag": 1, "b": [true, null]}'
    ]
