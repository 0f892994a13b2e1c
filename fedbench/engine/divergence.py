"""Rounds that came to nothing, or to numbers that are not finite: the run has failed, and the message names the cause.

The engines for rounds and arrivals share this.
"""

import math
from collections.abc import Sequence

import numpy as np

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.algorithms.base import Algorithm, RuleContext, ServerRule
from fedbench.engine.messages import ClientReport
from fedbench.errors import RunError
from fedbench.planning.deadlines import Limit
from fedbench.protocol.layout import Vector
from fedbench.records.schema import DROPPED, RoundRecord


def remedy(method: Algorithm) -> str:
    """The learning rates that may be too large with a method, for an error message."""
    if isinstance(method, AsyncAlgorithm) or type(method.rule()) is not ServerRule:
        return f"lower local.optimizer.lr, or the step of the server rule of {method.name}"
    return "lower local.optimizer.lr"


def check_accepted(round_index: int, reports: Sequence[ClientReport], remedy: str, limit: Limit | None = None) -> None:
    """Refuse to go on after a round in which no client's update was accepted.

    Args:
        round_index: the round, from 0.
        reports: of all participants, or of all updates that arrived.
        remedy: what to do where updates were rejected.
        limit: the deadline of the round; None: there is none.

    Raises:
        RunError: names what became of the updates; deadlines and failures are not blamed on a learning rate.
    """
    if any(report.status == "ok" for report in reports):
        return
    counts = {status: sum(report.status == status for report in reports) for status in ("rejected", DROPPED, "failed")}
    where = f"round {round_index + 1}"
    if counts[DROPPED] == len(reports):
        if limit is not None and limit.seconds is not None:
            raise RunError(
                f"{where}: none of the {len(reports)} participants ended its training within "
                f"participation.round_deadline={limit.seconds:g} seconds; raise it"
            )
        if limit is not None and limit.cause:
            raise RunError(
                f"{where}: all {len(reports)} participants {limit.cause}; let more clients take part, or give them "
                "more time"
            )
        raise RunError(f"{where}: all {len(reports)} participants were dropped in the run that is replayed or resumed")
    causes, advice = [], []
    if counts["rejected"]:
        causes.append(f"{counts['rejected']} were not finite, too large or of the wrong shape")
        advice.append(remedy)
    if counts[DROPPED]:
        cause = limit.cause if limit is not None else ""
        causes.append(f"{counts[DROPPED]} {cause or 'were dropped at the deadline'}")
        advice.append("let more clients take part" if cause else "raise participation.round_deadline")
    if counts["failed"]:
        first = next(report for report in reports if report.status == "failed")
        causes.append(f"{counts['failed']} failed, first client {first.client} with {first.error}")
        advice.append("mend what failed")
    raise RunError(f"{where}: none of the {len(reports)} updates can be used: {', '.join(causes)}; {', '.join(advice)}")


def too_few_updates(method: Algorithm, context: RuleContext, fewest: int) -> str:
    """The message for a layer group of which fewer updates come together than the server rule can do its work on."""
    return (
        f"round {context.round + 1}: {context.participants} clients train layer group "
        f"{context.layout.group_names[context.groups[0]]}, and "
        f"{method.name} with its options leaves nobody out of fewer than {fewest}; let more clients take part, or "
        "choose another rule"
    )


def check_finite(record: RoundRecord, accepted: int, remedy: str) -> None:
    """Refuse to go on with a model or a loss that is not finite.

    Args:
        record: the round.
        accepted: number of accepted updates; without one there is no training loss.
        remedy: what to do.

    Raises:
        RunError: names the figure that is not finite.
    """
    figures = {
        "change of the model": record.update_norm,
        "training loss": record.train_loss if accepted else 0.0,
        "test loss": record.test_loss,
        "validation loss": record.validation_loss,
    }
    for name, value in figures.items():
        if value is not None and not math.isfinite(value):
            raise RunError(
                f"round {record.round + 1}: the {name} is {value}, after a round that changed the model by "
                f"{record.update_norm:.3g} (L2 norm): the run has diverged; {remedy}"
            )


def check_model(vector: Vector, statistics: Vector, remedy: str) -> None:
    """Refuse a final model with values that are not finite.

    Args:
        vector: float32, the parameters.
        statistics: float32, the running statistics.
        remedy: what to do.

    Raises:
        RunError: names which of the two is not finite.
    """
    for name, values in (("parameters", vector), ("running statistics", statistics)):
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            raise RunError(f"{bad} of the {len(values)} {name} of the model are not finite: it has diverged; {remedy}")
