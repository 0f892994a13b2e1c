"""The table of devices and links that is shipped, and how those that a configuration names come to stand in it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedbench.components.suggestions import did_you_mean
from fedbench.config.yaml_text import read_yaml
from fedbench.errors import ConfigError
from fedbench.planning.profiles import split_name
from fedbench.system.home import expanded

TABLE = Path(__file__).with_name("devices.yaml")
"""The shipped table: `devices` and `links` by name, each with its figures and their source."""

KINDS = ("devices", "links")
"""The two parts of a table."""


@cache
def shipped_table() -> dict[str, dict[str, Any]]:
    """{"devices" or "links": {name: figures}} of the shipped table."""
    return read_table(TABLE)


def read_table(path: Path) -> dict[str, dict[str, Any]]:
    """{"devices" or "links": {name: figures}} of a YAML file; the figures are not checked yet.

    Raises:
        ConfigError: the file cannot be read, or has other keys.
    """
    values = read_yaml(path, f"delays.profile.file={path}")
    if unknown := [key for key in values if key not in KINDS]:
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; allowed: devices, links")
    table = {kind: values.get(kind) or {} for kind in KINDS}
    for kind, parts in table.items():
        if not isinstance(parts, dict):
            raise ConfigError(f"{path}: {kind}: must be a mapping of names to figures")
    return {kind: named(parts) for kind, parts in table.items()}


def named(parts: Mapping[Any, Any]) -> dict[str, Any]:
    """The parts of a table by their names as text: YAML reads some of them as numbers."""
    return {str(name): figures for name, figures in parts.items()}


def with_figures(profile: object) -> object:
    """A value of `delays.profile` in which the devices and links that it names stand with their figures.

    Args:
        profile: as it was given: a profile's name, or a mapping for `fedbench.planning.profiles.ProfileSection`.

    Returns:
        A mapping without `file`; a value of another form as it is, for pydantic to refuse.

    Raises:
        ConfigError: the file cannot be read, or a device or a link is not known.
    """
    section = {"profiles": [profile]} if isinstance(profile, str) else profile
    if not isinstance(section, dict):
        return profile
    section = dict(section)
    if isinstance(section.get("profiles"), str):
        section["profiles"] = [section["profiles"]]
    for kind in KINDS:
        if not isinstance(section.get(kind) or {}, dict):
            raise ConfigError(f"delays.profile.{kind}={section[kind]}: must be a mapping of names to figures")
    given = {kind: named(section.get(kind) or {}) for kind in KINDS}
    if (file := section.pop("file", None)) is not None:
        of_file = read_table(expanded(file))
        given = {kind: of_file[kind] | given[kind] for kind in KINDS}
    names = section.get("profiles") or section.get("clients") or []
    used: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        for kind, part in zip(KINDS, split_name(name), strict=True):
            known = shipped_table()[kind] | given[kind]
            if part not in known:
                raise ConfigError(f"delays.profile: {name}: no such {kind[:-1]}{did_you_mean(part, list(known))}")
            used[kind][part] = known[part]
    return section | used
