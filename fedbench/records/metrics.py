"""The figures of a run, each defined once: what it is, its unit, its course by round, its value at a target.

A figure of the whole run stands in `summary.json`; its course is read from `rounds.parquet`. Studies, suites and
reports take their figures from here, and add only how they show them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from fedbench.records.client_scores import CLIENT_FIGURES, SPREAD
from fedbench.records.courses import (
    Course,
    as_recorded,
    at_the_best_round,
    best_round,
    latest,
    mean_jump,
    mean_so_far,
    rounds_done,
    running_total,
    running_total_where_known,
)
from fedbench.records.headline import ACCURACY, first_round_reaching, headline_of
from fedbench.tasks.kinds import TASKS, WORDS, Headline
from fedbench.training.metric_names import EVALUATION_METRICS, PER_CLASS, SCALARS, TASK_METRICS


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    Attributes:
        name: identifies it: in `summary.json`, and as an objective of a study.
        meaning: what it is, in a few words.
        unit: in which it is recorded; "" for counts and losses.
        course: reads its value at the end of each round from a table with `ROUND_SCHEMA`; None: only the whole run
            has it.
        grows: it never falls from round to round, so one may ask what it was when a target was reached.
        bigger_is_better: more of it is what a method is for; False: it is a cost, a loss or a mere description.
        is_error: less of it is what a method is for: an error of the model on data that it has not seen.
        is_asynchronous: only asynchronous runs have it.
        needs: what a run must have for it: "clock", a virtual one, which runs in rounds have by `delays.profile`;
            "profile", `delays.profile` itself; "": nothing.
        is_summarised: `summary.json` has it, or the sum of `parts`.
        parts: the entries of `summary.json` that it is the sum of; (): the entry of its own name.
        undefined: why some runs have no such figure, in words; "" where every run that has ended has it.
    """

    name: str
    meaning: str
    unit: str = ""
    course: Callable[[pa.Table], Course] | None = None
    grows: bool = False
    bigger_is_better: bool = False
    is_error: bool = False
    is_asynchronous: bool = False
    needs: Literal["", "clock", "profile"] = ""
    is_summarised: bool = True
    parts: tuple[str, ...] = ()
    undefined: str = ""

    @property
    def is_score(self) -> bool:
        """Whether it says how good the model is, in either direction; a longer run tends to have a better one."""
        return self.bigger_is_better or self.is_error

    def of_summary(self, summary: Mapping[str, Any]) -> float | None:
        """The figure of the whole run; None where its summary lacks it.

        Args:
            summary: as in `summary.json`.
        """
        values = [summary.get(part) for part in self.parts or (self.name,)]
        known = [float(value) for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    def by_round(self, rounds: pa.Table) -> Course:
        """The figure at the end of each round.

        Args:
            rounds: with `ROUND_SCHEMA`.
        """
        if self.course is None:
            return [None] * rounds.num_rows
        return self.course(rounds)


NO_STEP_NORMS = "Only with analysis.step_norms=true are the norms of steps recorded"

NO_JUMPS = f"{NO_STEP_NORMS}; a jump needs two such rounds after one another that trained the same layer groups"

NO_CLIENT_SCORES = "Only with data.client_test_fraction are clients scored on held-out rows of their own"

NO_METRIC = "Only a metric that evaluation.metrics names is computed"

ROUND_WORDS = {"best": "best", "final": "last"}

BEST_MEANING = "test {} of the best round so far: best on validation, or on test without such a split"

FRACTIONS = ("accuracy", "mean_iou")
BIGGER_IS_BETTER = ("accuracy", "mean_iou", "r2")
"""The metrics of tasks whose larger values are better; those in 0..1 are `FRACTIONS`."""

WORST_CLASS = "worst_class_recall"
WORST_MEANING = "recall of the worst class that has rows"
"""The lowest of the classes' recalls, which `evaluation.metrics: per_class_recall` gives."""

CLIENTS_MEANING = {
    "mean": "mean over the clients",
    "std": "standard deviation over the clients",
    "worst_decile": "mean over the worst tenth of the clients",
    "worst": "the worst client",
    "participants": "mean over the last round's participants",
    "absentees": "mean over all but the last round's participants",
}
MODEL_MEANING = {
    "client_accuracy": "",
    "client_accuracy_before": ", of the participants' models before training",
    "client_accuracy_after": ", of the participants' trained models",
}


def _client_metric(column: str) -> "Metric":
    """The metric of a column of `CLIENT_FIGURES`: its value in the last round in which clients were scored."""
    prefix = max((prefix for prefix in MODEL_MEANING if column.startswith(f"{prefix}_")), key=len)
    figure = column.removeprefix(f"{prefix}_")
    meaning = f"accuracy on clients' held-out rows, {CLIENTS_MEANING[figure]}{MODEL_MEANING[prefix]}"
    return Metric(
        column, meaning, "fraction", latest(column), bigger_is_better=figure != "std", undefined=NO_CLIENT_SCORES
    )


def _client_score(headline: Headline, figure: str) -> "Metric":
    """How the global model's score by a task's own metric is spread over clients, in the last round that has it."""
    recorded = latest(f"client_score_{figure}")

    def read(rounds: pa.Table) -> Course:
        return recorded(rounds) if headline_of(rounds) == headline else [None] * rounds.num_rows

    meaning = f"{headline.words} on clients' held-out rows, {CLIENTS_MEANING[figure]}"
    is_score = figure != "std"
    return Metric(
        f"client_{headline.name}_{figure}", meaning, "fraction" if headline.percent else "", read,
        bigger_is_better=is_score and headline.higher_is_better, is_error=is_score and not headline.higher_is_better,
        undefined=NO_CLIENT_SCORES,
    )  # fmt: skip


def _worst_class(of_recalls: Callable[[pa.Table], list[Any]]) -> Callable[[pa.Table], Course]:
    """The lowest recall of a class that has rows."""

    def read(rounds: pa.Table) -> Course:
        known = [[recall for recall in recalls or () if not math.isnan(recall)] for recalls in of_recalls(rounds)]
        return [min(recalls) if recalls else None for recalls in known]

    return read


def _evaluation_metrics(name: str, meaning: str) -> "Iterator[Metric]":
    """A metric of `evaluation.metrics` on both splits, in the best round by accuracy and in the last one."""
    per_class, unit = name == WORST_CLASS, "" if name == "macro_f1" else "fraction"
    for split in ("", "validation_"):
        column = f"{split or 'test_'}{PER_CLASS if per_class else name}"
        for when, course in (("best", at_the_best_round(column)), ("final", latest(column))):
            words = (
                f"{meaning}, {'validation' if split else 'test'}, in the {'best' if when == 'best' else 'last'} round"
            )
            yield Metric(
                f"{when}_{split}{name}", words, unit, _worst_class(course) if per_class else course,
                bigger_is_better=name != "expected_calibration_error", undefined=NO_METRIC,
            )  # fmt: skip


def _scores(name: str, words: str) -> "Iterator[Metric]":
    """A metric that evaluations of some tasks have, on both splits, in the best round so far and in the last one."""
    kinds = [kind for kind in TASKS.values() if name in kind.metrics]
    is_headline = any(kind.headline.name == name for kind in kinds)
    unit = "fraction" if name in FRACTIONS else ""
    higher = name in BIGGER_IS_BETTER
    of_tasks = " and ".join(f"task={kind.name}" for kind in kinds)
    undefined = "" if name == ACCURACY.name else f"Only an evaluation with {of_tasks} has it"
    best_validation = "best validation {}" if is_headline else "validation {} of the best round"
    for figure, meaning, course in (
        (f"best_{name}", BEST_MEANING, at_the_best_round(f"test_{name}")),
        (f"final_{name}", "last test {}", latest(f"test_{name}")),
        (f"best_validation_{name}", f"{best_validation} so far", at_the_best_round(f"validation_{name}")),
        (f"final_validation_{name}", "last validation {}", latest(f"validation_{name}")),
    ):
        yield Metric(
            figure, meaning.format(words), unit, course,
            bigger_is_better=higher, is_error=not higher, undefined=undefined,
        )  # fmt: skip


def headline_figures(headline: Headline) -> tuple[str, str, str, str]:
    """The figures of a task's headline: best and last on test, best and last on validation.

    >>> headline_figures(TASKS["next_token"].headline)[:2]
    ('best_perplexity', 'final_perplexity')
    """
    return figures_of(headline.name)


def figures_of(name: str) -> tuple[str, str, str, str]:
    """The figures of a metric that a task always has, in the same order.

    Args:
        name: as in the columns of `rounds.parquet` behind the split.
    """
    return f"best_{name}", f"final_{name}", f"best_validation_{name}", f"final_validation_{name}"


NO_DIVERGENCE = "Only with analysis.divergence=true is recorded how far the clients' updates point apart"

_EVERY = (
    *_scores("accuracy", "accuracy"),
    Metric("best_round", "best round so far, from 1", "", best_round),
    Metric("train_loss", "training loss of the last round", "", latest("train_loss"), is_summarised=False),
    Metric("uplink_bytes", "sent up by all clients", "B", running_total("uplink_bytes"), grows=True),
    Metric("downlink_bytes", "sent down to all clients", "B", running_total("downlink_bytes"), grows=True),
    Metric(
        "total_bytes", "sent up and down", "B", running_total("uplink_bytes", "downlink_bytes"),
        grows=True, parts=("uplink_bytes", "downlink_bytes"),
    ),
    Metric("transport_bytes", "moved by this cluster", "B", running_total("transport_bytes"), grows=True),
    Metric("client_flops", "work of all clients", "FLOP", running_total("client_flops"), grows=True),
    Metric(
        "paper_comm_gb", "Comm., as the FedPart paper counts", "GB", as_recorded("paper_comm_gb"), grows=True,
        undefined="FedPart's paper defines no Comm. for methods that send more than the model, or compressed updates",
    ),
    Metric(
        "paper_comp_tflop", "Comp., as the FedPart paper counts", "TFLOP", as_recorded("paper_comp_tflop"), grows=True
    ),
    Metric("wall_seconds", "time of the rounds; of a whole run, with its preparation", "s",
           running_total("wall_seconds"), grows=True),
    Metric("rounds", "rounds", "", rounds_done, grows=True),
    Metric("parameters", "parameters of the model"),
    Metric("peak_actor_bytes", "most memory of an actor", "B"),
    Metric("rejected_clients", "updates that were rejected", "", running_total("rejected_clients"), grows=True),
    Metric("privacy_epsilon", "epsilon that the noise has bought, estimated where not all clients take part"),
    Metric(
        "virtual_seconds", "time on the run's clock", "s", as_recorded("virtual_seconds"),
        grows=True, needs="clock", undefined="A synchronous run has a virtual clock only with delays.profile",
    ),
    Metric(
        "joules", "energy of all clients", "J", running_total_where_known("joules"),
        grows=True, needs="profile", undefined="Only with delays.profile, of devices whose energies are known",
    ),
    Metric(
        "waited_seconds", "virtual time until enough clients were on", "s",
        running_total_where_known("waited_seconds"), grows=True, needs="profile",
        undefined="Only with delays.profile do rounds wait for clients",
    ),
    Metric("arrivals", "updates that arrived", is_asynchronous=True),
    Metric("lost_updates", "updates of clients that dropped out", is_asynchronous=True),
    Metric("staleness_mean", "mean staleness of the accepted updates", is_asynchronous=True),
    Metric("staleness_max", "largest staleness of the accepted updates", is_asynchronous=True),
    Metric(
        "step_norm", "mean norm of a local step in the last round", "", latest("step_norm"), is_summarised=False,
        undefined=NO_STEP_NORMS,
    ),
    *(
        Metric(
            f"{norm}_jump_{phase}",
            f"{words} after an aggregation of {phase} updates over that before it", "", mean_jump(norm, phase),
            is_summarised=False, undefined=NO_JUMPS,
        )
        for norm, words in (("step_norm", "norm of the step"), ("gradient_norm", "norm of the gradient"))
        for phase in ("full", "partial")
    ),
    Metric(
        "update_cosine", "cosine of a client's update to the mean update, over the clients and rounds so far", "",
        mean_so_far("update_cosine"), is_summarised=False, undefined=NO_DIVERGENCE,
    ),
    Metric(
        "cancelled_share", "share of the updates' norm that averaging cancels, over the rounds so far", "fraction",
        mean_so_far("cancelled_share"), is_summarised=False, undefined=NO_DIVERGENCE,
    ),
    Metric(
        "cka", "linear CKA of clients' features with the global model's, over the rounds so far that have it", "",
        mean_so_far("cka"), is_summarised=False, undefined="Only after the rounds of analysis.cka is it measured",
    ),
    Metric(
        "barrier", "loss barrier between clients' models and the global one, over the rounds so far that have it", "",
        mean_so_far("barrier"), is_summarised=False,
        undefined="Only after the rounds of analysis.barrier is it measured",
    ),
    Metric("epochs", "epochs", "", as_recorded("epochs"), grows=True, is_asynchronous=True),
    *(_client_metric(column) for column in CLIENT_FIGURES),
    *(
        metric
        for name, meaning in (*((name, EVALUATION_METRICS[name]) for name in SCALARS), (WORST_CLASS, WORST_MEANING))
        for metric in _evaluation_metrics(name, meaning)
    ),
    *(
        _client_score(kind.headline, figure)
        for kind in TASKS.values()
        if kind.headline != ACCURACY
        for figure in SPREAD
    ),
    *(metric for name in TASK_METRICS for metric in _scores(name, WORDS.get(name, name))),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _EVERY}
"""Every figure of a run, by name. Bytes and FLOPs are totals over all clients."""


def spent_to_reach(
    rounds: pa.Table, target: float, names: Iterable[str], column: str | None = None
) -> dict[str, float] | None:
    """What had been spent by the end of the first round that was scored at `target` or better.

    There is no honest number for a run that never was: it has None.

    Args:
        rounds: with `ROUND_SCHEMA`.
        target: a value of the task's headline, in its own unit: an accuracy is a fraction.
        names: of metrics that grow.
        column: the headline on the split that has to reach it; None: on test.

    Returns:
        {name: value in the recorded unit} of the metrics that the run has.
    """
    index = first_round_reaching(rounds, target, column)
    if index is None:
        return None
    until = rounds.slice(0, index + 1)
    values = {name: METRICS[name].by_round(until)[index] for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}
