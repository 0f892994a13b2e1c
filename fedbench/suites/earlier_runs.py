"""Finds the runs of a suite that are recorded already, by the hash of what can change their results.

That is the configuration and the content of the parts of one's own. Nothing that a record names is imported.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.config.identity import digest
from fedbench.config.runtime import RuntimeSection
from fedbench.errors import FedbenchError
from fedbench.experiment.description import versions
from fedbench.records.reader import CONFIG, load_description, load_run
from fedbench.suites.plan import Run

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
        keep_models, keep_messages: as in the `runtime` section of its configuration.
    """

    directory: Path
    summary: dict[str, Any]
    keep_models: frozenset[int] = frozenset()
    keep_messages: frozenset[int] = frozenset()

    def keeps(self, runtime: RuntimeSection) -> bool:
        """Whether it has kept all models and messages that a run with this `runtime` section would keep."""
        return self.keep_models >= {*runtime.keep_models} and self.keep_messages >= {*runtime.keep_messages}

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


def find_recorded(folders: Iterable[Path], wanted: Mapping[str, Run]) -> dict[str, Recorded]:
    """The recorded runs by digest; a finished one goes before one that is not.

    Args:
        folders: folders that hold run directories. In the first, unfinished runs count, too; in the others only those
            that have kept the models and messages that are wanted for analyses.
        wanted: {digest: run that is looked for}.
    """
    recorded: dict[str, Recorded] = {}
    for place, folder in enumerate(folders):
        for directory in sorted(path.parent for path in folder.glob(f"*/{CONFIG}")):
            known = _recorded(directory)
            if known is None or known[0] not in wanted:
                continue
            key, run = known
            if place and not run.keeps(wanted[key].config.runtime):
                continue
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
    return digest(config, own_code), Recorded(directory, summary, _kept(config, "models"), _kept(config, "messages"))


def _kept(config: dict[str, Any], what: str) -> frozenset[int]:
    """The numbers that `runtime.keep_models` or `keep_messages` names in a recorded configuration."""
    runtime = config.get("runtime")
    numbers = runtime.get(f"keep_{what}") if isinstance(runtime, dict) else None
    return (
        frozenset(number for number in numbers if isinstance(number, int)) if isinstance(numbers, list) else frozenset()
    )
