"""The key that ties a run directory, or a suite's folder, to its run in MLflow.

The key is a tag of the MLflow run and is kept in a small file beside the checkpoints. A run that goes on, or is sent
again, finds its MLflow run by it instead of making a second one.
"""

import errno
import json
from pathlib import Path

from fedbench.records.reader import CHECKPOINTS
from fedbench.system.atomic_files import replace_text
from fedbench.system.regular_files import read_regular

RECORDING_TAG = "fedbench.recording"
"""The tag of an MLflow run that holds the key."""

ENTRY = "mlflow"

LARGEST = 2**20
"""Bytes of such a file that are read, at most."""


def key_file(directory: Path) -> Path:
    """The file of a run directory that keeps the key."""
    return directory / CHECKPOINTS / "recording.json"


def read_key(file: Path) -> str | None:
    """The key that a file keeps; None where the file is missing or damaged."""
    try:
        return str(json.loads(read_regular(file, limit=LARGEST))[ENTRY])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keep_key(file: Path, key: str) -> None:
    """Write the key to its file.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.parent.is_symlink():  # what is written would go elsewhere
        raise OSError(errno.ELOOP, "is a link, and nothing is written behind it", str(file.parent))
    replace_text(file, json.dumps({ENTRY: key}))
