"""Checks of what a data set and a partition return, before a run uses it."""

import math
from collections.abc import Sequence

import numpy as np

from fedbench.data.base import Dataset, FederatedData, Split, counted
from fedbench.data.partition import Partition
from fedbench.data.retask import numbers_of_classes
from fedbench.errors import ConfigError, DataError
from fedbench.tasks.kinds import TASKS, UNSCORED, TaskName

MANY_CLASSES = 20
FEW_ROWS = 3
"""Classes that are numbers, more than so many with fewer rows each on average, may be amounts: prices, ages, counts."""

CAST = {
    "image": "store images as uint8, values 0..255: (255 * x).round().astype(numpy.uint8) where x is in 0..1",
    "text": "store texts as int32 token ids",
    "array": "store arrays as float32: x.astype(numpy.float32)",
}
"""For each kind of data how to bring inputs of another type to the right one."""

LAYOUTS: dict[str, tuple[str, range, str]] = {
    "image": ("uint8", range(4, 5), "[N, H, W, C]"),
    "text": ("int32", range(2, 3), "[N, L]"),
    "array": ("float32", range(2, 9), "[N, ...]"),
}
"""For each kind of data: type, allowed numbers of dimensions and shape of the inputs."""

LABELS: dict[TaskName, tuple[tuple[str, ...], str]] = {
    "classification": (("int64",), "[N]"),
    "multilabel": (("uint8",), "[N, K]"),
    "regression": (("float32",), "[N, K]"),
    "next_token": (("int64",), "[N, L]"),
    "segmentation": (("uint8", "int64"), "[N, H, W]"),
}
"""For each task: types and shape of the labels."""


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
    if data.task not in TASKS:
        raise DataError(f"{owner} returned data of task={data.task!r}; supported are {', '.join(TASKS)}")
    if data.task == "next_token" and data.kind != "text":
        raise DataError(f"{owner} returned data of kind={data.kind} for task=next_token, which needs text")
    if data.task == "segmentation" and data.kind == "text":
        raise DataError(f"{owner} returned data of kind=text for task=segmentation, which needs images or arrays")
    fewest = {"classification": 2, "multilabel": 2, "segmentation": 2, "next_token": 0}.get(data.task, 1)
    if len(data.class_names) < fewest:
        needed = "one for each target is needed" if data.task == "regression" else f"at least {fewest} are needed"
        needed += "; a single label that applies or not is task=classification" if data.task == "multilabel" else ""
        raise DataError(f"{owner} returned {len(data.class_names)} class_names; {needed}")
    splits = data.splits
    for name, split in splits.items():
        if (problem := _problem_of_split(split, data)) is not None:
            raise DataError(f"{owner} returned a {name} split {problem}")
    shapes = {name: list(split.inputs.shape[1:]) for name, split in splits.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise DataError(
                f"{owner} returned splits of different shapes: one row is {shapes['train']} in train, {shape} in {name}"
            )
    if data.kind != "text" and (problem := _problem_of_scaling(data)) is not None:
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
    lines = [f"{data.name}: {remark}" for remark in data.remarks]
    for name, split in (("training", data.train), ("test", data.test)):
        if data.task != "classification":
            continue
        empty = np.flatnonzero(np.bincount(split.labels.astype(np.int64), minlength=data.outputs) == 0)
        if empty.size:
            names = ", ".join(data.class_names[label] for label in empty[:5]) + (", ..." if empty.size > 5 else "")
            lines.append(f"{data.name}: {empty.size} of {data.outputs} classes have no {name} rows ({names})")
    many = data.task == "classification" and data.outputs > MANY_CLASSES
    if many and len(data.train) < FEW_ROWS * data.outputs and numbers_of_classes(data) is not None:
        lines.append(
            f"{data.name}: {data.outputs:,} classes, which are numbers, have {len(data.train):,} training rows in all; "
            "where the numbers are amounts, a run with task=regression takes them as targets"
        )
    if data.task == "regression":
        constant = [
            f"{data.class_names[place]} is {values[0]:g} in every {name} row"
            for name, split in (("training", data.train), ("test", data.test))
            for place, values in enumerate(split.labels.T)
            if len(values) > 1 and split.labels.strides[0] and (values == values[0]).all()
        ]
        if constant:
            lines.append(f"{data.name}: the target {constant[0]}; nothing is learned of it, and R2 is not defined")
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
    """What is wrong with the mean and the deviation of the inputs, to stand behind "returned"; None for sound ones."""
    entries = data.input_shape[-1]
    places = "channels" if data.kind == "image" else "entries of the last axis"
    for name, values in (("mean", data.mean), ("std", data.std)):
        if values is None:
            continue
        of_values = data.kind == "array" and len(values) == math.prod(data.input_shape)
        if len(values) != entries and not of_values:
            return f"a {name} of {len(values)} values for {entries} {places}"
        if data.kind == "array":
            if not all(np.isfinite(value) and (value > 0 or name == "mean") for value in values):
                return (
                    f"{name}={values}; {'finite numbers' if name == 'mean' else 'finite numbers above 0'} are allowed"
                )
            continue
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
    if split.inputs.dtype != dtype or split.inputs.ndim not in dimensions:
        given = f"{split.inputs.dtype} {list(split.inputs.shape)}"
        return f"whose inputs are {given}; {dtype} {shape} is needed for {data.kind}s: {CAST[data.kind]}"
    rows = len(split.inputs)
    if not rows:
        return "without rows"
    owners = split.owners
    if owners is not None and (owners.dtype != np.int64 or owners.shape != (rows,)):
        return f"whose owners are {owners.dtype} {list(owners.shape)}; int64 [{rows}] is needed, one for each input"
    if 0 in split.inputs.shape:
        return f"whose inputs are {list(split.inputs.shape)}; no dimension may be 0"
    if data.kind == "text" and (outside := _outside(split.inputs, data.vocabulary_size)) is not None:
        return f"with the token id {outside}; 0..{data.vocabulary_size - 1} is allowed, for the vocabulary_size"
    if data.kind == "array" and (row := _row_not_finite(split.inputs)) is not None:
        return f"whose inputs are not finite in row {row}; fill or drop what is missing"
    return _problem_of_labels(split, data)


def _problem_of_labels(split: Split, data: FederatedData) -> str | None:
    """What is wrong with the labels of a split, as for `_problem_of_split`."""
    labels, task, rows = split.labels, data.task, len(split.inputs)
    dtypes, _ = LABELS[task]
    shape: tuple[int, ...] = {
        "classification": (rows,),
        "next_token": split.inputs.shape,
        "segmentation": (rows, *(split.inputs.shape[1:3] if data.kind == "image" else split.inputs.shape[-2:])),
    }.get(task, (rows, len(data.class_names)))
    if str(labels.dtype) not in dtypes or labels.shape != shape:
        of_task = "" if task == "classification" else f" of task={task}"
        return (
            f"whose labels are {labels.dtype} {list(labels.shape)}; {' or '.join(dtypes)} {list(shape)} is"
            f" needed{of_task}, one for each input"
        )
    if task == "regression":
        row = _row_not_finite(labels)
        return None if row is None else f"whose labels are not finite in row {row}; fill or drop what is missing"
    highest = 1 if task == "multilabel" else data.outputs - 1
    if task == "segmentation" and labels.dtype == np.uint8 and highest >= UNSCORED["uint8"]:
        return f"whose labels are uint8, of which 255 does not count; int64 is needed for {data.outputs} class_names"
    scored = counted(labels, task)
    if not scored.size:
        return f"of which no {TASKS[task].places} counts: all labels are {UNSCORED[str(labels.dtype)]}"
    least, most = int(scored.min()), int(scored.max())
    if least >= 0 and most <= highest:
        return None
    label = least if least < 0 else most
    owner = {
        "multilabel": "1 where a label applies, else 0",
        "next_token": "for the vocabulary_size",
    }.get(task, f"for the {len(data.class_names)} class_names")
    return f"with the label {label}; 0..{highest} is allowed, {owner}"


def _row_not_finite(values: np.ndarray) -> int | None:
    """The first row with a value that is not finite; None where all are. An outline has one row many times over."""
    looked_at = values if values.strides[0] else values[:1]
    finite = np.isfinite(looked_at).reshape(len(looked_at), -1).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


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
