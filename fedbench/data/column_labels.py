"""Labels of any kind of task, read from columns whose types tell the task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbench.data.base import Labels
from fedbench.data.column_table import ColumnTable, row_name
from fedbench.data.columns import NUMBERS, ChosenColumns, content_of, inner_class_names
from fedbench.data.dense import Shape, check_precision, dense_rows
from fedbench.data.masks import NOT_SCORED, decode_masks
from fedbench.errors import DataError
from fedbench.tasks.kinds import TaskName


@dataclass(frozen=True)
class LabelRule:
    """How the label columns of a table become numbers, as the training split tells it.

    Attributes:
        task: classification, multilabel, regression or segmentation.
        columns: the columns of the labels.
        names: names of the classes, of the labels or of the targets; of masks the class numbers, once these are read.
        values: the value that stands for each class in the column: a text, a whole number or a truth value.
        form: how the values are stored: single values ("plain"), lists of numbers ("lists"), lists of class indices or
            class names ("sets"), image files ("masks").
        shape: the shape of the labels of one row, and where it comes from, where they are lists.
    """

    task: TaskName
    columns: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[object, ...] = ()
    form: str = "plain"
    shape: tuple[Shape, str] | None = None

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The numbers that stand for the classes in the column; None: texts or truth values do."""
        if self.task != "classification" or not all(type(value) is int for value in self.values):
            return None
        return tuple(float(value) for value in self.values if isinstance(value, int))


def label_rule(tables: Sequence[ColumnTable], columns: ChosenColumns) -> LabelRule:
    """How the labels of the training split are to be read.

    Raises:
        DataError: a column that can be no label, or values that belong to no task.
    """
    first = tables[0]
    if len(columns.labels) > 1:
        return _several(tables, columns.labels)
    (column,) = columns.labels
    content = content_of(first, column)
    if content in ("text", "integer", "boolean"):
        return _classes(tables, column)
    if content == "float":
        return LabelRule("regression", (column,), (column,))
    if content == "image":
        _refuse_without_images(first, column, columns)
        return LabelRule("segmentation", (column,), (), form="masks")
    if content == "texts" or (content == "integers" and inner_class_names(first, column) is not None):
        return _sets(tables, column)
    if content in ("integers", "floats"):
        return _lists(tables, column, columns)
    raise DataError(
        f"{first.place}: column {column!r} is {first.kind(column)}, which can be no label; numbers, strings, lists of"
        " numbers, and images (masks) can"
    )


def read_labels(tables: Sequence[ColumnTable], rule: LabelRule, split: str) -> Labels:
    """The labels of a split: int64 [N], uint8 [N, K], float32 [N, K] or uint8 [N, H, W], as the task has them.

    Raises:
        DataError: a label is missing, or not one of those of the training split; names the row.
    """
    if rule.form == "masks":
        return decode_masks((pair for table in tables for pair in table.images(rule.columns[0])), _count(tables))
    if rule.form == "sets":
        return np.concatenate([_multi_hot(table, rule) for table in tables])
    if rule.form == "lists":
        rows = np.concatenate([dense_rows(table, rule.columns[0], rule.shape)[0] for table in tables])
        return _as_labels(tables, rows, rule)
    if rule.task == "classification":
        return np.concatenate([_indices(table, rule, split) for table in tables])
    parts = [np.stack([dense_rows(table, name)[0] for name in rule.columns], axis=-1) for table in tables]
    targets = np.concatenate(parts)
    if rule.task == "regression" and split == "train":
        for place, name in enumerate(rule.columns):
            check_precision(tables, name, targets[:, place])
    return _as_labels(tables, targets, rule)


def _count(tables: Sequence[ColumnTable]) -> int:
    return sum(table.rows for table in tables)


def _several(tables: Sequence[ColumnTable], columns: tuple[str, ...]) -> LabelRule:
    """Several columns: multi-label where all their values are 0 or 1, else targets of a regression."""
    for column in columns:
        if (content := content_of(tables[0], column)) not in NUMBERS:
            raise DataError(
                f"{tables[0].place}: column {column!r} is {tables[0].kind(column)} ({content}); a list of labels takes"
                " columns of numbers"
            )
    whole = all(content_of(tables[0], column) != "float" for column in columns)
    is_binary = whole and all(
        np.isin(dense_rows(table, column)[0], (0, 1)).all() for table in tables for column in columns
    )
    return LabelRule("multilabel" if is_binary else "regression", columns, columns)


def _classes(tables: Sequence[ColumnTable], column: str) -> LabelRule:
    """Classes: those of the metadata, or else the values that occur, in sorted order."""
    names = tables[0].class_names(column)
    for table in tables[1:]:
        if table.class_names(column) != names:
            raise DataError(f"{table.place}: other class names than in {tables[0].place}; these are two data sets")
    is_text = content_of(tables[0], column) == "text"
    if names is not None:
        if len(names) < 2:
            raise DataError(f"{tables[0].place}: column {column!r} has the classes {list(names)}, expected 2 or more")
        return LabelRule("classification", (column,), names, names if is_text else tuple(range(len(names))))
    values = sorted({value for table in tables for value in _plain_values(table, column)})
    if len(values) < 2:
        shown = f"a single value ({values[0]})" if values else "no values"
        raise DataError(
            f"{tables[0].place}: column {column!r} has {shown} in the train split, expected 2 classes or more"
        )
    return LabelRule("classification", (column,), tuple(_named(value) for value in values), tuple(values))


def _plain_values(table: ColumnTable, column: str) -> list[str] | list[int] | list[bool]:
    content = content_of(table, column)
    if content == "text":
        return list(table.texts(column))
    if content not in ("integer", "boolean"):
        raise DataError(f"{table.place}: column {column!r} is {table.kind(column)}, unlike in the first file of train")
    if content == "boolean":
        return [bool(value) for value in dense_rows(table, column)[0]]
    return table.whole_numbers(column)


def _named(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _indices(table: ColumnTable, rule: LabelRule, split: str) -> npt.NDArray[np.int64]:
    """The class of each row."""
    (column,) = rule.columns
    index = {value: label for label, value in enumerate(rule.values)}
    values = _plain_values(table, column)
    for row, value in enumerate(values):
        if value not in index:
            shown = ", ".join(_named(known) for known in rule.values[:5]) + (", ..." if len(index) > 5 else "")
            known = "named in the metadata" if table.class_names(column) is not None else "of the train split"
            raise DataError(
                f"{table.where(row)}: column {column!r} has the label {value!r}, expected one of the {len(index)}"
                f" {known} ({shown}); correct it or drop the row{_without_labels(value, split)}"
            )
    return np.array([index[value] for value in values], dtype=np.int64)


def _without_labels(value: object, split: str) -> str:
    """What a label of -1 in a test split says: hubs publish the rows of a competition without their labels."""
    if value != -1 or split != "test":
        return ""
    return " (-1 in a test split says that its labels are not published: move the split away)"


def _sets(tables: Sequence[ColumnTable], column: str) -> LabelRule:
    """Lists of class indices, or of class names: multi-label."""
    given = inner_class_names(tables[0], column)
    occurring = {text for table in tables for _, items in _items(table, column) for text in items}
    names = tuple(sorted(occurring)) if given is None else given
    _require_labels(tables, column, names)
    if given is None:
        return LabelRule("multilabel", (column,), names, names, form="sets")
    values = names if content_of(tables[0], column) == "texts" else tuple(range(len(names)))
    return LabelRule("multilabel", (column,), names, values, form="sets")


def _require_labels(tables: Sequence[ColumnTable], column: str, names: Sequence[str]) -> None:
    """Refuse a multilabel column with fewer than two labels: whether a single label applies is a classification.

    Raises:
        DataError: names the column.
    """
    if len(names) < 2:
        raise DataError(
            f"{tables[0].place}: the lists in column {column!r} have {len(names)} label(s) in the train split, expected"
            " 2 or more; write a single one as a column of 0 and 1, which are classes"
        )


def _items(table: ColumnTable, column: str) -> list[tuple[int, list[str]]]:
    rows = []
    for first, array in table.arrays(column):
        for offset, items in enumerate(array.to_pylist()):
            if items is None or None in items:
                raise DataError(
                    f"{table.where(first + offset)}: column {column!r} is or has an empty value (null); fill it or drop"
                    " the row"
                )
            rows.append((first + offset, items))
    return rows


def _multi_hot(table: ColumnTable, rule: LabelRule) -> npt.NDArray[np.uint8]:
    """uint8 [N, K], 1 for each class that a row's list names."""
    (column,) = rule.columns
    index = {value: label for label, value in enumerate(rule.values)}
    labels = np.zeros((table.rows, len(index)), np.uint8)
    for row, items in _items(table, column):
        for item in items:
            if item not in index:
                raise DataError(
                    f"{table.where(row)}: column {column!r} has the label {item!r}, which is none of the {len(index)}"
                    " of the train split; correct it or drop the row"
                )
            labels[row, index[item]] = 1
    return labels


def _lists(tables: Sequence[ColumnTable], column: str, columns: ChosenColumns) -> LabelRule:
    """Lists of numbers: 0 and 1 for several labels, floating-point numbers for targets, a list of lists for a mask."""
    first = tables[0]
    rows, shape = dense_rows(first, column)
    rule = LabelRule("regression", (column,), (), form="lists", shape=(shape, f"as in {first.where(0)}"))
    if len(shape) == 2 and content_of(first, column) == "integers":
        _refuse_without_images(first, column, columns)
        return replace(rule, task="segmentation")
    if len(shape) != 1:
        raise DataError(
            f"{first.place}: labels in column {column!r} are {list(shape)} each; a list for several targets, or a list"
            " of lists of whole numbers for a mask, can be a label"
        )
    if content_of(first, column) == "floats":
        return replace(rule, names=tuple(f"{column}[{index}]" for index in range(shape[0])))
    if not np.isin(rows, (0, 1)).all():
        row = int(np.argmin(np.isin(rows, (0, 1)).all(axis=1)))
        raise DataError(
            f"{first.where(row)}: column {column!r} has lists of whole numbers that are not all 0 or 1; write several"
            " labels as 0 and 1 for each, or name them in the Hugging Face metadata, and targets as floating-point"
            " numbers"
        )
    names = tuple(str(index) for index in range(shape[0]))
    _require_labels(tables, column, names)
    return replace(rule, task="multilabel", names=names)


def _as_labels(tables: Sequence[ColumnTable], rows: npt.NDArray[np.float64], rule: LabelRule) -> Labels:
    """Numbers in the type that the task has: float32 targets, uint8 labels of 0 and 1, uint8 classes of pixels."""
    if rule.task == "regression":
        return rows.astype(np.float32)
    highest = 1 if rule.task == "multilabel" else NOT_SCORED
    sound = (rows >= 0) & (rows <= highest) & (rows == np.floor(rows))
    if not sound.all():
        place = int(np.argmin(sound.reshape(len(rows), -1).all(axis=1)))
        wrong = rows[place][~sound[place]].ravel()[0]
        raise DataError(
            f"{row_name(tables, place)}: {rule.task} label {wrong:g} in {', '.join(rule.columns)}; 0..{highest} is"
            " allowed; correct it or drop the row"
        )
    return rows.astype(np.uint8)


def _refuse_without_images(table: ColumnTable, column: str, columns: ChosenColumns) -> None:
    if columns.content != "image":
        raise DataError(
            f"{table.place}: column {column!r} holds masks, which are labels of images; the inputs"
            f" {', '.join(columns.inputs)} are {columns.content}"
        )
