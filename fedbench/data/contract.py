"""Checks of what a data set and a partition return, before a run uses it."""

from collections.abc import Sequence

import numpy as np

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.partition import Partition
from fedbench.errors import ConfigError, DataError

LAYOUTS = {"image": ("uint8", 4, "[N, H, W, C]"), "text": ("int32", 2, "[N, L]")}
"""For each kind of data: type, number of dimensions and shape of the inputs."""


def check_data(dataset: Dataset, data: object) -> FederatedData:
    """What `dataset.load` returned, if it keeps to the contract of `FederatedData`.

    Raises:
        DataError: it does not; names the data set and what is wrong.
    """
    owner = f"data.dataset.name={dataset.name}: load"
    if not isinstance(data, FederatedData):
        raise DataError(f"{owner} returned {type(data).__name__}, a fedbench.FederatedData is needed")
    if data.kind not in LAYOUTS:
        raise DataError(f"{owner} returned data of kind={data.kind!r}; allowed: {', '.join(LAYOUTS)}")
    splits = {"train": data.train, "test": data.test}
    if data.validation is not None:
        splits["validation"] = data.validation
    for name, split in splits.items():
        if (problem := _problem_of_split(split, data)) is not None:
            raise DataError(f"{owner} returned a {name} split {problem}")
    shapes = {name: list(split.inputs.shape[1:]) for name, split in splits.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise DataError(
                f"{owner} returned splits of different shapes: one row is {shapes['train']} in train, {shape} in {name}"
            )
    channels = data.input_shape[-1]
    for name, values in (("mean", data.mean), ("std", data.std)):
        if data.kind == "image" and values is not None and len(values) != channels:
            raise DataError(f"{owner} returned a {name} of {len(values)} values for {channels} channels")
    if (data.mean is None) != (data.std is None):
        raise DataError(f"{owner} returned mean={data.mean} and std={data.std}; give both or neither")
    return data


def _problem_of_split(split: object, data: FederatedData) -> str | None:
    """What is wrong with a split, to stand behind "a train split"; None for a sound one."""
    if not isinstance(split, Split):
        return f"of type {type(split).__name__}, a fedbench.Split is needed"
    dtype, dimensions, shape = LAYOUTS[data.kind]
    for name in ("inputs", "labels", "owners"):
        array = getattr(split, name)
        if not isinstance(array, np.ndarray) and not (name == "owners" and array is None):
            return f"whose {name} are of type {type(array).__name__}, a NumPy array is needed"
    if split.inputs.dtype != dtype or split.inputs.ndim != dimensions:
        given = f"{split.inputs.dtype} {list(split.inputs.shape)}"
        return f"whose inputs are {given}; {dtype} {shape} is needed for {data.kind}s"
    rows = len(split.inputs)
    if not rows:
        return "without rows"
    for name in ("labels", "owners"):
        array = getattr(split, name)
        if array is not None and (array.dtype != np.int64 or array.shape != (rows,)):
            return f"whose {name} are {array.dtype} {list(array.shape)}; int64 [{rows}] is needed, one for each input"
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= data.classes:
        label = lowest if lowest < 0 else highest
        return f"with the label {label}; 0..{data.classes - 1} is allowed, for the {data.classes} class_names"
    return None


def check_rows(partition: Partition, rows: object, total: int, clients: int, overlap: bool) -> tuple[np.ndarray, ...]:
    """What `partition.split` returned, if it keeps to the contract of `Partition.split`.

    Args:
        rows: what it returned.
        total: rows of the training split.
        clients: `data.clients`.
        overlap: whether clients may share rows.

    Raises:
        ConfigError: it does not; names the partition, the client and what is wrong.
    """
    owner = f"data.partition.name={partition.name}: split"
    if not isinstance(rows, Sequence):
        raise ConfigError(f"{owner} returned {type(rows).__name__}; a list with one array per client is needed")
    if len(rows) != clients:
        raise ConfigError(f"{owner} returned {len(rows)} arrays for data.clients={clients}; one per client is needed")
    times_dealt = np.zeros(total, np.int64)
    for client, indices in enumerate(rows):
        if not isinstance(indices, np.ndarray) or indices.dtype != np.int64 or indices.ndim != 1:
            given = getattr(indices, "dtype", type(indices).__name__)
            raise ConfigError(f"{owner} gave client {client} {given}; a one-dimensional int64 array is needed")
        if not len(indices):
            raise ConfigError(f"{owner} gave client {client} no rows; each client needs at least one")
        if (np.diff(indices) <= 0).any():
            raise ConfigError(f"{owner} gave client {client} rows that are not ascending, or one of them twice")
        if indices[0] < 0 or indices[-1] >= total:
            foreign = int(indices[0] if indices[0] < 0 else indices[-1])
            raise ConfigError(f"{owner} gave client {client} row {foreign}; the training split has rows 0..{total - 1}")
        times_dealt[indices] += 1
    if not overlap and (shared := np.flatnonzero(times_dealt > 1)).size:
        raise ConfigError(
            f"{owner} gave row {shared[0]} to {times_dealt[shared[0]]} clients; without data.overlap=true a row goes to"
            " one client at most"
        )
    return tuple(rows)
