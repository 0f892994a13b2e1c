"""Numbers in quotes: every key that takes a number takes them alike, in a file and in an override."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from fedbench.components.base import Component
from fedbench.components.catalogue import BUILTIN, CONFIG_KEYS, component_class
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError


def types_in(annotation: Any) -> Iterator[Any]:
    """The types that a value of an annotation, or an item of it, may have."""
    if get_origin(annotation) is Annotated:
        yield from types_in(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, tuple, list, dict):
        for part in get_args(annotation):
            yield from types_in(part)
    else:
        yield annotation


def numeric_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys below a section that take numbers."""
    for key, field in section.model_fields.items():
        for kind in types_in(field.annotation):
            if kind in (int, float):
                yield prefix + key
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, Component):
                yield from numeric_keys(kind, f"{prefix}{key}.")


def cases() -> Iterator[tuple[str, str]]:
    """(override that chooses the part which has the key, or "", dotted key)."""
    for key in dict.fromkeys(numeric_keys(ExperimentConfig)):
        yield "", key
    for kind, parts in BUILTIN.items():
        for name in parts if kind != "server" else ():
            place = CONFIG_KEYS[kind]
            for key in dict.fromkeys(numeric_keys(component_class(kind, name), f"{place}.")):
                yield f"{place}={name}", key


def outcome(source: Path | None, overrides: list[str]) -> object:
    """The configuration that is loaded, or why it is refused."""
    try:
        return ExperimentConfig.load(source, overrides).to_mapping()
    except ConfigError as error:
        return str(error)


IN_LISTS = ("milestones", "betas")
TOGETHER = {"data.normalize.mean": ["data.normalize.std=1"], "data.normalize.std": ["data.normalize.mean=1"]}


@pytest.mark.parametrize(("choice", "key"), list(cases()))
def test_a_number_in_quotes_is_the_number(choice: str, key: str, tmp_path: Path) -> None:
    chosen = [choice] if choice else TOGETHER.get(key, [])
    for number in ("1", "0.5", "-1"):
        written = f"[{number}, {number}]" if key.endswith(IN_LISTS) else number
        quoted = written.replace(number, f'"{number}"')
        if key == "runtime.resources":
            written, quoted = f"{{A100: {written}}}", f"{{A100: {quoted}}}"
        plain = outcome(None, [*chosen, f"{key}={written}"])
        assert outcome(None, [*chosen, f"{key}={quoted}"]) == plain
        nested = quoted
        for part in reversed(key.split(".")):
            nested = f"{{{part}: {nested}}}"
        (tmp_path / "experiment.yaml").write_text(nested)
        in_a_file = outcome(tmp_path / "experiment.yaml", chosen) if not choice else plain
        assert in_a_file == plain


def test_every_kind_of_number_is_among_the_keys() -> None:
    keys = {key for _, key in cases()}
    assert keys >= {
        "seed", "rounds", "data.clients", "data.normalize.mean", "data.augment.crop", "local.optimizer.lr",
        "local.lr_schedule.milestones", "runtime.resources", "update.clip_norm", "algorithm.buffer_size",
        "delays.distribution.cv", "schedule.cycles", "model.width", "update.compression.fraction",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["ten", "0x10", "1_0", "1:30", "", " ", "1 2", ".inf", "9" * 5000])
@pytest.mark.parametrize("key", ["seed", "rounds", "local.optimizer.lr", "data.augment.crop", "data.normalize.mean"])
def test_what_spells_no_number_is_refused_in_quotes_as_without(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ExperimentConfig.load(None, [*TOGETHER.get(key, []), f'{key}="{text}"'])
    assert str(refused.value).startswith(key.rpartition(".")[0])
    assert "\n" not in str(refused.value)
