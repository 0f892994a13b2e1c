"""Critical-difference diagrams: average ranks on a line, and a bar over the methods that are not told apart.

scikit-posthocs draws them, with matplotlib; both are imported when a diagram is drawn.
"""

import base64
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedbench.components.optional_library import optional_library
from fedbench.errors import ConfigError
from fedbench.records.figure_style import BLUE, GREY
from fedbench.tables.ranks import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Width of the axis with the labels beside it, in inches."""

ROW = 0.27
"""Height of a label, in inches."""

LONGEST_LABEL = 36
"""Letters of a label, at most; the table beside it has the whole names."""


def diagram(ranking: Ranking) -> "Figure":
    """The diagram of a ranking, as a figure of matplotlib.

    Raises:
        ConfigError: scikit-posthocs is not installed.
    """
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

    with optional_library("statistics", "the diagram of ranks"):
        from scikit_posthocs import critical_difference_diagram

    names = list(ranking.average)
    count = len(names)
    labels = _labels(names)
    ranks = Series([ranking.average[name] for name in names], index=labels)
    apart = [
        [0.0 if first != second and ranking.are_told_apart(first, second) else 1.0 for second in names]
        for first in names
    ]
    figure = Figure(figsize=(WIDTH, ROW * (count + 6)))
    axes = figure.add_axes((0.25, 0.1, 0.5, 0.8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        drawn = critical_difference_diagram(
            ranks,
            DataFrame(apart, index=labels, columns=labels),
            ax=axes,
            label_fmt_left="{label} ({rank:.2f}) ",
            label_fmt_right=" ({rank:.2f}) {label}",
            label_props={"fontsize": 9},
            marker_props={"color": BLUE, "s": 22, "clip_on": False},
            elbow_props={"linewidth": 0.9, "clip_on": False},
            color_palette=dict.fromkeys(labels, GREY),
            crossbar_props={"color": "black", "linewidth": 3, "solid_capstyle": "butt"},
            text_h_margin=0.02 * (count - 1),
        )
    for label in drawn["labels"]:
        label.set_color("black")
    low, _ = axes.get_ylim()
    axes.set(xlim=(1, count), ylim=(low, 3.2))
    axes.set_xticks(range(1, count + 1))
    axes.tick_params(labelsize=9)
    difference = ranking.critical_difference
    axes.plot([1, 1 + difference], [1.9, 1.9], color="black", linewidth=1.2, marker="|", clip_on=False)
    axes.text(1, 2.3, f"critical difference {difference:.2f}", fontsize=9)
    return figure


def diagram_file(ranking: Ranking, kind: Literal["svg", "pdf"]) -> bytes:
    """The diagram as a file: the same bytes for the same ranking, whenever it is drawn.

    Raises:
        ConfigError: scikit-posthocs is not installed.
    """
    from matplotlib import rc_context

    content = io.BytesIO()
    date = {"Date": None} if kind == "svg" else {"CreationDate": None}
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "fedbench"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure = diagram(ranking)
        figure.savefig(content, format=kind, bbox_inches="tight", metadata={"Title": ranking.title, **date})
    return content.getvalue()


@dataclass(frozen=True)
class RankPicture:
    """The diagram of a ranking for a page.

    Attributes:
        name: of its files, without the ending.
        title: what it shows.
        files: {ending: content}; {} where it cannot be drawn.
        note: how it is read, or why it cannot be drawn.
    """

    name: str
    title: str
    files: Mapping[str, bytes]
    note: str

    @property
    def data_address(self) -> str:
        """The SVG as a `data:` address, so that a page needs no other file."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.files['svg']).decode()}"


def picture(ranking: Ranking) -> RankPicture:
    """The diagram as SVG and PDF; without scikit-posthocs the command that brings it."""
    name = re.sub(r"[^a-z0-9]+", "-", f"ranks-{ranking.scores.quantity}".lower()).strip("-")
    try:
        files = {"svg": diagram_file(ranking, "svg"), "pdf": diagram_file(ranking, "pdf")}
    except ConfigError as error:
        return RankPicture(name, ranking.title, {}, f"{error}.")
    few = "" if ranking.methods_differ is not None else " With so few seeds nothing is concluded: one bar is over all."
    note = f"Average ranks, the best at the left. Methods under one bar are not told apart.{few}"
    return RankPicture(name, ranking.title, files, note)


def _labels(names: list[str]) -> list[str]:
    """The names, cut to `LONGEST_LABEL` where they stay different."""
    cut = [name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…" for name in names]
    return [label if cut.count(label) == 1 else name for label, name in zip(cut, names, strict=True)]
