"""Small runs that are broken off after a round, and what they have recorded."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fedbench.config.experiment import ExperimentConfig
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord

SMALL = (
    "data.dataset=digits", "data.clients=6", "data.samples_per_client=20", "model.width=4", "local.batch_size=10",
    "rounds=5", "tracking.enabled=false", "runtime.executor=inline", "runtime.checkpoint_every=2",
)  # fmt: skip
TIMES = {"seconds"} | {
    f"{what}_seconds" for what in ("wall", "dispatch", "transfer", "training", "aggregation", "evaluation", "tracking")
}


class Broken(Exception):
    """Stands for a kill: the run gets no chance to write anything more."""


class BreakAfter:
    """Raises after a round (an observer)."""

    def __init__(self, round_index: int) -> None:
        self._round = round_index

    def run_started(self, run: RunDescription) -> None:
        pass

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        if record.round == self._round:
            raise Broken

    def run_finished(self, summary: dict[str, Any]) -> None:
        pass


class CopyAfter(BreakAfter):
    """Copies the run directory after a round: what a kill then would have left of it (an observer)."""

    def __init__(self, round_index: int, copy: str | Path) -> None:
        super().__init__(round_index)
        self._copy = copy

    def run_started(self, run: RunDescription) -> None:
        self._directory = run.directory

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        if record.round == self._round:
            shutil.copytree(self._directory, self._copy)


def load(*overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(None, [*SMALL, *overrides])


def tables(directory: Path) -> dict[str, list[dict[str, object]]]:
    """All recorded rows without wall time."""
    found = {}
    for path in sorted(directory.glob("*.parquet")):
        table = pq.read_table(path)
        found[path.name] = table.drop([name for name in table.column_names if name in TIMES]).to_pylist()
    return found
