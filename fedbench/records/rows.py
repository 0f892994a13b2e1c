"""Rows of a table that grows while a run goes on."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedbench.records.schema import ArrivalRecord, ClientRecord, RoundRecord


class Rows:
    """Rows of one schema; those already turned into Arrow are not turned again at the next rewrite."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._new: list[dict[str, Any]] = []

    def append(self, *records: RoundRecord | ClientRecord | ArrivalRecord) -> None:
        """Add rows at the end."""
        self._new.extend(vars(record) for record in records)

    def extend_table(self, table: pa.Table) -> None:
        """Add the rows of a table of the same schema."""
        self.table()
        self._batches.extend(table.to_batches())

    def keepbefore(self, first_round: int) -> None:
        self._batches = before(self.table(), first_round).to_batches()

    def table(self) -> pa.Table:
        """All rows."""
        if self._new:
            self._batches.append(pa.RecordBatch.from_pylist(self._new, schema=self._schema))
            self._new = []
        return pa.Table.from_batches(self._batches, schema=self._schema)


def before(table: pa.Table, first_round: int) -> pa.Table:
    """The rows of the rounds before `first_round`."""
    return table.filter(pc.less(table["round"], first_round))
