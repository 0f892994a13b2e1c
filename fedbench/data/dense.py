"""Columns of numbers, or of lists of numbers of one shape, as dense arrays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.data.column_table import ColumnTable
from fedbench.errors import DataError

Shape = tuple[int, ...]

LARGEST = float(np.finfo(np.float32).max)

EXACT, EXACT_DOUBLE = 2.0**24, 2.0**53
"""Up to these float32 and float64 have every whole number."""

LARGEST_CHANGE = 0.01
"""Part of the standard deviation of a column by which rounding to float32 may change its values."""


def leaf(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """The type of the values inside nested lists, and how many lists are around them; a plain value has none.

    Example:
        >>> leaf(pa.list_(pa.list_(pa.float32(), 3)))
        (DataType(float), 2)
    """
    depth = 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return kind, depth


def is_list(kind: pa.DataType) -> bool:
    """Whether a column's values are lists, in whichever of Arrow's forms."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values can be computed with: whole numbers, floating-point numbers, decimal numbers, truth values."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind))


def dense_rows(
    table: ColumnTable, column: str, expected: tuple[Shape, str] | None = None
) -> tuple[npt.NDArray[np.float64], Shape]:
    """A column of numbers or of nested lists of numbers, all of one shape, as an array.

    Args:
        expected: the shape that every row must have, and where it comes from, in words; None: that of the first row.

    Returns:
        float64 [N, *shape], and that shape; () for plain numbers.

    Raises:
        DataError: a value is missing, not a number (NaN), infinite or beyond float32, or a row has another shape.
    """
    _, depth = leaf(table.kind(column))
    parts: list[npt.NDArray[np.float64]] = []
    for first, array in table.arrays(column):
        if expected is None and len(array):
            expected = _shape_of_first(array, depth), f"as in {table.where(first)}"
        values = _flat(table, column, array, first, expected)
        parts.append(values.reshape(len(array), *(expected[0] if expected else (0,) * depth)))
    shape = expected[0] if expected else (0,) * depth
    return (np.concatenate(parts) if parts else np.empty((0, *shape))), shape


def check_precision(
    tables: Sequence[ColumnTable], column: str, values: npt.NDArray[np.float32] | npt.NDArray[np.float64]
) -> None:
    """Refuse numbers whose differences are lost in float32, such as times in seconds since 1970 within a minute.

    Args:
        tables: those of a split, in order.
        column: a column of numbers, or of lists of numbers, in all of them.
        values: its values, which are read again in float64 where the largest is beyond the whole numbers of float32.

    Raises:
        DataError: rounding to float32 changes a value by more than a hundredth of their standard deviation.
    """
    if not values.size or np.abs(values).max() <= EXACT:
        return
    exact = np.concatenate([dense_rows(table, column)[0].ravel() for table in tables])
    is_whole = pa.types.is_integer(leaf(tables[0].kind(column))[0])
    change = np.abs(exact - exact.astype(np.float32)).max()
    if is_whole and np.abs(exact).max() > EXACT_DOUBLE:  # float64 has rounded them, too
        change = max(change, float(np.spacing(np.abs(exact).max())))
    spread = float(exact.std())
    if change <= LARGEST_CHANGE * spread or (spread == 0 and _is_constant(tables, column)):
        return
    raise DataError(
        f"{tables[0].place}: column {column!r} has values up to {np.abs(exact).max():.6g} whose standard deviation is"
        f" {spread:.3g}, and float32 rounds them by up to {change:.3g}; subtract what they have in common, and write"
        " the differences"
    )


def _is_constant(tables: Sequence[ColumnTable], column: str) -> bool:
    """Whether all numbers of a column are the same, exactly."""
    flat = [array for table in tables for _, array in table.arrays(column)]
    for _ in range(leaf(tables[0].kind(column))[1]):
        flat = [array.flatten() for array in flat]
    return len({value for array in flat for value in array.to_pylist()}) == 1


def stacked(
    table: ColumnTable, columns: Sequence[str], expected: Sequence[tuple[Shape, str] | None]
) -> tuple[npt.NDArray[np.float32], list[tuple[Shape, str]]]:
    """Several columns of numbers, or of lists of one shape, side by side along a new first axis of a row.

    Args:
        expected: for each column as for `dense_rows`.

    Returns:
        float32 [N, len(columns), *shape], and for each column its shape and where that comes from.

    Raises:
        DataError: as `dense_rows`, or two columns of different shapes.
    """
    parts, shapes = [], []
    for column, wanted in zip(columns, expected, strict=True):
        values, shape = dense_rows(table, column, wanted)
        parts.append(values.astype(np.float32))
        shapes.append(wanted or (shape, f"as in {table.where(0)}"))
        if shape != shapes[0][0]:
            raise DataError(
                f"{table.place}: a row of column {columns[0]!r} is {list(shapes[0][0])}, one of {column!r} is"
                f" {list(shape)}; name columns of one shape as inputs"
            )
    return np.stack(parts, axis=1), shapes


def _shape_of_first(array: pa.Array, depth: int) -> Shape:
    """The lengths of the lists in the first value, from the outside in; 0 where there is none."""
    shape = []
    value = array[0].as_py()
    for _ in range(depth):
        shape.append(len(value) if value else 0)
        value = value[0] if value else None
    return tuple(shape)


def _flat(
    table: ColumnTable, column: str, array: pa.Array, first: int, expected: tuple[Shape, str] | None
) -> npt.NDArray[np.float64]:
    """All numbers of a batch in one dimension, after a check of every value and every list."""
    rows = np.arange(first, first + len(array))
    level = 0
    while True:
        if array.null_count:
            row = rows[int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))]
            what = "is empty (null)" if level == 0 else "has an empty value (null)"
            raise DataError(f"{table.where(row)}: column {column!r} {what}; fill it or drop the row")
        if not is_list(array.type):
            break
        lengths = pa.compute.list_value_length(array).to_numpy(zero_copy_only=False)
        if expected is not None and (wrong := lengths != expected[0][level]).any():
            place = int(np.argmax(wrong))
            raise DataError(
                f"{table.where(rows[place])}: column {column!r} has a list of {lengths[place]} values, expected"
                f" {expected[0][level]} for the shape {list(expected[0])}, {expected[1]}; pad or cut it, or drop the"
                " row"
            )
        array, rows, level = array.flatten(), np.repeat(rows, lengths), level + 1
    if pa.types.is_decimal(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8() if pa.types.is_boolean(array.type) else pa.float64())
    values = np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
    if (wrong := ~(np.abs(values) <= LARGEST)).any():
        place = int(np.argmax(wrong))
        shown = "not a number (NaN)" if np.isnan(values[place]) else f"{values[place]:g}, beyond the range of float32"
        raise DataError(f"{table.where(rows[place])}: column {column!r} is {shown}; correct it or drop the row")
    return values
