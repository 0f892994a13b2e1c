"""What the figures of a run have in common: colours, titles, grids."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#6B6B6B"
"""Colours that colour-blind readers tell apart (Okabe and Ito 2008), and grey."""

DOTS_PER_INCH = 150

LETTERS_PER_INCH = 11
"""What an inch of a title holds."""


def title_figure(figure: "Figure", text: str) -> None:
    """Write a title above all axes, in lines that are not wider than the figure."""
    figure.suptitle(textwrap.fill(text, int(LETTERS_PER_INCH * figure.get_figwidth())))


def finish_axes(axes: "Axes") -> None:
    """Give axes a light grid behind what is drawn, and no frame above and at the right."""
    axes.grid(True, linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
