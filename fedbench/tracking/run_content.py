"""What a run's recording in MLflow consists of: operations on an open run, and the files that are sent."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedbench.config.identity import OWN_CODE, flattened
from fedbench.records.kept import KEPT
from fedbench.records.observers import RunDescription
from fedbench.records.reader import CHECKPOINTS
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.store import LONGEST_DATASET_NAME, LONGEST_DIGEST, LONGEST_PARAMETER, plain_name

ROUND_SECONDS = "time/round_s"
"""The one metric that every round has."""


def skip_what_is_there(recording: MlflowRun) -> None:
    """Have no point sent again that a run which was found has already."""
    if recording.was_found:
        points = recording.client.get_metric_history(recording.id, ROUND_SECONDS)
        recording.sent_through = max((point.step for point in points), default=-1)


def log_parameters(recording: MlflowRun, run: RunDescription) -> None:
    """The configuration, and what one's own parts are, as parameters."""
    from mlflow.entities import Param

    config = run.config | ({OWN_CODE: run.own_code} if run.own_code else {})
    recording.client.log_batch(recording.id, params=[Param(name, value) for name, value in flatten(config)])


def log_dataset(recording: MlflowRun, run: RunDescription) -> None:
    """The data set as the input of the training."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    remote = urlsplit(run.dataset_source).scheme in ("http", "https")
    profile = {
        "train_samples": sum(map(sum, run.client_class_counts)),
        "test_samples": run.test_samples,
        "validation_samples": run.validation_samples,
        "clients": len(run.client_class_counts),
        "classes": len(run.class_names),
    }
    dataset = Dataset(
        name=run.dataset_name[:LONGEST_DATASET_NAME],
        digest=run.dataset_digest[:LONGEST_DIGEST],
        source_type="http" if remote else "local",
        source=json.dumps({"url" if remote else "uri": run.dataset_source}),
        profile=json.dumps(profile),
    )
    training = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
    recording.client.log_inputs(recording.id, [training])


def log_outcome(recording: MlflowRun, outcome: Mapping[str, float | None], timestamp: int) -> None:
    """Figures of the whole run.

    At step 0 MLflow's pages draw a metric as a bar; at the last step it would be one dot in a line chart.
    """
    from mlflow.entities import Metric

    known = recording.client.get_run(recording.id).data.metrics
    new = {name: value for name, value in outcome.items() if value is not None and known.get(name) != value}
    if new:
        metrics = [Metric(name, float(value), timestamp, 0) for name, value in new.items()]
        recording.client.log_batch(recording.id, metrics=metrics)


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A nested configuration as MLflow's parameters: dotted names and text, cut to what MLflow takes.

    >>> list(flatten({"seed": 3, "data": {"root": None, "sizes": [1, 2]}}))
    [('seed', '3'), ('data.root', 'null'), ('data.sizes', '[1, 2]')]
    """
    for name, value in flattened(config).items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        yield plain_name(name), text[:LONGEST_PARAMETER]


def recorded_files(directory: Path) -> list[Path]:
    """The files of a run directory that are sent.

    These are all but its checkpoints, the models and messages that are kept for later analysis, and files that are
    being written.
    """
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path.relative_to(directory).parts[0] not in (CHECKPOINTS, KEPT)
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
