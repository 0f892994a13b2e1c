"""Line charts as SVG, for a page that says what the classes look like (`fedbench/tables/templates/page.css`).

Lines are told apart by colour, by dashes and by a letter at their end. Text is `currentColor`, so that a chart is
legible on a light and on a dark page.
"""

import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from fedbench.records.headline import ACCURACY
from fedbench.records.recorded_run import Values
from fedbench.report.curves import ScoreCurve
from fedbench.report.palette import colour_of, dashes_of
from fedbench.report.shown_headline import ShownHeadline
from fedbench.report.svg_axes import Scale, around, from_zero

WIDTH, HEIGHT = 440, 310
LEFT, RIGHT, TOP, BOTTOM = 46, 22, 12, 46
MOST_DOTS = 40
"""Points of a line that are marked, and say their values when pointed at."""

LETTER_HEIGHT = 14

LEGEND_LETTERS = 58
"""Letters of a line of the legend below a chart."""

SHOWN_ACCURACY = ShownHeadline(ACCURACY)


@dataclass(frozen=True)
class Line:
    """One line of a chart; the x of its curve is in the unit of the axis, its scores are in the recorded unit."""

    letter: str
    label: str
    style: int
    curve: ScoreCurve


@dataclass(frozen=True)
class Chart:
    """A chart of what methods are judged by against something spent.

    Attributes:
        name: unique in the page.
        title: for readers of the page, and for screen readers.
        x_label: with its unit.
        unit: of x, behind numbers.
        lines: at least one.
        target: a value to mark, in the recorded unit.
        whole_ticks: x counts something, so that its ticks are whole numbers.
        shown: the metric of the lines.
    """

    name: str
    title: str
    x_label: str
    unit: str
    lines: tuple[Line, ...]
    target: float | None = None
    whole_ticks: bool = False
    shown: ShownHeadline = SHOWN_ACCURACY

    def to_svg(self) -> str:
        """The `svg` element."""
        x, y = self.scales()
        parts = [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-labelledby="{self.name}-title {self.name}-desc">',
            f'<title id="{self.name}-title">{escape(self.title)}</title>',
            f'<desc id="{self.name}-desc">{escape(self._description())}</desc>',
            *_grid(x, y),
            _text(x.place(x.low) + (x.end - x.start) / 2, HEIGHT - 8, self.x_label, "middle"),
            f'<text transform="translate(12 {(y.start + y.end) / 2:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.shown.axis)}</text>",
        ]
        if self.target is not None and y.low <= self.shown.scale * self.target <= y.high:
            place = y.place(self.shown.scale * self.target)
            parts.append(f'<path class="target" d="M{x.start} {place:.1f}H{x.end}"/>')
        scale = self.shown.scale
        parts += [_band(line, x, y, scale) for line in self.lines if (line.curve.high > line.curve.low).any()]
        parts += [_stroke(line, x, y, scale) for line in self.lines]
        for line in self.lines:
            parts += _dots(line, x, y, self.unit, self.shown)
        parts += _letters(self.lines, x, y, scale)
        return "\n".join([*parts, "</svg>"])

    @property
    def legend(self) -> list[tuple[int | None, str]]:
        """(style, text) of each line of a legend, in lines that are not wider than the chart; style None: goes on."""
        rows: list[tuple[int | None, str]] = []
        for line in self.lines:
            first, *others = textwrap.wrap(f"{line.letter}: {line.label}", LEGEND_LETTERS) or [line.letter]
            rows += [(line.style, first), *((None, other) for other in others)]
        return rows

    def scales(self) -> tuple[Scale, Scale]:
        """The axes of what was spent, and of the metric as it is shown, in places of the `svg` element."""
        highest = max(float(line.curve.x[-1]) for line in self.lines)
        low = min(float(line.curve.low.min()) for line in self.lines)
        high = max(float(line.curve.high.max()) for line in self.lines)
        x = from_zero(highest, LEFT, WIDTH - RIGHT, 6, self.whole_ticks)
        return x, around(self.shown.scale * low, self.shown.scale * high, HEIGHT - BOTTOM, TOP, 6)

    def _description(self) -> str:
        ends = (
            f"{line.letter} ({line.label}) ends at {self.shown.about(float(line.curve.mean[-1]))} "
            f"after {line.curve.x[-1]:,.4g} {self.unit}"
            for line in self.lines
        )
        return f"Mean test {self.shown.words} over seeds against {self.x_label}. {'; '.join(ends)}."


def classes(style: int) -> str:
    """The CSS classes of the line number `style`: colours in turn, dashes in another turn, so that no two are alike."""
    return f"c{colour_of(style)} d{dashes_of(style)}"


def sample(style: int) -> str:
    """A short piece of a line, for a legend."""
    return (
        f'<svg class="sample" viewBox="0 0 36 10" width="36" height="10" aria-hidden="true">'
        f'<path class="line {classes(style)}" d="M1 5H35"/></svg>'
    )


def _grid(x: Scale, y: Scale) -> Iterator[str]:
    for tick in y.ticks:
        place = y.place(tick)
        yield f'<path class="grid" d="M{x.start} {place:.1f}H{x.end}"/>'
        yield _text(x.start - 5, place + 4, y.label(tick), "end")
    for tick in x.ticks:
        place = x.place(tick)
        yield f'<path class="grid" d="M{place:.1f} {y.start}V{y.end}"/>'
        yield _text(place, y.start + 16, x.label(tick), "middle")
    yield f'<path class="axis" d="M{x.start} {y.end}V{y.start}H{x.end}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _corners(curve: ScoreCurve, values: Values, x: Scale, y: Scale, scale: float) -> list[tuple[float, float]]:
    """The corners of a line through (curve.x, scale * values); of a staircase both of each step."""
    points = [(x.place(float(at)), y.place(scale * float(value))) for at, value in zip(curve.x, values, strict=True)]
    if not curve.is_stepped:
        return points
    corners = points[:1]
    for before, after in itertools.pairwise(points):
        corners += [(after[0], before[1]), after]
    return corners


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)


def _stroke(line: Line, x: Scale, y: Scale, scale: float) -> str:
    corners = _corners(line.curve, line.curve.mean, x, y, scale)
    return f'<path class="line {classes(line.style)}" d="{_path(corners)}"/>'


def _band(line: Line, x: Scale, y: Scale, scale: float) -> str:
    """The area between the least and the largest value over the seeds."""
    above = _corners(line.curve, line.curve.high, x, y, scale)
    below = _corners(line.curve, line.curve.low, x, y, scale)
    return f'<path class="band {classes(line.style)}" d="{_path([*above, *reversed(below)])}Z"/>'


def _dots(line: Line, x: Scale, y: Scale, unit: str, shown: ShownHeadline) -> Iterator[str]:
    curve = line.curve
    if curve.is_stepped or len(curve.x) > MOST_DOTS:
        return
    number = shown.number([*curve.low, *curve.high])
    for at, mean, low, high in zip(curve.x, curve.mean, curve.low, curve.high, strict=True):
        between = f" ({number.bare(low)} to {number.show(high)})" if high > low else ""
        text = f"{line.letter}: {number.show(mean)}{between} at {at:,.4g} {unit}"
        height = y.place(shown.scale * mean)
        yield (
            f'<circle class="dot {classes(line.style)}" cx="{x.place(at):.1f}" cy="{height:.1f}" r="2.4">'
            f"<title>{escape(text)}</title></circle>"
        )


def _letters(lines: Sequence[Line], x: Scale, y: Scale, scale: float) -> Iterator[str]:
    for left, top, line in letter_places(lines, x, y, scale):
        yield f'<text class="letter {classes(line.style)}" x="{left:.1f}" y="{top:.1f}">{escape(line.letter)}</text>'


def letter_places(lines: Sequence[Line], x: Scale, y: Scale, scale: float) -> Iterator[tuple[float, float, Line]]:
    """(left, bottom, line) of each line's letter behind its end; where some would cover each other, they are stacked.

    Args:
        lines: of one chart.
        x, y: the chart's axes.
        scale: what is drawn is the recorded value times this.
    """
    ends = [_End(x.place(float(line.curve.x[-1])), y.place(scale * float(line.curve.mean[-1])), line) for line in lines]
    for column in _parted(sorted(ends, key=lambda end: end.x), lambda end: end.x, 1.2 * LETTER_HEIGHT):
        for height, end in _stacked(sorted(column, key=lambda end: end.y)):
            yield end.x + 5, height + 4.5, end.line


@dataclass(frozen=True)
class _End:
    x: float
    y: float
    line: Line


def _parted(ends: Sequence[_End], key: Callable[[_End], float], gap: float) -> list[list[_End]]:
    """Ends in ascending order, parted wherever two neighbours are at least `gap` apart."""
    parts: list[list[_End]] = []
    for end in ends:
        if parts and key(end) - key(parts[-1][-1]) < gap:
            parts[-1].append(end)
        else:
            parts.append([end])
    return parts


def _stacked(column: Sequence[_End]) -> Iterator[tuple[float, _End]]:
    """(place, end) of each, from the top, at least a letter apart."""
    stacks: list[list[_End]] = []
    for end in column:
        stacks.append([end])
        while len(stacks) > 1 and _heights(stacks[-1])[0] - _heights(stacks[-2])[-1] < LETTER_HEIGHT:
            last = stacks.pop()
            stacks[-1] += last
    for stack in stacks:
        yield from zip(_heights(stack), stack, strict=True)


def _heights(stack: Sequence[_End]) -> list[float]:
    middle = sum(end.y for end in stack) / len(stack)
    top = max(middle - LETTER_HEIGHT * (len(stack) - 1) / 2, TOP)
    return [top + LETTER_HEIGHT * index for index in range(len(stack))]
