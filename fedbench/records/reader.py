"""Reads again what a run recorded in its directory; each fault of a file is one clear line."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fedbench.errors import DataError
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ARRIVAL_SCHEMA, CLIENT_SCHEMA, DROPPED, ROUND_SCHEMA

T = TypeVar("T")

CONFIG = "config.yaml"
DESCRIPTION = "description.json"
ROUNDS = "rounds.parquet"
CLIENTS = "clients.parquet"
CHECKPOINTS = "checkpoints"
EVENTS = "events.parquet"
PARTITION = "partition.parquet"
SUMMARY = "summary.json"


def load_run(directory: str | Path) -> tuple[dict[str, Any], pa.Table, pa.Table, dict[str, Any]]:
    """What a run recorded: (configuration, rounds, clients, summary).

    The summary of a run that goes on, or whose process was killed, has the status "running" and nothing else.

    Raises:
        DataError: a file is missing, damaged or of another kind.
    """
    path = Path(directory)
    config = _mapping(path / CONFIG, yaml.safe_load)
    rounds = _table(path / ROUNDS, ROUND_SCHEMA)
    clients = _table(path / CLIENTS, CLIENT_SCHEMA)
    summary = _mapping(path / SUMMARY, json.loads)
    if "status" not in summary:
        raise DataError(f"{path / SUMMARY}: has no status; is this a run directory?")
    return config, rounds, clients, summary


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
    return _table(Path(path), CLIENT_SCHEMA)


def load_events(path: str | Path) -> pa.Table:
    """The arrivals of an asynchronous run, in order, with `ARRIVAL_SCHEMA` and no nulls.

    Args:
        path: the file, `events.parquet` of a run directory.

    Raises:
        DataError: it is missing, damaged or of another kind, or its rows are not in order.
    """
    file = Path(path)
    if not os.path.isfile(file):
        fault = "a directory" if os.path.isdir(file) else "missing"
        raise DataError(f"{file}: is {fault}; name the {EVENTS} of an asynchronous run")
    table = _table(file, ARRIVAL_SCHEMA)
    if gaps := [name for name in table.column_names if table[name].null_count]:
        raise DataError(f"{file}: the column {gaps[0]} has gaps; it is not a run's table")
    if not np.array_equal(table["arrival"].to_numpy(), np.arange(table.num_rows)):
        raise DataError(f"{file}: the arrivals are not in order, 0 to {table.num_rows - 1}; some are missing or moved")
    return table


def load_description(directory: str | Path) -> RunDescription:
    """The `RunDescription` of a recorded run, for drawing and sending it again.

    Raises:
        DataError: a file is missing, damaged or of another kind.
    """
    path = Path(directory)
    described = _mapping(path / DESCRIPTION, json.loads)
    partition = _read(path / PARTITION, _read_parquet)
    try:
        counts = list(zip(*(column.to_pylist() for column in partition.columns[2:]), strict=True))
        return RunDescription(
            config=_mapping(path / CONFIG, yaml.safe_load),
            directory=str(path.absolute()),
            class_names=tuple(described.pop("class_names")),
            client_class_counts=tuple(counts),
            **described,
        )
    except (KeyError, TypeError) as error:
        fault = str(error).replace("RunDescription.__init__() ", "")
        raise DataError(f"{path / DESCRIPTION}: is not a run's description, or of another version: {fault}") from None


def _read(file: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(file)
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; is {file.parent} a run directory?") from None
    except (OSError, ValueError, yaml.YAMLError, pa.ArrowException) as error:  # JSON's errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read: {reason[:200]}") from None


def _read_parquet(file: Path) -> pa.Table:
    # `pq.read_table` opens the path twice, and would mix two files when it is replaced in between.
    with pq.ParquetFile(file) as opened:
        return opened.read()


def _mapping(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    document = _read(file, lambda path: parse(path.read_text(encoding="utf-8")))
    if not isinstance(document, dict):
        raise DataError(f"{file}: holds no mapping; is {file.parent} a run directory?")
    return document


def _table(file: Path, schema: pa.Schema) -> pa.Table:
    table = _read(file, _read_parquet)
    if missing := [column for column in schema.names if column not in table.column_names]:
        raise DataError(f"{file}: lacks the column {missing[0]}; it is not a run's table, or of another version")
    return _read(file, lambda _: table.select(schema.names).cast(schema))


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
