"""One JSON file of the benchmark LEAF: the samples of some users, as a table of inputs, labels and users."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedbench.data.column_table import BATCH_ROWS, ColumnTable
from fedbench.data.dense import is_list
from fedbench.errors import DataError

ADVICE = "write it as LEAF does: {users, num_samples, user_data: {USER: {x, y}}}"


class LeafTable(ColumnTable):
    """One JSON file with `users`, `num_samples` and `user_data`; its columns are `x`, `y` and `user`.

    Whatever is wrong with it is a `DataError` that names the file, the user and the sample.
    """

    def __init__(self, path: Path, field: int | None = None) -> None:
        """Args:
        path: the file.
        field: the place of the text in an `x` that is a list of texts, counted from 0; None: `x` is taken as it is.
        """
        self.path = path
        self.place = str(path)
        self.names: tuple[str, ...] | None = None
        """The names of the classes, in label order, where the labels of all files tell them."""
        self._samples: list[tuple[str, int]] = []
        self._table = self._read(field)
        self.rows = self._table.num_rows
        self.schema = self._table.schema

    def where(self, row: int) -> str:
        """See `ColumnTable.where`: the user and the sample, counted from 0."""
        user, sample = self._samples[row]
        return f"{self.path}, user {user}, sample {sample}"

    def arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """See `ColumnTable.arrays`."""
        first = 0
        for batch in self._table.select([column]).to_batches(max_chunksize=BATCH_ROWS):
            yield first, batch.column(0)
            first += batch.num_rows

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """See `ColumnTable.class_names`: those of all files, since LEAF's test users may have labels of their own."""
        return self.names if column == "y" else None

    @cached_property
    def labels(self) -> set[Any]:
        """The labels that occur; none where they are lists or mappings."""
        kind = self.kind("y")
        if is_list(kind) or pa.types.is_struct(kind):
            return set()
        return set(self._table.column("y").to_pylist())

    def _read(self, field: int | None) -> pa.Table:
        content = self._content()
        x: list[Any] = []
        y: list[Any] = []
        self._refuse_other_users(content)
        for user, count in zip(content["users"], content["num_samples"], strict=True):
            samples = content["user_data"].get(str(user))
            if samples is None and count == 0:
                continue
            if not isinstance(samples, Mapping) or not all(isinstance(samples.get(key), list) for key in "xy"):
                raise DataError(f"{self.path}: user_data has no lists x and y of user {user!r}; {ADVICE}")
            if not len(samples["x"]) == len(samples["y"]) == count:
                raise DataError(
                    f"{self.path}: user {user!r} has {len(samples['x'])} x and {len(samples['y'])} y, num_samples says"
                    f" {count}; get the file again"
                )
            x.extend(samples["x"])
            y.extend(samples["y"])
            self._samples.extend((str(user), sample) for sample in range(len(samples["y"])))
        if field is not None:
            x = [self._text(value, row, field) for row, value in enumerate(x)]
        elif x and isinstance(x[0], list) and x[0] and isinstance(x[0][0], str):
            raise DataError(
                f"{self.where(0)}: x is a list of {len(x[0])} texts; say which of them is read:"
                " data.dataset.field=INDEX (4 of Sent140)"
            )
        users = [user for user, _ in self._samples]
        columns = {name: self._column(name, values) for name, values in (("x", x), ("y", y), ("user", users))}
        if not users:
            columns["user"] = columns["user"].cast(pa.string())
        return pa.table(columns)

    def _content(self) -> Mapping[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: not a readable JSON file ({str(error)[:120]}); get it again") from error
        kinds: dict[str, type] = {"users": list, "num_samples": list, "user_data": dict}
        for key, kind in kinds.items():
            if not isinstance(content, Mapping) or not isinstance(content.get(key), kind):
                raise DataError(f"{self.path}: no {key}; {ADVICE}")
        if len(content["users"]) != len(content["num_samples"]):
            raise DataError(
                f"{self.path}: {len(content['users'])} users and {len(content['num_samples'])} num_samples; {ADVICE}"
            )
        return dict(content)

    def _refuse_other_users(self, content: Mapping[str, Any]) -> None:
        """Refuse users that are named twice, whose samples would count twice, and samples of users that are not named.

        Raises:
            DataError: names the first such user.
        """
        counts = Counter(str(user) for user in content["users"])
        for user, count in counts.items():
            if count > 1:
                raise DataError(f"{self.path}: user {user!r} stands {count} times in users; name each user once")
        unnamed = [user for user in content["user_data"] if user not in counts]
        if unnamed:
            raise DataError(
                f"{self.path}: user_data has {len(unnamed)} user(s) that users does not name ({unnamed[0]!r}); add them"
                " to users and num_samples, or drop their samples"
            )

    def _text(self, value: Any, row: int, field: int) -> str:
        if not isinstance(value, list) or not -len(value) <= field < len(value) or not isinstance(value[field], str):
            raise DataError(
                f"{self.where(row)}: x has no text at data.dataset.field={field}; name another, or leave it out"
            )
        return str(value[field])

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        """Values of one type as a column."""
        try:
            return pa.array(values)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.path}: {name} has half a character ({error.object!r:.60}); write whole ones"
            ) from error
        except (pa.ArrowException, OverflowError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"{self.path}: {name} is not of one type in all samples ({reason}); {ADVICE}") from error
