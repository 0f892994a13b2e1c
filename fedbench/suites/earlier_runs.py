"""Finds the runs of a suite that are recorded already, by the hash of what can change their results.

That is the configuration and the content of the parts of one's own. Nothing that a record names is imported.
"""

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.config.identity import digest
from fedbench.errors import FedbenchError
from fedbench.experiment.description import versions
from fedbench.records.reader import CONFIG, load_description, load_run

LIBRARIES = ("fedbench", "torch", "numpy", "machine")
"""The entries of `summary["versions"]` that a result depends on."""


REPLACED = ".replaced"
"""The folder, below a suite's, of runs that were run again though they were recorded."""


@dataclass(frozen=True)
class Recorded:
    """A run directory that holds a run of the suite.

    Attributes:
        directory: the run directory.
        summary: as in `summary.json`.
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary["status"] == "finished")

    @property
    def other_versions(self) -> str:
        """The libraries that it was made with, where they differ from those here: "torch 2.13.0, not 2.14.0"."""
        made, here = self.summary.get("versions", {}), versions()
        return ", ".join(
            f"{name} {made.get(name, 'unknown')}, not {here[name]}"
            for name in LIBRARIES
            if made.get(name) != here[name]
        )


def find_recorded(folders: Iterable[Path], wanted: Collection[str]) -> dict[str, Recorded]:
    """The recorded runs by digest; a finished one goes before one that is not.

    Args:
        folders: folders that hold run directories; unfinished runs count only in the first.
        wanted: the digests that are looked for.
    """
    recorded: dict[str, Recorded] = {}
    for place, folder in enumerate(folders):
        for directory in sorted(path.parent for path in folder.glob(f"*/{CONFIG}")):
            known = _recorded(directory)
            if known is None or known[0] not in wanted:
                continue
            key, run = known
            if run.finished and not (key in recorded and recorded[key].finished):
                recorded[key] = run
            elif place == 0:
                recorded.setdefault(key, run)
    return recorded


def set_aside(folder: Path, wanted: Collection[str]) -> None:
    """Move the run directories with these digests into `folder/.replaced`, where no suite and no report finds them.

    Raises:
        OSError: one cannot be moved.
    """
    for directory in sorted(path.parent for path in folder.glob(f"*/{CONFIG}")):
        known = _recorded(directory)
        if known is None or known[0] not in wanted:
            continue
        attempt, place = 1, folder / REPLACED / directory.name
        while place.exists():
            attempt += 1
            place = folder / REPLACED / f"{directory.name}-{attempt}"
        place.parent.mkdir(exist_ok=True)
        directory.rename(place)


def recorded_seeds(folder: Path) -> set[int]:
    """The seeds of the runs in a folder that came to an end of some kind."""
    seeds: set[int] = set()
    for path in folder.glob("*/summary.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            seeds.add(int(json.loads(path.read_text(encoding="utf-8"))["seed"]))
    return seeds


def _recorded(directory: Path) -> tuple[str, Recorded] | None:
    """(digest, run); None for what is torn, foreign or of another version, which is as good as not there."""
    try:
        config, _, _, summary = load_run(directory)
        own_code = load_description(directory).own_code
    except FedbenchError:
        return None
    return digest(config, own_code), Recorded(directory, summary)
