"""Charts as PDF files, drawn by matplotlib with the geometry of their SVG; fonts are embedded as TrueType.

matplotlib is imported when a file is drawn. Some publishers refuse the Type 3 fonts that it embeds by default.
"""

import io
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedbench.report.palette import (
    BAND,
    DASHES,
    GROUND,
    HEAT,
    INK,
    LIGHT_NUMBERS_FROM,
    LINES,
    RULE,
    SHADES,
    colour_of,
    dashes_of,
)
from fedbench.report.svg_chart import HEIGHT, MOST_DOTS, WIDTH, Chart, letter_places
from fedbench.report.svg_file import LEGEND_ROW
from fedbench.report.svg_heatmap import Heatmap, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72
LINE = 1.6
"""Width of a line, in points; matplotlib's dashes are multiples of it."""


def chart_pdf(chart: Chart) -> bytes:
    """A chart with its legend as a PDF file."""
    from matplotlib.figure import Figure

    legend = chart.legend
    height = HEIGHT + LEGEND_ROW * len(legend)
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))
    x, y = chart.scales()
    scale = chart.shown.scale
    place = (x.start / WIDTH, 1 - y.start / height, (x.end - x.start) / WIDTH, (y.start - y.end) / height)
    axes = figure.add_axes(place)
    axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high), xlabel=chart.x_label, ylabel=chart.shown.axis)
    axes.set_xticks(x.ticks, [x.label(tick) for tick in x.ticks])
    axes.set_yticks(y.ticks, [y.label(tick) for tick in y.ticks])
    axes.tick_params(length=0, labelsize=10)
    axes.grid(True, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.target is not None and y.low <= scale * chart.target <= y.high:
        axes.axhline(scale * chart.target, color=INK, linewidth=1, linestyle=(0, (1, 3)))
    for line in chart.lines:
        colour, curve = LINES[colour_of(line.style)], line.curve
        if (curve.high > curve.low).any():
            axes.fill_between(
                curve.x, scale * curve.low, scale * curve.high, color=colour, alpha=BAND, linewidth=0,
                step="post" if curve.is_stepped else None,
            )  # fmt: skip
    for line in chart.lines:
        curve = line.curve
        is_marked = not curve.is_stepped and len(curve.x) <= MOST_DOTS
        axes.plot(
            curve.x, scale * curve.mean, color=LINES[colour_of(line.style)], linewidth=LINE, clip_on=False,
            linestyle=_dashes(line.style), drawstyle="steps-post" if curve.is_stepped else "default",
            marker="o" if is_marked else None, markersize=4, markeredgecolor=GROUND, markeredgewidth=0.6,
        )  # fmt: skip
    for left, top, line in letter_places(chart.lines, x, y, scale):
        figure.text(
            left / WIDTH, 1 - top / height, line.letter, color=LINES[colour_of(line.style)], weight="bold", size=11
        )
    _draw_legend(figure, legend, height)
    return _pdf(figure, chart.title)


def heatmap_pdf(heatmap: Heatmap) -> bytes:
    """A picture of what clients hold as a PDF file."""
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    cells, grid = heatmap.cells, heatmap.grid
    classes, clients = cells.shape
    most = int(cells.max(initial=0))
    opacities = np.array([0.0, *SHADES])[[[shade(int(count), most) for count in row] for row in cells]]
    picture = 1 + opacities[..., None] * (np.array(to_rgb(HEAT)) - 1)
    figure = Figure(figsize=(grid.width / POINTS_PER_INCH, grid.height / POINTS_PER_INCH))
    across, down = grid.across * clients, grid.down * classes
    place = (grid.left / grid.width, 1 - (grid.top + down) / grid.height, across / grid.width, down / grid.height)
    axes = figure.add_axes(place)
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=(0, clients, classes, 0))
    axes.set_xticks([client + 0.5 for client in grid.ticks], [str(client) for client in grid.ticks])
    axes.set_yticks([row + 0.5 for row, _ in grid.labels], [text for _, text in grid.labels])
    axes.tick_params(length=0, labelsize=9)
    axes.set_xlabel("client", size=10)
    for spine in axes.spines.values():
        spine.set_color(RULE)
    if grid.has_numbers:
        for (row, client), count in np.ndenumerate(cells):
            if count:
                is_light = shade(int(count), most) >= LIGHT_NUMBERS_FROM
                axes.text(
                    client + 0.5, row + 0.5, str(count), ha="center", va="center", size=8,
                    color=GROUND if is_light else INK,
                )  # fmt: skip
    left, low = grid.left / grid.width, 8 / grid.height
    key = figure.add_axes((left, low, 16 * len(SHADES) / grid.width, 12 / grid.height))
    key.imshow([[1 + opacity * (np.array(to_rgb(HEAT)) - 1) for opacity in SHADES]], aspect="auto")
    key.set_axis_off()
    figure.text(left + (16 * len(SHADES) + 6) / grid.width, low, f"up to {most:,} samples", size=10)
    return _pdf(figure, heatmap.title)


def _draw_legend(figure: "Figure", legend: list[tuple[int | None, str]], height: float) -> None:
    from matplotlib.lines import Line2D

    for row, (style, text) in enumerate(legend):
        middle = 1 - (HEIGHT + LEGEND_ROW * row + 6) / height
        if style is not None:
            sample = Line2D(
                [8 / WIDTH, 40 / WIDTH], [middle, middle], color=LINES[colour_of(style)], linewidth=LINE,
                linestyle=_dashes(style), transform=figure.transFigure,
            )  # fmt: skip
            figure.add_artist(sample)
        figure.text(47 / WIDTH, middle, text, size=9.5, va="center")


def _dashes(style: int) -> "Literal['solid'] | tuple[float, tuple[float, ...]]":
    dashes = DASHES[dashes_of(style)]
    return (0.0, tuple(length / LINE for length in dashes)) if dashes else "solid"


def _pdf(figure: "Figure", title: str) -> bytes:
    """The file: the same bytes for the same chart, whenever it is drawn."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(content, format="pdf", metadata={"Title": title, "CreationDate": None})
    return content.getvalue()
