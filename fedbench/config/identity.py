"""What makes two configurations the same experiment."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ASIDE = ("name", "runtime", "tracking", "output")
"""Sections that change names, places and speed, not results."""

ASIDE_WITHIN = (("data", "root"), ("delays", "replay"), ("participation", "replay"))


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as nested plain values, without what does not change results."""
    kept = {key: value for key, value in config.items() if key not in ASIDE}
    for section, key in ASIDE_WITHIN:
        if isinstance(kept.get(section), Mapping):
            kept[section] = {name: value for name, value in kept[section].items() if name != key}
    return kept


def digest(config: Mapping[str, Any]) -> str:
    """Hex digest over everything in a configuration that can change the result."""
    return hashlib.sha256(json.dumps(what_matters(config), sort_keys=True).encode()).hexdigest()[:16]
