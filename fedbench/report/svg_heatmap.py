"""What each client holds, as a picture: clients across, classes down, the darker the more samples."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np

from fedbench.report.palette import SHADES

WIDTH, LEFT_MOST, TOP, BOTTOM = 640, 120, 6, 70
KEY = 16 * len(SHADES) + 130
"""Width of the legend of the shades."""

LETTER, DIGIT = 7.2, 6.6
"""Widths of a letter of a label, and of a digit in a cell."""

MOST_CELLS = 30_000
MOST_NUMBERS = 400
MOST_ROWS, MOST_LABELS = 400, 20


@dataclass(frozen=True)
class Grid:
    """The places of a picture's cells, in units of its `svg` element.

    Attributes:
        left, top: of the first cell.
        across, down: width and height of a cell.
        width, height: of the whole picture, with labels and legend.
        has_numbers: whether the cells are large enough for the longest of their numbers.
        ticks: the clients that are numbered below.
        labels: (row, name cut to its place) of the classes that are named.
    """

    left: float
    top: float
    across: float
    down: float
    width: float
    height: float
    has_numbers: bool
    ticks: tuple[int, ...]
    labels: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Heatmap:
    """Samples of each class at each client.

    Attributes:
        name: unique in the page.
        title: what it shows.
        counts: one row a client, one column a class.
        class_names: in label order.
        down: what the rows of the picture are: classes, or the bins of a number.
    """

    name: str
    title: str
    counts: tuple[tuple[int, ...], ...]
    class_names: tuple[str, ...]
    down: str = "classes"

    @property
    def clients(self) -> int:
        """The number of clients that are shown: the first ones, where all would be too many."""
        return min(len(self.counts), max(1, MOST_CELLS // max(1, len(self.class_names))))

    @cached_property
    def cells(self) -> np.ndarray:
        """int64 [classes, clients]: the samples that are shown."""
        return np.asarray(self.counts[: self.clients], np.int64).reshape(self.clients, len(self.class_names)).T

    @cached_property
    def grid(self) -> Grid:
        """The places of the cells."""
        cells = self.cells
        classes, clients = cells.shape
        longest = int((LEFT_MOST - 14) / LETTER)
        left = min(LEFT_MOST, 14 + LETTER * max((len(name) for name in self.class_names), default=1))
        across = min(44.0, (WIDTH - left - 4) / clients)
        down = max(2.0, min(20.0, MOST_ROWS / max(1, classes)))
        digits = len(str(int(cells.max(initial=0))))
        every_client = max(1, math.ceil(max(clients / MOST_LABELS, 24 / across)))
        return Grid(
            left=left,
            top=TOP,
            across=across,
            down=down,
            width=max(left + across * clients + 4, left + KEY),
            height=TOP + down * classes + BOTTOM,
            has_numbers=cells.size <= MOST_NUMBERS and across >= DIGIT * digits + 5 and down >= 14,
            ticks=tuple(range(0, clients, every_client)),
            labels=tuple(
                (row, name if len(name) <= longest else f"{name[: longest - 1]}…")
                for row, name in enumerate(self.class_names)
                if row % max(1, math.ceil(15 / down)) == 0
            ),
        )

    def to_svg(self) -> str:
        """The `svg` element."""
        cells, grid = self.cells, self.grid
        most, bottom = int(cells.max(initial=0)), grid.down * len(cells)
        middle = grid.across * cells.shape[1] / 2
        parts = [
            f'<svg class="heatmap" viewBox="0 0 {grid.width:.0f} {grid.height:.0f}" role="img" '
            f'style="max-width:{grid.width:.0f}px" aria-labelledby="{self.name}-title {self.name}-desc">',
            f'<title id="{self.name}-title">{escape(self.title)}</title>',
            f'<desc id="{self.name}-desc">{escape(self._description(cells.sum(axis=0).tolist()))}</desc>',
            f'<g transform="translate({grid.left:.1f} {grid.top})">',
            *_shades(cells, grid, most),
            *_labels(grid),
            *_ticks(grid, bottom),
            f'<text x="{middle:.1f}" y="{bottom + 30:.1f}" text-anchor="middle">client</text>',
            *(_numbers(cells, grid, most) if grid.has_numbers else ()),
        ]
        return "\n".join([*parts, "</g>", *_key(grid, most), "</svg>"])

    def _description(self, sizes: Sequence[int]) -> str:
        least, most = (min(sizes), max(sizes)) if sizes else (0, 0)
        held = [sum(1 for count in client if count) for client in self.counts]
        return (
            f"{len(self.counts)} clients hold {least:,} to {most:,} samples each, of {min(held, default=0)} to "
            f"{max(held, default=0)} of {len(self.class_names)} {self.down}."
        )


def shade(count: int, most: int) -> int:
    """The shade of a number of samples, from 1; 0 for none.

    Args:
        count: the number.
        most: the largest number of the picture.
    """
    return math.ceil(len(SHADES) * count / most) if count else 0


def _shades(cells: np.ndarray, grid: Grid, most: int) -> Iterator[str]:
    """All cells of one shade are one path, which keeps large pictures small."""
    across, down = grid.across, grid.down
    pieces: dict[int, list[str]] = defaultdict(list)
    for (row, column), count in np.ndenumerate(cells):
        if count:
            corner = f"M{column * across:.1f} {row * down:.1f}"
            pieces[shade(int(count), most)].append(f"{corner}h{across - 0.6:.1f}v{down - 0.6:.1f}h-{across - 0.6:.1f}z")
    yield f'<path class="frame" d="M0 0H{across * cells.shape[1]:.1f}V{down * cells.shape[0]:.1f}H0Z"/>'
    for number, paths in sorted(pieces.items()):
        yield f'<path class="shade s{number}" d="{"".join(paths)}"/>'


def _labels(grid: Grid) -> Iterator[str]:
    for row, name in grid.labels:
        yield f'<text x="-5" y="{(row + 0.5) * grid.down + 4:.1f}" text-anchor="end">{escape(name)}</text>'


def _ticks(grid: Grid, bottom: float) -> Iterator[str]:
    for client in grid.ticks:
        yield f'<text x="{(client + 0.5) * grid.across:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{client}</text>'


def _numbers(cells: np.ndarray, grid: Grid, most: int) -> Iterator[str]:
    for (row, column), count in np.ndenumerate(cells):
        if count:
            yield (
                f'<text class="n{shade(int(count), most)}" x="{(column + 0.5) * grid.across:.1f}" '
                f'y="{(row + 0.5) * grid.down + 4:.1f}" text-anchor="middle">{count}</text>'
            )


def _key(grid: Grid, most: int) -> Iterator[str]:
    """The legend of the shades."""
    top = grid.height - 20
    for place in range(len(SHADES)):
        yield f'<path class="shade s{place + 1}" d="M{grid.left + 16 * place:.1f} {top:.1f}h16v12h-16z"/>'
    yield f'<text x="{grid.left + 16 * len(SHADES) + 6:.1f}" y="{top + 11:.1f}">up to {most:,} samples</text>'
