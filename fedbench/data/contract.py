"""Checks of what a data set and a partition return, before a run uses it."""

from collections.abc import Sequence

import numpy as np

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.partition import Partition
from fedbench.errors import ConfigError, DataError

CAST = {
    "image": "store images as uint8, values 0..255: (255 * x).round().astype(numpy.uint8) where x is in 0..1",
    "text": "store texts as int32 token ids",
}
"""For each kind of data how to bring inputs of another type to the right one."""

LAYOUTS = {"image": ("uint8", 4, "[N, H, W, C]"), "text": ("int32", 2, "[N, L]")}
"""For each kind of data: type, number of dimensions and shape of the inputs."""


def check_data(dataset: Dataset, data: object, method: str = "load") -> FederatedData:
    """What a method of `dataset` returned, load or outline, if it keeps to the contract of `FederatedData`.

    Raises:
        DataError: it does not; names the data set and what is wrong.
    """
    owner = f"data.dataset.name={dataset.name}: {method}"
    if not isinstance(data, FederatedData):
        raise DataError(f"{owner} returned {type(data).__name__}, a fedbench.FederatedData is needed")
    if data.kind not in LAYOUTS:
        raise DataError(f"{owner} returned data of kind={data.kind!r}; supported are {', '.join(LAYOUTS)}")
    if data.classes < 2:
        raise DataError(f"{owner} returned {data.classes} class_names; at least 2 are needed")
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
    if data.kind == "image" and (problem := _problem_of_scaling(data)) is not None:
        raise DataError(f"{owner} returned {problem}")
    if data.kind == "text" and not -1 <= data.padding_index < data.vocabulary_size:
        raise DataError(
            f"{owner} returned padding_index={data.padding_index}; 0..{data.vocabulary_size - 1} is allowed for"
            f" vocabulary_size={data.vocabulary_size}, or -1 for no padding"
        )
    if (data.mean is None) != (data.std is None):
        raise DataError(f"{owner} returned mean={data.mean} and std={data.std}; give both or neither")
    return data


def remarks_on(data: FederatedData, least_overlap: float = 0.0) -> tuple[str, ...]:
    """What a user should know of a data set that can be used as it is, one line each.

    Args:
        least_overlap: share of the test rows that must be training rows, too, to be worth a line.
    """
    lines = []
    for name, split in (("training", data.train), ("test", data.test)):
        empty = np.flatnonzero(np.bincount(split.labels, minlength=data.classes) == 0)
        if empty.size:
            names = ", ".join(data.class_names[label] for label in empty[:5]) + (", ..." if empty.size > 5 else "")
            lines.append(f"{data.name}: {empty.size} of {data.classes} classes have no {name} rows ({names})")
    if data.test_rows_in_train > least_overlap * len(data.test):
        share = data.test_rows_in_train / len(data.test)
        lines.append(
            f"{data.name}: {data.test_rows_in_train:,} of {len(data.test):,} test rows ({share:.1%}) are training rows,"
            " too"
        )
    if data.kind == "image" and data.train.inputs.strides[0] and _is_dark(data.train.inputs):
        lines.append(f"{data.name}: no pixel is above 1 of 255; images in 0..1 are stored as 255 times their values")
    return tuple(lines)


def _is_dark(images: np.ndarray) -> bool:
    """Whether no value is above 1, as where values in 0..1 were rounded to whole numbers."""
    every = max(1, len(images) // 100)
    return bool(images[::every].max() <= 1) and bool(images.max() <= 1)


def _problem_of_scaling(data: FederatedData) -> str | None:
    """What is wrong with the mean and the deviation of images, to stand behind "returned"; None for sound ones."""
    channels = data.input_shape[-1]
    for name, values in (("mean", data.mean), ("std", data.std)):
        if values is None:
            continue
        if len(values) != channels:
            return f"a {name} of {len(values)} values for {channels} channels"
        lowest = "above 0" if name == "std" else "0 or more"
        if not all((value > 0 if name == "std" else value >= 0) and value <= 1 for value in values):
            return f"{name}={values}; {lowest} and at most 1 is allowed, in units of [0, 1]"
    return None


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
        return f"whose inputs are {given}; {dtype} {shape} is needed for {data.kind}s: {CAST[data.kind]}"
    rows = len(split.inputs)
    if not rows:
        return "without rows"
    for name in ("labels", "owners"):
        array = getattr(split, name)
        if array is not None and (array.dtype != np.int64 or array.shape != (rows,)):
            return f"whose {name} are {array.dtype} {list(array.shape)}; int64 [{rows}] is needed, one for each input"
    if 0 in split.inputs.shape:
        return f"whose inputs are {list(split.inputs.shape)}; no dimension may be 0"
    if data.kind == "text" and (outside := _outside(split.inputs, data.vocabulary_size)) is not None:
        return f"with the token id {outside}; 0..{data.vocabulary_size - 1} is allowed, for the vocabulary_size"
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= data.classes:
        label = lowest if lowest < 0 else highest
        return f"with the label {label}; 0..{data.classes - 1} is allowed, for the {data.classes} class_names"
    return None


def _outside(tokens: np.ndarray, vocabulary_size: int) -> int | None:
    """A token id outside of 0..vocabulary_size-1; None where there is none."""
    lowest, highest = int(tokens.min()), int(tokens.max())
    return lowest if lowest < 0 else highest if highest >= vocabulary_size else None


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
