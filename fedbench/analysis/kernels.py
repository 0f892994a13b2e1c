"""The kernels of a network's first convolution, as pictures (FedPart, arXiv 2410.11559, Figure 7)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field
from torch import nn

from fedbench.analysis.channel_grid import grid_picture, scaled_alone
from fedbench.analysis.layers import called_layers, chosen_layer
from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.errors import ConfigError
from fedbench.records.recorded_analysis import ShownTable

Array = npt.NDArray[np.float32]

KERNELS = (nn.Conv2d,)

METRICS = ("norm_mean", "start_cosine")
"""Figures of a model's kernels that the tracker gets."""

SCHEMA = pa.schema(
    [("model", pa.string()), ("channel", pa.int32()), ("norm", pa.float64()), ("weights", pa.list_(pa.float32()))]
)
"""`kernels.parquet`: one row a model and channel; `weights` is the kernel, flattened from [C, k, k]."""


class Kernels(AnalysisSettings):
    """The kernels of one convolution as a grid, the same channels side by side.

    Attributes:
        layer: Name of the convolution; none: the first that is called.
        channels: Output channels that are shown, from the first on.
    """

    kind: ClassVar[str] = "kernels"

    layer: str | None = None
    channels: int = Field(64, ge=1)

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Draw the kernels of each model, one picture for all of them."""
        weights: list[Array] = []
        starts: list[Array] = []
        layers: list[str] = []
        for done, model in enumerate(models):
            progress(done, len(models), model.label)
            flat = model.build()
            layer = chosen_layer(called_layers(flat.module, model, KERNELS), self.layer, model.label)
            weights.append(flat.module.get_parameter(f"{layer}.weight").detach().numpy().copy())
            first = model.experiment.initial_model().build()
            starts.append(first.module.get_parameter(f"{layer}.weight").detach().numpy().copy())
            layers.append(layer)
        shape = weights[0].shape
        for model, weight in zip(models, weights, strict=True):
            if weight.shape != shape:
                raise ConfigError(
                    f"{model.label}: its kernels are {list(weight.shape)}, those of {models[0].label} {list(shape)}; "
                    "compare networks of one shape"
                )
        shown = min(self.channels, shape[0])
        labels = tuple(model.label for model in models)
        size = f"{shape[2]}x{shape[3]}"
        figures = {
            label: kernel_figures(weight, start) for label, weight, start in zip(labels, weights, starts, strict=True)
        }
        picture = Picture(
            "kernels",
            f"Kernels of {layers[0]}",
            f"Channels 0 to {shown - 1} of {shape[0]}, {size} with {shape[1]} input channels, in the same order for "
            "each model. Each kernel is scaled by itself: its smallest value is black, its largest white.",
            grid_picture([[kernel_picture(weight[channel]) for channel in range(shown)] for weight in weights], labels),
        )
        return Analysis(
            kind=self.kind,
            title=f"Kernels of the layer {layers[0]}",
            intro=(f"The weights of {layers[0]} ({shape[0]} output channels of {shape[1]} x {size}).",),
            models=labels,
            settings=self.model_dump(),
            data={"kernels": _rows(labels, weights)},
            tables=(_figures_table(figures),),
            pictures=(picture,),
            metrics={f"{key}/{label}": of_model[key] for label, of_model in figures.items() for key in METRICS},
        )


def kernel_picture(kernel: Array) -> Array:
    """One kernel as a picture, float32 [k, k, 3] in [0, 1], scaled by itself.

    Args:
        kernel: float32 [C, k, k]. Three input channels are shown as red, green and blue; any other number as the
            mean over the input channels, in grey.
    """
    of_channels = kernel if kernel.shape[0] == 3 else kernel.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return scaled_alone(of_channels.transpose(1, 2, 0))


def kernel_figures(weight: Array, start: Array) -> dict[str, float]:
    """Figures of a model's kernels.

    Args:
        weight: float32 [O, C, k, k].
        start: float32 [O, C, k, k], the kernels before the first round.

    Returns:
        norm_mean, norm_min, norm_max: of the kernels' Euclidean norms; start_cosine: the mean over the kernels of the
        cosine with what each was before the first round.
    """
    kernels, before = weight.reshape(len(weight), -1), start.reshape(len(start), -1)
    norms, norms_before = np.linalg.norm(kernels, axis=1), np.linalg.norm(before, axis=1)
    cosines = (kernels * before).sum(axis=1) / np.maximum(norms * norms_before, np.finfo(np.float32).tiny)
    return {
        "norm_mean": float(norms.mean()),
        "norm_min": float(norms.min()),
        "norm_max": float(norms.max()),
        "start_cosine": float(cosines.mean()),
    }


def _figures_table(figures: Mapping[str, Mapping[str, float]]) -> ShownTable:
    keys = ("norm_mean", "norm_min", "norm_max", "start_cosine")
    rows = tuple((label, tuple(f"{of_model[key]:.4f}" for key in keys)) for label, of_model in figures.items())
    headings = ("mean norm", "smallest norm", "largest norm", "cosine with the start")
    note = "The last column is the mean cosine of each kernel with what it was before the first round."
    return ShownTable("Norms of the kernels", "model", headings, rows, (note,))


def _rows(labels: Sequence[str], weights: Sequence[Array]) -> pa.Table:
    """The kernels with `SCHEMA`."""
    columns: dict[str, list[object]] = {"model": [], "channel": [], "norm": [], "weights": []}
    for label, weight in zip(labels, weights, strict=True):
        for channel, kernel in enumerate(weight):
            columns["model"].append(label)
            columns["channel"].append(channel)
            columns["norm"].append(float(np.linalg.norm(kernel)))
            columns["weights"].append(kernel.ravel().tolist())
    return pa.table(
        columns,
        schema=pa.schema(
            [
                ("model", pa.string()),
                ("channel", pa.int32()),
                ("norm", pa.float64()),
                ("weights", pa.list_(pa.float32())),
            ]
        ),
    )
