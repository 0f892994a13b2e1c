"""What is shown of one problem of a convergence study: three tables and a figure."""

from collections.abc import Sequence

from fedbench.analysis.convergence.pictures import study_picture
from fedbench.analysis.convergence.scalings import (
    CountSlope,
    HorizonSlope,
    Quantity,
    bounded_quantity,
    by_series,
    count_slopes,
    delay_record,
    horizon_slope,
    read_together,
)
from fedbench.analysis.convergence.series import Measurement, ProblemName
from fedbench.analysis.convergence.slopes import Reading, Slope
from fedbench.analysis.convergence.study import Study
from fedbench.analysis.convergence.theory import RATE
from fedbench.analysis.results import Picture
from fedbench.records.recorded_analysis import ShownTable
from fedbench.tables.comparisons import TOO_FEW_SEEDS, explained
from fedbench.tables.seed_statistics import INTERVAL

READINGS: dict[Reading | None, str] = {
    "rate": "not told apart",
    "faster": "falls faster",
    "slower": "falls more slowly",
    None: "-",
}

NAMES: dict[Quantity, str] = {"whole": "whole", "masked": "masked"}

NEVER_COMPARED = (
    "The masked and the whole gradient are different quantities: each theorem bounds its own, and the one must not be "
    "compared with the other. A masked gradient is a part of the whole one, so that it is smaller at the same point."
)


class ProblemPage:
    """What is shown of one problem."""

    def __init__(self, study: Study, problem: ProblemName, measurements: Sequence[Measurement]) -> None:
        self._problem, self._measurements = problem, measurements
        self._fitted_from, self._longest = study.fitted_from(problem), study.horizons(problem)[-1]
        self.bounded: list[HorizonSlope] = []
        self.unbounded: list[HorizonSlope] = []
        for series, of_series in by_series(measurements).items():
            self.bounded.append(horizon_slope(of_series, bounded_quantity(series), self._fitted_from, RATE))
            if series.groups > 1:
                self.unbounded.append(horizon_slope(of_series, "whole", self._fitted_from, None))
        at_longest = [measured for measured in measurements if measured.horizon == self._longest]
        self.counts = read_together(count_slopes(at_longest))
        self.bounded = read_together(self.bounded)

    def tables(self) -> list[ShownTable]:
        """The tables: what the theorems bound, the whole gradient under partial updates, and M, N and K."""
        return [self._bounded_table(), self._unbounded_table(), self._count_table()]

    def _bounded_table(self) -> ShownTable:
        has_bounds = any(slope.bound is not None for slope in self.bounded)
        rows = []
        for slope in self.bounded:
            label = slope.series.label + (" *" if slope.capped else "")
            cells = (
                slope.series.theorem,
                NAMES[slope.quantity],
                *_exponent(slope.slope),
                _reading(slope.slope),
                f"{slope.at_longest.mean:.3g}",
                *(_beside_bound(slope) if has_bounds else ()),
            )
            rows.append((label, cells))
        notes = [f"Exponents of T, fitted over T = {self._fitted_from} to {self._longest}.", _explained(self.bounded)]
        if not has_bounds:
            notes.append("L and sigma^2 are estimated, so that the bound is not known.")
        else:
            notes.append(
                "The bound has all of its constants (L, sigma^2, Delta); below: the mean over seeds is below the bound "
                "at every T."
            )
        if any(slope.capped for slope in self.bounded):
            notes.append(
                "*: at the shorter of these T the step size is the largest that is allowed whatever T is, and does not "
                "fall as 1 / sqrt(T)."
            )
        columns = ["theorem", "gradient", "exponent", INTERVAL, "beside -1/2", f"mean, T={self._longest}"]
        if has_bounds:
            columns += ["bound", "below"]
        title = f"{self._problem}: what the theorems bound, against T"
        return ShownTable(title, "series", tuple(columns), tuple(rows), tuple(notes))

    def _unbounded_table(self) -> ShownTable:
        rows = tuple(
            (slope.series.label, (*_exponent(slope.slope), f"{slope.at_longest.mean:.3g}")) for slope in self.unbounded
        )
        return ShownTable(
            f"{self._problem}: the whole gradient under partial updates, against T",
            "series",
            ("exponent", INTERVAL, f"mean, T={self._longest}"),
            rows,
            ("No theorem of the paper speaks of this quantity: FedPart's bounds the masked gradient.",),
        )

    def _count_table(self) -> ShownTable:
        rows = []
        for slope in self.counts:
            label = f"{slope.against} = {', '.join(map(str, slope.counts))} with {slope.label}"
            expected = "-" if slope.slope.expected is None else "-1/2"
            cells = (NAMES[slope.quantity], *_exponent(slope.slope), expected, _reading(slope.slope))
            rows.append((label, cells))
        return ShownTable(
            f"{self._problem}: against M, N and K, at T={self._longest}",
            "varied",
            ("gradient", "exponent", INTERVAL, "theorem", "beside it"),
            tuple(rows),
            (
                "How K enters OrMo's bounds is not repeated here. Near 0, it hardly counts at this T.",
                _explained(self.counts),
            ),
        )

    def picture(self) -> Picture:
        """The figure of the problem."""
        bounds = "" if self._problem == "digits" else " Dashes: the bounds with their constants, for one local step."
        return Picture(
            f"convergence_{self._problem}",
            f"{self._problem}: means of squared gradient norms against T, in log-log",
            "Each point is the mean over T iterations of runs with the step size for this T; bars are 95 % intervals "
            f"over seeds, slopes are fitted where the ground is grey.{bounds} {NEVER_COMPARED}",
            study_picture(self._measurements, self._fitted_from),
        )


def _beside_bound(slope: HorizonSlope) -> tuple[str, str]:
    """The bound at the longest horizon, and whether the quantity is below it at every horizon, as texts."""
    bound = "-" if slope.bound is None else f"{slope.bound:.3g}"
    return bound, {True: "yes", False: "NO", None: "-"}[slope.is_below]


def _reading(slope: Slope) -> str:
    """How an exponent stands beside a theorem's, in words with its p-values."""
    if slope.judgement is None or slope.judgement.is_told_apart is None:
        return "-" if slope.expected is None else TOO_FEW_SEEDS
    verdict = slope.judgement.verdict
    return slope.judgement.words.replace(verdict, READINGS[slope.reading], 1)


def _explained(slopes: Sequence[HorizonSlope] | Sequence[CountSlope]) -> str:
    """What the readings of a table mean."""
    size = max((slope.slope.judgement.family for slope in slopes if slope.slope.judgement is not None), default=0)
    words = explained("t test over seeds", "each exponent with the theorem's", size)
    return f"{words} Falls faster, falls more slowly: told apart from the theorem's exponent, on this side of it."


def _exponent(slope: Slope) -> tuple[str, str]:
    """The mean exponent and its interval, as texts."""
    interval = slope.values.interval
    shown = "one seed" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    return f"{slope.values.mean:.3f}", shown


def delay_table(measurements: Sequence[Measurement]) -> ShownTable:
    rows = []
    for series, of_series in by_series(measurements).items():
        if series.workers is None:
            continue
        record = delay_record(of_series, series.workers)
        cells = (
            str(record.longest),
            f"{record.largest:,}",
            f"{record.mean:.3f}",
            f"{record.share:.4f}",
            "yes" if record.share <= 1 else "NO",
        )
        rows.append((f"{series.problem}: {series.label}", cells))
    return ShownTable(
        "Delays: what OrMo's theorems use",
        "series",
        ("longest T", "largest delay", "mean delay", "sum / ((K - 1) T)", "at most 1"),
        tuple(rows),
        (
            "Delays are in arrivals. The theorems need no bound on the largest delay; that the delays sum up to at "
            "most (K - 1) T was checked in every run, and the column shows the largest share.",
        ),
    )
