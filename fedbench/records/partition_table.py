"""The table of what each client got of the training data."""

import numpy as np
import pyarrow as pa

from fedbench.records.observers import RunDescription


def partition_table(run: RunDescription) -> pa.Table:
    """What each client got: `client`, `samples`, and the samples of each class, one column per class in label order.

    Where rows of clients are held out (`data.client_test_fraction`), these are its training samples, and behind
    `samples` comes `test_samples`, how many are held out. A class whose name is taken (by another class or by one of
    the first columns) gets its label behind it.
    """
    counts = np.asarray(run.client_class_counts, np.int64).reshape(-1, len(run.class_names))
    columns: dict[str, pa.Array] = {
        "client": pa.array(np.arange(len(counts)), pa.int32()),
        "samples": pa.array(counts.sum(axis=1), pa.int64()),
    }
    if run.client_test_samples:
        columns["test_samples"] = pa.array(run.client_test_samples, pa.int64())
    for label, name in enumerate(run.class_names):
        columns[name if name not in columns else f"{name} ({label})"] = pa.array(counts[:, label], pa.int64())
    return pa.table(columns)
