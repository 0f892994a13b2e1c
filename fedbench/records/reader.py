"""Reads again what a run recorded in its directory; each fault of a file is one clear line.

`summary.json` vouches for the other files: it has the hash of the configuration, the checksums of the tables, and one
of itself. What was changed or damaged afterwards is refused instead of shown.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.config.identity import digest
from fedbench.config.yaml_text import parse_yaml
from fedbench.errors import DataError
from fedbench.records.headline import DEFAULT_TASK, task_named, task_of, with_task
from fedbench.records.measured import MEASURED
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ADDED_LATER, ARRIVAL_SCHEMA, CLIENT_SCHEMA, DROPPED, ROUND_SCHEMA
from fedbench.system.regular_files import read_regular

T = TypeVar("T")

CONFIG = "config.yaml"
DESCRIPTION = "description.json"
ROUNDS = "rounds.parquet"
CLIENTS = "clients.parquet"
CHECKPOINTS = "checkpoints"
EVENTS = "events.parquet"
PARTITION = "partition.parquet"
SUMMARY = "summary.json"

CHECKSUMS = "files"
"""The entry of `summary.json` with {name of a file: its SHA-256}."""

OWN_CHECKSUM = "checksum"
"""The entry of `summary.json` with the SHA-256 of all its other entries."""

ATTEMPTS = 3
"""How often a run's files are read at most where its process replaces them meanwhile."""


def load_run(directory: str | Path) -> tuple[dict[str, Any], pa.Table, pa.Table, dict[str, Any]]:
    """What a run recorded: (configuration, rounds, clients, summary).

    The summary of a run that goes on, or whose process was killed, has the status "running" and what identifies the
    run alone: `config_hash` and `own_code`.

    Raises:
        DataError: a file is missing, damaged, of another kind, or not the one that the run wrote.
    """
    path = Path(directory)
    for attempt in range(ATTEMPTS):
        summary, sums = _summary(path)
        try:
            config = _mapping(path / CONFIG, parse_yaml)
            check_config(path, config, summary)
            rounds = _table(path / ROUNDS, ROUND_SCHEMA, sums)
            return config, rounds, _table(path / CLIENTS, CLIENT_SCHEMA, sums), summary
        except DataError:
            # The run may have ended, or gone on, since the summary was read.
            if attempt + 1 == ATTEMPTS or _summary(path)[1] == sums:
                raise
    raise AssertionError


def load_config(directory: Path) -> dict[str, Any]:
    """The configuration of a run as `config.yaml` has it, which may have been edited.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    return _mapping(directory / CONFIG, parse_yaml)


def load_summary(directory: Path) -> dict[str, Any]:
    """The summary of a run, without checksums; of one that goes on or was killed as for `load_run`.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    return _summary(directory)[0]


def check_config(path: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Check that `config.yaml` is the configuration that the run was recorded with.

    Raises:
        DataError: it has been edited.
    """
    recorded = summary.get("config_hash")
    if recorded is not None and recorded != _config_digest(path, config, summary):
        raise DataError(
            f"{path}: {CONFIG} is not the configuration that it ran with (its digest is not the one in {SUMMARY})"
        )


def _config_digest(path: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    own_code = summary.get("own_code")
    try:
        return digest(config, own_code if isinstance(own_code, dict) else {})
    except (TypeError, ValueError, RecursionError) as error:  # such as a date, which no configuration has
        raise DataError(f"{path / CONFIG}: is not a run's configuration: {_reason(error)}") from None


def _summary(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(summary, {file: its SHA-256}) of a run directory; the summary without its checksums."""
    file = path / SUMMARY
    summary = _mapping(file, json.loads)
    sums, recorded = summary.pop(CHECKSUMS, {}), summary.pop(OWN_CHECKSUM, None)
    if "status" not in summary:
        raise DataError(f"{file}: has no status; is this a run directory?")
    if recorded is not None and recorded != summary_checksum({**summary, CHECKSUMS: sums}):
        raise DataError(f"{file}: is not as the run wrote it (its checksum differs){_remedy(file)}")
    return summary, sums if isinstance(sums, dict) else {}


def summary_checksum(summary: Mapping[str, Any]) -> str:
    """SHA-256 of a summary's entries, as a hex digest; `OWN_CHECKSUM` is not among them."""
    text = json.dumps({key: value for key, value in summary.items() if key != OWN_CHECKSUM}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def load_clients(path: str | Path) -> pa.Table:
    """A run's participants by round, with `CLIENT_SCHEMA`.

    Args:
        path: the file, `clients.parquet` of a run directory.

    Raises:
        DataError: it is missing, damaged or of another kind.
    """
    if not os.path.isfile(path):
        fault = "a directory" if os.path.isdir(path) else "missing"
        raise DataError(f"{path}: is {fault}; name the {CLIENTS} of a run")
    return _table(Path(path), CLIENT_SCHEMA, follow=True)


def load_events(path: str | Path, sums: Mapping[str, str] | None = None) -> pa.Table:
    """The arrivals of an asynchronous run, in order, with `ARRIVAL_SCHEMA` and no nulls.

    Args:
        path: the file, `events.parquet` of a run directory.
        sums: {name of a file: its SHA-256}, where they are known.

    Raises:
        DataError: it is missing, damaged or of another kind, or its rows are not in order.
    """
    file = Path(path)
    if not os.path.isfile(file):
        fault = "a directory" if os.path.isdir(file) else "missing"
        raise DataError(f"{file}: is {fault}; name the {EVENTS} of an asynchronous run")
    table = _table(file, ARRIVAL_SCHEMA, sums or {}, follow=True)
    if gaps := [name for name in table.column_names if table[name].null_count]:
        raise DataError(f"{file}: the column {gaps[0]} has gaps; it is not a run's table")
    if not np.array_equal(table["arrival"].to_numpy(), np.arange(table.num_rows)):
        raise DataError(f"{file}: the arrivals are not in order, 0 to {table.num_rows - 1}; some are missing or moved")
    return table


def load_measured(directory: str | Path, name: str, sums: Mapping[str, str] | None = None) -> pa.Table:
    """What a run measured of its training, with the schema of `MEASURED`.

    Args:
        directory: the run directory.
        name: the file, a key of `MEASURED`.
        sums: {name of a file: its SHA-256}; None: those in the run's summary.

    Raises:
        DataError: the table is missing, damaged or of another kind.
    """
    path = Path(directory)
    return _table(path / name, MEASURED[name], _summary(path)[1] if sums is None else sums)


def load_description(directory: str | Path) -> RunDescription:
    """The `RunDescription` of a recorded run, for drawing and sending it again.

    Raises:
        DataError: a file is missing, damaged or of another kind, or the task is not known.
    """
    path = Path(directory)
    _, sums = _summary(path)
    described = _mapping(path / DESCRIPTION, json.loads, sums)
    partition = _read(path / PARTITION, _parquet, sums)
    try:
        class_names = tuple(described.pop("class_names"))
        first_class = partition.num_columns - len(class_names)
        counts = list(zip(*(column.to_pylist() for column in partition.columns[first_class:]), strict=True))
        held_out = [column.to_pylist() for column in partition.columns[2:first_class]]
        return RunDescription(
            config=_mapping(path / CONFIG, parse_yaml),
            directory=str(path.absolute()),
            class_names=class_names,
            client_test_samples=tuple(held_out[0]) if held_out else (),
            group_names=tuple(described.pop("group_names", ())),
            client_class_counts=tuple(counts),
            task=task_named(described.pop("task", DEFAULT_TASK)),
            **described,
        )
    except (AttributeError, DataError, KeyError, TypeError, ValueError) as error:
        fault = str(error).replace("RunDescription.__init__() ", "")
        raise DataError(f"{path / DESCRIPTION}: is not a run's description, or of another version: {fault}") from None


def _read(file: Path, parse: Callable[[bytes], T], sums: Mapping[str, str] | None = None, follow: bool = False) -> T:
    """What `parse` makes of a file's content.

    Args:
        sums: {name of a file: its SHA-256}; files that are not among them are not compared.
        follow: whether the file may be a link.
    """
    try:
        content = read_regular(file, follow=follow)
        expected = (sums or {}).get(file.name)
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise DataError(f"{file}: is not as the run wrote it (its checksum differs){_remedy(file)}")
        return parse(content)
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; is {file.parent} a run directory?") from None
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise DataError(f"{file}: cannot be read: {_reason(error)}{_remedy(file)}") from None


def _remedy(file: Path) -> str:
    """What to do about a damaged file of a run directory, as the end of a sentence."""
    if file.name not in (DESCRIPTION, PARTITION, SUMMARY, ROUNDS, CLIENTS, EVENTS, *MEASURED):
        return "; bring it back from a copy"
    return f"; bring it back from a copy, or repeat the run with: fedbench run {file.parent / CONFIG}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _parquet(content: bytes) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as opened:
        table = opened.read()
    table.validate(full=True)
    return table


def _mapping(file: Path, parse: Callable[[str], Any], sums: Mapping[str, str] | None = None) -> dict[str, Any]:
    document = _read(file, lambda content: parse(content.decode("utf-8")), sums)
    if not isinstance(document, dict):
        raise DataError(f"{file}: holds no mapping; is {file.parent} a run directory?")
    return document


def _table(file: Path, schema: pa.Schema, sums: Mapping[str, str] | None = None, follow: bool = False) -> pa.Table:
    table = _read(file, _parquet, sums, follow)
    for column in ADDED_LATER:
        if column in schema.names and column not in table.column_names:
            table = table.append_column(schema.field(column), pa.nulls(table.num_rows, schema.field(column).type))
    if missing := [column for column in schema.names if column not in table.column_names]:
        raise DataError(f"{file}: lacks the column {missing[0]}; it is not a run's table, or of another version")
    try:
        task = task_of(table)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    try:
        return with_task(table.select(schema.names).cast(schema), task)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {_reason(error)}") from None


def recorded_table(file: Path, schema: pa.Schema) -> pa.Table:
    """One table of a run directory or of a checkpoint, with `schema`.

    Raises:
        DataError: it is missing, damaged or of another kind.
    """
    return _table(file, schema)


def recorded_checksums(directory: Path) -> dict[str, str]:
    """{name of a file: its SHA-256} as `summary.json` has them.

    Raises:
        DataError: the summary is missing or damaged.
    """
    return _summary(directory)[1]


def recorded_drops(path: str | Path) -> Mapping[int, frozenset[int]]:
    """{round: participants dropped}, of every round in a run's `clients.parquet`.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    table = load_clients(path)
    dropped: dict[int, frozenset[int]] = {}
    rows = zip(*(table.column(name).to_pylist() for name in ("round", "client", "status")), strict=True)
    for round_index, client, status in rows:
        earlier = dropped.get(round_index, frozenset())
        dropped[round_index] = earlier | {client} if status == DROPPED else earlier
    return dropped
