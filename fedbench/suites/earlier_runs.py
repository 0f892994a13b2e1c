"""Finds the runs of a suite that are recorded already, by the hash of what can change their results."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import FedbenchError
from fedbench.experiment.description import versions
from fedbench.records.reader import CONFIG, load_run

LIBRARIES = ("fedbench", "torch", "numpy", "machine")
"""The entries of `summary["versions"]` that a result depends on."""


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


def find_recorded(folders: Iterable[Path], wanted: Mapping[str, object]) -> dict[str, Recorded]:
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
            digest, run = known
            if run.finished and not (digest in recorded and recorded[digest].finished):
                recorded[digest] = run
            elif place == 0:
                recorded.setdefault(digest, run)
    return recorded


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
        digest = summary.get("config_hash") or ExperimentConfig.from_mapping(config).digest()
    except FedbenchError:
        return None
    return str(digest), Recorded(directory, summary)
