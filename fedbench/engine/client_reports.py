"""Reports of clients whose training did not end, and an exception in one line."""

import traceback

from fedbench.engine.messages import ClientReport
from fedbench.records.schema import DROPPED


def dropped_report(client: int, samples: int, seconds: float) -> ClientReport:
    """The report of a client that was dropped because its time was up.

    Args:
        client: number of the client.
        samples: number of the client's training samples.
        seconds: time that it trained before.
    """
    return ClientReport(client, DROPPED, samples, 0, float("nan"), seconds)


def failure_report(client: int, samples: int, seconds: float, error: Exception) -> ClientReport:
    """The report of a client whose training raised `error`.

    Args:
        client: number of the client.
        samples: number of the client's training samples.
        seconds: time until the failure.
        error: the exception; its traceback is put into the report.
    """
    return ClientReport(
        client,
        "failed",
        samples,
        0,
        float("nan"),
        seconds,
        error=one_line(error),
        traceback="".join(traceback.format_exception(error)),
    )


def one_line(error: Exception) -> str:
    """An exception's type and message in one line, for reports and error messages."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
