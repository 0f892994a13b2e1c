"""What a run came to, as `summary.json` states it, and what a user should be warned of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedbench.accounting.totals import Costs, total
from fedbench.data.base import FederatedData
from fedbench.engine.messages import DeviceRecord
from fedbench.experiment.base_records import base_entries
from fedbench.experiment.description import versions
from fedbench.experiment.privacy import privacy_entries
from fedbench.experiment.setup import Problem, full_update_costs
from fedbench.records.headline import DEFAULT_TASK, chosen_on, headline_of_summary, shown, task_of, task_of_summary
from fedbench.records.metrics import METRICS, NO_CLIENT_SCORES, NO_METRIC, figures_of
from fedbench.records.own_metrics import DIRECTIONS
from fedbench.records.run_directory import RunDirectory
from fedbench.tasks.kinds import TASKS
from fedbench.training.metric_names import CLASS_COLUMNS, OWN_METRICS
from fedbench.training.metrics import own_directions
from fedbench.training.scores import Scores

WHERE_ASKED_FOR = tuple(name for name, metric in METRICS.items() if metric.undefined in (NO_CLIENT_SCORES, NO_METRIC))
"""Figures that the summary has where the configuration asks for them."""

MOST_SHOWN = 5
"""Clients that a line names at most."""

CHANCE_FACTOR = 1.5
"""A finished run whose best accuracy is below this many times chance deserves a second look."""


def summarise(
    problem: Problem,
    directory: RunDirectory,
    *,
    status: str,
    seconds: float,
    full: Costs,
    last_scores: Scores | None,
) -> dict[str, Any]:
    """The summary of a run from the rounds that are recorded in its directory.

    Args:
        status: finished | interrupted | failed.
        seconds: wall-clock time of all its parts, where it was resumed.
        full: what the arrivals of an asynchronous run would have cost as full updates.
        last_scores: of the final model, where no round has evaluated it.
    """
    config, history = problem.config, directory.history()
    rounds = history.num_rows
    columns = {name: history.column(name).to_pylist() for name in history.column_names}
    scored, task = with_last_scores(history, last_scores), task_of(history)
    if problem.arrivals is None:
        full = total(full_update_costs(problem, rounds))
    return {
        "name": config.name,
        "status": status,
        **({} if task == DEFAULT_TASK else {"task": task}),
        "rounds": rounds,
        **{name: _at_the_end(name, scored) for metric in TASKS[task].metrics for name in figures_of(metric)},
        **{name: value for name in WHERE_ASKED_FOR if (value := _at_the_end(name, scored)) is not None},
        **_lists_at_the_end(scored),
        **_directions(problem),
        "best_round": _at_the_end("best_round", scored),
        "chosen_on": chosen_on(scored),
        "uplink_bytes": sum(columns["uplink_bytes"]),
        "downlink_bytes": sum(columns["downlink_bytes"]),
        "transport_bytes": sum(columns["transport_bytes"]),
        "client_flops": sum(columns["client_flops"]),
        "paper_comm_gb": columns["paper_comm_gb"][-1] if rounds else 0.0,
        "paper_comp_tflop": columns["paper_comp_tflop"][-1] if rounds else 0.0,
        "full_updates": full.to_mapping(),
        "rejected_clients": sum(columns["rejected_clients"]),
        "dropped_clients": sum(columns["dropped_clients"]),
        "wall_seconds": seconds,
        "seed": config.seed,
        "parameters": problem.layout.size,
        "layer_groups": problem.layout.groups,
        **base_entries(problem),
        **privacy_entries(config, problem.cohort_size, columns),
        "config_hash": problem.digest,
        "own_code": problem.own_code,
        "versions": versions(),
        **(_of_arrivals(problem, directory, columns) if problem.arrivals is not None else {}),
        **(_of_world(history) if problem.world is not None else {}),
    }


def with_last_scores(history: pa.Table, scores: Scores | None) -> pa.Table:
    """The rounds with scores in the last one, where it has none of its own."""
    if scores is None or not history.num_rows:
        return history
    accuracies = {"test_accuracy": scores.test_accuracy, "validation_accuracy": scores.validation_accuracy}
    for name, score in (accuracies | dict(scores.figures)).items():
        values = [*history.column(name).to_pylist()[:-1], score]
        place, kind = history.column_names.index(name), history.schema.field(name).type
        history = history.set_column(place, name, pa.array(values, kind))
    return history


def _at_the_end(name: str, rounds: pa.Table) -> float | None:
    """A metric after the last round; None without rounds, or where they do not have it."""
    course = METRICS[name].by_round(rounds)
    return course[-1] if course else None


def _lists_at_the_end(rounds: pa.Table) -> dict[str, Any]:
    """The last recalls of the classes on each split, and the last values of one's own metrics, where there are any."""
    last = {name: rounds.column(name).drop_null().to_pylist()[-1:] for name in (*CLASS_COLUMNS, OWN_METRICS)}
    figures = {f"final_{name.removeprefix('test_')}": values[0] for name, values in last.items() if values}
    if own := figures.pop(f"final_{OWN_METRICS}", None):
        figures[OWN_METRICS] = dict(own)
    return figures


def _directions(problem: Problem) -> dict[str, dict[str, str]]:
    """The direction, larger or smaller, in which each of one's own metrics is better, where the metric states it."""
    task = problem.spec.task
    directions = own_directions(problem.config.evaluation.metrics, task.classes, task.target)
    return {DIRECTIONS: directions} if directions else {}


def _of_arrivals(problem: Problem, directory: RunDirectory, columns: dict[str, list[Any]]) -> dict[str, Any]:
    """The entries that only the summary of an asynchronous run has."""
    table = directory.arrivals()
    statuses = table.column("status").to_pylist()
    staleness = zip(statuses, table.column("staleness").to_pylist(), strict=True)
    accepted = [value for status, value in staleness if status == "ok"]
    return {
        "clock": problem.config.delays.clock,
        "virtual_seconds": columns["virtual_seconds"][-1] if columns["virtual_seconds"] else 0.0,
        "arrivals": sum(columns["clients"]),
        "lost_updates": statuses.count("lost"),
        "staleness_mean": sum(accepted) / len(accepted) if accepted else None,
        "staleness_max": max(accepted, default=None),
        "epochs": columns["epochs"][-1] if columns["epochs"] else 0.0,
    }


def _of_world(history: pa.Table) -> dict[str, Any]:
    """The entries that only the summary of a run with devices has: virtual seconds, joules, and what was waited."""
    return {name: _at_the_end(name, history) for name in ("virtual_seconds", "joules", "waited_seconds")}


def waiting(summary: dict[str, Any]) -> Iterator[str]:
    """A line where rounds waited for clients, so that nobody takes their time for work."""
    if (seconds := summary.get("waited_seconds")) and summary["virtual_seconds"]:
        yield (
            f"rounds waited {seconds:,.1f} of the {summary['virtual_seconds']:,.1f} virtual seconds for enough clients "
            "to be on (delays.availability)"
        )


def privacy_warning(summary: dict[str, Any]) -> Iterator[str]:
    """What has to be known with the epsilon of a run."""
    if note := summary["privacy_note"]:
        shown = summary["privacy_epsilon"]
        yield f"privacy_epsilon={'none' if shown is None else format(shown, '.4g')}: {note}"


def never_accepted(work: pa.Table, summary: Mapping[str, Any]) -> Iterator[str]:
    """A warning where every update of a client was rejected, so that the model has learned nothing of its rows.

    Args:
        work: columns client and status of all local trainings, as in `CLIENT_SCHEMA` or `ARRIVAL_SCHEMA`.
        summary: of the run.
    """
    if summary["status"] != "finished" or not summary["rejected_clients"]:
        return
    is_rejected = pc.equal(work["status"], "rejected")
    tried, others = (
        set(work["client"].filter(mask).unique().to_pylist()) for mask in (is_rejected, pc.invert(is_rejected))
    )
    if never := sorted(tried - others):
        shown_clients = ", ".join(map(str, never[:MOST_SHOWN])) + (", ..." if len(never) > MOST_SHOWN else "")
        which = f"client {shown_clients}" if len(never) == 1 else f"{len(never)} clients ({shown_clients})"
        yield (
            f"every update of {which} was rejected as not finite or too large: the model has learned nothing from "
            "such a client; look at its rows, or lower local.optimizer.lr"
        )


def near_chance(data: FederatedData, summary: Mapping[str, Any]) -> Iterator[str]:
    """A warning where a finished run has learned next to nothing.

    That is: of classification, an accuracy near that of guessing a class; of next tokens, a perplexity that is not
    below that of guessing any token; of regression, an R2 that is not above that of the targets' mean.

    Args:
        data: what it was trained on.
        summary: of the run.
    """
    task, headline = task_of_summary(summary), headline_of_summary(summary)
    best = summary.get(f"best_{headline.name}")
    if summary["status"] != "finished" or best is None:
        return
    fault = ""
    if task == "classification" and best < CHANCE_FACTOR * (chance := 1 / data.classes):
        fault = f"{best:.1%}, is close to chance ({chance:.1%})"
    elif task == "next_token" and best >= data.vocabulary_size:
        fault = f"{shown(best, headline)}, is no better than guessing one of {data.vocabulary_size} tokens"
    elif task == "regression" and (determination := summary.get("best_r2")) is not None and determination <= 0:
        fault = f"{shown(best, headline)}, is no better than predicting the mean (R2 {determination:.2f})"
    if fault:
        yield f"the best {headline.words}, {fault}: look at lr and rounds"


def mixed_devices(devices: Sequence[DeviceRecord]) -> Iterator[str]:
    """A warning where clients trained on devices that differ, each of which rounds in its own way."""
    if len(devices) > 1:
        kinds = ", ".join(
            device.name if device.cuda is None else f"{device.name} (CUDA {device.cuda}, cuDNN {device.cudnn})"
            for device in devices
        )
        yield (
            f"clients trained on devices that differ ({kinds}): which client trained where decides the "
            "last bits of the result; choose one kind by runtime.resources or runtime.device"
        )
