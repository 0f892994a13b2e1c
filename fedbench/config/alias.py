"""Names of whole methods that stand for several settings at once."""

from collections.abc import Mapping
from typing import Any

from fedbench.errors import ConfigError

FEDPART = "fedpart"
"""The `algorithm` that stands for FedAvg with one layer group at a time, sequentially unless a schedule is given."""


def without_alias(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with `algorithm: fedpart` replaced by what it stands for.

    Args:
        values: nested values, of a file or of overrides.

    Raises:
        ConfigError: the values also ask for full network updates, which FedPart is not.

    >>> without_alias({"algorithm": "fedpart", "schedule": {"cycles": 2}})
    {'algorithm': {'name': 'fedavg'}, 'schedule': {'name': 'sequential', 'cycles': 2}}
    """
    algorithm = values.get("algorithm")
    parameters = dict(algorithm) if isinstance(algorithm, Mapping) else {"name": algorithm}
    if parameters.get("name") != FEDPART:
        return dict(values)
    schedule = values.get("schedule")
    chosen = dict(schedule) if isinstance(schedule, Mapping) else {"name": schedule} if schedule else {}
    if chosen.get("name") == "full":
        raise ConfigError(
            "algorithm=fedpart with schedule=full: FedPart trains one layer group at a time; name algorithm=fedavg, or "
            "another schedule"
        )
    return dict(values) | {
        "algorithm": parameters | {"name": "fedavg"},
        "schedule": {"name": "sequential"} | chosen,
    }
