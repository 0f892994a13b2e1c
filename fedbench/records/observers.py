"""Observers of a run: their interface, and what they are told of the run and of what it is part of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fedbench.records.schema import ClientRecord, RoundRecord
from fedbench.tasks.kinds import TASKS, Headline, TaskName


@dataclass(frozen=True)
class RunDescription:
    """What is known of a run before its first round.

    Attributes:
        config: the complete configuration, nested plain values.
        title: one line, e.g. "FedAvg, sequential schedule, resnet8 on cifar10".
        note: the run in words, Markdown.
        tags: {algorithm, schedule, dataset, model, ...}.
        rounds: the number of rounds planned.
        directory: the run directory, a path as text.
        dataset_name, dataset_source, dataset_digest: for the tracker's dataset input.
        class_names: in label order.
        client_class_counts: one row per client, one column per class: how many samples of the class it trains on.
        test_samples: size of the test split.
        held_out_by_seed: whether the seed drew the rows of the test or validation split; another seed then has others.
        sent_bytes: protocol bytes up and down of the rounds before, where a run goes on.
        validation_samples: size of the validation split; 0: there is none.
        group_names: names of the layer groups, shallow to deep.
        client_tflop: about what all clients will compute, in 10^12 FLOP; None where nobody knows beforehand.
        own_code: {import path: digest of its content} of the parts of one's own that the run began with.
        label: what the suite calls the run that it was made for; "" for others.
        kept_bytes: about how many bytes of models and messages it keeps for later analysis.
        client_test_samples: for each client, how many of its rows are held out for scoring it; (): none of anyone's.
        task: what the model is trained for.
    """

    config: dict[str, Any]
    title: str
    note: str
    tags: dict[str, str]
    rounds: int
    directory: str
    dataset_name: str
    dataset_source: str
    dataset_digest: str
    class_names: tuple[str, ...]
    client_class_counts: tuple[tuple[int, ...], ...]
    test_samples: int
    held_out_by_seed: bool
    sent_bytes: int = 0
    own_code: dict[str, str] = field(default_factory=dict)
    validation_samples: int = 0
    group_names: tuple[str, ...] = ()
    client_tflop: float | None = None
    label: str = ""
    kept_bytes: int = 0
    client_test_samples: tuple[int, ...] = ()
    task: TaskName = "classification"

    @property
    def headline(self) -> Headline:
        """The metric by which the task is judged."""
        return TASKS[self.task].headline


@dataclass(frozen=True)
class Verdict:
    """MLflow tags and metrics of a run that are known only once it has ended."""

    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Membership:
    """What a run is part of: a sweep's trial, a suite's cell. Changes nothing but how MLflow shows it.

    Attributes:
        parent_run_id: the MLflow run under which this one is nested.
        run_name: of the MLflow run; None: the method and the run directory's name.
        tags: further MLflow tags of the run.
        judge: called with the summary after the run; returns extra MLflow tags and metrics.
        label: what the whole calls the run, without its seed; "": nothing of its own.
    """

    parent_run_id: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    judge: Callable[[Mapping[str, Any]], Verdict] | None = None
    label: str = ""


ALONE = Membership()


@runtime_checkable
class Observer(Protocol):
    """Follows a run as it goes; what an observer does must neither stop nor slow the run."""

    def run_started(self, run: RunDescription) -> None:
        """Called once, before the first round."""

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Called after every round."""

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Called once, however the run ended; `summary["status"]` is finished | interrupted | failed."""
