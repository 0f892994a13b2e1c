"""What a run gives back to Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedbench.records.headline import as_recorded, headline_of_summary, task_of_summary
from fedbench.tasks.kinds import TaskName

if TYPE_CHECKING:
    import pandas
    import torch


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        summary: as in `summary.json`.
        history: as in `rounds.parquet`.
        directory: the run directory.
        warnings: what could not be recorded, or deserves a second look.
        ui_command: opens MLflow's pages on the run; None without MLflow, or where a server shows them.
    """

    summary: dict[str, Any]
    history: pa.Table
    directory: Path
    warnings: tuple[str, ...]
    ui_command: str | None

    def __repr__(self) -> str:
        headline = headline_of_summary(self.summary)
        best = self.summary.get(f"best_{headline.name}")
        score = "not evaluated" if best is None else f"best {headline.words} {as_recorded(best, headline)}"
        return f"<Result: {self.summary['status']}, {self.summary['rounds']} rounds, {score}, {self.directory}>"

    @property
    def task(self) -> TaskName:
        """What the model was trained for; the summary of a classification has no entry of it."""
        return task_of_summary(self.summary)

    def frame(self) -> "pandas.DataFrame":
        """The history as a pandas DataFrame, one row a round; the column `round` counts from 0 as in the table."""
        return self.history.to_pandas()

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """The final global model, as its module's `load_state_dict` takes it."""
        from safetensors.torch import load_file

        tensors: dict[str, torch.Tensor] = load_file(self.directory / "model.safetensors")
        return tensors
