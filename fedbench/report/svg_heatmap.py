"""What each client holds, as a picture: clients across, classes down, the darker the more samples."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

SHADES = 8
"""Shades of the samples' number, besides none."""

WIDTH, LEFT_MOST, TOP, BOTTOM = 640, 120, 6, 56
KEY = 16 * SHADES + 130
"""Width of the legend of the shades."""

LETTER = 7.2
"""Width of a letter."""

MOST_CELLS = 30_000
MOST_NUMBERS = 200
MOST_ROWS, MOST_LABELS = 400, 20


@dataclass(frozen=True)
class Heatmap:
    """Samples of each class at each client.

    Attributes:
        name: unique in the page.
        title: what it shows.
        counts: one row a client, one column a class.
        class_names: in label order.
    """

    name: str
    title: str
    counts: tuple[tuple[int, ...], ...]
    class_names: tuple[str, ...]

    @property
    def clients(self) -> int:
        """The number of clients that are shown: the first ones, where all would be too many."""
        return min(len(self.counts), max(1, MOST_CELLS // max(1, len(self.class_names))))

    def to_svg(self) -> str:
        """The `svg` element."""
        cells = np.asarray(self.counts[: self.clients], np.int64).reshape(self.clients, len(self.class_names)).T
        classes, clients = cells.shape
        left = min(LEFT_MOST, 14 + LETTER * max((len(name) for name in self.class_names), default=1))
        across = min(44.0, (WIDTH - left - 4) / clients)
        down = max(2.0, min(20.0, MOST_ROWS / max(1, classes)))
        height = TOP + down * classes + BOTTOM
        width = max(left + across * clients + 4, left + KEY)
        most = int(cells.max(initial=0))
        parts = [
            f'<svg class="heatmap" viewBox="0 0 {width:.0f} {height:.0f}" role="img" style="max-width:{width:.0f}px" '
            f'aria-labelledby="{self.name}-title {self.name}-desc">',
            f'<title id="{self.name}-title">{escape(self.title)}</title>',
            f'<desc id="{self.name}-desc">{escape(self._description(cells.sum(axis=0).tolist()))}</desc>',
            f'<g transform="translate({left:.1f} {TOP})">',
            *_shades(cells, across, down, most),
            *_labels(self.class_names, across * clients, down),
            *_ticks(clients, across, down * classes),
        ]
        if cells.size <= MOST_NUMBERS and across >= 22 and down >= 14:
            parts += _numbers(cells, across, down, most)
        return "\n".join([*parts, "</g>", *_key(left, height, most), "</svg>"])

    def _description(self, sizes: Sequence[int]) -> str:
        least, most = (min(sizes), max(sizes)) if sizes else (0, 0)
        held = [sum(1 for count in client if count) for client in self.counts]
        return (
            f"{len(self.counts)} clients hold {least:,} to {most:,} samples each, of {min(held, default=0)} to "
            f"{max(held, default=0)} of {len(self.class_names)} classes."
        )


def _shade(count: int, most: int) -> int:
    """The shade of a number of samples, 1 to SHADES; 0 for none."""
    return math.ceil(SHADES * count / most) if count else 0


def _shades(cells: np.ndarray, across: float, down: float, most: int) -> Iterator[str]:
    """All cells of one shade are one path, which keeps large pictures small."""
    pieces: dict[int, list[str]] = defaultdict(list)
    for (row, column), count in np.ndenumerate(cells):
        if count:
            corner = f"M{column * across:.1f} {row * down:.1f}"
            pieces[_shade(int(count), most)].append(
                f"{corner}h{across - 0.6:.1f}v{down - 0.6:.1f}h-{across - 0.6:.1f}z"
            )
    yield f'<path class="frame" d="M0 0H{across * cells.shape[1]:.1f}V{down * cells.shape[0]:.1f}H0Z"/>'
    for shade, paths in sorted(pieces.items()):
        yield f'<path class="shade s{shade}" d="{"".join(paths)}"/>'


def _labels(names: Sequence[str], width: float, down: float) -> Iterator[str]:
    every = max(1, math.ceil(15 / down))
    longest = int((LEFT_MOST - 14) / LETTER)
    for row, name in enumerate(names):
        if row % every == 0:
            short = name if len(name) <= longest else f"{name[: longest - 1]}…"
            yield f'<text x="-5" y="{(row + 0.5) * down + 4:.1f}" text-anchor="end">{escape(short)}</text>'


def _ticks(clients: int, across: float, bottom: float) -> Iterator[str]:
    every = max(1, math.ceil(max(clients / MOST_LABELS, 24 / across)))
    for client in range(0, clients, every):
        yield f'<text x="{(client + 0.5) * across:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{client}</text>'


def _numbers(cells: np.ndarray, across: float, down: float, most: int) -> Iterator[str]:
    for (row, column), count in np.ndenumerate(cells):
        if count:
            yield (
                f'<text class="n{_shade(int(count), most)}" x="{(column + 0.5) * across:.1f}" '
                f'y="{(row + 0.5) * down + 4:.1f}" text-anchor="middle">{count}</text>'
            )


def _key(left: float, height: float, most: int) -> Iterator[str]:
    """The legend of the shades."""
    top = height - 20
    for shade in range(1, SHADES + 1):
        yield f'<path class="shade s{shade}" d="M{left + 16 * (shade - 1):.1f} {top:.1f}h16v12h-16z"/>'
    yield f'<text x="{left + 16 * SHADES + 6:.1f}" y="{top + 11:.1f}">up to {most:,} samples</text>'
