"""The timeline of a run: its bars are where the tables say that clients received, computed, sent and waited."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from samples import a_description, a_round, an_asynchronous_round, arrival_rows, client_rows
from traces import a_trace

from fedbench.config.experiment import ExperimentConfig
from fedbench.records import timeline
from fedbench.records.schema import ARRIVAL_SCHEMA, CLIENT_SCHEMA, ROUND_SCHEMA
from fedbench.records.timeline import timeline_figure


def a_run(rounds: int, clients: int = 2) -> tuple[pa.Table, pa.Table]:
    """Rounds of 10 s in which client c receives 1 s, computes c + 1 s and sends 2 s; the last client is dropped."""
    records = [replace(a_round(index), virtual_seconds=10.0 * (index + 1)) for index in range(rounds)]
    rows = [
        replace(
            row,
            virtual_start=10.0 * index,
            virtual_download_seconds=1.0,
            virtual_compute_seconds=1.0 + row.client,
            virtual_upload_seconds=2.0,
            status="dropped" if row.client == clients - 1 else "ok",
        )
        for index in range(rounds)
        for row in client_rows(index, clients)
    ]
    return (
        pa.Table.from_pylist([vars(record) for record in records], schema=ROUND_SCHEMA),
        pa.Table.from_pylist([vars(row) for row in rows], schema=CLIENT_SCHEMA),
    )


def bars(figure, colour: str) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """(start, end) of the bars of a colour in the left axes, in their order."""
    from matplotlib.colors import to_rgba

    spans = [
        (path.vertices[:, 0].min(), path.vertices[:, 0].max())
        for collection in figure.axes[0].collections
        if tuple(collection.get_facecolor()[0]) == to_rgba(colour)
        for path in collection.get_paths()
    ]
    return [(float(start), float(end)) for start, end in sorted(spans)]


def test_bars_are_where_clients_were_at_work(tmp_path: Path) -> None:
    figure = timeline_figure(*a_run(2), a_description(tmp_path))
    assert figure is not None
    assert bars(figure, timeline.PHASES["download"][1]) == [(0, 1), (0, 1), (10, 11), (10, 11)]
    assert bars(figure, timeline.PHASES["compute"][1]) == [(1, 2), (1, 3), (11, 12), (11, 13)]
    assert bars(figure, timeline.PHASES["upload"][1]) == [(2, 4), (3, 5), (12, 14), (13, 15)]
    assert bars(figure, timeline.PHASES["waits"][1]) == [(4, 10), (14, 20)]  # of the client that was not dropped
    assert "all rounds" in figure.axes[0].get_xlabel()


def test_the_whole_run_is_summed_up_where_only_its_beginning_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_BARS", 6)
    figure = timeline_figure(*a_run(5), a_description(tmp_path))
    assert figure is not None
    assert len(bars(figure, timeline.PHASES["download"][1])) == 6
    assert "the first 3 of 5 rounds" in figure.axes[0].get_xlabel()
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    # Client 0: 1 + 1 + 2 + 6 of every 10 s; client 1: 1 + 2 + 2.
    assert widths == pytest.approx([10, 10, 20, 60, 10, 20, 20])


def test_asynchronous_tasks_without_devices_are_whole(tmp_path: Path) -> None:
    records = [an_asynchronous_round(index) for index in range(2)]
    arrivals = [row for index in range(2) for row in arrival_rows(index)]
    rounds = pa.Table.from_pylist([vars(record) for record in records], schema=ROUND_SCHEMA)
    events = pa.Table.from_pylist([vars(row) for row in arrivals], schema=ARRIVAL_SCHEMA)
    figure = timeline_figure(rounds, CLIENT_SCHEMA.empty_table(), a_description(tmp_path), events)
    assert figure is not None
    of_tasks = [(row.dispatched_seconds, row.arrived_seconds) for row in arrivals if row.status != "lost"]
    assert bars(figure, timeline.PHASES["task"][1]) == sorted(of_tasks)


def test_without_a_virtual_clock_there_is_none(tmp_path: Path) -> None:
    rounds = pa.Table.from_pylist([vars(a_round(0))], schema=ROUND_SCHEMA)
    clients = pa.Table.from_pylist([vars(row) for row in client_rows(0)], schema=CLIENT_SCHEMA)
    assert timeline_figure(rounds, clients, a_description(tmp_path)) is None
    assert timeline_figure(ROUND_SCHEMA.empty_table(), CLIENT_SCHEMA.empty_table(), a_description(tmp_path)) is None


def test_rows_name_devices_and_show_who_was_off(tmp_path: Path) -> None:
    a_trace(tmp_path, [(0, 0.0, 8.0), (1, 0.0, 99.0)])
    availability = {"name": "trace", "path": str(tmp_path / "trace.parquet")}
    profile = {"clients": ["raspberry-pi-5+lte", "raspberry-pi-4+lte"]}
    config = ExperimentConfig.load(None, {"data.clients": 2, "delays": {"profile": profile}})
    values = config.to_mapping()
    values["delays"]["availability"] = availability
    figure = timeline_figure(*a_run(1), replace(a_description(tmp_path), config=values))
    assert figure is not None
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["raspberry-pi-5+lte  0", "raspberry-pi-4+lte  1"]
    hatched = [collection for collection in figure.axes[0].collections if collection.get_hatch()]
    assert [tuple(path.vertices[[0, 2], 0]) for path in hatched[0].get_paths()] == [(8.0, 10.0)]
    (tmp_path / "trace.parquet").unlink()
    assert timeline_figure(*a_run(1), replace(a_description(tmp_path), config=values)) is not None
