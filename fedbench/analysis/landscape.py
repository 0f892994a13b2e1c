"""The loss on lines and on the plane between recorded models, and how sharp it is at each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from fedbench.analysis.landscape_pictures import line_picture, plane_picture
from fedbench.analysis.loss_surface import LossSurface, Plane, Score, Statistics
from fedbench.analysis.recorded_model import RecordedExperiment, RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.analysis.sharpness import check_sharpness_library
from fedbench.errors import ConfigError
from fedbench.measures.barrier import loss_barrier, places_on_line
from fedbench.protocol.layout import Vector
from fedbench.records.kept import kept_messages, kept_models, load_message
from fedbench.records.recorded_analysis import ShownTable

LINE_SCHEMA = pa.schema(
    [
        ("start", pa.string()),
        ("end", pa.string()),
        ("t", pa.float64()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
    ]
)
"""`line.parquet`: the score at (1 - t) start + t end."""

PLANE_SCHEMA = pa.schema([("x", pa.float64()), ("y", pa.float64()), ("loss", pa.float64()), ("accuracy", pa.float64())])
"""`plane.parquet`: the score at a place of the plane, in lengths of the parameter space from the first model."""

MODEL_SCHEMA = pa.schema(
    [("model", pa.string()), ("loss", pa.float64()), ("accuracy", pa.float64()), ("sharpness", pa.float64())]
)
"""`models.parquet`: sharpness is the largest eigenvalue of the Hessian, null where it was not computed."""

Line = tuple[RecordedModel, RecordedModel, list[float], list[Score]]
"""The models at both ends, the places t, and the scores there."""


class Landscape(AnalysisSettings):
    """The loss on the lines from the first model to the others and on the plane of three, and the sharpness of each.

    Attributes:
        round: Of a single run that has kept its models around this round and a client's message in it: the client's
            model, the mean, and the next mean where it is kept. None: the models that are named; of a single one, the
            line from the run's initial model to it.
        client: The client whose message in that round is read; none: the first that is kept.
        points: Places on each line.
        grid: Places of the plane in each direction; 0: no plane.
        samples: Rows that are scored.
        split: Whose rows: those of all clients, or the test split.
        statistics: BatchNorm's running statistics between the models: computed anew over training rows, or
            interpolated like the parameters.
        sharpness: Whether the largest eigenvalue of the Hessian is computed.
        seed: Of the draw of the rows.
    """

    kind: ClassVar[str] = "landscape"

    round: int | None = Field(None, ge=1)
    client: int | None = Field(None, ge=0)
    points: int = Field(21, ge=3)
    grid: int = Field(15, ge=0)
    samples: int = Field(1000, ge=1)
    split: Literal["train", "test"] = "train"
    statistics: Statistics = "recalibrated"
    sharpness: bool = True
    seed: int = Field(0, ge=0)

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Score the lines, the plane and the models."""
        if self.client is not None and self.round is None:
            raise ConfigError(f"--client {self.client}: has no effect without --round, which names the message")
        if self.sharpness:
            check_sharpness_library()
        looked_at = self._looked_at(models)
        check_alike(looked_at)
        first = looked_at[0]
        if self.statistics == "interpolated" and first.experiment.problem.spec.keeps_statistics:
            raise ConfigError(
                f"--statistics interpolated: in {first.label} each client keeps its running statistics, so that the "
                "global model has none; use recalibrated"
            )
        surface = LossSurface(first, self.split, self.samples, self.statistics, self.seed)
        plane = Plane.through([model.vector for model in looked_at[:3]]) if len(looked_at) >= 3 and self.grid else None
        count = _Counted(
            progress,
            (len(looked_at) - 1) * self.points
            + (self.grid**2 if plane else 0)
            + len(looked_at) * (2 if self.sharpness else 1),
        )
        lines = [self._line(surface, first, other, count) for other in looked_at[1:]]
        grid = None if plane is None else self._plane(surface, plane, looked_at[:3], count)
        scores, eigenvalues = [], []
        for model in looked_at:
            scores.append(surface.score(model.vector, model.statistics))
            count(f"{model.label}: loss")
            if self.sharpness:
                eigenvalues.append(surface.sharpness(model.vector, model.statistics, self.seed))
                count(f"{model.label}: sharpness")
        return self._analysis(looked_at, surface, lines, plane, grid, scores, eigenvalues)

    def _looked_at(self, models: Sequence[RecordedModel]) -> list[RecordedModel]:
        """The models between which the loss is looked at."""
        if self.round is not None:
            if len(models) > 1:
                raise ConfigError(f"--round {self.round}: is of one run; {len(models)} are named")
            return around_round(models[0].experiment, self.round, self.client)
        if len(models) > 1:
            return list(models)
        return [replace(models[0].experiment.initial_model(), called=models[0].called), models[0]]

    def _line(self, surface: LossSurface, start: RecordedModel, end: RecordedModel, count: "_Counted") -> Line:
        places = places_on_line(self.points)
        scores = []
        for t in places:
            vector = _mixed((1 - t, t), (start.vector, end.vector))
            statistics = _mixed((1 - t, t), (start.statistics, end.statistics))
            scores.append(surface.score(vector, statistics))
            count(f"line from {start.label} to {end.label}")
        return start, end, places, scores

    def _plane(
        self, surface: LossSurface, plane: Plane, corners: Sequence[RecordedModel], count: "_Counted"
    ) -> list[tuple[float, float, Score]]:
        across, up = plane.grid(self.grid)
        grid = []
        for y in up.tolist():
            for x in across.tolist():
                statistics = _mixed(plane.shares(x, y), [model.statistics for model in corners])
                grid.append((x, y, surface.score(plane.point(x, y), statistics)))
                count("plane")
        return grid

    def _analysis(
        self,
        models: Sequence[RecordedModel],
        surface: LossSurface,
        lines: Sequence[Line],
        plane: Plane | None,
        grid: Sequence[tuple[float, float, Score]] | None,
        scores: Sequence[Score],
        eigenvalues: Sequence[float],
    ) -> Analysis:
        labels = tuple(model.label for model in models)
        barriers = {
            (start.label, end.label): loss_barrier([score.loss for score in course]) for start, end, _, course in lines
        }
        pictures = [
            Picture(
                "line",
                "Loss on the line",
                f"Mean cross-entropy at {self.points} places on each line.",
                line_picture(
                    [
                        (f"{start.label} to {end.label}", places, [score.loss for score in course])
                        for start, end, places, course in lines
                    ]
                ),
            )
        ]
        if plane is not None and grid is not None:
            losses = np.array([score.loss for _, _, score in grid]).reshape(self.grid, self.grid)
            picture = plane_picture(*plane.grid(self.grid), losses, plane.places, labels[:3])
            caption = f"Mean cross-entropy at {self.grid} x {self.grid} places of the plane through the three models."
            pictures.append(Picture("plane", "Loss on the plane", caption, picture))
        sharp: list[float | None] = list(eigenvalues) if eigenvalues else [None] * len(models)
        return Analysis(
            kind=self.kind,
            title="Loss landscape",
            intro=tuple(self._intro(models, surface, plane)),
            models=labels,
            settings=self.model_dump(mode="json"),
            data={
                "line": _line_rows(lines),
                "models": _model_rows(labels, scores, sharp),
                **({} if grid is None else {"plane": _plane_rows(grid)}),
            },
            tables=(_model_table(labels, scores, sharp), _barrier_table(lines, barriers)),
            pictures=tuple(pictures),
            metrics={
                **{f"loss/{label}": score.loss for label, score in zip(labels, scores, strict=True)},
                **{f"sharpness/{label}": value for label, value in zip(labels, eigenvalues, strict=False)},
                **{f"barrier/{start} to {end}": value for (start, end), value in barriers.items() if isfinite(value)},
            },
        )

    def _intro(self, models: Sequence[RecordedModel], surface: LossSurface, plane: Plane | None) -> list[str]:
        rows = "rows of all clients' training data" if self.split == "train" else "rows of the test split"
        name = models[0].experiment.name
        sentences = [f"The loss is the mean cross-entropy over {surface.samples} {rows} of {name}, drawn by seed."]
        if models[0].layout.statistics_size:
            how = (
                "computed anew over training rows at each point"
                if self.statistics == "recalibrated"
                else "interpolated between the models like the parameters"
            )
            sentences.append(f"BatchNorm's running statistics are {how}.")
        if self.sharpness:
            sentences.append(
                "The sharpness is the largest eigenvalue of the loss's Hessian in the parameters, with the running "
                "statistics fixed."
            )
        if len(models) >= 3 and self.grid and plane is None:
            sentences.append("The first three models lie on a line, so that there is no plane through them.")
        return sentences


@dataclass
class _Counted:
    """Counts the steps of an analysis for its progress."""

    progress: Progress
    total: int
    done: int = 0

    def __call__(self, text: str) -> None:
        """A step is done."""
        self.done += 1
        self.progress(self.done, self.total, text)


def around_round(experiment: RecordedExperiment, round_number: int, client: int | None) -> list[RecordedModel]:
    """A client's model at the end of a round, the mean after it, and the next mean where it is kept.

    Args:
        experiment: a run that has kept them (`runtime.keep_models`, `runtime.keep_messages`).
        round_number: counted from 1.
        client: None: the first one whose message is kept.

    Raises:
        DataError: the run has not kept them.
    """
    if client is None:
        client = next((sender for number, sender in kept_messages(experiment.directory) if number == round_number), 0)
    change, _ = load_message(experiment.directory, round_number, client)
    before, mean = experiment.kept_model(round_number - 1), experiment.kept_model(round_number)
    vector, statistics = np.array(before.vector), np.array(before.statistics)
    for slots, target in ((experiment.layout.slots, vector), (experiment.layout.statistics, statistics)):
        for slot in slots:
            if slot.name in change:
                slot.view(target)[...] += change[slot.name]
    models = [before.with_values(vector, statistics, f"client {client} in round {round_number}"), mean]
    if round_number + 1 in kept_models(experiment.directory):
        models.append(experiment.kept_model(round_number + 1))
    return models


def check_alike(models: Sequence[RecordedModel]) -> None:
    """Check that models can be mixed.

    Raises:
        ConfigError: they have other networks, or were trained on other data.
    """
    first = models[0]
    for other in models[1:]:
        if other.layout != first.layout:
            raise ConfigError(f"{other.label}: has another network than {first.label}; there is no line between them")
        if other.experiment.run.description.dataset_name != first.experiment.run.description.dataset_name:
            raise ConfigError(f"{other.label}: was trained on other data than {first.label}; name runs on one data set")


def _mixed(shares: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    """sum_i share_i vector_i in float64, as float32."""
    mixed = sum(share * np.asarray(vector, np.float64) for share, vector in zip(shares, vectors, strict=True))
    return np.asarray(mixed, np.float32)


def _model_table(labels: Sequence[str], scores: Sequence[Score], sharpness: Sequence[float | None]) -> ShownTable:
    rows = tuple(
        (label, (f"{score.loss:.4g}", f"{score.accuracy:.2%}", "-" if value is None else f"{value:.4g}"))
        for label, score, value in zip(labels, scores, sharpness, strict=True)
    )
    return ShownTable("The models", "model", ("loss", "accuracy", "sharpness"), rows)


def _barrier_table(lines: Sequence[Line], barriers: "dict[tuple[str, str], float]") -> ShownTable:
    rows = tuple(
        (
            f"{start.label} to {end.label}",
            (
                f"{np.linalg.norm(end.vector.astype(np.float64) - start.vector):.4g}",
                f"{max(score.loss for score in course):.4g}",
                f"{barriers[start.label, end.label]:.4g}",
            ),
        )
        for start, end, _, course in lines
    )
    note = "The barrier is how far the loss rises, at most, above the straight line between the losses at both ends."
    return ShownTable("The lines", "line", ("distance", "highest loss", "barrier"), rows, (note,))


def _line_rows(lines: Sequence[Line]) -> pa.Table:
    rows = [
        {"start": start.label, "end": end.label, "t": t, "loss": score.loss, "accuracy": score.accuracy}
        for start, end, places, course in lines
        for t, score in zip(places, course, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=LINE_SCHEMA)


def _plane_rows(grid: Sequence[tuple[float, float, Score]]) -> pa.Table:
    rows = [{"x": x, "y": y, "loss": score.loss, "accuracy": score.accuracy} for x, y, score in grid]
    return pa.Table.from_pylist(rows, schema=PLANE_SCHEMA)


def _model_rows(labels: Sequence[str], scores: Sequence[Score], sharpness: Sequence[float | None]) -> pa.Table:
    rows = [
        {"model": label, "loss": score.loss, "accuracy": score.accuracy, "sharpness": value}
        for label, score, value in zip(labels, scores, sharpness, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=MODEL_SCHEMA)
