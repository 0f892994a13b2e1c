"""The records of a round, and the small decisions that the engines for rounds and arrivals share."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.accounting.costs import CostModel
from fedbench.accounting.totals import Costs
from fedbench.engine.client_host import dropped_report
from fedbench.engine.interfaces import EvaluationPhase, TrainingPhase
from fedbench.engine.messages import ClientReport, RoundPlan
from fedbench.errors import ClientFailure
from fedbench.planning.deadlines import Limit
from fedbench.records.schema import DROPPED, ArrivalRecord, ClientRecord, RoundRecord


def stale_parts(held: Sequence[int], current: Sequence[int]) -> tuple[int, ...]:
    """The parts whose held version is behind."""
    return tuple(part for part, (own, new) in enumerate(zip(held, current, strict=True)) if own < new)


def accepted_clients(reports: Sequence[ClientReport]) -> tuple[int, ...]:
    """The clients whose updates a host has sent."""
    return tuple(report.client for report in reports if report.status == "ok")


def leave_out(cohort: Sequence[int], limit: Limit, sizes: Sequence[int]) -> tuple[tuple[int, ...], list[ClientReport]]:
    """(those who are trained, the reports of those who are not)."""
    trained = tuple(client for client in cohort if client not in limit.dropped)
    return trained, [dropped_report(client, sizes[client], 0.0) for client in cohort if client in limit.dropped]


def by_client(reports: Sequence[ClientReport]) -> tuple[ClientReport, ...]:
    """In the order of a round's records."""
    return tuple(sorted(reports, key=lambda report: report.client))


def check_failures(reports: Sequence[ClientReport], round_index: int, budget: int) -> None:
    """Raise the first failure once there are more than `budget`.

    Raises:
        ClientFailure: with the client's own traceback.
    """
    failed = [report for report in reports if report.status == "failed"]
    if len(failed) > budget:
        first = failed[0]
        raise ClientFailure(first.client, round_index, first.error, first.traceback)


@dataclass(frozen=True)
class FinishedRound:
    """A round's records.

    Attributes:
        arrivals: of an asynchronous run.
        full: what the same arrivals would have cost as full updates.
    """

    record: RoundRecord
    clients: tuple[ClientRecord, ...]
    arrivals: tuple[ArrivalRecord, ...] = ()
    full: Costs | None = None


class Stopwatch:
    """Wall-clock seconds, by laps."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


def client_records(
    plan: RoundPlan, training: TrainingPhase, evaluation: EvaluationPhase | None, costs: CostModel
) -> tuple[ClientRecord, ...]:
    """One record for each participant that was begun.

    A client that failed or was dropped has received its download; it sent nothing, and the work that it did before is
    not counted.
    """
    place = {client: index for index, client in enumerate(plan.cohort)}
    accuracy = evaluation.client_accuracy if evaluation else {}
    return tuple(
        ClientRecord(
            round=plan.round,
            client=report.client,
            status=report.status,
            samples=report.samples,
            steps=report.steps,
            train_loss=report.loss,
            local_accuracy=accuracy.get(report.client),
            uplink_bytes=0 if report.status in SENT_NOTHING else plan.uplink_bytes[place[report.client]],
            downlink_bytes=plan.downlink_bytes[place[report.client]],
            flops=0
            if report.status in SENT_NOTHING
            else costs.client_flops(plan.groups[place[report.client]], report.client, report.passes),
            seconds=report.seconds,
        )
        for report in training.reports
    )


def mean_loss(reports: Sequence[ClientReport]) -> float:
    """Mean training loss over the samples of the accepted clients; NaN when there are none."""
    counted = [report for report in reports if report.status == "ok"]
    samples = sum(report.samples for report in counted)
    return sum(report.loss * report.samples for report in counted) / samples if samples else math.nan


SENT_NOTHING = ("failed", DROPPED)


def stale_for_work(
    held: list[int], versions: tuple[int, ...], groups: Sequence[int], estimates: bool
) -> tuple[int, ...]:
    """The parts that a host has to be sent for a work; `held` is brought up to date in place.

    Args:
        held: of each part, the version that the host has.
        groups: that the work trains.
        estimates: what is sent of these is made for the worker, and no version of the server's.
    """
    own = set(groups) if estimates else set()
    stale = tuple(part for part, new in enumerate(versions) if held[part] < new or part in own)
    for part in stale:
        held[part] = -1 if part in own else versions[part]
    return stale
