"""A figure of the virtual time of a run: who received, computed, sent and waited; one row for each client."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedbench.errors import FedbenchError
from fedbench.planning.availability import Presence
from fedbench.planning.delays import DelaysSection
from fedbench.planning.profiles import ProfileSection
from fedbench.records.figure_style import BLUE, GREY, ORANGE, finish_axes, title_figure
from fedbench.records.observers import RunDescription
from fedbench.records.schema import DROPPED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SKY, VERMILION = "#56B4E9", "#D55E00"
"""Two further colours of Okabe and Ito."""

PHASES: Mapping[str, tuple[str, str]] = {
    "download": ("receives", SKY),
    "compute": ("computes", BLUE),
    "upload": ("sends", ORANGE),
    "task": ("at work", BLUE),
    "lost": ("lost: dropped, or gone off", VERMILION),
    "waits": ("waits for the others", "#D9D9D9"),
}
"""{part of a client's time: (its name in the legend, its colour)}."""

MOST_CLIENTS = 40
"""Clients with a row; there is no room for the names of more."""

MOST_BARS = 240
"""Pieces of work that are drawn, at most: the rounds from the first on that have no more together, at least one."""

THINNEST = 0.002
"""Share of the axis from which an off time is drawn; shorter ones could not be seen."""


@dataclass(frozen=True)
class Work:
    """One client's work in a round, or one task.

    Attributes:
        client: the client.
        round: the round, from 0.
        start: virtual seconds at which it began.
        parts: (key of `PHASES`, seconds), one after the other.
        lost: whether it was dropped or lost.
    """

    client: int
    round: int
    start: float
    parts: tuple[tuple[str, float], ...]
    lost: bool

    @property
    def end(self) -> float:
        """Virtual seconds at which it was done, or stopped."""
        return self.start + sum(seconds for _, seconds in self.parts)


def timeline_figure(
    rounds: pa.Table, clients: pa.Table, run: RunDescription, arrivals: pa.Table | None = None
) -> "Figure | None":
    """The first rounds client by client, and beside them what each client's time went into in the whole run.

    Args:
        rounds: with `ROUND_SCHEMA`.
        clients: with `CLIENT_SCHEMA`.
        run: what is known of the run.
        arrivals: an asynchronous run's arrivals, with `ARRIVAL_SCHEMA`.

    Returns:
        The figure; None for a run without a virtual clock, or without any work.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    arrivals = arrivals if arrivals is not None and arrivals.num_rows else None
    ends = rounds["virtual_seconds"].to_pylist()
    works = _works(clients, arrivals)
    if not works or not any(end is not None for end in ends):
        return None
    last = _last_shown(works)
    shown_works = [work for work in works if work.round <= last]
    there = sorted({work.client for work in shown_works})
    rows = {client: place for place, client in enumerate(there[:MOST_CLIENTS])}
    until = max(ends[last] or 0.0, max(work.end for work in shown_works) if arrivals is not None else 0.0)
    figure = Figure(figsize=(11.0, max(3.5, 1.9 + 0.24 * len(rows))), layout="constrained")
    title_figure(figure, run.title)
    axes, totals = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    used = _draw_off_times(axes, rows, until, run.config, there)
    used |= _draw_works(axes, shown_works, rows, ends if arrivals is None else None)
    _draw_totals(totals, works, rows, ends if arrivals is None else None, float(max(end or 0.0 for end in ends)))
    for end in (end for end in ends[: last + 1] if end is not None):
        axes.axvline(end, color=GREY, linewidth=0.5, linestyle=":")
    names = device_names(run.config, there)
    axes.set_yticks(
        list(rows.values()), [f"{names[client]}  {client}" if names else str(client) for client in rows], fontsize=7
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0.0, until or 1.0)
    of_clients = "" if len(rows) == len(there) else f", {len(rows)} of {len(there)} clients"
    whole = last + 1 == len(ends)
    stretch = "all rounds" if whole else f"the first {last + 1} of {len(ends)} rounds"
    axes.set_xlabel(f"time on the run's clock (s): {stretch}{of_clients}; dotted: ends of rounds", fontsize=8)
    axes.set_ylabel("client")
    totals.set_xlabel("share of the whole run (%)", fontsize=8)
    finish_axes(axes)
    finish_axes(totals)
    patches = [Patch(color=PHASES[part][1], label=PHASES[part][0]) for part in PHASES if part in used]
    if "off" in used:
        patches.append(Patch(facecolor="white", edgecolor="#BBBBBB", hatch="////", label="off", linewidth=0))
    figure.legend(handles=patches, loc="outside lower left", ncols=len(patches), frameon=False, fontsize=8)
    return figure


def device_names(config: Mapping[str, Any], clients: Sequence[int]) -> dict[int, str]:
    """{client: its profile}; empty where the configuration sets none.

    Args:
        config: of the run, nested plain values.
        clients: the clients that are asked for.
    """
    section = (config.get("delays") or {}).get("profile")
    if not section:
        return {}
    profiles = ProfileSection.model_validate(section).of_clients(config["data"]["clients"], config["seed"])
    return {client: profiles[client].name for client in clients}


def _works(clients: pa.Table, arrivals: pa.Table | None) -> list[Work]:
    """What the clients did, in the order of its start; tasks of asynchronous runs are those that have ended."""
    works = []
    for row in clients.to_pylist():
        if row["virtual_start"] is None:
            continue
        parts = tuple((part, row[f"virtual_{part}_seconds"]) for part in ("download", "compute", "upload"))
        works.append(Work(row["client"], row["round"], row["virtual_start"], parts, row["status"] == DROPPED))
    has_parts = bool(works)
    for row in () if arrivals is None else arrivals.to_pylist():
        lost = row["status"] == "lost"
        if lost or not has_parts:
            seconds = row["arrived_seconds"] - row["dispatched_seconds"]
            parts = (("lost" if lost else "task", seconds),)
            works.append(Work(row["client"], row["round"], row["dispatched_seconds"], parts, lost))
    return sorted(works, key=lambda work: (work.start, work.client))


def _last_shown(works: Sequence[Work]) -> int:
    """The last round, from 0, up to which all work can be drawn."""
    counts: dict[int, int] = {}
    for work in works:
        counts[work.round] = counts.get(work.round, 0) + 1
    last, drawn = min(counts), 0
    for index in sorted(counts):
        drawn += counts[index]
        if drawn > MOST_BARS and index > last:
            break
        last = index
    return last


def _draw_works(
    axes: "Axes", works: Sequence[Work], rows: Mapping[int, int], ends: Sequence[float | None] | None
) -> set[str]:
    """Bars of the works, and of what participants wait for the end of their round where `ends` has it.

    Returns:
        The keys of `PHASES` that were drawn.
    """
    bars: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for work in works:
        if work.client not in rows:
            continue
        now = work.start
        for part, seconds in work.parts:
            bars.setdefault((work.client, part), []).append((now, seconds))
            now += seconds
        round_end = None if ends is None else ends[work.round]
        if work.lost:
            axes.plot([now], [rows[work.client]], marker="x", color=VERMILION, markersize=5, clip_on=False)
        elif round_end is not None and round_end > now:
            bars.setdefault((work.client, "waits"), []).append((now, round_end - now))
    for (client, part), spans in bars.items():
        height = 0.3 if part == "waits" else 0.72
        edge = 0.8 if part == "task" else 0.0  # one task follows on the other, in one colour
        axes.broken_barh(
            spans, (rows[client] - height / 2, height), facecolor=PHASES[part][1], edgecolor="white", linewidth=edge
        )
    crossed = {"lost"} if any(work.lost and work.client in rows for work in works) else set[str]()
    return {part for _, part in bars} | crossed


def _draw_totals(
    axes: "Axes", works: Sequence[Work], rows: Mapping[int, int], ends: Sequence[float | None] | None, whole: float
) -> None:
    """Stacked bars of what each client's time went into, as shares of the whole run in percent."""
    totals: dict[int, dict[str, float]] = {client: dict.fromkeys(PHASES, 0.0) for client in rows}
    for work in works:
        if work.client not in rows:
            continue
        of_client = totals[work.client]
        for part, seconds in work.parts:
            of_client[part] += seconds
        round_end = None if ends is None else ends[work.round]
        if round_end is not None and not work.lost:
            of_client["waits"] += max(0.0, round_end - work.end)
    for client, of_client in totals.items():
        parts = [(part, 100 * seconds / whole) for part, seconds in of_client.items() if seconds and whole]
        lefts = itertools.accumulate((share for _, share in parts), initial=0.0)
        for (part, share), left in zip(parts, lefts, strict=False):
            axes.barh(rows[client], share, left=left, height=0.72, color=PHASES[part][1], linewidth=0)
    axes.set_xlim(0, 100)


def _draw_off_times(
    axes: "Axes", rows: Mapping[int, int], until: float, config: Mapping[str, Any], clients: Sequence[int]
) -> set[str]:
    """Hatched bars where clients are off; none where the trace of a run made elsewhere is not here.

    Returns:
        {"off"} where any was drawn, else nothing.
    """
    delays = config.get("delays") or {}
    if not delays.get("availability"):
        return set()
    try:
        availability = DelaysSection.model_validate(delays).availability
        assert availability is not None
        presence = Presence(availability, config["data"]["clients"], config["seed"])
        drawn = False
        for client, place in rows.items():
            spans, now = [], 0.0
            while now < until:
                comes = min(presence.on_from(client, now), until)
                if comes - now > THINNEST * until:
                    spans.append((now, comes - now))
                now = presence.on_until(client, comes) if comes < until else until
            if spans:
                axes.broken_barh(
                    spans, (place - 0.45, 0.9), facecolor="white", edgecolor="#BBBBBB", hatch="////", linewidth=0
                )
                drawn = True
    except FedbenchError:
        return set()
    return {"off"} if drawn else set()
