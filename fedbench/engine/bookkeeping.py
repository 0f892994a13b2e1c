"""The records of a round, and the small decisions that the engines for rounds and arrivals share."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedbench.accounting.totals import Costs
from fedbench.engine.client_reports import dropped_report
from fedbench.engine.client_scoring import ClientScoringPhase
from fedbench.engine.interfaces import EvaluationPhase, TrainingPhase
from fedbench.engine.messages import ClientReport, KeptMessage, RoundPlan
from fedbench.errors import ClientFailure
from fedbench.planning.deadlines import Limit
from fedbench.planning.worlds import ClientTimes
from fedbench.records.client_scores import client_score_rows, known
from fedbench.records.schema import DROPPED, ArrivalRecord, ClientRecord, RoundRecord

if TYPE_CHECKING:
    import pyarrow as pa

    from fedbench.accounting.costs import CostModel  # loads PyTorch's FLOP counter, which client actors do not need


def stale_parts(held: Sequence[int], current: Sequence[int]) -> tuple[int, ...]:
    """Parts of which a host holds an older version than the server's.

    Args:
        held: for each part, the version that the host holds; -1 where it holds none.
        current: for each part, the server's version.
    """
    return tuple(
        part for part, (held_version, version) in enumerate(zip(held, current, strict=True)) if held_version < version
    )


def accepted_clients(reports: Sequence[ClientReport]) -> tuple[int, ...]:
    """Clients whose updates were accepted (status "ok"), in the order of the reports."""
    return tuple(report.client for report in reports if report.status == "ok")


def accepted_losses(reports: Sequence[ClientReport]) -> dict[int, float]:
    """{client: its `rms_loss`} of the clients whose updates were accepted."""
    return {report.client: report.rms_loss for report in reports if report.status == "ok"}


def accepted_norms(reports: Sequence[ClientReport]) -> dict[int, tuple[float, ...]]:
    """{client: its `gradient_norms`} of the clients whose updates were accepted, where they have reported any."""
    return {r.client: r.gradient_norms for r in reports if r.status == "ok" and r.gradient_norms}


def leave_out(cohort: Sequence[int], limit: Limit, sizes: Sequence[int]) -> tuple[tuple[int, ...], list[ClientReport]]:
    """Split a cohort into the clients to train and the clients that the limit drops beforehand.

    Args:
        cohort: participants of the round.
        limit: its `dropped` names the clients that are not trained.
        sizes: samples of each client of the population.

    Returns:
        The clients to train, in cohort order, and one "dropped" report for each of the others.
    """
    trained = tuple(client for client in cohort if client not in limit.dropped)
    return trained, [dropped_report(client, sizes[client], 0.0) for client in cohort if client in limit.dropped]


def by_client(reports: Sequence[ClientReport]) -> tuple[ClientReport, ...]:
    """Reports sorted by client, which is the order of a round's records."""
    return tuple(sorted(reports, key=lambda report: report.client))


def check_failures(reports: Sequence[ClientReport], round_index: int, budget: int) -> None:
    """Raise the first client's failure once more than `budget` clients have failed.

    Args:
        reports: the round's reports so far.
        round_index: round number, from 0, for the error message.
        budget: failed clients that the run tolerates in a round (`runtime.max_failed_clients`).

    Raises:
        ClientFailure: more than `budget` clients failed; the error has the first one's own traceback.
    """
    failed = [report for report in reports if report.status == "failed"]
    if len(failed) > budget:
        first = failed[0]
        raise ClientFailure(first.client, round_index, first.error, first.traceback)


def updates_by_group(groups: int, updates: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """For each of the model's layer groups, the number of updates that trained it.

    Args:
        groups: the number of layer groups.
        updates: the layer groups of each accepted update.
    """
    counts = Counter(group for trained in updates for group in trained)
    return tuple(counts[group] for group in range(groups))


@dataclass(frozen=True)
class FinishedRound:
    """The records of one round.

    Attributes:
        record: the row of `rounds.parquet`.
        clients: the rows of `clients.parquet`.
        arrivals: the rows of `events.parquet` of an asynchronous run; empty for synchronous rounds.
        full: cost of the same arrivals had each been a full update; None for synchronous rounds.
        kept: the clients' messages that are kept for later analysis.
        measured: {name of a file: rows of the round}, of the tables of measures (`fedbench.records.measured`).
        remarks: what a user should know of how the clients were trained, one line each.
    """

    record: RoundRecord
    clients: tuple[ClientRecord, ...]
    arrivals: tuple[ArrivalRecord, ...] = ()
    full: Costs | None = None
    kept: tuple[KeptMessage, ...] = ()
    measured: "Mapping[str, pa.Table]" = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class Stopwatch:
    """Measures wall-clock time in seconds, in total and lap by lap."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the previous call, or since the start; begins the next lap."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


def client_records(
    plan: RoundPlan,
    training: TrainingPhase,
    evaluation: EvaluationPhase | None,
    costs: "CostModel",
    attackers: frozenset[int] = frozenset(),
    times: Mapping[int, ClientTimes] | None = None,
) -> tuple[ClientRecord, ...]:
    """The rows of `clients.parquet`: one for each participant whose training began.

    A client that failed or was dropped has paid for its download. It has sent nothing, and the FLOPs that it spent
    before are not counted.

    Args:
        plan: the round's plan, which has the bytes and the layer groups of each participant.
        training: how the round's training went.
        evaluation: clients' scores on their own training rows, where the round was evaluated.
        costs: counts FLOPs.
        attackers: the Byzantine clients.
        times: where each participant's virtual time went; None: the run has no virtual clock.
    """
    position = {client: index for index, client in enumerate(plan.cohort)}
    local = evaluation.client_scores if evaluation else {}
    own_accuracy = evaluation.own_test_accuracy if evaluation else {}
    return tuple(
        ClientRecord(
            round=plan.round,
            client=report.client,
            status=report.status,
            samples=report.samples,
            steps=report.steps,
            train_loss=report.loss,
            local_accuracy=known(local[report.client].accuracy) if report.client in local else None,
            uplink_bytes=0 if report.status in SENT_NOTHING else plan.uplink_bytes[position[report.client]],
            downlink_bytes=plan.downlink_bytes[position[report.client]],
            flops=0
            if report.status in SENT_NOTHING
            else costs.client_flops(
                plan.groups[position[report.client]], report.client, report.passes, bool(report.gradient_norms)
            ),
            seconds=report.seconds,
            byzantine=report.client in attackers,
            own_test_accuracy=own_accuracy.get(report.client),
            local_score=known(local[report.client].score) if report.client in local else None,
            **virtual_figures(times[report.client] if times else None),
        )
        for report in training.reports
    )


def virtual_figures(times: ClientTimes | None) -> dict[str, float | None]:
    """The columns of `clients.parquet` on the virtual clock; none of them without times."""
    if times is None:
        return {}
    return {
        "virtual_start": times.start,
        "virtual_download_seconds": times.download,
        "virtual_compute_seconds": times.compute,
        "virtual_upload_seconds": times.upload,
        "joules": times.joules,
    }


def scored_rows(round_index: int, phase: ClientScoringPhase, reports: Sequence[ClientReport]) -> "pa.Table":
    """One round's rows of `client_scores.parquet`.

    Args:
        round_index: the round, from 0.
        phase: the scores of the global model after the round.
        reports: of the round's participants.
    """
    trained = {report.client: report.held_out for report in reports if report.held_out is not None}
    return client_score_rows(round_index, phase.scores, trained)


def mean_loss(reports: Sequence[ClientReport]) -> float:
    """Mean training loss over the accepted clients' rows, tokens or pixels that count.

    NaN where no client was accepted; 0 where the accepted clients have rows, of which no token or pixel counts.
    """
    accepted = [report for report in reports if report.status == "ok"]
    counted = sum(report.samples * report.places for report in accepted)
    if not counted:
        return 0.0 if any(report.samples for report in accepted) else math.nan
    return sum(report.loss * (report.samples * report.places) for report in accepted) / counted


SENT_NOTHING = ("failed", DROPPED)
"""Statuses of clients that sent no update."""


def stale_for_task(
    held: list[int], versions: tuple[int, ...], groups: Sequence[int], estimates: bool
) -> tuple[int, ...]:
    """The parts that a host has to be sent for an asynchronous task; `held` is brought up to date in place.

    A host that has computed a task of a later dispatch holds newer versions than the task started from: it is sent the
    older ones again.

    Args:
        held: for each part, the version that the host holds; -1 where it holds none.
        versions: for each part, the server's version when the task was dispatched.
        groups: layer groups that the task trains.
        estimates: whether the method sends each worker an estimate of these groups, made for this worker alone, in
            place of the server's parameters. It is sent for every task, and the host then holds no server version.
    """
    estimated = set(groups) if estimates else set()
    stale = tuple(part for part, version in enumerate(versions) if held[part] != version or part in estimated)
    for part in stale:
        held[part] = -1 if part in estimated else versions[part]
    return stale
