"""Windows of a series of measurements: the past as a row's inputs, what follows as its targets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.data.base import IntArray

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """The shape of the windows that a series is cut into.

    Attributes:
        past: W, steps that a row's inputs have.
        future: H, steps that follow, which are its targets.
        stride: steps from the beginning of a window to that of the next.
    """

    past: int
    future: int
    stride: int = 1

    @property
    def steps(self) -> int:
        """Steps of a whole window, its future included."""
        return self.past + self.future

    @property
    def overlap(self) -> bool:
        """Whether two windows beside each other have measurements in common."""
        return self.stride < self.steps

    def starts(self, series: FloatArray, first: int, end: int) -> IntArray:
        """The steps at which the windows of a part of a series begin, int64, ascending.

        A window lies within the part as a whole, and has no gap.

        Args:
            series: [T, C], NaN where a measurement is missing.
            first, end: the part's first step, and the one behind its last.

        Example:
            >>> series = np.array([[1.0], [2.0], [np.nan], [4.0], [5.0], [6.0]])
            >>> Windows(past=2, future=1).starts(series, 0, 6).tolist()
            [3]
        """
        starts = np.arange(first, end - self.steps + 1, self.stride)
        gaps = np.concatenate([[0], np.cumsum(np.isnan(series).any(axis=1))])
        whole: IntArray = starts[gaps[starts + self.steps] == gaps[starts]].astype(np.int64)
        return whole

    def cut(
        self, series: FloatArray, starts: IntArray, target: int, *, relative: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The windows that begin at some steps.

        Args:
            series: [T, C].
            starts: int64 [N].
            target: the series, of C, whose future is forecast.
            relative: whether the last measurement of the past is taken from the whole window, of each series its own.

        Returns:
            float32 [N, C, W], the past, and float32 [N, H], the future of the target.

        Example:
            >>> series = np.array([[10.0], [11.0], [13.0]])
            >>> Windows(past=2, future=1).cut(series, np.array([0]), 0, relative=True)
            (array([[[-1.,  0.]]], dtype=float32), array([[2.]], dtype=float32))
        """
        whole = series[starts[:, None] + np.arange(self.steps)]
        if relative:
            whole = whole - whole[:, self.past - 1 : self.past]
        past = whole[:, : self.past].transpose(0, 2, 1)
        return np.ascontiguousarray(past, np.float32), np.ascontiguousarray(whole[:, self.past :, target], np.float32)
