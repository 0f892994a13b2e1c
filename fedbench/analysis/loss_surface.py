"""The loss of a network as a function of its parameters, on lines and planes through recorded models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.analysis.recorded_model import RecordedModel
from fedbench.engine.device_rows import host_tensors
from fedbench.protocol.layout import Vector
from fedbench.randomness import generator
from fedbench.training.evaluation import recalibrate, score_batches

Values = npt.NDArray[np.float64]
Statistics = Literal["recalibrated", "interpolated"]

BATCH = 256
"""Samples of a minibatch, for scores and Hessian products."""


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and accuracy (0..1) at one point."""

    loss: float
    accuracy: float


class LossSurface:
    """Scores the parameters of one network on a fixed sample of rows.

    BatchNorm's running statistics belong to one set of parameters, and no rule says what they are in between: they are
    computed anew over training rows at each point ("recalibrated"), or interpolated like the parameters.

    Attributes:
        samples: the number of rows that are scored.
        statistics: what becomes of the running statistics.
    """

    def __init__(
        self, model: RecordedModel, split: Literal["train", "test"], samples: int, statistics: Statistics, seed: int
    ) -> None:
        """Draw the rows.

        Args:
            model: any model of the run whose network and data are used.
            split: whose rows are scored: those of all clients, or the test split.
            samples: number of rows at most, drawn without replacement.
            statistics: what becomes of the running statistics; without effect on a network without any.
            seed: of the draw.
        """
        experiment = model.experiment
        data = experiment.problem.federation.data
        chosen = data.train if split == "train" else data.test
        everyone = np.unique(np.concatenate(experiment.problem.federation.rows))
        rows = everyone if split == "train" else np.arange(len(chosen))
        rows = np.sort(generator(seed, "landscape").permutation(rows)[:samples])
        self.samples, self.statistics = len(rows), statistics
        self._experiment = experiment
        self._flat = model.build()
        self._train_rows = everyone
        self._train, _ = host_tensors(data.train)
        self._inputs = torch.from_numpy(np.ascontiguousarray(chosen.inputs[rows]))
        self._labels = torch.from_numpy(chosen.labels[rows])

    def score(self, vector: Vector, statistics: Vector) -> Score:
        """The score at a point.

        Args:
            vector: float32, the parameters.
            statistics: float32, the running statistics there, which count where they are interpolated.
        """
        self._place(vector, statistics)
        borders = [(start, min(start + BATCH, self.samples)) for start in range(0, self.samples, BATCH)]
        seed = self._experiment.config.seed
        scores = score_batches(self._flat, self._inputs, self._labels, borders, self._experiment.transform, seed)
        loss, correct = sum(score.loss_sum for score in scores), sum(score.correct or 0 for score in scores)
        return Score(loss / self.samples, correct / self.samples)

    def sharpness(self, vector: Vector, statistics: Vector, seed: int) -> float:
        """The largest eigenvalue of the Hessian of the loss at a point, with the running statistics there fixed.

        Args:
            vector, statistics: as for `score`.
            seed: of the iteration's start.
        """
        from fedbench.analysis.sharpness import largest_eigenvalue

        self._place(vector, statistics)
        self._flat.module.eval()
        batches = [
            (self._experiment.transform(self._inputs[start : start + BATCH]), self._labels[start : start + BATCH])
            for start in range(0, self.samples, BATCH)
        ]
        return largest_eigenvalue(self._flat.module, batches, seed)

    def _place(self, vector: Vector, statistics: Vector) -> None:
        self._flat.vector.copy_(_tensor(vector))
        self._flat.statistics.copy_(_tensor(statistics))
        if self.statistics == "recalibrated" and len(statistics):
            seed, transform = self._experiment.config.seed, self._experiment.transform
            recalibrate(self._flat, self._train, self._train_rows, transform, seed)


def _tensor(vector: Vector) -> Tensor:
    return torch.from_numpy(np.array(vector, np.float32))


@dataclass(frozen=True)
class Plane:
    """The plane through three points of the parameter space, with orthonormal directions.

    Attributes:
        origin: float64 [P], the first point.
        across, up: float64 [P], orthonormal; the second point lies on `across`.
        places: (x, y) of the three points.
    """

    origin: Values
    across: Values
    up: Values
    places: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

    @classmethod
    def through(cls, points: Sequence[Vector]) -> "Plane | None":
        """The plane through three points; None where they lie on a line."""
        first, second, third = (np.asarray(point, np.float64) for point in points)
        edge, other = second - first, third - first
        length = float(np.linalg.norm(edge))
        if length == 0:
            return None
        across = edge / length
        along = float(other @ across)
        rest = other - along * across
        height = float(np.linalg.norm(rest))
        if height <= 1e-6 * max(length, abs(along)):
            return None
        return cls(first, across, rest / height, ((0.0, 0.0), (length, 0.0), (along, height)))

    def point(self, x: float, y: float) -> Vector:
        """float32 [P], the parameters at a place."""
        return (self.origin + x * self.across + y * self.up).astype(np.float32)

    def shares(self, x: float, y: float) -> tuple[float, float, float]:
        """The weights of the three points, which sum to 1, that give a place."""
        (_, (length, _), (along, height)) = self.places
        third = y / height
        second = (x - third * along) / length
        return 1 - second - third, second, third

    def grid(self, points: int, margin: float = 0.25) -> tuple[Values, Values]:
        """float64 [points] each, the places across and up of a grid around the three points.

        Args:
            points: in each direction.
            margin: the share of the extent that is added on each side.
        """
        axes = []
        for values in zip(*self.places, strict=True):
            low, high = min(values), max(values)
            axes.append(np.linspace(low - margin * (high - low), high + margin * (high - low), points))
        return axes[0], axes[1]
