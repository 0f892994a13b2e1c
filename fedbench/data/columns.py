"""The columns of a table that are a row's inputs, its label and its owner, and what they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from fedbench.data.column_table import ColumnTable, is_encoded, is_text
from fedbench.data.dense import is_list, is_number, leaf
from fedbench.errors import DataError

Content = Literal["image", "text", "integer", "float", "boolean", "integers", "floats", "texts", "other"]
"""What a column holds: image files, strings, numbers, lists (of lists ...) of numbers, lists of strings."""

NUMBERS: tuple[Content, ...] = ("integer", "float", "boolean")
"""What a column holds whose values are one number each."""

INPUT_NAMES = (
    *("image", "img", "pixel_values", "text", "sentence", "content"),
    *("inputs", "input", "features", "series", "values", "x"),
)
"""Names that a column of inputs is known by, where none is configured."""

LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "y", "mask", "annotation")
"""Names that a column of labels is known by."""

OWNER_NAMES = ("client", "client_id", "owner", "owner_id", "user", "user_id", "writer", "writer_id")
"""Names that a column of natural clients is known by."""

INDEX_COLUMN = "__index_level_"
"""The beginning of the names under which pandas writes row labels to Parquet; they are no data."""

UNNAMED_COLUMN = "Unnamed: "
"""The beginning of the names that pandas gives to columns of a CSV file without a name: its row labels, as a rule."""

SHOWN = 8
"""Columns that a line names at most."""


@dataclass(frozen=True)
class ChosenColumns:
    """The columns that are read.

    Attributes:
        inputs: one column, or several columns of numbers that are put side by side along a new first axis.
        stacked: whether `inputs` are put side by side, also where there is one of them.
        content: what the first of `inputs` holds.
        labels: one column, or several, one for each target; none: the data have no labels.
        owner: the column with each row's natural client; None: there is none.
        unused: the other columns of the table.
    """

    inputs: tuple[str, ...]
    stacked: bool
    content: Content
    labels: tuple[str, ...]
    owner: str | None
    unused: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The columns in words."""
        parts = [f"inputs {listed(self.inputs)}", f"label {listed(self.labels)}" if self.labels else "no label"]
        if self.owner is not None:
            parts.append(f"owner {self.owner}")
        if self.unused:
            parts.append(f"unused {listed(self.unused)}")
        return "; ".join(parts)


def listed(names: Sequence[str]) -> str:
    """Names with commas; of many the first ones, and how many there are."""
    return ", ".join(name if name.strip() else "a column without a name" for name in names[:SHOWN]) + (
        f", ... ({len(names)} columns)" if len(names) > SHOWN else ""
    )


def content_of(table: ColumnTable, column: str) -> Content:
    """What a column holds, by its type in the Hugging Face metadata where there is any, or else by that in Arrow."""
    feature = table.features.get(column)
    if isinstance(feature, Mapping) and feature.get("_type") in ("Audio", "Video", "Translation", "Pdf", "Nifti"):
        return "other"
    kind = table.kind(column)
    if is_encoded(kind):
        return "image"
    if is_text(kind):
        return "text"
    if is_number(kind):
        types = pa.types
        return "boolean" if types.is_boolean(kind) else "integer" if types.is_integer(kind) else "float"
    inner, _ = leaf(kind)
    if not is_list(kind):
        return "other"
    if is_text(inner):
        return "texts"
    if not is_number(inner):
        return "other"
    return "integers" if pa.types.is_integer(inner) or pa.types.is_boolean(inner) else "floats"


def inner_class_names(table: ColumnTable, column: str) -> tuple[str, ...] | None:
    """The names of the classes of a column of lists of class indices in the Hugging Face metadata; None: none."""
    feature: Any = table.features.get(column)
    inner = feature[0] if isinstance(feature, list) and feature else None
    inner = feature.get("feature") if isinstance(feature, Mapping) else inner
    names = inner.get("names") if isinstance(inner, Mapping) else None
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def choose_columns(
    table: ColumnTable,
    inputs: str | Sequence[str] | None,
    label: str | Sequence[str] | None,
    owner: str | None,
) -> ChosenColumns:
    """The columns that are configured, and for those that are not, the columns that their names and types tell.

    Args:
        table: the first table of the training split.
        inputs: one column, or a list of columns of numbers; None: see `INPUT_NAMES`, or else all other columns where
            they hold numbers, or where there is one of them.
        label: one column, or a list; an empty list: there is none; None: see `LABEL_NAMES`, or else the only column
            whose classes are named in the metadata.
        owner: None: see `OWNER_NAMES`.

    Raises:
        DataError: a column is not there, or its content cannot be used for this, or it is not clear which is meant.
    """
    configured = {
        "inputs": (inputs,) if isinstance(inputs, str) else tuple(inputs or ()),
        "label": (label,) if isinstance(label, str) else tuple(label or ()),
        "owner": (owner,) if owner is not None else (),
    }
    taken = [name for names in configured.values() for name in names]
    unnamed = [name for name in table.columns if is_unnamed(name) and name not in taken]
    there = [name for name in table.columns if not name.startswith(INDEX_COLUMN) and name not in unnamed]
    _check_configured(table, there, configured)
    free = [name for name in there if name not in taken]
    owned = configured["owner"] or tuple(name for name in free if name.lower() in OWNER_NAMES)[:1]
    free = [name for name in free if name not in owned]
    labels = configured["label"] if label is not None else _found_label(table, free)
    free = [name for name in free if name not in labels]
    chosen = configured["inputs"] or _found_inputs(table, free)
    several = len(chosen) > 1 or (inputs is not None and not isinstance(inputs, str))
    content = _checked_inputs(table, chosen, several)
    rest = [name for name in free if name not in chosen]
    if not labels and label is None and (content != "text" or rest):
        remedy = "; data.dataset.label=[] to predict each next token of the text" if content == "text" else ""
        raise DataError(
            f"{table.place}: no label column: none of {listed(there)} is named {', '.join(LABEL_NAMES)}; set"
            f" data.dataset.label=COLUMN{remedy}"
        )
    is_stacked = several or content in NUMBERS
    return ChosenColumns(chosen, is_stacked, content, labels, owned[0] if owned else None, (*rest, *unnamed))


def is_unnamed(column: str) -> bool:
    """Whether a column has no name, or one that pandas gives to such a column: it is read only where it is named."""
    return not column.strip() or column.startswith(UNNAMED_COLUMN)


def _check_configured(table: ColumnTable, there: list[str], configured: Mapping[str, tuple[str, ...]]) -> None:
    seen: dict[str, str] = {}
    for key, names in configured.items():
        for name in names:
            if name not in there:
                raise DataError(f"{table.place}: no column {name!r} (data.dataset.{key}); found {listed(there)}")
            if there.count(name) > 1:
                raise DataError(f"{table.place}: {there.count(name)} columns are named {name!r}; keep one of them")
            if name in seen:
                raise DataError(
                    f"{table.place}: column {name!r} is named twice, in data.dataset.{seen[name]} and in"
                    f" data.dataset.{key}; name it once"
                )
            seen[name] = key


def _found_label(table: ColumnTable, free: list[str]) -> tuple[str, ...]:
    named = [name for name in free if name.lower() in LABEL_NAMES]
    found = named or [name for name in free if table.class_names(name) is not None]
    if len(found) > 1:
        raise DataError(
            f"{table.place}: {listed(found)} may each be the label; set data.dataset.label=COLUMN, or a list for"
            " several targets"
        )
    return tuple(found)


def _found_inputs(table: ColumnTable, free: list[str]) -> tuple[str, ...]:
    usable = [name for name in free if content_of(table, name) not in ("other", "texts")]
    named = [name for name in usable if name.lower() in INPUT_NAMES]
    if len(named) == 1 and content_of(table, named[0]) not in NUMBERS:
        return (named[0],)
    if len(usable) == 1 and len(free) == 1:
        return (usable[0],)
    numbers = [name for name in free if content_of(table, name) in NUMBERS]
    if numbers and len(numbers) == len(free):
        return tuple(numbers)
    for name in free:
        _refuse_empty(table, name)
    held = ", ".join(f"{name} ({table.kind(name)})" for name in free[:SHOWN]) or "none"
    raise DataError(
        f"{table.place}: it is not clear which columns are the inputs; beside label and owner there are: {held}; set"
        " data.dataset.inputs=COLUMN, or a list of columns of numbers"
    )


def _checked_inputs(table: ColumnTable, chosen: tuple[str, ...], several: bool) -> Content:
    """What the columns of inputs hold, if they can be inputs."""
    for name in chosen:
        content = content_of(table, name)
        _refuse_empty(table, name)
        if content in ("other", "texts"):
            raise DataError(
                f"{table.place}: column {name!r} is {_shown(table, name)}, which cannot be inputs; images, strings,"
                " numbers and lists of numbers can"
            )
        if several and content in ("image", "text"):
            raise DataError(
                f"{table.place}: column {name!r} is {_shown(table, name)}; a list of inputs takes columns of numbers,"
                " or of lists of numbers; an image or a text stands alone: data.dataset.inputs=COLUMN"
            )
    return content_of(table, chosen[0])


def _refuse_empty(table: ColumnTable, column: str) -> None:
    if pa.types.is_null(table.kind(column)):
        raise DataError(
            f"{table.place}: column {column!r} is empty in every row; name the inputs without it (data.dataset.inputs)"
        )


def _shown(table: ColumnTable, column: str) -> str:
    feature = table.features.get(column)
    kind = feature.get("_type") if isinstance(feature, Mapping) else None
    return kind if kind in ("Audio", "Video", "Translation", "Pdf", "Nifti") else str(table.kind(column))
