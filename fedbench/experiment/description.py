"""A run in words and plain values, and the versions of what its result depends on."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedbench import __version__
from fedbench.config.passwords import masked
from fedbench.experiment.base_records import base_in_words
from fedbench.records.observers import RunDescription

if TYPE_CHECKING:
    from fedbench.experiment.setup import Problem


def describe(problem: "Problem", directory: Path) -> RunDescription:
    """The run in words and plain values."""
    from fedbench.experiment.kept_files import foreseen_kept
    from fedbench.experiment.setup import pace
    from fedbench.experiment.work import estimated_tflop

    config, data = problem.config, problem.federation.data
    names = {
        "algorithm": config.method.name,
        "schedule": config.schedule.name,
        "exchange": config.chosen_exchange.name,
        "dataset": config.data.dataset.name,
        "model": config.model.name,
        "partition": config.data.partition.name,
    }
    exchange = "" if names["exchange"] == "trained" else f"{names['exchange']} exchange, "
    title = f"{names['algorithm']}, {names['schedule']} schedule, {exchange}{names['model']} on {names['dataset']}"
    sizes = problem.federation.sizes
    size = f"{sizes[0]:,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    note = (
        f"**{title}**\n\n"
        f"{len(sizes)} clients ({config.data.partition.name} partition, {size} samples each), "
        f"{pace(problem)}. "
        f"The model has {problem.layout.size:,} parameters in {problem.layout.groups} layer groups"
        f"{base_in_words(problem)}. "
        f"Seed {config.seed}; configuration {problem.digest}.{own_code_in_words(problem.own_code)}\n\n"
        f"Files: `{directory}`"
    )
    return RunDescription(
        config=masked(config.to_mapping()),
        title=title,
        note=note,
        tags=names,
        rounds=problem.rounds,
        directory=str(directory),
        dataset_name=data.name,
        dataset_source=data.source,
        dataset_digest=data.fingerprint,
        held_out_by_seed=data.test_split_by_seed or data.validation_by_seed,
        class_names=problem.federation.strata.names,
        task=problem.spec.task.target,
        client_class_counts=problem.federation.counts,
        client_test_samples=() if config.method.pools_rows else tuple(map(len, problem.federation.test_rows)),
        test_samples=len(data.test),
        validation_samples=data.scored_rows.get("validation", 0),
        own_code=problem.own_code,
        group_names=problem.layout.group_names,
        client_tflop=estimated_tflop(problem),
        kept_bytes=foreseen_kept(problem).nbytes,
    )


def own_code_in_words(own_code: Mapping[str, str]) -> str:
    """A sentence on the parts of one's own, with a blank before it; "" where there are none.

    >>> own_code_in_words({"mine:Step": "0123456789abcdef"})
    ' Own code: mine:Step 0123456789abcdef.'
    """
    parts = ", ".join(f"{part} {content}" for part, content in own_code.items())
    return f" Own code: {parts}." if parts else ""


def versions() -> dict[str, str]:
    """The versions of the libraries that a result depends on."""
    import torch

    return {
        "fedbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
