"""Colours, dashes and shades of charts on a white ground: those of the page's light form (`page.css`).

The colours of lines are told apart by colour-blind readers (Okabe and Ito 2008, some of them darker).
"""

GROUND, INK, RULE, HEAT = "#ffffff", "#1b1d21", "#d5d8de", "#0072b2"

LINES = ("#0072b2", "#d55e00", "#00805d", "#b4558c", "#1b1d21", "#b37a00", "#3597d0")
"""Colours of lines, in turn."""

DASHES: tuple[tuple[float, ...], ...] = ((), (8, 3), (2.5, 2.5), (10, 3, 2, 3), (5, 2, 1.5, 2, 1.5, 2))
"""Lengths of dashes and gaps of lines, in turn; (): drawn through."""

SHADES = (0.14, 0.26, 0.38, 0.5, 0.63, 0.75, 0.88, 1.0)
"""Opacities of `HEAT`, from few samples to many."""

LIGHT_NUMBERS_FROM = 7
"""The shade, from 1, on which numbers are written in the colour of the ground."""

BAND = 0.16
"""Opacity of the band of a line."""


def colour_of(style: int) -> int:
    """The place in `LINES` of the colour of the line number `style`."""
    return style % len(LINES)


def dashes_of(style: int) -> int:
    """The place in `DASHES` of the line number `style`; with its colour it is told from all of the first 35."""
    return (style + style // len(LINES)) % len(DASHES)
