"""The global models and the clients' messages that a run keeps for later analysis (`runtime.keep_models`).

They lie as safetensors files in the folder `kept` of the run directory. `kept/model-00004.safetensors` is the global
model after 4 rounds, which is the one that round 5 starts from (0: the initial model), with the names of
`model.safetensors`. `kept/message-00005-client-00002.safetensors` is what client 2 sent in round 5, counted from 1, as
the server reads it: for each tensor of the layer groups that it sent, its values minus those that it started from; the
tensors of a method's further channels are named CHANNEL/NAME. `summary.json` has the checksums of all of them.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.errors import DataError
from fedbench.records.reader import recorded_checksums
from fedbench.system.atomic_files import replacing, write_tensors
from fedbench.system.regular_files import open_regular, read_regular

KEPT = "kept"
"""The folder in the run directory."""

METADATA = "fedbench"
"""The entry of a file's metadata that says what the file holds, as JSON."""

Tensors = Mapping[str, npt.NDArray[np.generic]]

_MODEL = re.compile(rf"{KEPT}/model-(\d+)\.safetensors")
_MESSAGE = re.compile(rf"{KEPT}/message-(\d+)-client-(\d+)\.safetensors")


def model_name(rounds: int) -> str:
    """The file of the global model after `rounds` rounds, relative to the run directory."""
    return f"{KEPT}/model-{rounds:05}.safetensors"


def kept_number(name: str) -> int | None:
    """The number of rounds after which the model in a file of the folder `kept` was the global one; None: no model.

    >>> kept_number("model-00004.safetensors")
    4
    """
    match = _MODEL.fullmatch(f"{KEPT}/{name}")
    return int(match[1]) if match else None


def message_name(round_number: int, client: int) -> str:
    """The file of a client's message in a round, counted from 1, relative to the run directory."""
    return f"{KEPT}/message-{round_number:05}-client-{client:05}.safetensors"


def models_around(rounds: Iterable[int]) -> tuple[int, ...]:
    """The models that are kept for rounds counted from 1, each by the number of rounds after which it is the global
    one: those before and after each round.

    >>> models_around([1, 6, 7])
    (0, 1, 5, 6, 7)
    """
    return tuple(sorted({number for round_number in rounds for number in (round_number - 1, round_number)}))


class KeptFiles:
    """Writes what a run keeps, and knows the checksums of what it has written.

    Attributes:
        sums: {file relative to the run directory: its SHA-256}.
    """

    def __init__(self, directory: Path) -> None:
        """Args:
        directory: the run directory.
        """
        self.sums: dict[str, str] = {}
        self._directory = directory

    def write(self, name: str, tensors: Tensors, metadata: Mapping[str, int]) -> None:
        """Write one file, or replace it.

        Args:
            name: as `model_name` or `message_name` gives it.
            tensors: {name: array}.
            metadata: what the file says of itself.

        Raises:
            OSError: it cannot be written.
        """
        (self._directory / KEPT).mkdir(exist_ok=True)
        whole = {tensor: np.asarray(values, order="C") for tensor, values in tensors.items()}
        with replacing(self._directory / name) as temporary:
            # One entry: safetensors writes several in an order of chance, and the same run leaves the same bytes.
            write_tensors(temporary, whole, {METADATA: json.dumps(metadata)})
            with open_regular(temporary) as stream:
                self.sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()

    def restore(self, sums: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Go on from a checkpoint: remove what was written after it.

        Args:
            sums: the checksums as they were then.

        Returns:
            The files of then that are missing now, and those that are not as they were written. Neither kind is in
            `sums` any more; the latter are to be set aside.
        """
        self.sums = dict(sums)
        folder = self._directory / KEPT
        for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []:
            name = f"{KEPT}/{path.name}"
            if name not in sums and (_MODEL.fullmatch(name) or _MESSAGE.fullmatch(name)) and not path.is_dir():
                path.unlink()
        missing, changed = [], []
        for name in sorted(sums):
            if not os.path.lexists(self._directory / name):
                missing.append(name)
            elif _checksum(self._directory / name) != sums[name]:
                changed.append(name)
        for name in (*missing, *changed):
            del self.sums[name]
        return missing, changed


def _checksum(path: Path) -> str | None:
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def kept_models(directory: Path) -> tuple[int, ...]:
    """The global models that a run has kept, each by the number of rounds after which it was the global one.

    Raises:
        DataError: the summary is missing or damaged.
    """
    names = recorded_checksums(directory)
    return tuple(sorted(int(match[1]) for match in map(_MODEL.fullmatch, names) if match))


def kept_messages(directory: Path) -> tuple[tuple[int, int], ...]:
    """(round counted from 1, client) of the messages that a run has kept, ascending.

    Raises:
        DataError: the summary is missing or damaged.
    """
    names = recorded_checksums(directory)
    return tuple(sorted((int(match[1]), int(match[2])) for match in map(_MESSAGE.fullmatch, names) if match))


def load_model(directory: Path, rounds: int) -> dict[str, npt.NDArray[Any]]:
    """A global model that a run has kept, {name: array}, with the names of `model.safetensors`.

    Args:
        directory: the run directory.
        rounds: the number of rounds after which it was the global one; 0: the initial model.

    Raises:
        DataError: the run has not kept it, or the file is missing or not as the run wrote it.
    """
    numbers = kept_models(directory)
    if rounds not in numbers:
        there = f"models after {', '.join(map(str, numbers))} rounds" if numbers else "none"
        raise DataError(
            f"{directory}: has not kept the global model after {rounds} rounds; kept: {there}; run it again with "
            f"runtime.keep_models=[{max(rounds, 1)}]"
        )
    return _load(directory, model_name(rounds))[0]


def load_message(directory: Path, round_number: int, client: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, int]]:
    """A client's message that a run has kept: what it changed, {name: array}, and what the file says of itself.

    Args:
        directory: the run directory.
        round_number: the round, counted from 1.
        client: the client.

    Returns:
        The tensors, and the metadata: round, client, samples, steps.

    Raises:
        DataError: the run has not kept it, or the file is missing or not as the run wrote it.
    """
    messages = kept_messages(directory)
    if (round_number, client) not in messages:
        there = ", ".join(f"client {sender} in round {number}" for number, sender in messages[:20])
        raise DataError(
            f"{directory}: has not kept what client {client} sent in round {round_number}; kept: {there or 'none'}; "
            f"run it again with runtime.keep_models=[{round_number}] runtime.keep_messages=[{client}]"
        )
    return _load(directory, message_name(round_number, client))


def _load(directory: Path, name: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, int]]:
    """The tensors and the metadata of a kept file that is as the run wrote it."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    file = directory / name
    try:
        content = read_regular(file)
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; bring it back from a copy, or repeat the run") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != recorded_checksums(directory)[name]:
        raise DataError(f"{file}: is not as the run wrote it (its checksum differs); bring it back from a copy")
    try:
        with safe_open(file, framework="np") as opened:
            metadata = json.loads(opened.metadata()[METADATA])
        return load(content), metadata
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None
