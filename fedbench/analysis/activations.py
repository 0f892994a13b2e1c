"""Activation maximisation: the images that a network's channels answer most strongly to (FedPart, Figure 6).

An image x starts from N(0, 1) and is changed by Adam to maximise

    mean_{i,j} a_c(x)[i, j]  -  lambda TV(x),        TV(x) = mean |x[i+1, j] - x[i, j]| + mean |x[i, j+1] - x[i, j]|

where a_c is channel c of a layer, in evaluation mode: after a ReLU for a layer with places i, j (without it, the mean
over places would be linear in x in the first layer, and blind to edges), as it is for a layer with one value a channel.
FedPart (arXiv 2410.11559, Section 4.4) uses Adam with learning rate 0.1, 1,000 iterations and lambda = 1; the exact
form of TV and the place of a_c are not given there and are stated here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench.analysis.channel_grid import matrix_picture, scaled_alone
from fedbench.analysis.layers import chosen_layers, group_layers
from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.errors import ConfigError
from fedbench.randomness import torch_seed
from fedbench.records.recorded_analysis import ShownTable

Array = npt.NDArray[np.float32]

STEPS_SHOWN = 50
"""Iterations from one report of the progress to the next."""

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("layer", pa.string()),
        ("depth", pa.int32()),
        ("channel", pa.int32()),
        ("activation_at_start", pa.float64()),
        ("activation", pa.float64()),
        ("total_variation", pa.float64()),
        ("frequency", pa.float64()),
        ("image", pa.list_(pa.float32())),
    ]
)
"""`activations.parquet`: one row a model, layer and channel. depth counts the layers that were looked into, from 0.
frequency: mean spatial frequency of the image in cycles per pixel. image: flattened from [C, H, W]."""


class Activations(AnalysisSettings):
    """The images that channels of each layer answer most strongly to, the same channels side by side.

    Attributes:
        layers: Names of layers; none: the last of each layer group.
        channels: Channels of each layer, from the first on.
        iterations: Steps of Adam.
        lr: Learning rate of Adam.
        total_variation: Weight of the total variation.
        seed: Of the noise from which the images start; the same for each model and layer.
    """

    kind: ClassVar[str] = "activations"

    layers: tuple[str, ...] = ()
    channels: int = Field(8, ge=1)
    iterations: int = Field(1000, ge=1)
    lr: float = Field(0.1, gt=0)
    total_variation: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0)

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Maximise the channels of each layer of each model."""
        names = [self._layer_names(model) for model in models]
        if different := [model.label for model, own in zip(models, names, strict=True) if own != names[0]]:
            raise ConfigError(
                f"{different[0]}: has other layers than {models[0].label}; compare networks of one shape, or name the "
                "layers that both have"
            )
        results: list[dict[str, Maximised]] = []
        total = len(models) * len(names[0]) * self.iterations
        for place, model in enumerate(models):
            scored = model.scored().build()
            done = place * len(names[0]) * self.iterations
            results.append(self._of_model(scored.module, model, names[0], progress, done, total))
        return self._analysis(models, names[0], results)

    def _layer_names(self, model: RecordedModel) -> list[str]:
        if (kind := model.experiment.problem.federation.data.kind) != "image":
            raise ConfigError(f"{model.label}: activation maximisation draws images, and the run is on {kind} data")
        groups = group_layers(model.build().module, model)
        return chosen_layers(groups, self.layers, model.label)

    def _of_model(
        self,
        module: nn.Module,
        model: RecordedModel,
        layers: Sequence[str],
        progress: Progress,
        done: int,
        total: int,
    ) -> "dict[str, Maximised]":
        height, width, channels = model.experiment.problem.spec.task.input_shape
        maximised: dict[str, Maximised] = {}
        for number, layer in enumerate(layers):
            first = done + number * self.iterations

            def shown(step: int, first: int = first, layer: str = layer) -> None:
                progress(first + step, total, f"{model.label}: {layer}")

            noise = torch.randn(
                (self.channels, channels, height, width),
                generator=torch.Generator().manual_seed(torch_seed(self.seed, "activations")),
            )
            maximised[layer] = maximise(
                module,
                layer,
                noise,
                iterations=self.iterations,
                lr=self.lr,
                total_variation=self.total_variation,
                step_done=shown,
            )
        return maximised

    def _analysis(
        self, models: Sequence[RecordedModel], layers: Sequence[str], results: "Sequence[Mapping[str, Maximised]]"
    ) -> Analysis:
        labels = tuple(model.label for model in models)
        recalibrated = any(model.experiment.problem.spec.keeps_statistics for model in models)
        statistics = "recalibrated over training rows" if recalibrated else "those of the run"
        frequencies = {
            label: [float(np.mean(of_model[layer].frequency)) for layer in layers]
            for label, of_model in zip(labels, results, strict=True)
        }
        orders = {label: depth_order(course) for label, course in frequencies.items()}
        return Analysis(
            kind=self.kind,
            title="Activation maximisation",
            intro=(
                f"Each image starts from N(0, 1), in the units of the network's normalised input, and is changed by "
                f"{self.iterations} steps of Adam (learning rate {self.lr:g}) to raise the mean activation of one "
                f"channel, less {self.total_variation:g} times the mean absolute difference of neighbouring pixels.",
                f"The network is in evaluation mode, with running statistics {statistics}; the activation of a layer "
                "with places is taken after a ReLU.",
                "The frequency is the mean spatial frequency of an image in cycles per pixel: edges and stripes are "
                "high, large shapes low. Its order with depth is Spearman's rank correlation of depth and falling "
                "frequency: 1 where each deeper layer answers to larger shapes. Both are measures of fedbench's own, "
                "not the paper's.",
            ),
            models=labels,
            settings=self.model_dump(mode="json"),
            data={"activations": _rows(labels, layers, results)},
            tables=(
                _frequency_table(labels, layers, frequencies, orders),
                _activation_table(labels, layers, results),
            ),
            pictures=(
                Picture(
                    "activations",
                    "What channels answer to, from shallow to deep",
                    f"Channels 0 to {self.channels - 1} (as far as a layer has them), the same for each model. "
                    "Each image is scaled by itself: its smallest value is black, its largest white.",
                    matrix_picture(
                        [
                            [[as_picture(image) for image in of_model[layer].images] for of_model in results]
                            for layer in layers
                        ],
                        layers,
                        labels,
                    ),
                ),
            ),
            metrics={
                **{
                    f"frequency/{label}/{layer}": value
                    for label, course in frequencies.items()
                    for layer, value in zip(layers, course, strict=True)
                },
                **{f"depth_order/{label}": order for label, order in orders.items() if order is not None},
            },
        )


@dataclass(frozen=True)
class Maximised:
    """Images that the channels of one layer answer strongly to.

    Attributes:
        images: float32 [K, C, H, W], one a channel.
        at_start, activation: float64 [K], the mean activation of each channel for the noise and for its image.
        total_variation: float64 [K], of the images.
        frequency: float64 [K], mean spatial frequency in cycles per pixel.
    """

    images: Array
    at_start: npt.NDArray[np.float64]
    activation: npt.NDArray[np.float64]
    total_variation: npt.NDArray[np.float64]
    frequency: npt.NDArray[np.float64]


def maximise(
    module: nn.Module,
    layer: str,
    noise: Tensor,
    *,
    iterations: int,
    lr: float,
    total_variation: float,
    step_done: Callable[[int], None] | None = None,
) -> Maximised:
    """Maximise the first channels of a layer, each with an image of its own.

    Args:
        module: the network, in evaluation mode; its parameters are not changed.
        layer: the name of a layer with outputs [N, K] or [N, K, H, W].
        noise: float32 [channels, C, H, W], the images at the start; those beyond the layer's channels are left out.
        iterations, lr, total_variation: as for `Activations`.
        step_done: called with the number of steps done, from time to time.

    Raises:
        ConfigError: the layer has outputs of another kind.
    """
    outputs: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    module.requires_grad_(False)
    try:
        with torch.no_grad():
            module(noise[:1])
        if not isinstance(outputs[0], Tensor) or outputs[0].dim() not in (2, 4):
            raise ConfigError(f"--layer {layer}: has no output [N, channels] or [N, channels, H, W] to maximise")
        kept = min(len(noise), outputs[0].shape[1])
        images = noise[:kept].clone().requires_grad_()
        optimizer = torch.optim.Adam([images], lr=lr)

        def activations() -> Tensor:
            outputs.clear()
            module(images)
            return channel_activations(outputs[0])

        with torch.no_grad():
            at_start = activations().double().numpy()
        for step in range(iterations):
            optimizer.zero_grad()
            objective = activations() - total_variation * total_variations(images)
            (-objective.sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step_done is not None and step % STEPS_SHOWN == 0:
                step_done(step)
        with torch.no_grad():
            reached, variation = activations().double().numpy(), total_variations(images).double().numpy()
    finally:
        hook.remove()
    final = images.detach().numpy().copy()
    frequency = np.array([mean_frequency(image) for image in final])
    return Maximised(final, at_start, reached, variation, frequency)


def channel_activations(output: Tensor) -> Tensor:
    """float32 [K], the mean activation of channel k for image k.

    Args:
        output: [K, channels, H, W], whose activation is taken after a ReLU, or [K, channels].
    """
    channels = torch.arange(len(output))
    if output.dim() == 2:
        return output[channels, channels]
    return torch.relu(output[channels, channels]).mean(dim=(1, 2))


def total_variations(images: Tensor) -> Tensor:
    """float32 [K], TV of each image: the mean absolute difference of neighbours, down and across.

    Args:
        images: float32 [K, C, H, W].
    """
    down, across = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    return down.mean(dim=(1, 2, 3)) + across.mean(dim=(1, 2, 3))


def mean_frequency(image: Array) -> float:
    """The mean spatial frequency of an image in cycles per pixel, weighted by power; 0 for an image of one colour.

    Args:
        image: float32 [C, H, W].
    """
    power = (np.abs(np.fft.fft2(image - image.mean(axis=(1, 2), keepdims=True), axes=(1, 2))) ** 2).sum(axis=0)
    height, width = image.shape[1:]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    whole = float(power.sum())
    return float((radius * power).sum() / whole) if whole > 0 else 0.0


def depth_order(frequencies: Sequence[float]) -> float | None:
    """Spearman's rank correlation of depth and falling frequency; None for fewer than three layers, or equal ones.

    >>> depth_order([0.4, 0.3, 0.2]), depth_order([0.2, 0.3, 0.4])
    (1.0, -1.0)
    """
    from scipy.stats import spearmanr

    if len(frequencies) < 3 or len(set(frequencies)) == 1:
        return None
    return float(spearmanr(range(len(frequencies)), [-value for value in frequencies]).statistic)


def as_picture(image: Array) -> Array:
    """An image as it is drawn, float32 [H, W, 3] in [0, 1], scaled by itself.

    Args:
        image: float32 [C, H, W]. Three channels are red, green and blue; any other number is shown as their mean.
    """
    of_channels = image if image.shape[0] == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return scaled_alone(of_channels.transpose(1, 2, 0))


def _frequency_table(
    labels: Sequence[str],
    layers: Sequence[str],
    frequencies: Mapping[str, Sequence[float]],
    orders: Mapping[str, float | None],
) -> ShownTable:
    rows = tuple(
        (label, (*(f"{value:.3f}" for value in frequencies[label]), _order(orders[label]))) for label in labels
    )
    title = "Mean spatial frequency by layer (cycles per pixel)"
    return ShownTable(title, "model", (*layers, "order with depth"), rows)


def _order(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _activation_table(
    labels: Sequence[str], layers: Sequence[str], results: Sequence[Mapping[str, Maximised]]
) -> ShownTable:
    rows = tuple(
        (label, tuple(f"{of_model[layer].activation.mean():.3g}" for layer in layers))
        for label, of_model in zip(labels, results, strict=True)
    )
    return ShownTable("Mean activation that was reached", "model", tuple(layers), rows)


def _rows(labels: Sequence[str], layers: Sequence[str], results: Sequence[Mapping[str, Maximised]]) -> pa.Table:
    """The images with `SCHEMA`."""
    rows = [
        {
            "model": label,
            "layer": layer,
            "depth": depth,
            "channel": channel,
            "activation_at_start": maximised.at_start[channel],
            "activation": maximised.activation[channel],
            "total_variation": maximised.total_variation[channel],
            "frequency": maximised.frequency[channel],
            "image": image.ravel().tolist(),
        }
        for label, of_model in zip(labels, results, strict=True)
        for depth, (layer, maximised) in enumerate((layer, of_model[layer]) for layer in layers)
        for channel, image in enumerate(maximised.images)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
