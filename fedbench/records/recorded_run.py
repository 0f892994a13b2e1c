"""Recorded runs as values, found in folders, and what speaks against trusting one."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.config.identity import digest, method_settings
from fedbench.errors import ConfigError, DataError
from fedbench.records.headline import chosen_on, task_of, task_of_summary
from fedbench.records.measured import MEASURED
from fedbench.records.metrics import METRICS
from fedbench.records.observers import RunDescription
from fedbench.records.reader import (
    CONFIG,
    DESCRIPTION,
    EVENTS,
    PARTITION,
    ROUNDS,
    SUMMARY,
    load_description,
    load_events,
    load_measured,
    load_run,
    recorded_checksums,
)
from fedbench.system.home import expanded
from fedbench.tasks.kinds import Headline, TaskName

Values = npt.NDArray[np.float64]

MARKS = (CONFIG, DESCRIPTION, PARTITION, ROUNDS, SUMMARY)
"""Files of which a run directory, even a damaged one, has at least two."""


@dataclass(frozen=True)
class RecordedRun:
    """One run as its directory has it.

    Attributes:
        source: where it comes from, as it is shown.
        directory: where its files lie now.
        config: the complete configuration, nested plain values.
        summary: `summary.json`.
        rounds: `rounds.parquet`, with `ROUND_SCHEMA`.
        description: what was known of it beforehand.
        digest: over everything that can change the result, as `ExperimentConfig.digest` was when it began.
    """

    source: str
    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rounds: pa.Table
    description: RunDescription
    digest: str

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return str(self.config.get("name", "experiment"))

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config.get("seed", 0))

    @property
    def status(self) -> str:
        """What became of the run: finished | interrupted | failed | running."""
        return str(self.summary["status"])

    @property
    def model_sha256(self) -> str:
        """Hash of the final model; "" for a run without one."""
        return str(self.summary.get("model_sha256") or "")

    @property
    def task(self) -> TaskName:
        """What the model was trained for; runs of two tasks have no metric in common that both are judged by."""
        return self.description.task

    @property
    def headline(self) -> Headline:
        """The metric by which the task is judged."""
        return self.description.headline

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What makes its method, {dotted key: value}; runs that differ in nothing but the seed have the same."""
        return method_settings(self.config, self.description.own_code)

    @cached_property
    def chosen_on(self) -> str:
        """The split on which its best round is chosen: "validation" or "test"."""
        return chosen_on(self.rounds)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the run has arrivals instead of cohorts."""
        return "clock" in self.summary or "async" in self.rounds["phase"].to_pylist()

    @property
    def pools_rows(self) -> bool:
        """Whether one client held the rows of all, so that their partition did not matter."""
        return bool(self.config.get("algorithm", {}).get("name") == "centralised")

    @cached_property
    def partition_digest(self) -> str:
        """Hex digest over how many samples of each class each client holds."""
        return hashlib.sha256(json.dumps(self.description.client_class_counts).encode()).hexdigest()[:16]

    def column(self, name: str) -> Values:
        """A column of the rounds as float64, NaN where it is null."""
        values: Values = self.rounds[name].cast(pa.float64()).to_numpy()
        return values

    def course(self, name: str) -> Values:
        """A metric at the end of each round as float64, NaN where it is not known.

        Args:
            name: a key of `METRICS`.
        """
        return np.asarray(METRICS[name].by_round(self.rounds), np.float64)


@dataclass(frozen=True)
class Unusable:
    """A run that cannot be compared, and why."""

    source: str
    reason: str


def read_run(directory: Path, source: str | None = None) -> RecordedRun:
    """What a run directory holds.

    Args:
        directory: the run directory.
        source: how it is shown; None: its path.

    Raises:
        DataError: a file is missing or damaged, or the files contradict each other.
    """
    config, rounds, _, summary = load_run(directory)
    description = load_description(directory)
    run_digest = digest(config, description.own_code)
    run = RecordedRun(source or str(directory), directory, config, summary, rounds, description, run_digest)
    if (fault := _contradiction(run)) is not None:
        raise DataError(f"{directory}: {fault}")
    sums = recorded_checksums(directory)
    if EVENTS in sums or (directory / EVENTS).exists():
        load_events(directory / EVENTS, sums)
    for name in MEASURED:
        if name in sums:
            load_measured(directory, name, sums)
    return run


def run_directories(paths: Sequence[Path]) -> list[Path]:
    """The run directories among `paths` and below them, each once, in order.

    Raises:
        ConfigError: a path is not a folder, or there is no run directory in it.
    """
    directories: dict[Path, Path] = {}
    for path in map(expanded, paths):
        if not path.is_dir():
            fault = "is not a folder" if path.exists() else "is not there"
            raise ConfigError(f"{path}: {fault}; name run directories, or a folder that holds some")
        here = list(_below(path))
        if not here:
            raise ConfigError(f"{path}: holds no run directory; name run directories, or a folder that holds some")
        for directory in here:
            directories.setdefault(directory.resolve(), directory)
    return list(directories.values())


def _below(path: Path) -> Iterator[Path]:
    if sum((path / mark).is_file() for mark in MARKS) >= 2:
        yield path
        return
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _below(Path(entry.path))


def _contradiction(run: RecordedRun) -> str | None:
    """What in its files cannot be true together; None for a run that is whole, whatever became of it."""
    summary, rounds = run.summary, run.rounds
    if rounds["round"].to_pylist() != list(range(rounds.num_rows)):
        return f"the rounds in {ROUNDS} are not in order, 0 to {rounds.num_rows - 1}; some are missing or moved"
    if (recorded := task_of(rounds)) != run.task:
        return f"the task in {ROUNDS} is {recorded}, the one in {DESCRIPTION} is {run.task}"
    if run.status == "running":
        return None
    if (recorded := task_of_summary(summary)) != run.task:
        return f"the task in {SUMMARY} is {recorded}, the one in {DESCRIPTION} is {run.task}"
    if summary.get("rounds") != rounds.num_rows:
        return f"{SUMMARY} speaks of {summary.get('rounds')} rounds, {ROUNDS} has {rounds.num_rows}"
    for column in ("uplink_bytes", "downlink_bytes", "client_flops"):
        if summary.get(column) != sum(rounds[column].to_pylist()):
            return f"the {column} in {SUMMARY} are not the sum of those in {ROUNDS}"
    return None
