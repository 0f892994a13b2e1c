"""Pictures of a loss: on lines between models, and on the plane through three of them."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbench.report.palette import LINES

Values = npt.NDArray[np.float64]

DOTS_PER_INCH = 150


def line_picture(courses: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> bytes:
    """A PNG of the loss on lines.

    Args:
        courses: (name, places t from 0 to 1, losses) of each line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for number, (name, places, losses) in enumerate(courses):
        axes.plot(places, losses, marker="o", markersize=3, color=LINES[number % len(LINES)], label=name)
    axes.set_xlabel("place on the line, from its first model (0) to its second (1)")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def plane_picture(
    across: Values, up: Values, losses: Values, places: Sequence[tuple[float, float]], labels: Sequence[str]
) -> bytes:
    """A PNG of the loss on a plane, with the models in it.

    Args:
        across, up: float64 [n], [m], the places of the grid, in lengths of the parameter space.
        losses: float64 [m, n].
        places: (x, y) of the models.
        labels: their names.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    shown = np.log10(np.maximum(losses, 1e-12))
    filled = axes.contourf(across, up, shown, levels=20, cmap="viridis")
    axes.contour(across, up, shown, levels=20, colors="white", linewidths=0.3)
    figure.colorbar(filled, ax=axes, label="log10 of the loss")
    middle = (across[0] + across[-1]) / 2
    for (x, y), label in zip(places, labels, strict=True):
        axes.plot(x, y, "o", color="#d55e00", markeredgecolor="white", markersize=8)
        side = "left" if x < middle else "right"
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        offset = (8 if side == "left" else -8, 6)
        axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", fontsize=8, ha=side, bbox=box)
    axes.set_xlabel("distance in the parameter space, from the first model towards the second")
    axes.set_ylabel("distance at right angles to that")
    return _png(figure)


def _png(figure: object) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")  # type: ignore[attr-defined]
    return content.getvalue()
