"""Series of measurements that come with statsmodels, to be forecast."""

import hashlib
import importlib.util
import json
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fedbench.components.optional_library import check_library
from fedbench.data.base import Dataset, FederatedData, IntArray, Split
from fedbench.data.holdout import DEFAULT_TEST_FRACTION
from fedbench.data.moments import moments
from fedbench.data.overlap import count_shared
from fedbench.data.windows import FloatArray, Windows
from fedbench.errors import ConfigError, DataError

EXTRA = "series"


@dataclass(frozen=True)
class Measurements:
    """Measurements at equal distances of time.

    Attributes:
        values: float64 [T, C], NaN where one is missing.
        years: int64 [T], the year of each.
    """

    values: FloatArray
    years: IntArray


class StatsmodelsSeries(Dataset):
    """Series that statsmodels holds: windows of the past as inputs [C, W], the H values that follow as targets.

    The last part of the time (`data.test_fraction`, 0.2 by default) is the test split. Windows that reach over a border
    between splits, or that have a gap, are left out.
    """

    step: ClassVar[str]
    """What one step of the series is: a week, a quarter."""

    target: ClassVar[int]
    """The series, of C, whose future is forecast."""

    file: ClassVar[tuple[str, ...]]
    """The path of the measurements in the package of statsmodels."""

    window: int
    horizon: int
    stride: int = Field(default=1, ge=1)
    relative: bool = True
    period: Literal["decade", "year"] = "year"
    validation: float = Field(default=0.0, ge=0, lt=1)

    @abstractmethod
    def read(self, file: Path) -> Measurements:
        """The measurements that a file of statsmodels has."""

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`.

        Raises:
            ConfigError: `data.root` is set, which would have no effect, or statsmodels is not installed.
            DataError: statsmodels has no such file.
        """
        if root is not None:
            raise ConfigError(
                f"data.root={root}: has no effect with data.dataset={self.name}, part of statsmodels; leave it out"
            )
        self._file()

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        self.check(root)
        measurements = self.read(self._file())
        windows = Windows(self.window, self.horizon, self.stride)
        fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        splits = self._splits(measurements, windows, fraction)
        digest = hashlib.sha256(json.dumps([fraction, self.model_dump(mode="json", exclude={"name"})]).encode())
        for split in splits.values():
            digest.update(split.inputs.tobytes() + split.labels.tobytes())
        mean, std = moments(splits["train"].inputs, axis=1)
        last = 0 if self.relative else splits["test"].inputs[:, self.target, -1:]
        persistence = float(np.abs(splits["test"].labels - last).mean(dtype=np.float64))
        held = f"the last {fraction:g} of the time is the test split"
        if "validation" in splits:
            held = f"{held}, the last {self.validation:g} of the time before it the validation split"
        return FederatedData(
            name=self.name,
            kind="array",
            task="regression",
            train=splits["train"],
            test=splits["test"],
            validation=splits.get("validation"),
            class_names=tuple(f"{self.step} +{ahead}" for ahead in range(1, self.horizon + 1)),
            mean=mean,
            std=std,
            vocabulary_size=0,
            padding_index=-1,
            source=(
                f"statsmodels' {self.file[-1]}, windows of {self.window} {self.step}s and the {self.horizon} after them"
                f" without those that have gaps; {held}; natural clients: {self.period}s; to forecast that nothing"
                f" changes has the MAE {persistence:.4g} on the test split"
            ),
            fingerprint=digest.hexdigest(),
            test_rows_in_train=count_shared(splits["train"].inputs, splits["test"].inputs),
            rows_overlap=windows.overlap,
            scaling_axis=1,
        )

    def _splits(self, measurements: Measurements, windows: Windows, fraction: float) -> dict[str, Split]:
        """The splits, one after the other in time.

        Raises:
            ConfigError: a split has no window.
        """
        values, years = measurements.values, measurements.years
        test = len(values) - round(fraction * len(values))
        validation = test - round(self.validation * test)
        borders = {"train": (0, validation), "validation": (validation, test), "test": (test, len(values))}
        if not self.validation:
            del borders["validation"]
        splits = {}
        for name, (first, end) in borders.items():
            starts = windows.starts(values, first, end)
            if not len(starts):
                raise ConfigError(
                    f"data.dataset.window={self.window}, horizon={self.horizon}: the {end - first} {self.step}s of the"
                    f" {name} split have no window of {windows.steps} without a gap; shorten them or divide the time"
                    " otherwise (data.test_fraction, data.dataset.validation)"
                )
            inputs, labels = windows.cut(values, starts, self.target, relative=self.relative)
            forecast = years[starts + self.window]
            splits[name] = Split(inputs, labels, forecast // 10 * 10 if self.period == "decade" else forecast)
        return splits

    def _file(self) -> Path:
        """The file that holds the measurements, which is read by itself: to import statsmodels takes a second."""
        check_library("statsmodels", EXTRA, f"data.dataset={self.name}")
        package = importlib.util.find_spec("statsmodels")
        folders = (package and package.submodule_search_locations) or []
        file = next((file for folder in folders if (file := Path(folder, *self.file)).is_file()), None)
        if file is None:
            raise DataError(
                f"{self.name}: the installed statsmodels has no file {'/'.join(self.file)}; install another version:"
                " pip install 'statsmodels>=0.14'"
            )
        return file


class Co2(StatsmodelsSeries):
    """CO2 on Mauna Loa, weekly 1958-2001, to be forecast; in statsmodels, no download. Clients are years or decades.

    A regression in parts per million (Keeling and Whorf, 2004). A row is the past weeks of a window, its targets are
    the weeks after it. The last `data.test_fraction` of the weeks (0.2 by default) is the test split; windows over a
    border between splits, and windows in which a week is missing, are left out.

    Attributes:
        window: Weeks that a row has.
        horizon: Weeks after them that are forecast.
        stride: Weeks from the beginning of a window to that of the next.
        relative: Whether inputs and targets are differences from the last week of the row (Zeng et al., AAAI 2023), so
            that the forecast that nothing changes is 0; without it they are as measured.
        period: The natural client of a row, by its first forecast week: the year or the decade.
        validation: Share of the weeks before the test split that is the validation split, the last ones of them.
    """

    name: str = "co2"
    window: int = Field(default=52, ge=2, le=1000)
    horizon: int = Field(default=4, ge=1, le=1000)

    step: ClassVar[str] = "week"
    target: ClassVar[int] = 0
    file: ClassVar[tuple[str, ...]] = ("datasets", "co2", "co2.csv")

    def read(self, file: Path) -> Measurements:
        """See `StatsmodelsSeries.read`: lines of a date, YYYYMMDD, and a value that may be missing."""
        table = np.genfromtxt(file, delimiter=",", skip_header=1)
        return Measurements(table[:, 1:], table[:, 0].astype(np.int64) // 10_000)


class Macrodata(StatsmodelsSeries):
    """Three series of the US economy, quarterly 1959-2009, to be forecast; in statsmodels, no download.

    Unemployment, inflation and the rate of three-month treasury bills, each in percent (Federal Reserve Bank of St.
    Louis and Bureau of Labor Statistics). A row is the past quarters of the three, its targets are the unemployment of
    the quarters after it. The last `data.test_fraction` of the quarters (0.2 by default) is the test split.

    Attributes:
        window: Quarters that a row has.
        horizon: Quarters after them whose unemployment is forecast.
        stride: Quarters from the beginning of a window to that of the next.
        relative: Whether inputs and targets are differences from the last quarter of the row, so that the forecast that
            nothing changes is 0; without it they are as measured.
        period: The natural client of a row, by its first forecast quarter: the year or the decade.
        validation: Share of the quarters before the test split that is the validation split, the last ones of them.
    """

    name: str = "macrodata"
    window: int = Field(default=12, ge=2, le=100)
    horizon: int = Field(default=2, ge=1, le=100)

    step: ClassVar[str] = "quarter"
    target: ClassVar[int] = 0
    file: ClassVar[tuple[str, ...]] = ("datasets", "macrodata", "macrodata.csv")
    columns: ClassVar[tuple[str, ...]] = ("unemp", "infl", "tbilrate")

    def read(self, file: Path) -> Measurements:
        """See `StatsmodelsSeries.read`: a column for each series, and the year."""
        header = [name.strip('"') for name in file.read_text(encoding="utf-8").partition("\n")[0].strip().split(",")]
        table = np.genfromtxt(file, delimiter=",", skip_header=1)
        values = table[:, [header.index(name) for name in self.columns]]
        return Measurements(values, table[:, header.index("year")].astype(np.int64))
