"""The directory that a run leaves: its configuration, its rounds, its clients, its model; nothing is pickled.

Every file is written under a temporary name, flushed to the disk and renamed, so that whoever reads it, while
the run goes on or after a crash, sees a whole file: the one before or the one after. `summary.json` has the checksums
of the others (`fedbench.records.reader`).
"""

import hashlib
import json
import math
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.config.identity import digest
from fedbench.config.yaml_text import dump_yaml
from fedbench.errors import ConfigError, DataError, RunError
from fedbench.records.headline import DEFAULT_TASK, with_task
from fedbench.records.kept import KeptFiles, Tensors
from fedbench.records.measured import MEASURED, STEPS
from fedbench.records.observers import RunDescription
from fedbench.records.partition_table import partition_table
from fedbench.records.reader import (
    CHECKSUMS,
    CLIENTS,
    CONFIG,
    DESCRIPTION,
    EVENTS,
    OWN_CHECKSUM,
    PARTITION,
    ROUNDS,
    SUMMARY,
    recorded_table,
    summary_checksum,
)
from fedbench.records.rows import Rows, before
from fedbench.records.schema import (
    ARRIVAL_SCHEMA,
    CLIENT_SCHEMA,
    ROUND_SCHEMA,
    ArrivalRecord,
    ClientRecord,
    RoundRecord,
)
from fedbench.system.atomic_files import replacing, write_tensors
from fedbench.system.home import expanded, home
from fedbench.system.regular_files import open_regular

MODEL = "model.safetensors"
PLOTS = "plots"

TABLES = {ROUNDS: ROUND_SCHEMA, CLIENTS: CLIENT_SCHEMA, EVENTS: ARRIVAL_SCHEMA, **MEASURED}
"""The tables that a run writes as it goes, and their schemas."""

OPTIONAL = (EVENTS, *MEASURED)
"""The tables of which a run has those that have rows."""

SET_ASIDE = "set-aside"
"""Beginning of the name of the folders to which files go that a resumed run writes anew from another source."""

WRITING_SHARE = 1 / 20
"""At most this share of a run's time goes into rewriting its tables."""


class RunDirectory:
    """Keeps a run's files up to date (an `Observer`).

    Make one with `create` or `reopen`. A write that fails while the run goes on (a full disk) is kept in
    `warning` and tried again later; at the end it raises.

    Attributes:
        path: the directory, absolute.
        warning: one line on what could not be written, or None.
        kept: the models and messages that are kept for later analysis.
    """

    def __init__(self, path: Path, *, interval: float = 5.0, plots: bool = True) -> None:
        """Record into the existing directory `path`.

        Args:
            path: the directory.
            interval: seconds between two rewrites of the tables, at least.
            plots: whether to draw the figures of `fedbench.records.plots` at the end.
        """
        self.path = path
        self.warning: str | None = None
        self._interval = interval
        self._plots = plots
        self._run: RunDescription | None = None
        self.kept = KeptFiles(path)
        self._rows = {name: Rows(schema) for name, schema in TABLES.items()}
        self._next_write = -math.inf

    @classmethod
    def create(
        cls,
        name: str,
        seed: int,
        directory: str | Path | None = None,
        *,
        root: str | Path | None = None,
        interval: float = 5.0,
        plots: bool = True,
    ) -> "RunDirectory":
        """A new directory: `directory`, or ROOT/NAME-SEED-SHORTID, with `runs_root()` for a root that is not given.

        Raises:
            ConfigError: `directory` is not empty, or cannot be made.
        """
        fresh = _fresh_name(Path(root or runs_root()), name, seed)
        path = Path(fresh if directory is None else directory).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except OSError as error:
            raise ConfigError(f"output.directory={path}: cannot be made a directory: {error.strerror}") from None
        if occupied:
            raise ConfigError(f"output.directory={path}: is not empty; name another one")
        return cls(path, interval=interval, plots=plots)

    @classmethod
    def reopen(
        cls,
        directory: str | Path,
        first_round: int,
        source: Path | None = None,
        *,
        interval: float = 5.0,
        plots: bool = True,
    ) -> "RunDirectory":
        """Go on in a recorded run's directory.

        Nothing is changed on the disk: `run_started` is what writes the tables again.

        Args:
            directory: the run directory.
            first_round: the round that comes next; rows of it and of later rounds are dropped.
            source: the folder whose tables are taken; None: the run directory itself.

        Raises:
            DataError: a table is torn, or not a run's.
        """
        opened = cls(Path(directory).absolute(), interval=interval, plots=plots)
        if first_round == 0:
            return opened
        for name, schema in TABLES.items():
            file = (source or opened.path) / name
            if name not in OPTIONAL or file.exists():
                opened._rows[name].extend_table(before(recorded_table(file, schema), first_round))
        return opened

    def tables_on_disk(self) -> list[Path]:
        """The files of the tables, as they were written last."""
        return [self.path / name for name in TABLES if (self.path / name).exists()]

    def differing_tables(self, first_round: int) -> list[str]:
        """Names of the tables whose rows before `first_round` on the disk are not the rows here."""
        return [name for name in TABLES if not self._is_on_disk(name, self._rows[name].table(), first_round)]

    def _is_on_disk(self, name: str, table: pa.Table, first_round: int) -> bool:
        if name in OPTIONAL and not table.num_rows and not os.path.lexists(self.path / name):
            return True
        try:
            recorded = before(recorded_table(self.path / name, TABLES[name]), first_round)
        except DataError:
            return False
        # NaN is not equal to itself, so tables that differ by Arrow's measure are compared as text.
        return bool(recorded.equals(table)) or repr(recorded.to_pylist()) == repr(table.to_pylist())

    def rounds_on_disk(self) -> int | None:
        """The number of rounds that the table on the disk has; None where it cannot be read."""
        try:
            return int(recorded_table(self.path / ROUNDS, ROUND_SCHEMA).num_rows)
        except DataError:
            return None

    def folders_in_place_of_files(self) -> list[str]:
        """Names of the run's files in whose place there is a folder, which no file can be written over."""
        files = (DESCRIPTION, PARTITION, SUMMARY, *TABLES, MODEL)
        return [name for name in files if (self.path / name).is_dir() and not (self.path / name).is_symlink()]

    def set_aside(self, names: Sequence[str]) -> Path | None:
        """Move files of the directory into a new folder beside them; returns it, or None where there are none.

        Raises:
            RunError: they cannot be moved.
        """
        there = [name for name in names if os.path.lexists(self.path / name)]
        if not there:
            return None
        number = 1
        while (folder := self.path / f"{SET_ASIDE}-{number}").exists():
            number += 1
        with self._must_succeed():
            folder.mkdir()
            for name in there:
                (folder / name).parent.mkdir(exist_ok=True)
                os.rename(self.path / name, folder / name)
        return folder

    def rewind(self, first_round: int) -> None:
        """Forget the rows of `first_round` and later rounds, which will come again."""
        for rows in self._rows.values():
            rows.keepbefore(first_round)

    def arrivals(self) -> pa.Table:
        """All arrivals so far, with `ARRIVAL_SCHEMA`."""
        return self._rows[EVENTS].table()

    def work(self) -> pa.Table:
        """All arrivals of an asynchronous run, or else all local trainings, so far: with the columns client, status."""
        arrivals = self.arrivals()
        return arrivals if arrivals.num_rows else self._rows[CLIENTS].table()

    def run_started(self, run: RunDescription) -> None:
        """Write the configuration, the partition and empty tables.

        Raises:
            RunError: the directory cannot be written.
        """
        self._run = run
        with self._must_succeed():
            self._write_text(CONFIG, dump_yaml(run.config))
            self._write_json(DESCRIPTION, _described(run))
            with replacing(self.path / PARTITION) as temporary:
                pq.write_table(partition_table(run), temporary)
            identity = {"config_hash": digest(run.config, run.own_code), "own_code": run.own_code}
            self._write_summary({"status": "running", **identity}, (DESCRIPTION, PARTITION))
            self._write_tables()

    def arrivals_finished(self, arrivals: Sequence[ArrivalRecord]) -> None:
        """Keep an asynchronous round's arrivals, in order; `round_finished`, called next, may write them."""
        self._rows[EVENTS].append(*arrivals)

    def round_measured(self, measured: Mapping[str, pa.Table]) -> None:
        """Keep the rows of a round's measures, by file name; `round_finished`, called next, may write them."""
        for name, rows in measured.items():
            self._rows[name].extend_table(rows)

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Keep the rows; rewrite the tables if that was not done lately."""
        self._rows[ROUNDS].append(record)
        self._rows[CLIENTS].append(*clients)
        if time.monotonic() < self._next_write:
            return
        try:
            self._write_tables()
            self.warning = None
        except OSError as error:
            self.warning = f"{self.path} could not be written: {error}"

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Write the tables, the summary and the plots.

        Raises:
            RunError: the directory cannot be written.
        """
        with self._must_succeed():
            self._write_tables()
            self._write_summary(summary, (DESCRIPTION, PARTITION, *TABLES, MODEL), self.kept.sums)
        if self._plots and self._run is not None:
            self._draw(self._run)

    def flush(self) -> None:
        """Write the tables now, so that a checkpoint finds the rounds before it on the disk.

        Raises:
            RunError: the directory cannot be written.
        """
        with self._must_succeed():
            self._write_tables()

    def write_model(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Write `model.safetensors` from {name: array}.

        Raises:
            RunError: the directory cannot be written.
        """
        whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
        with self._must_succeed(), replacing(self.path / MODEL) as temporary:
            write_tensors(temporary, whole, {"format": "np"})

    def keep(self, name: str, tensors: Tensors, metadata: Mapping[str, int]) -> None:
        """Write one of the files that are kept for later analysis; arguments as for `KeptFiles.write`.

        Raises:
            RunError: it cannot be written.
        """
        with self._must_succeed():
            self.kept.write(name, tensors, metadata)

    def history(self) -> pa.Table:
        """All rounds so far, with `ROUND_SCHEMA` and the run's task, which is known once the run has started."""
        return with_task(self._rows[ROUNDS].table(), DEFAULT_TASK if self._run is None else self._run.task)

    def _write_tables(self) -> None:
        started = time.monotonic()
        for name, rows in self._rows.items():
            table = self.history() if name == ROUNDS else rows.table()
            if name in OPTIONAL and not table.num_rows:  # not of this run, or of one that is run again from its start
                (self.path / name).unlink(missing_ok=True)
                continue
            with replacing(self.path / name) as temporary:
                pq.write_table(table, temporary, write_page_checksum=True)
        finished = time.monotonic()
        self._next_write = finished + max(self._interval, (finished - started) / WRITING_SHARE)

    def _write_summary(
        self, summary: Mapping[str, Any], names: Sequence[str], sums: Mapping[str, str] | None = None
    ) -> None:
        """Write the summary with `sums`, the checksums of the named files that are there, and one of itself."""
        here = {name: _checksum(self.path / name) for name in names if os.path.lexists(self.path / name)}
        document = _plain({**summary, CHECKSUMS: here | dict(sums or {})})
        self._write_json(SUMMARY, {**document, OWN_CHECKSUM: summary_checksum(document)})

    def _write_text(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _write_json(self, name: str, document: Mapping[str, Any]) -> None:
        self._write_text(name, json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _draw(self, run: RunDescription) -> None:
        from fedbench.records.plots import save_figures

        try:
            tables = self.arrivals(), self._rows[STEPS].table(), self._rows[CLIENTS].table()
            save_figures(self.history(), run, self.path / PLOTS, *tables)
        except Exception as error:  # a figure is never worth a run
            self.warning = f"the plots could not be drawn: {type(error).__name__}: {error}"

    @contextmanager
    def _must_succeed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.path} could not be written: {error}") from error


def runs_root() -> Path:
    """The folder that runs go to by default: FEDBENCH_RUNS, or `runs` in the working directory.

    A Ray job's working directory is a copy that Ray deletes, so there it is below `lasting_root`.
    """
    if named := os.environ.get("FEDBENCH_RUNS"):
        return expanded(named)
    return lasting_root() / "runs" if in_a_ray_job() else Path("runs")


def in_a_ray_job() -> bool:
    """Whether the working directory is the copy that Ray makes for a job."""
    return "working_dir_files" in Path.cwd().parts


def lasting_root() -> Path:
    """The folder for what a Ray job leaves: `fedbench` in the home directory."""
    return home("set HOME to a folder that outlasts the job") / "fedbench"


_DESCRIBED = [
    field.name
    for field in fields(RunDescription)
    if field.name
    not in ("config", "directory", "client_class_counts", "client_test_samples")  # have places of their own
]


def _described(run: RunDescription) -> dict[str, Any]:
    """The content of `description.json`; a task that it does not name is `DEFAULT_TASK`."""
    return {name: getattr(run, name) for name in _DESCRIBED if (name, getattr(run, name)) != ("task", DEFAULT_TASK)}


def _fresh_name(root: Path, name: str, seed: int) -> Path:
    plain = re.sub(r"[^\w.+-]+", "_", name)
    return root / f"{plain}-{seed}-{uuid.uuid4().hex[:8]}"


def _checksum(file: Path) -> str:
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """`value` as JSON has it: no NumPy scalars, and null for what is not a number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
