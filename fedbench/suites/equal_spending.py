"""Up to where runs are read that are compared after equal spending: of bytes, or of the clients' work."""

from collections.abc import Iterable, Mapping
from typing import Literal

import pyarrow as pa

from fedbench.records.metrics import METRICS

Spending = Literal["bytes", "flops"]
"""What is spent: bytes sent up and down by all clients, or FLOPs of their work."""

SPENT = {"bytes": METRICS["total_bytes"], "flops": METRICS["client_flops"]}
"""The metric that counts each, cumulative over the rounds."""

WORDS = {"bytes": "bytes sent", "flops": "FLOPs of the clients"}
"""What each is called in a note."""


def spent(rounds: pa.Table, of: Spending) -> list[float]:
    """What a run has spent by the end of each round, with `ROUND_SCHEMA`."""
    return [float(value or 0) for value in SPENT[of].by_round(rounds)]


def common_budget(histories: Iterable[pa.Table], of: Spending) -> float | None:
    """The least that any of these runs has spent in all; None where there is none.

    Args:
        histories: the rounds of each run, with `ROUND_SCHEMA`.
        of: what is spent.
    """
    return min((spent(rounds, of)[-1] for rounds in histories if rounds.num_rows), default=None)


def affordable(rounds: pa.Table, of: Spending, budget: float) -> int:
    """The number of rounds that a run could have for a budget; 0 where its first round alone costs more.

    Args:
        rounds: the run's, with `ROUND_SCHEMA`.
        of: what is spent.
        budget: in bytes or FLOPs.
    """
    return sum(value <= budget for value in spent(rounds, of))


def note(columns: Mapping[str, Spending]) -> str:
    """A note on the columns that are read after equal spending; "" where there are none."""
    parts = []
    for of in dict.fromkeys(columns.values()):
        named = [name for name, spending in columns.items() if spending == of]
        parts.append(f"{', '.join(named)}: after as many {WORDS[of]} as the row with the fewest has in its whole run")
    ending = "each row is read at the last round within that, seed by seed, and references at their end"
    return f"{'; '.join(parts)}; {ending}." if parts else ""
