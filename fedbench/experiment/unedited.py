"""Refuses to go on with a run whose `config.yaml` was edited since: going on would be another run over its records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbench.checkpoints.files import Checkpoints, Codec
from fedbench.config.identity import flattened, what_matters
from fedbench.errors import ConfigError, DataError
from fedbench.records.reader import CHECKPOINTS, CONFIG, check_config

MOST_NAMED = 3
"""The number of edited keys that are named, at most."""


def check_unedited(path: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Check that a run's `config.yaml` is the one that it was started with.

    Args:
        path: the run directory.
        config: its `config.yaml`.
        summary: its `summary.json`.

    Raises:
        ConfigError: the file was edited; the edited keys are named where a checkpoint tells what they were.
    """
    try:
        check_config(path, config, summary)
    except DataError:
        file = path / CONFIG
        raise ConfigError(
            f"{file}: was edited since the run was started{_edits(path, config)}; a resumed run is what it was, and "
            f"nothing was changed: undo the edit to go on, or start a new run with: fedbench run {file}"
        ) from None


def _edits(path: Path, config: Mapping[str, Any]) -> str:
    """The edited keys with the values then and now, as an insertion in a sentence; "" where they are not known."""
    recorded = Checkpoints(path / CHECKPOINTS, "", Codec()).recorded_config()
    if recorded is None:
        return ""
    then, now = flattened(recorded), flattened(what_matters(config))
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    words = [f"{key} was {then.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys[:MOST_NAMED]]
    more = [f"and {len(keys) - MOST_NAMED} more"] if len(keys) > MOST_NAMED else []
    return f" ({'; '.join([*words, *more])})" if words else ""
