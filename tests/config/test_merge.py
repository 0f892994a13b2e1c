"""Values that refer to nothing are merged as OmegaConf merges them, without it."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from fedbench.config.merge import overlaid, resolved
from fedbench.errors import ConfigError

BASE: dict[str, Any] = {
    "rounds": 3,
    "name": None,
    "data": {"clients": 6, "root": "here", "seeds": [1, {"a": 2}]},
    "model": {"name": "cnn", "width": 8},
    "later": "???",
}


def by_omegaconf(changes: dict[str, Any]) -> Any:
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(BASE), OmegaConf.create(changes)), resolve=True)


@pytest.mark.parametrize(
    "value", [7, None, True, 0.5, "there", [], [1, [2]], {}, {"clients": None, "deep": {"er": [3]}}]
)
@pytest.mark.parametrize("key", ["rounds", "name", "data", "extra"])
@pytest.mark.parametrize("without", [(), ("later",)], ids=["by OmegaConf", "without"])
def test_a_change_is_merged_as_omegaconf_does(key: str, value: Any, without: tuple[str, ...]) -> None:
    base = {name: part for name, part in BASE.items() if name not in without}
    text = str(value).replace("None", "null").replace("True", "true")
    if key == "data" and isinstance(value, list):
        with pytest.raises(ConfigError, match="Cannot merge incompatible container types"):
            overlaid(base, [f"{key}={text}"])
        return
    expected = {name: part for name, part in by_omegaconf({key: value}).items() if name not in without}
    assert repr(overlaid(base, [f"{key}={text}"])) == repr(expected)


def test_what_is_given_stays_as_it_is() -> None:
    before = repr(BASE)
    changed = overlaid(BASE, ["data.clients=7", "later=now"])
    changed["data"]["seeds"][1]["a"] = 5
    assert (changed["data"]["clients"], changed["later"]) == (7, "now")
    assert repr(BASE) == before


def test_references_are_still_followed() -> None:
    assert overlaid({"rounds": 3, "seed": 1}, ["seed=${rounds}"])["seed"] == 3
    assert resolved({"a": {"b": "${c}"}, "c": 4}) == {"a": {"b": 4}, "c": 4}
