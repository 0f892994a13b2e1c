"""Recorded availabilities for tests."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.planning.availability import Trace


def a_trace(folder: Path, rows: list[tuple[int, float, float]], **options: float) -> Trace:
    """A trace of rows (client, start, end), written into a folder."""
    path = folder / "trace.parquet"
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("client", "start", "end"))}
    pq.write_table(pa.table(columns), path)
    return Trace(path=path, **options)  # type: ignore[arg-type]
