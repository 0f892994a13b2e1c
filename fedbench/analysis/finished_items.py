"""What a long analysis has finished, one file an item, so that a killed command goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fedbench.errors import RunError
from fedbench.records.recorded_analysis import FOLDER
from fedbench.system.atomic_files import replacing, write_tensors
from fedbench.system.regular_files import read_regular

NUMBERS = "numbers"
"""The entry of a file's metadata with the item's numbers, as JSON."""

Tensors = Mapping[str, npt.NDArray[Any]]


class FinishedItems:
    """The finished items of one analysis of a run, in a hidden folder of RUN/analysis until the analysis is written."""

    def __init__(self, directory: Path, kind: str, identity: Mapping[str, Any]) -> None:
        """Args:
        directory: the run directory.
        kind: of analysis.
        identity: plain values that decide the items; those of another identity are not taken up.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._folder = directory / FOLDER / f".{kind}-{digest}"

    def get(self, index: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """(arrays, numbers) of an item; None where it is not finished, or its file is damaged."""
        from safetensors import SafetensorError, safe_open

        file = self._file(index)
        try:
            read_regular(file)
            with safe_open(file, framework="np") as opened:
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
                return arrays, json.loads(opened.metadata()[NUMBERS])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def put(self, index: int, arrays: Tensors, numbers: Mapping[str, Any]) -> None:
        """Keep a finished item.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._file(index)) as temporary:
                write_tensors(temporary, arrays, {NUMBERS: json.dumps(dict(numbers))})
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror or error}") from error

    def remove(self) -> None:
        """Remove all items."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, index: int) -> Path:
        return self._folder / f"item-{index:05}.safetensors"
