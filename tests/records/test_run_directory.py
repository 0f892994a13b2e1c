import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from samples import CLASSES, a_description, a_round, client_rows, without_checksums

from fedbench.config.identity import digest
from fedbench.errors import ConfigError, DataError, RunError
from fedbench.records import run_directory
from fedbench.records.partition_table import partition_table
from fedbench.records.reader import load_description, load_run
from fedbench.records.run_directory import RunDirectory
from fedbench.records.schema import CLIENT_SCHEMA, ROUND_SCHEMA


def record_run(path: Path, rounds: int = 3, interval: float = 0.0) -> RunDirectory:
    recorder = RunDirectory.create("demo", 3, path, interval=interval, plots=False)
    recorder.run_started(a_description(path))
    for index in range(rounds):
        recorder.round_finished(a_round(index, evaluated=index != 1), client_rows(index))
    recorder.run_finished({"status": "finished", "rounds": rounds, "best_accuracy": 0.7})
    return recorder


def test_the_default_directory_is_named_for_the_run(tmp_path: Path) -> None:
    made = [RunDirectory.create("my net/x", 7, root=tmp_path / "runs").path for _ in range(2)]
    assert made[0] != made[1]
    assert all(path.is_dir() and path.name.startswith("my_net_x-7-") for path in made)


def test_a_directory_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"output\.directory=.*not empty; name another one") as refused:
        RunDirectory.create("demo", 3, tmp_path)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="cannot be made a directory"):
        RunDirectory.create("demo", 3, tmp_path / "notes.txt" / "run")


def test_everything_recorded_is_read_again(tmp_path: Path) -> None:
    recorder = record_run(tmp_path / "run")
    config, rounds, clients, summary = load_run(recorder.path)
    assert config == a_description(tmp_path).config
    assert rounds.schema.equals(ROUND_SCHEMA)
    assert clients.schema.equals(CLIENT_SCHEMA)
    assert rounds.to_pylist() == [vars(a_round(i, evaluated=i != 1)) for i in range(3)]
    assert clients.to_pylist() == [vars(row) for i in range(3) for row in client_rows(i)]
    assert summary == {"status": "finished", "rounds": 3, "best_accuracy": 0.7}
    assert recorder.history().equals(rounds)
    assert load_description(recorder.path) == a_description(recorder.path)


def test_small_learning_rates_survive_the_configuration_file(tmp_path: Path) -> None:
    record_run(tmp_path / "run", rounds=0)
    lr = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["local"]["lr"]
    assert lr == 1e-5
    assert isinstance(lr, float)


def test_a_run_that_fails_before_its_first_round_leaves_valid_files(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run")
    recorder.run_started(a_description(tmp_path / "run"))
    config, _, _, summary = load_run(recorder.path)
    assert summary == {"status": "running", "config_hash": digest(config, {}), "own_code": {}}
    recorder.run_finished({"status": "failed", "best_accuracy": float("nan"), "rounds": np.int64(0)})
    _, rounds, clients, summary = load_run(recorder.path)
    assert (rounds.num_rows, clients.num_rows) == (0, 0)
    assert summary == {"status": "failed", "best_accuracy": None, "rounds": 0}


def test_the_model_is_read_again_whatever_the_layout_in_memory(tmp_path: Path) -> None:
    recorder = record_run(tmp_path / "run")
    kernel = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    recorder.write_model({"conv.weight": kernel, "fc.bias": np.float32([1, 2])})
    read = load_file(recorder.path / "model.safetensors")
    np.testing.assert_array_equal(read["conv.weight"], kernel)
    np.testing.assert_array_equal(read["fc.bias"], [1, 2])


def test_a_reader_never_sees_a_torn_table(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run", interval=0.0)
    recorder.run_started(a_description(tmp_path / "run"))
    done, faults, seen = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(load_run(recorder.path)[1].num_rows)
            except Exception as error:
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(25):
        recorder.round_finished(a_round(index), client_rows(index, 200))
        recorder.flush()
    done.set()
    reader.join()
    assert faults == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def test_a_crash_while_writing_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record_run(tmp_path / "run", rounds=2)
    whole = pq.write_table

    def torn(table: pa.Table, path: Path, **options: bool) -> None:
        whole(table, path, **options)
        os.truncate(path, 10)
        raise OSError("no space left on device")

    monkeypatch.setattr(run_directory.pq, "write_table", torn)
    without_checksums(recorder.path)
    recorder._next_write = 0.0
    recorder.round_finished(a_round(2), client_rows(2))
    assert "no space left" in str(recorder.warning)
    assert load_run(recorder.path)[1].num_rows == 2
    with pytest.raises(RunError, match="no space left"):
        recorder.run_finished({"status": "finished"})
    monkeypatch.undo()
    without_checksums(recorder.path)
    recorder.round_finished(a_round(3), client_rows(3))
    recorder.flush()
    assert load_run(recorder.path)[1]["round"].to_pylist() == [0, 1, 2, 3]
    assert not list(recorder.path.glob(".*"))


def test_tables_are_rewritten_at_most_every_interval(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run", interval=1000.0)
    recorder.run_started(a_description(tmp_path / "run"))
    written = (recorder.path / "rounds.parquet").stat().st_mtime_ns
    for index in range(20):
        recorder.round_finished(a_round(index), client_rows(index))
    assert (recorder.path / "rounds.parquet").stat().st_mtime_ns == written
    recorder.flush()
    assert load_run(recorder.path)[1].num_rows == 20


def test_reopening_drops_the_rounds_that_are_run_again(tmp_path: Path) -> None:
    record_run(tmp_path / "run", rounds=5)
    recorder = RunDirectory.reopen(tmp_path / "run", first_round=3, interval=0.0, plots=False)
    recorder.run_started(a_description(tmp_path / "run"))
    recorder.round_finished(a_round(3), client_rows(3))
    recorder.run_finished({"status": "finished"})
    _, rounds, clients, _ = load_run(tmp_path / "run")
    assert rounds["round"].to_pylist() == [0, 1, 2, 3]
    assert clients["round"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("name", ["config.yaml", "rounds.parquet", "clients.parquet", "summary.json"])
def test_torn_and_missing_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file = record_run(tmp_path / "run").path / name
    without_checksums(file.parent)
    file.write_bytes(b'{"torn": [' if name.endswith(("json", "yaml")) else file.read_bytes()[:-7])
    with pytest.raises(DataError, match=f"{name}: cannot be read") as torn:
        load_run(tmp_path / "run")
    file.unlink()
    with pytest.raises(DataError, match=f"{name}: is missing") as missing:
        load_run(tmp_path / "run")
    assert "\n" not in str(torn.value) + str(missing.value)


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is missing; is .* a run directory"):
        load_run(tmp_path)
    path = record_run(tmp_path / "run").path
    without_checksums(path)
    pq.write_table(pa.table({"round": [1]}), path / "rounds.parquet")
    with pytest.raises(DataError, match="lacks the column phase"):
        load_run(path)
    pq.write_table(pa.table({name: [[1]] for name in ROUND_SCHEMA.names}), path / "rounds.parquet")
    with pytest.raises(DataError, match=r"rounds\.parquet: cannot be read: Unsupported cast"):
        load_run(path)
    record_run(tmp_path / "other")
    (tmp_path / "other" / "summary.json").write_text(json.dumps({"accuracy": 1}))
    with pytest.raises(DataError, match="has no status"):
        load_run(tmp_path / "other")
    (tmp_path / "other" / "summary.json").write_text(json.dumps({"status": "running"}))
    (tmp_path / "other" / "config.yaml").write_text("just words")
    with pytest.raises(DataError, match="holds no mapping"):
        load_run(tmp_path / "other")


def test_a_partition_of_40_clients_is_written(tmp_path: Path) -> None:
    recorder = RunDirectory.create("demo", 3, tmp_path / "run")
    recorder.run_started(a_description(tmp_path / "run", clients=40))
    table = pq.read_table(recorder.path / "partition.parquet")
    assert table.column_names == ["client", "samples", *CLASSES]
    assert table["client"].to_pylist() == list(range(40))
    assert table.slice(39).to_pylist() == [{"client": 39, "samples": 39 + 78 + 5, "cat": 39, "deer": 78, "dog": 5}]


def test_class_names_that_are_taken_get_their_label(tmp_path: Path) -> None:
    described = vars(a_description(tmp_path)) | {"class_names": ("samples", "dog", "dog")}
    table = partition_table(type(a_description(tmp_path))(**described))
    assert table.column_names == ["client", "samples", "samples (0)", "dog", "dog (2)"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    recorder = record_run(tmp_path / "run")
    recorder.write_model({"a": np.zeros(3, np.float32)})
    for file in recorder.path.rglob("*"):
        with pytest.raises(Exception):  # noqa: B017, PT011
            pickle.loads(file.read_bytes())
