"""Pictures of channels as a grid: a block for each model, the same channels in the same places."""

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

DOTS_PER_INCH = 150
WIDEST = 7.8
"""Inches of a picture, at most: 1,170 dots, which the text of a page of 1,280 pixels has room for."""

MOST_BLOCKS = 4
"""Models beside each other, at most; further ones stand below."""

LINE = (0.62, 0.73, 0.90)
"""Red, green and blue of the lines between channels: told from every grey."""

SMALLEST_SIDE, LINE_WIDTH = 24, 2
"""Dots of a channel's side, at least, and of the lines: small pictures are drawn with larger dots."""


def scaled_alone(picture: Array) -> Array:
    """A picture scaled so that its smallest value is 0 and its largest 1; one of equal values is 0.5."""
    low, high = float(picture.min()), float(picture.max())
    if high == low:
        return np.full_like(picture, 0.5)
    return (picture - low) / (high - low)


def block(pictures: Sequence[Array], columns: int) -> Array:
    """Pictures of one size as a grid with lines between them; each dot of theirs becomes several where they are small.

    Args:
        pictures: float32 [h, w, 3] in [0, 1] each.
        columns: pictures in a row.

    Returns:
        float32 [H, W, 3].
    """
    factor = math.ceil(SMALLEST_SIDE / min(pictures[0].shape[:2]))
    height, width = (factor * side for side in pictures[0].shape[:2])
    rows = math.ceil(len(pictures) / columns)
    whole = np.empty((rows * (height + LINE_WIDTH) - LINE_WIDTH, columns * (width + LINE_WIDTH) - LINE_WIDTH, 3))
    whole[:] = LINE
    if free := rows * columns - len(pictures):  # places without a channel are white
        whole[(rows - 1) * (height + LINE_WIDTH) :, (columns - free) * (width + LINE_WIDTH) :] = 1
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + LINE_WIDTH), number % columns * (width + LINE_WIDTH)
        whole[top : top + height, left : left + width] = picture.repeat(factor, 0).repeat(factor, 1)
    return whole.astype(np.float32)


def wide_columns(count: int) -> int:
    """Columns of a block about twice as wide as high, in which the last row is full where that can be had.

    >>> [wide_columns(count) for count in (1, 4, 8, 16, 7)]
    [1, 4, 4, 8, 7]
    """
    least = min(count, math.ceil(math.sqrt(2 * count)))
    return next(columns for columns in range(least, count + 1) if columns == count or count % columns == 0)


def grid_picture(pictures: Sequence[Sequence[Array]], labels: Sequence[str]) -> bytes:
    """A PNG with one block of channels for each model, its name above.

    Args:
        pictures: for each model, one picture a channel, float32 [h, w, 3] in [0, 1].
        labels: the names of the models.
    """
    from matplotlib.figure import Figure

    across = min(MOST_BLOCKS, len(pictures))
    down = math.ceil(len(pictures) / across)
    columns = max(1, math.ceil(math.sqrt(len(pictures[0]))))
    blocks = [block(channels, columns) for channels in pictures]
    side = min(4.0, WIDEST / across)
    ratio = blocks[0].shape[0] / blocks[0].shape[1]
    figure = Figure(figsize=(side * across, (side * ratio + 0.45) * down), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for place, spot in enumerate(axes.flat):
        spot.set_axis_off()
        if place < len(blocks):
            spot.imshow(blocks[place], interpolation="nearest", vmin=0, vmax=1)
            spot.set_title(_folded(labels[place], side), fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def matrix_picture(
    pictures: Sequence[Sequence[Sequence[Array]]], row_labels: Sequence[str], column_labels: Sequence[str]
) -> bytes:
    """A PNG with a block of channels for each row and column, such as layers down and models across.

    Args:
        pictures: for each row, for each column, one picture a channel, float32 [h, w, 3] in [0, 1].
        row_labels, column_labels: their names.
    """
    from matplotlib.figure import Figure

    across, down = len(column_labels), len(row_labels)
    blocks = [[block(channels, wide_columns(len(channels))) for channels in row] for row in pictures]
    side = min(3.0, (WIDEST - 0.5) / across)
    heights = [side * max(picture.shape[0] / picture.shape[1] for picture in row) for row in blocks]
    size = (side * across + 0.5, sum(heights) + 0.12 * down + 0.5)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, height_ratios=heights)
    for row, of_row in enumerate(blocks):
        for column, picture in enumerate(of_row):
            spot = axes[row][column]
            spot.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
            spot.set_xticks([])
            spot.set_yticks([])
            spot.set_frame_on(False)
            if row == 0:
                spot.set_title(_folded(column_labels[column], side), fontsize=8)
            if column == 0:
                spot.set_ylabel(row_labels[row], fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _folded(label: str, inches: float) -> str:
    """A label in as many lines as it needs above a block."""
    import textwrap

    return "\n".join(textwrap.wrap(label, max(12, round(inches * 13))))
