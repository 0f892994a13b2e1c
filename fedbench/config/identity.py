"""The identity of an experiment: a digest of everything in its configuration that can change the result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

WITHOUT_EFFECT = ("name", "runtime", "tracking", "output")
"""Sections that change names, places and speed, but no results."""

KEYS_WITHOUT_EFFECT = (("data", "root"), ("delays", "replay"), ("participation", "replay"))
"""Keys, within other sections, that change no results."""


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as nested plain values, without the sections and keys that change no results."""
    kept = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    for section, key in KEYS_WITHOUT_EFFECT:
        if isinstance(kept.get(section), Mapping):
            kept[section] = {name: value for name, value in kept[section].items() if name != key}
    return kept


def digest(config: Mapping[str, Any]) -> str:
    """Hex digest of everything in a configuration that can change the result."""
    return hashlib.sha256(json.dumps(what_matters(config), sort_keys=True).encode()).hexdigest()[:16]
