"""What the runs of one cell say, with all its seeds."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedbench.suites.cell_values import Absence, Reading


@dataclass(frozen=True)
class CellReadings:
    """What the runs of one cell say, one reading a seed.

    Attributes:
        by_seed: {seed: what its run says}.
    """

    by_seed: Mapping[int, Reading]

    @property
    def values(self) -> dict[int, float]:
        """{seed: value in the shown unit} of the runs that have one."""
        return {seed: reading.value for seed, reading in self.by_seed.items() if reading.value is not None}

    @property
    def absence(self) -> Absence | None:
        """Why the first seed without a value has none; None where all have one."""
        return next((reading.absence for reading in self.by_seed.values() if reading.absence is not None), None)

    @property
    def explanation(self) -> str:
        """Why seeds have no value, in words, with the seeds; "" where all have one."""
        seeds: dict[str, list[int]] = {}
        for seed, reading in self.by_seed.items():
            if reading.absence is not None:
                seeds.setdefault(reading.words, []).append(seed)
        return "; ".join(f"{words} ({_seeds(lacking)})" for words, lacking in seeds.items())


CELL_TEXTS = {
    Absence.FAILED: "failed",
    Absence.NOT_REACHED: "not reached",
    Absence.NO_SUCH_ROUNDS: "-",
    Absence.NOT_DEFINED: "-",
}
"""What a cell without any value shows; "missing" for every other absence."""


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
