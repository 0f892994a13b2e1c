"""What a run that goes on was started with: `summary.json` and the checkpoints vouch for its `config.yaml`.

An edited configuration is refused: going on with it would be another run over the records of this one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbench.checkpoints.files import Checkpoints, Codec
from fedbench.config.identity import flattened, what_matters
from fedbench.errors import ConfigError, DataError
from fedbench.records.reader import CHECKPOINTS, CONFIG, check_config, load_config, load_summary

MOST_NAMED = 3
"""The number of edited keys that are named, at most."""


def recorded_start(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(configuration, summary) of a recorded run whose `config.yaml` is the one that it was started with.

    The summary is None where the file is missing, damaged or another run's, and a checkpoint vouches for the
    configuration in its place.

    Args:
        path: the run directory.

    Raises:
        DataError: a file is missing or damaged, and nothing else vouches for the configuration.
        ConfigError: `config.yaml` was edited; the edited keys are named where a checkpoint tells what they were.
    """
    config, summary = load_config(path), None
    recorded = Checkpoints(path / CHECKPOINTS, "", Codec()).recorded_config()
    try:
        summary = load_summary(path)
        check_config(path, config, summary)
    except DataError:
        if summary is None and recorded is None:
            raise
        edits = [] if recorded is None else _edits(recorded, config)
        if recorded is None or edits:
            file, named = path / CONFIG, f" ({'; '.join(edits)})" if edits else ""
            raise ConfigError(
                f"{file}: was edited since the run was started{named}; a resumed run is what it was, and nothing was "
                f"changed: undo the edit to go on, or start a new run with: fedbench run {file}"
            ) from None
        return config, None
    return config, summary


def _edits(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The edited keys with the values then and now, one phrase each."""
    then, now = flattened(recorded), flattened(what_matters(config))
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    words = [f"{key} was {then.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys[:MOST_NAMED]]
    return [*words, f"and {len(keys) - MOST_NAMED} more"] if len(keys) > MOST_NAMED else words
