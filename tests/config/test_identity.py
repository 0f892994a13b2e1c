"""What two configurations must share to be one experiment, one method, or one recipe."""

import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import digest, flattened, is_local, method_settings, portable

CONFIG = ExperimentConfig.load("quickstart").to_mapping()


def changed(section: str, key: str, value: object) -> dict[str, object]:
    return CONFIG | {section: CONFIG[section] | {key: value}}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("participation", "replay", "old/clients.parquet"),
        ("delays", "replay", "old/events.parquet"),
        ("data", "root", "/data"),
        ("runtime", "executor", "inline"),
        ("tracking", "enabled", False),
        ("output", "directory", "elsewhere"),
    ],
)
def test_files_places_and_speed_make_no_other_experiment_method_or_recipe(
    section: str, key: str, value: object
) -> None:
    other = changed(section, key, value)
    assert digest(other, {}) == digest(CONFIG, {})
    assert method_settings(other, {}) == method_settings(CONFIG, {})
    assert portable(other) == portable(CONFIG)


def test_the_seed_makes_another_experiment_but_no_other_method() -> None:
    other = CONFIG | {"seed": CONFIG["seed"] + 1}
    assert digest(other, {}) != digest(CONFIG, {})
    assert method_settings(other, {}) == method_settings(CONFIG, {})
    assert portable(other)["seed"] == other["seed"]


def test_other_code_of_ones_own_makes_another_experiment_and_another_method() -> None:
    codes = [{}, {"mine:Step": "aaaa"}, {"mine:Step": "bbbb"}]
    assert len({digest(CONFIG, code) for code in codes}) == 3
    assert [method_settings(CONFIG, code).get("own_code.mine:Step") for code in codes] == [None, "aaaa", "bbbb"]


def test_a_name_makes_no_other_experiment_and_goes_where_the_configuration_goes() -> None:
    other = CONFIG | {"name": "another"}
    assert digest(other, {}) == digest(CONFIG, {})
    assert portable(other)["name"] == "another"


@pytest.mark.parametrize(
    ("override", "expected"),
    [("runtime.actors=2", True), ("data.root=/data", True), ("data.rooted=1", False), ("local.optimizer.lr=1", False)],
)
def test_an_override_of_places_and_speed_is_told_from_one_of_the_experiment(override: str, expected: bool) -> None:
    assert is_local(override) is expected


def test_flattening_keeps_every_value_under_its_dotted_key() -> None:
    nested = {"a": {"b": {"c": True}, "d": []}, "e": "text", "f": {}}
    assert flattened(nested) == {"a.b.c": True, "a.d": [], "e": "text", "f": {}}
