"""The directory that a run leaves: its configuration, its rounds, its clients, its model; nothing is pickled.

Every file is written under a temporary name, flushed to the disk and renamed, so that whoever reads it, while
the run goes on or after a crash, sees a whole file: the one before or the one after.
"""

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
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from fedbench.atomic_files import replacing, write_tensors
from fedbench.errors import ConfigError, RunError
from fedbench.protocol.layout import Vector
from fedbench.records.observers import RunDescription
from fedbench.records.reader import (
    CLIENTS,
    CONFIG,
    DESCRIPTION,
    EVENTS,
    PARTITION,
    ROUNDS,
    SUMMARY,
    load_events,
    load_run,
)
from fedbench.records.schema import (
    ARRIVAL_SCHEMA,
    CLIENT_SCHEMA,
    ROUND_SCHEMA,
    ArrivalRecord,
    ClientRecord,
    RoundRecord,
)

MODEL = "model.safetensors"
PLOTS = "plots"

WRITING_SHARE = 1 / 20
"""At most this share of a run's time goes into rewriting its tables."""


class RunDirectory:
    """Keeps a run's files up to date (an `Observer`).

    Make one with `create` or `reopen`. A write that fails while the run goes on (a full disk) is kept in
    `warning` and tried again later; at the end it raises.

    Attributes:
        path: the directory, absolute.
        warning: one line on what could not be written, or None.
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
        self._rounds = _Rows(ROUND_SCHEMA)
        self._clients = _Rows(CLIENT_SCHEMA)
        self._arrivals = _Rows(ARRIVAL_SCHEMA)
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
        cls, directory: str | Path, first_round: int, *, interval: float = 5.0, plots: bool = True
    ) -> "RunDirectory":
        """Go on in a recorded run's directory; rows of `first_round` and later rounds are dropped.

        Raises:
            DataError: the directory is torn or not a run's.
        """
        _, rounds, clients, _ = load_run(directory)
        opened = cls(Path(directory).absolute(), interval=interval, plots=plots)
        opened._rounds.extend_table(_before(rounds, first_round))
        opened._clients.extend_table(_before(clients, first_round))
        if (opened.path / EVENTS).exists():
            opened._arrivals.extend_table(_before(load_events(opened.path / EVENTS), first_round))
        return opened

    def rewind(self, first_round: int) -> None:
        """Forget the rows of `first_round` and later rounds, which will come again."""
        for rows in (self._rounds, self._clients, self._arrivals):
            rows.keep_before(first_round)

    def arrivals(self) -> pa.Table:
        """All arrivals so far, with `ARRIVAL_SCHEMA`."""
        return self._arrivals.table()

    def run_started(self, run: RunDescription) -> None:
        """Write the configuration, the partition and empty tables.

        Raises:
            RunError: the directory cannot be written.
        """
        self._run = run
        with self._must_succeed():
            self._write_text(CONFIG, yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))
            self._write_json(DESCRIPTION, {name: getattr(run, name) for name in _DESCRIBED})
            with replacing(self.path / PARTITION) as temporary:
                pq.write_table(partition_table(run), temporary)
            self._write_json(SUMMARY, {"status": "running"})
            self._write_tables()

    def arrivals_finished(self, arrivals: Sequence[ArrivalRecord]) -> None:
        """Keep an asynchronous round's arrivals, in order; `round_finished`, called next, may write them."""
        self._arrivals.append(*arrivals)

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Keep the rows; rewrite the tables if that was not done lately."""
        self._rounds.append(record)
        self._clients.append(*clients)
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
            self._write_json(SUMMARY, summary)
        if self._plots and self._run is not None:
            self._draw(self._run)

    def flush(self) -> None:
        """Write the tables now, so that a checkpoint finds the rounds before it on the disk.

        Raises:
            RunError: the directory cannot be written.
        """
        with self._must_succeed():
            self._write_tables()

    def write_model(self, tensors: Mapping[str, Vector]) -> None:
        """Write `model.safetensors` from {name: float32 array}.

        Raises:
            RunError: the directory cannot be written.
        """
        whole = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
        with self._must_succeed(), replacing(self.path / MODEL) as temporary:
            write_tensors(temporary, whole, {"format": "np"})

    def history(self) -> pa.Table:
        """All rounds so far, with `ROUND_SCHEMA`."""
        return self._rounds.table()

    def _write_tables(self) -> None:
        started = time.monotonic()
        tables = {ROUNDS: self.history(), CLIENTS: self._clients.table(), EVENTS: self._arrivals.table()}
        if not tables[EVENTS].num_rows:  # a synchronous run, or one that is run again from its start
            del tables[EVENTS]
            (self.path / EVENTS).unlink(missing_ok=True)
        for name, table in tables.items():
            with replacing(self.path / name) as temporary:
                pq.write_table(table, temporary)
        finished = time.monotonic()
        self._next_write = finished + max(self._interval, (finished - started) / WRITING_SHARE)

    def _write_text(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _write_json(self, name: str, document: Mapping[str, Any]) -> None:
        self._write_text(name, json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _draw(self, run: RunDescription) -> None:
        from fedbench.records.plots import save_figures

        try:
            save_figures(self.history(), run, self.path / PLOTS, self._arrivals.table())
        except Exception as error:  # a figure is never worth a run
            self.warning = f"the plots could not be drawn: {type(error).__name__}: {error}"

    @contextmanager
    def _must_succeed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.path} could not be written: {error}") from error


class _Rows:
    """Rows of one schema; those already turned into Arrow are not turned again at the next rewrite."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._new: list[dict[str, Any]] = []

    def append(self, *records: RoundRecord | ClientRecord | ArrivalRecord) -> None:
        self._new.extend(vars(record) for record in records)

    def extend_table(self, table: pa.Table) -> None:
        self._batches.extend(table.to_batches())

    def keep_before(self, first_round: int) -> None:
        self._batches = _before(self.table(), first_round).to_batches()

    def table(self) -> pa.Table:
        if self._new:
            self._batches.append(pa.RecordBatch.from_pylist(self._new, schema=self._schema))
            self._new = []
        return pa.Table.from_batches(self._batches, schema=self._schema)


def runs_root() -> Path:
    """The folder that runs go to by default: FEDBENCH_RUNS, or `runs` in the working directory.

    A Ray job's working directory is a copy that Ray deletes, so there it is below `lasting_root`.
    """
    if named := os.environ.get("FEDBENCH_RUNS"):
        return Path(named)
    return lasting_root() / "runs" if in_a_ray_job() else Path("runs")


def in_a_ray_job() -> bool:
    """Whether the working directory is the copy that Ray makes for a job."""
    return "working_dir_files" in Path.cwd().parts


def lasting_root() -> Path:
    """The folder for what a Ray job leaves: `fedbench` in the home directory."""
    return Path.home() / "fedbench"


def partition_table(run: RunDescription) -> pa.Table:
    """What each client got: `client`, `samples`, and the samples of each class, one column per class in label order.

    A class whose name is taken (by another class or by the first two columns) gets its label behind it.
    """
    counts = np.asarray(run.client_class_counts, np.int64).reshape(-1, len(run.class_names))
    columns: dict[str, pa.Array] = {
        "client": pa.array(np.arange(len(counts)), pa.int32()),
        "samples": pa.array(counts.sum(axis=1), pa.int64()),
    }
    for label, name in enumerate(run.class_names):
        columns[name if name not in columns else f"{name} ({label})"] = pa.array(counts[:, label], pa.int64())
    return pa.table(columns)


_DESCRIBED = [
    field.name
    for field in fields(RunDescription)
    if field.name not in ("config", "directory", "client_class_counts")  # these have places of their own
]


def _fresh_name(root: Path, name: str, seed: int) -> Path:
    plain = re.sub(r"[^\w.+-]+", "_", name)
    return root / f"{plain}-{seed}-{uuid.uuid4().hex[:8]}"


def _before(table: pa.Table, first_round: int) -> pa.Table:
    return table.filter(pc.less(table["round"], first_round))


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
