"""Merging a configuration from presets, YAML files and dotted overrides, as plain values that are not checked yet."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedbench.components.catalogue import CONFIG_KEYS, built_in_name, component_class
from fedbench.components.suggestions import did_you_mean
from fedbench.config.alias import without_alias
from fedbench.config.yaml_text import YamlFault, is_yaml_file, parse_value, read_yaml
from fedbench.errors import ConfigError
from fedbench.system.home import expanded

PRESETS = Path(__file__).parent / "presets"
OMEGACONF_MISSING = "???"
"""What OmegaConf takes for a value that is still to be given."""


def preset_names() -> list[str]:
    """The names of the presets that come with fedbench."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_source(source: str | Path) -> dict[str, Any]:
    """The nested values of a preset or a YAML file.

    Args:
        source: a preset's name, or the path of a file that ends in .yaml, .yml or .json.

    Raises:
        ConfigError: there is no such preset or file, or it is not a YAML mapping.
    """
    path = expanded(source)
    if not is_yaml_file(path):
        path = PRESETS / f"{source}.yaml"
        if not path.is_file():
            raise ConfigError(f"{source}: no such preset{did_you_mean(str(source), preset_names())} (or a .yaml file)")
    if path.is_dir():
        raise ConfigError(f"{source}: is a folder; name the file, such as {path / 'config.yaml'} of a run directory")
    if not path.is_file():
        raise ConfigError(f"{source}: no such file")
    values = read_yaml(path, str(source))
    return without_alias(values)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values: those of `changes`, and those of `base` where `changes` has none."""
    result = dict(base)
    for key, value in changes.items():
        base_value = result.get(key)
        if isinstance(base_value, dict) and isinstance(value, Mapping):
            value = merged(base_value, value)
        result[key] = value
    return result


def overlaid(base: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Nested values with dotted overrides merged over them.

    Where an override names another component, parameters of the replaced one are dropped.

    Args:
        base: nested values.
        overrides: "section.key=value" texts; values are YAML.

    Raises:
        ConfigError: an override cannot be read, or does not fit.
    """
    values, changes = copy.deepcopy(dict(base)), parse_overrides(overrides)
    drop_parameters_of_replaced_components(values, changes)
    return _resolved(values, changes, ", ".join(overrides) or "configuration")


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with each `${section.key}` or `${oc.env:NAME}` replaced by the value that it refers to.

    Raises:
        ConfigError: there is no such value.
    """
    if "${" not in repr(values):
        return dict(values)
    return _resolved(values, {}, "configuration")


def _resolved(base: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> dict[str, Any]:
    if (
        _is_literal(base) and _is_literal(changes) and _fit(base, changes)
    ):  # as OmegaConf merges them, which takes twenty times as long
        return merged(base, changes)
    try:
        plain = OmegaConf.to_container(
            OmegaConf.merge(OmegaConf.create(dict(base)), OmegaConf.create(dict(changes))), resolve=True
        )
    except Exception as error:  # OmegaConf raises errors of many kinds where values do not fit each other
        raise ConfigError(f"{what}: {_first_line(error)}") from None
    assert isinstance(plain, dict)
    return {str(name): part for name, part in plain.items()}


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides as nested values.

    >>> parse_overrides(["data.clients=20", "model=cnn"])
    {'data': {'clients': 20}, 'model': {'name': 'cnn'}}
    """
    result: DictConfig = OmegaConf.create({})
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text}: an override is written section.key=value")
        try:
            parsed = parse_value(value)
        except YamlFault as error:
            raise ConfigError(f"{text}: {error}") from None
        if key in CONFIG_KEYS.values() and isinstance(parsed, str):
            parsed = {"name": parsed}
        try:
            OmegaConf.update(result, key, parsed, merge=True)
        except Exception as error:  # OmegaConf raises errors of many kinds where values do not fit each other
            raise ConfigError(f"{text}: {_first_line(error)}") from None
    plain = OmegaConf.to_container(result)
    assert isinstance(plain, dict)
    return without_alias({str(name): part for name, part in plain.items()})


def _is_literal(value: object) -> bool:
    """Whether nested values hold nothing that OmegaConf would replace, convert or refuse."""
    if isinstance(value, str):
        return type(value) is str and "${" not in value and value != OMEGACONF_MISSING
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(_is_literal, value.values()))
    if isinstance(value, list):
        return all(map(_is_literal, value))
    return value is None or type(value) in (bool, int, float)


def _fit(base: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Whether no list of one stands where the other has a mapping, which OmegaConf refuses."""
    pairs = [(base[key], value) for key, value in changes.items() if key in base]
    if any({type(first), type(second)} == {dict, list} for first, second in pairs):
        return False
    return all(_fit(*pair) for pair in pairs if type(pair[0]) is type(pair[1]) is dict)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def drop_parameters_of_replaced_components(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Drop the parameters of each component in `base` that `changes` replaces by another.

    Parameters that both components have (`schedule.cycles` of sequential and reverse) stay. An unknown parameter in
    `changes` stays too, and is refused later.

    Args:
        base: nested values, which are changed in place.
        changes: nested values that will be merged over them.
    """
    for kind, key in CONFIG_KEYS.items():
        *sections, leaf = key.split(".")
        section = _section(base, sections)
        old, new = section.get(leaf), _section(changes, sections).get(leaf)
        if isinstance(old, str):
            old = section[leaf] = {"name": old}
        if not isinstance(old, dict) or not isinstance(new, dict) or "name" not in new:
            continue
        if _same_name(kind, old.get("name"), new["name"]):
            continue
        known: set[str] = set()
        if isinstance(new["name"], str):
            known = set(getattr(component_class(kind, new["name"]), "model_fields", {}))
        section[leaf] = {name: value for name, value in old.items() if name in known}


def _same_name(kind: str, first: object, second: object) -> bool:
    names = (built_in_name(kind, name) if isinstance(name, str) else name for name in (first, second))
    return next(names) == next(names)


def _section(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The mapping at `path`; an empty one where there is none."""
    section: Any = values
    for key in path:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}
