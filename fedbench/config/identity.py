"""What makes two configurations the same experiment, the same method, or one that runs on any machine."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedbench.training.metric_names import ALWAYS

PLACES = ("runtime", "tracking", "output")
"""Sections on places and speed, which do not change results."""

ASIDE = ("name", *PLACES)
"""Keys that change names, places and speed, not results."""

ASIDE_WITHIN = (("data", "root"), ("delays", "replay"), ("participation", "replay"))
"""(section, key) of files and folders of one machine: where data lie, and the recorded run that is followed again."""


WITHOUT_EFFECT: tuple[tuple[str, str, Any], ...] = (
    ("data", "client_test_fraction", 0.0),
    ("local", "checkpoint_activations", False),
    ("evaluation", "client_every", None),
    ("evaluation", "metrics", []),
    ("participation", "capacities.memory", False),
    ("delays", "profile", None),
    ("delays", "availability", None),
    ("delays", "uplink_groups", None),
    ("delays", "deadline", None),
)
"""(section, key, value) of options that came later: with this value a run is what it was before there were any.

A key with a dot is of a section within the section."""

WITHOUT_EFFECT_ALONE = (("task", None),)
"""(key, value) of such options that are in no section."""

EVALUATION, MEASURED = "evaluation", ("client_every", "metrics")
"""A section, and those of its keys that say what is measured: they change no result, and make no other method."""

ANALYSIS = "analysis"
"""The section on what is measured, which changes no result, but what a run leaves."""


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as nested plain values, without places, speed, and the files of one machine."""
    kept = {key: value for key, value in config.items() if key not in PLACES}
    for section, key in ASIDE_WITHIN:
        if isinstance(kept.get(section), Mapping):
            kept[section] = {name: value for name, value in kept[section].items() if name != key}
    return kept


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as nested plain values, without what changes neither results nor what is measured of them."""
    kept = {key: value for key, value in portable(config).items() if key not in ASIDE}
    if not _measures_something(kept.get(ANALYSIS)):
        kept.pop(ANALYSIS, None)
    kept = {key: value for key, value in kept.items() if (key, value) not in WITHOUT_EFFECT_ALONE}
    if isinstance(scored := kept.get(EVALUATION), Mapping) and isinstance(names := scored.get("metrics"), list):
        kept[EVALUATION] = {**scored, "metrics": [name for name in names if name != ALWAYS]}
    for section, key, value in WITHOUT_EFFECT:
        if isinstance(options := kept.get(section), Mapping):
            kept[section] = _without(options, key, value)
    return kept


def _without(options: Mapping[str, Any], key: str, value: Any) -> Mapping[str, Any]:
    """Options without a dotted key, where it has this value."""
    first, _, rest = key.partition(".")
    if rest and isinstance(within := options.get(first), Mapping):
        return {**options, first: _without(within, rest, value)}
    if first not in options or rest or options[first] != value:
        return options
    return {name: setting for name, setting in options.items() if name != first}


def _measures_something(analysis: Any) -> bool:
    """Whether a section `analysis` asks for any measure; measures are true, or name rounds."""
    return isinstance(analysis, Mapping) and any(
        value is True or (value and isinstance(value, list)) for value in analysis.values()
    )


OWN_CODE = "own_code"
"""The name under which the content of one's own parts stands beside the sections of a configuration."""

LOCAL_OVERRIDES = ("runtime.", "tracking.", "data.root=")
"""Beginnings of the overrides "KEY=VALUE" that a run may be gone on with elsewhere: they do not change its result."""


def is_local(override: str) -> bool:
    """Whether an override "KEY=VALUE" only says where and how fast a run is computed, not what its result is."""
    return override.startswith(LOCAL_OVERRIDES)


def digest(config: Mapping[str, Any], own_code: Mapping[str, str]) -> str:
    """Hex digest of everything that can change the result.

    Args:
        config: nested plain values.
        own_code: the content of the parts of one's own, as `fedbench.components.own_code` gives it.
    """
    return hashlib.sha256(json.dumps(_with_code(config, own_code), sort_keys=True).encode()).hexdigest()[:16]


def method_settings(config: Mapping[str, Any], own_code: Mapping[str, str]) -> dict[str, Any]:
    """What makes a method, {dotted key: value}: everything that can change the result, but for the seed.

    Args:
        config, own_code: as for `digest`.
    """
    aside = ("seed", ANALYSIS)
    kept = {key: value for key, value in _with_code(config, own_code).items() if key not in aside}
    evaluation = kept.get(EVALUATION)
    if isinstance(evaluation, Mapping):
        kept[EVALUATION] = {key: value for key, value in evaluation.items() if key not in MEASURED}
        measured = evaluation.get("metrics") or ()
        parts = {part: content for part, content in own_code.items() if part not in measured}
        kept = {key: value for key, value in kept.items() if key != OWN_CODE} | ({OWN_CODE: parts} if parts else {})
    return flattened(kept)


PROBLEM = ("data", "model", "local", "participation.clients_per_round", "participation.fraction", "evaluation.every")
"""Keys, and sections, of what methods have in common that solve the same problem with the same local work."""

PART_OF_METHOD = ("local.batchnorm",)
"""Keys within these that belong to a method: without a global model, running statistics stay with clients."""


def problem_settings(config: Mapping[str, Any]) -> str:
    """A text that is equal for two configurations that differ in their method, their rounds and their seed alone.

    >>> one, other = {"data": {"clients": 3}, "seed": 1}, {"data": {"clients": 3}, "schedule": {"name": "full"}}
    >>> problem_settings(one) == problem_settings(other)
    True
    """
    flat = flattened(what_matters(config))
    kept = {
        key: value
        for key, value in flat.items()
        if key not in PART_OF_METHOD and any(key == part or key.startswith(f"{part}.") for part in PROBLEM)
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _with_code(config: Mapping[str, Any], own_code: Mapping[str, str]) -> dict[str, Any]:
    return what_matters(config) | ({OWN_CODE: dict(own_code)} if own_code else {})


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values as {dotted key: value}; an empty mapping is a value.

    >>> flattened({"seed": 3, "data": {"root": None, "partition": {"name": "iid"}}, "tags": {}})
    {'seed': 3, 'data.root': None, 'data.partition.name': 'iid', 'tags': {}}
    """
    return dict(_leaves(config, ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
