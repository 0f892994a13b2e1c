"""Configurations as values of Python, nested or with dotted keys, brought into the form that the command line has."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from fedbench.components.catalogue import CONFIG_KEYS
from fedbench.config.yaml_text import YamlFault, parse_value
from fedbench.errors import ConfigError


def override_texts(overrides: Sequence[str] | Mapping[Any, Any]) -> list[str]:
    """Overrides as the command line has them, "section.key=value"; given as such texts, or as values.

    Args:
        overrides: texts; or values by key, where keys are dotted, or values are nested, or both.

    NumPy's numbers and paths become Python's numbers and texts.

    Raises:
        ConfigError: a single text instead of a list of them, a key that is no text or is given twice, or a value that
            is no number, text, list or mapping.

    >>> override_texts({"data": {"clients": 4}, "schedule.name": "reverse"})
    ['data.clients=4', 'schedule.name=reverse']
    """
    if isinstance(overrides, str):
        raise ConfigError(f"{overrides}: overrides are a list of texts such as [{overrides!r}], or values by key")
    if not isinstance(overrides, Mapping):
        if not_texts := [item for item in overrides if not isinstance(item, str)]:
            raise ConfigError(f"{not_texts[0]!r}: an override is a text, section.key=value")
        return list(overrides)
    texts: list[str] = []
    for key, value in overrides.items():
        _check_key(key, "")
        try:
            texts += _texts(key, _plain(value, key))
        except RecursionError:
            raise ConfigError(f"{key}: is nested too deeply, or contains itself") from None
    given = (text.partition("=")[0] for text in texts)
    keys = Counter(f"{key}.name" if key in CONFIG_KEYS.values() else key for key in given)
    if twice := [key for key, count in keys.items() if count > 1]:
        raise ConfigError(f"{twice[0]}: is given twice, under keys that mean the same; give it once")
    return texts


def _texts(key: str, value: Any) -> list[str]:
    # A key such as {"my.tag": 1} is one name there, and would be two if it stood before the equals sign.
    if isinstance(value, dict) and value and all(name.isidentifier() for name in value):
        return [text for name, part in value.items() for text in _texts(f"{key}.{name}", part)]
    if isinstance(value, str) and _is_read_as_it_stands(value):
        return [f"{key}={value}"]
    return [f"{key}={_as_yaml(value)}"]


def _is_read_as_it_stands(text: str) -> bool:
    """Whether an override takes a text for just this text: not for a number, and without quotes."""
    try:
        return bool(parse_value(text) == text)
    except YamlFault:
        return False


def _as_yaml(value: Any) -> str:
    """A plain value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_as_yaml(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            _check_key(name, f"{key}.")
        return {name: _plain(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{key}[{place}]") for place, part in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    import numpy as np

    if isinstance(value, np.generic):
        return _plain(value.item(), key)
    if isinstance(value, np.ndarray) and value.ndim:
        return _plain(value.tolist(), key)
    raise ConfigError(
        f"{key}={_shortly(value)}: a {type(value).__name__} has no place in a configuration; use numbers, texts, lists "
        'and mappings, and name a part of your own by its import path, such as "module:Class"'
    )


def _shortly(value: object) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a foreign class raises
        return "..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_key(key: object, before: str) -> None:
    if not isinstance(key, str) or not key:
        raise ConfigError(f"{before}{key!r}: a key is a text that is not empty, such as rounds or data.clients")
    if "=" in key:
        raise ConfigError(f"{before}{key}: a key has no equals sign; the value stands beside it")
