"""What a configuration is merged from: presets, YAML files, dotted overrides; plain values, not yet checked."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbench.components.catalogue import CONFIG_KEYS, component_class
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """The presets that come with fedbench."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_source(source: str | Path) -> dict[str, Any]:
    """The nested values of a preset or a YAML file."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{source}.yaml"
        if not path.is_file():
            raise ConfigError(f"{source}: no such preset{did_you_mean(str(source), preset_names())} (or a .yaml file)")
    if not path.is_file():
        raise ConfigError(f"{source}: no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected a mapping of sections, found {type(values).__name__}")
    return values


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, with those of `changes` over those of `base`."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return result


def overlaid(base: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Nested values with dotted overrides over them; what they set for a replaced component is forgotten.

    Args:
        overrides: "section.key=value" texts; values are YAML.

    Raises:
        ConfigError: an override that cannot be read, or does not fit.
    """
    below, changes = copy.deepcopy(dict(base)), parse_overrides(overrides)
    drop_parameters_of_replaced_components(below, changes)
    return _resolved(below, changes, ", ".join(overrides) or "configuration")


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with each `${section.key}` or `${oc.env:NAME}` replaced by what it stands for.

    Raises:
        ConfigError: it stands for nothing.
    """
    if "${" not in repr(values):
        return dict(values)
    return _resolved(values, {}, "configuration")


def _resolved(base: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(
            OmegaConf.merge(OmegaConf.create(dict(base)), OmegaConf.create(dict(changes))), resolve=True
        )
    except OmegaConfBaseException as error:
        raise ConfigError(f"{what}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return {str(name): part for name, part in plain.items()}


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """{"data.clients=20"} -> {"data": {"clients": 20}}."""
    result: DictConfig = OmegaConf.create({})
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text}: an override is written section.key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        if isinstance(parsed, str):
            parsed = _number(parsed)
        if key in CONFIG_KEYS.values() and isinstance(parsed, str):
            parsed = {"name": parsed}
        try:
            OmegaConf.update(result, key, parsed, merge=True)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(f"{text}: {str(error).splitlines()[0]}") from None
    plain = OmegaConf.to_container(result)
    assert isinstance(plain, dict)
    return {str(name): part for name, part in plain.items()}


def _number(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 as a text; everyone who writes it means a number."""
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def drop_parameters_of_replaced_components(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Where an override names another component, forget what the lower layer set for the one that it replaces.

    Parameters that both know (`schedule.cycles` of sequential and reverse) stay; an unknown parameter in the
    overrides themselves stays too, and is refused later. Changes `base`.
    """
    for kind, key in CONFIG_KEYS.items():
        *sections, leaf = key.split(".")
        below, above = _section(base, sections), _section(changes, sections)
        old, new = below.get(leaf), above.get(leaf)
        if isinstance(old, str):
            old = below[leaf] = {"name": old}
        if (
            not isinstance(old, dict)
            or not isinstance(new, dict)
            or new.get("name", old.get("name")) == old.get("name")
        ):
            continue
        known: set[str] = set()
        if isinstance(new["name"], str):
            found = component_class(kind, new["name"])
            known = set(getattr(found, "model_fields", {}))
        below[leaf] = {name: value for name, value in old.items() if name in known}


def _section(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The mapping at `path`; an empty one where there is none."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
