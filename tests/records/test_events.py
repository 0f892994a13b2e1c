from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import a_description, a_round, an_asynchronous_round, arrival_rows, client_rows

from fedbench.errors import DataError, RunError
from fedbench.records import run_directory
from fedbench.records.reader import load_events, load_run
from fedbench.records.run_directory import RunDirectory
from fedbench.records.schema import ARRIVAL_SCHEMA, ArrivalRecord


def started(path: Path, interval: float = 0.0) -> RunDirectory:
    recorder = RunDirectory.create("demo", 3, path, interval=interval, plots=False)
    recorder.run_started(a_description(path))
    return recorder


def record_round(recorder: RunDirectory, index: int) -> None:
    recorder.arrivals_finished(arrival_rows(index))
    recorder.round_finished(an_asynchronous_round(index), client_rows(index))


def record_run(path: Path, rounds: int = 3) -> Path:
    recorder = started(path)
    for index in range(rounds):
        record_round(recorder, index)
    recorder.run_finished({"status": "finished"})
    return path / "events.parquet"


def write(file: Path, rows: list[ArrivalRecord]) -> Path:
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=ARRIVAL_SCHEMA), file)
    return file


def test_every_arrival_is_read_again(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run")
    events = load_events(file)
    assert events.schema.equals(ARRIVAL_SCHEMA)
    assert events.to_pylist() == [vars(row) for index in range(3) for row in arrival_rows(index)]
    assert load_events(str(file)).equals(events)


def test_a_run_without_arrivals_leaves_no_events(tmp_path: Path) -> None:
    recorder = started(tmp_path / "run")
    recorder.arrivals_finished([])
    recorder.round_finished(a_round(0), client_rows(0))
    recorder.run_finished({"status": "finished"})
    assert not (recorder.path / "events.parquet").exists()
    assert load_run(recorder.path)[1].num_rows == 1


def test_arrivals_are_written_with_their_round_and_as_seldom(tmp_path: Path) -> None:
    recorder = started(tmp_path / "run", interval=1000.0)
    file = recorder.path / "events.parquet"
    for index in range(5):
        record_round(recorder, index)
    assert not file.exists()
    recorder.flush()
    assert load_events(file).num_rows == 20
    assert load_run(recorder.path)[1].num_rows == 5
    recorder._next_write = 0.0
    record_round(recorder, 5)
    assert load_events(file)["round"].to_pylist()[-5:] == [4, 5, 5, 5, 5]


def test_a_crash_while_writing_keeps_the_old_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = started(tmp_path / "run")
    record_round(recorder, 0)
    recorder.flush()
    whole = pq.write_table

    def torn(table: pa.Table, path: Path, **options: bool) -> None:
        whole(table, path, **options)
        if "events" in path.name:
            path.write_bytes(b"PAR1")
            raise OSError("no space left on device")

    monkeypatch.setattr(run_directory.pq, "write_table", torn)
    recorder._next_write = 0.0
    record_round(recorder, 1)
    assert "no space left" in str(recorder.warning)
    assert load_events(recorder.path / "events.parquet").num_rows == 4
    with pytest.raises(RunError, match="no space left"):
        recorder.flush()
    monkeypatch.undo()
    recorder.flush()
    assert load_events(recorder.path / "events.parquet").num_rows == 8
    assert not list(recorder.path.glob(".*"))


def test_reopening_keeps_the_arrivals_of_earlier_rounds_only(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run", rounds=5)
    recorder = RunDirectory.reopen(tmp_path / "run", first_round=3, interval=0.0, plots=False)
    recorder.run_started(a_description(tmp_path / "run"))
    assert load_events(file)["round"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    record_round(recorder, 3)
    recorder.run_finished({"status": "finished"})
    assert load_events(file).to_pylist() == [vars(row) for index in range(4) for row in arrival_rows(index)]


def test_a_run_that_starts_again_drops_its_events(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run")
    RunDirectory.reopen(tmp_path / "run", first_round=0).run_started(a_description(tmp_path / "run"))
    assert not file.exists()


def test_reopening_a_run_without_arrivals_needs_no_events(tmp_path: Path) -> None:
    recorder = started(tmp_path / "run")
    recorder.round_finished(a_round(0), client_rows(0))
    recorder.flush()
    assert RunDirectory.reopen(recorder.path, first_round=1).history().num_rows == 1


def test_reopening_refuses_damaged_events(tmp_path: Path) -> None:
    record_run(tmp_path / "run").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"events\.parquet: cannot be read"):
        RunDirectory.reopen(tmp_path / "run", first_round=1)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_events(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_missing_and_damaged_events_are_refused_in_one_line(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run")
    assert refused(file.parent) == "is a directory; name the events.parquet of an asynchronous run"
    assert refused(tmp_path / "none" / "x.parquet").startswith("is missing; name the events.parquet of")
    file.write_bytes(file.read_bytes()[:-7])
    assert refused(file).startswith("cannot be read: ")


def test_tables_that_are_no_events_are_refused(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run")
    assert refused(file.with_name("rounds.parquet")).startswith("lacks the column arrival; it is not a run's table")
    events = pq.read_table(file)
    pq.write_table(events.drop_columns(["staleness"]), file)
    assert refused(file).startswith("lacks the column staleness")
    place = events.column_names.index("worker")
    pq.write_table(events.set_column(place, "worker", pa.array(["a"] * 12)), file)
    assert refused(file).startswith("cannot be read: ")
    pq.write_table(events.set_column(place, "worker", pa.array([None, *range(11)], pa.int32())), file)
    assert refused(file) == "the column worker has gaps; it is not a run's table"


def test_columns_may_stand_in_another_order_beside_others(tmp_path: Path) -> None:
    file = record_run(tmp_path / "run")
    events = pq.read_table(file)
    shuffled = events.select(events.column_names[::-1]).append_column("remark", pa.array(["x"] * 12))
    pq.write_table(shuffled, file)
    assert load_events(file).equals(events)


def test_arrivals_out_of_order_are_refused(tmp_path: Path) -> None:
    rows = arrival_rows(0)
    wrong = {
        "swapped": [rows[1], rows[0], *rows[2:]],
        "without the first": rows[1:],
        "without one": [rows[0], *rows[2:]],
        "twice": [rows[0], *rows],
        "numbered twice": [rows[0], replace(rows[1], arrival=0), *rows[2:]],
    }
    for name, kept in wrong.items():
        assert "arrivals are not in order" in refused(write(tmp_path / name, kept)), name
    assert load_events(write(tmp_path / "right", rows)).num_rows == 4
    assert load_events(write(tmp_path / "none", [])).num_rows == 0
