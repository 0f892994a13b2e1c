"""How much the norms of local steps jump at aggregations, from what `rounds.parquet` has of each round."""

import math
from collections.abc import Sequence

import pyarrow as pa


def jumps(rounds: pa.Table, norm: str, phase: str) -> list[float | None]:
    """For each round the norm of its first step over that of the last step of the round before, mean over clients each.

    None where the two rounds are not both of the phase, or did not train the same layer groups: their norms are then of
    different parameters.

    Args:
        rounds: with `ROUND_SCHEMA`.
        norm: step_norm or gradient_norm.
        phase: full or partial.
    """
    names = (f"first_{norm}", f"last_{norm}", "phase", "group_clients")
    firsts, lasts, phases, counts = (rounds.column(name).to_pylist() for name in names)
    trained = [row and [bool(count) for count in row] for row in counts]
    ratios: list[float | None] = []
    for index in range(rounds.num_rows):
        is_comparable = index > 0 and phases[index] == phases[index - 1] == phase
        if is_comparable and trained[index] and trained[index] == trained[index - 1] and firsts[index]:
            ratios.append(firsts[index] / lasts[index - 1] if lasts[index - 1] else None)
        else:
            ratios.append(None)
    return ratios


def geometric_mean(values: Sequence[float]) -> float | None:
    """exp of the mean logarithm; None of no values.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
