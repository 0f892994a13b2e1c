"""Recorded runs: what counts, what is left out and why, and what methods are called."""

import copy
import json
import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from samples import without_checksums
from small import asynchronous, config

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import digest, method_settings
from fedbench.errors import ConfigError, DataError
from fedbench.records.recorded_run import RecordedRun, Unusable, read_run, run_directories
from fedbench.records.run_lock import is_at_work
from fedbench.report.compare import Comparison, compare, load
from fedbench.report.curves import score_curve
from fedbench.report.methods import labels as labels_of
from fedbench.report.result_tables import results_table, spent_until
from fedbench.report.shown_metrics import default_target

pytestmark = pytest.mark.slow

GOOD = [f"{method}-{seed}" for method in ("full", "part") for seed in range(3)]


def comparison(root: Path, *names: str) -> Comparison:
    return compare(load([root / name for name in names or sorted(path.name for path in root.iterdir())]))


def said(found: Comparison, severity: str) -> str:
    return "\n".join(caveat.text for caveat in found.caveats if caveat.severity == severity)


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    """The runs once more, to be damaged."""
    runs = shutil.copytree(recorded, tmp_path / "runs")
    for directory in runs.iterdir():
        without_checksums(directory)
    return runs


def summary_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())


def change_summary(directory: Path, **changes: object) -> None:
    (directory / "summary.json").write_text(json.dumps(summary_of(directory) | changes))


def test_seeds_of_one_configuration_are_one_method_with_their_mean(recorded: Path) -> None:
    found = comparison(recorded, *GOOD)
    assert [method.label for method in found.methods] == ["fedavg, full", "FedPart"]
    assert [method.seeds for method in found.methods] == [(0, 1, 2), (0, 1, 2)]
    for method, name in zip(found.methods, ("full", "part"), strict=True):
        values = [summary_of(recorded / f"{name}-{seed}")["best_accuracy"] for seed in range(3)]
        assert method.spread("best_accuracy").values == tuple(values)
        assert method.spread("best_accuracy").mean == pytest.approx(statistics.fmean(values))
        assert method.spread("best_accuracy").std == pytest.approx(statistics.stdev(values))


def test_failed_and_interrupted_runs_are_said_and_do_not_count(recorded: Path) -> None:
    found = comparison(recorded)
    counted = {run.directory.name for run in found.runs}
    assert counted == {*GOOD, "async-0"}
    left_out = said(found, "left out")
    assert "failed-3 (seed 3): failed after 0 of 3 rounds" in left_out
    assert "none of the 3 updates can be used" in left_out
    assert "interrupted-4 (seed 4): was interrupted after" in left_out


def test_a_run_whose_process_was_killed_is_left_out_as_such(copied: Path) -> None:
    (copied / "full-1" / "summary.json").write_text('{"status": "running"}')
    found = comparison(copied, *GOOD)
    assert found.methods[0].seeds == (0, 2)
    assert "full-1 (seed 1): was killed" in said(found, "left out")
    assert "A lacks 1" in said(found, "note")


def test_a_run_that_is_at_work_is_told_from_a_killed_one(copied: Path) -> None:
    import fcntl

    (copied / "full-1" / "summary.json").write_text('{"status": "running"}')
    assert not is_at_work(copied / "full-1")
    with (copied / "full-1" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is still running" in said(comparison(copied, *GOOD), "left out")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("rounds.parquet", "rounds.parquet: cannot be read"),
        ("summary.json", "summary.json: cannot be read"),
        ("config.yaml", "config.yaml: cannot be read"),
        ("partition.parquet", "partition.parquet: cannot be read"),
    ],
)
def test_damaged_runs_are_left_out_with_the_damage(copied: Path, file: str, reason: str) -> None:
    (copied / "full-0" / file).write_bytes(b"\x00{: no")
    found = comparison(copied, *GOOD)
    assert found.methods[0].seeds == (1, 2)
    assert reason in said(found, "left out")


def test_a_summary_that_contradicts_the_rounds_is_not_believed(copied: Path) -> None:
    change_summary(copied / "full-0", uplink_bytes=1)
    rounds = pq.read_table(copied / "full-1" / "rounds.parquet")
    pq.write_table(rounds.slice(1), copied / "full-1" / "rounds.parquet")
    change_summary(copied / "part-0", rounds=2)
    found = comparison(copied, *GOOD)
    assert [method.seeds for method in found.methods] == [(2,), (1, 2)]
    assert "summary.json speaks of 2 rounds, rounds.parquet has 3" in said(found, "left out")
    assert "uplink_bytes in summary.json are not the sum" in said(found, "left out")
    assert "not in order" in said(found, "left out")


def test_a_configuration_that_was_edited_afterwards_is_found_out(copied: Path) -> None:
    settings = yaml.safe_load((copied / "full-0" / "config.yaml").read_text())
    settings["local"]["batch_size"] = 8
    (copied / "full-0" / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "not the configuration that it ran with" in said(comparison(copied, *GOOD), "left out")


def test_the_same_seed_twice_with_one_model_counts_once(copied: Path) -> None:
    shutil.copytree(copied / "full-0", copied / "again")
    found = comparison(copied, *GOOD, "again")
    assert found.methods[0].seeds == (0, 1, 2)
    assert found.methods[0].spread("best_accuracy").n == 3
    assert "seed 0 was run 2 times with the same model" in said(found, "note")


def test_the_same_seed_with_two_models_is_a_warning_and_counts_not_at_all(copied: Path) -> None:
    shutil.copytree(copied / "full-0", copied / "again")
    change_summary(copied / "again", model_sha256="f" * 64)
    found = comparison(copied, *GOOD, "again")
    assert found.methods[0].seeds == (1, 2)
    assert "seed 0 was run 2 times and came to different models" in said(found, "warning")
    assert "ffffffffffff" in said(found, "warning")


def test_other_data_under_one_name_is_called_mixed_up(copied: Path) -> None:
    description = json.loads((copied / "part-1" / "description.json").read_text())
    description["dataset_digest"] = "0" * 64
    (copied / "part-1" / "description.json").write_text(json.dumps(description))
    warnings = said(comparison(copied, *GOOD), "warning")
    assert "runs named quickstart are mixed up" in warnings
    assert "the methods were run on different data" in warnings


def test_another_partition_under_one_name_and_seed_is_called_mixed_up(copied: Path) -> None:
    file = copied / "part-2" / "partition.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(2, table.column_names[2], pa.array([0] * len(table), pa.int64())), file)
    warnings = said(comparison(copied, *GOOD), "warning")
    assert "with seed 2 the data was divided in 2 ways" in warnings
    assert "not divided among clients in the same way" in warnings


def test_test_splits_that_the_seed_draws_are_no_different_data(recorded: Path) -> None:
    runs = [read_run(recorded / name) for name in GOOD]
    assert len({run.description.dataset_digest for run in runs}) == 3  # digits draws its test split by the seed
    assert said(comparison(recorded, *GOOD), "warning") == ""


def test_only_a_split_recorded_as_drawn_by_the_seed_may_differ_between_seeds(recorded: Path) -> None:
    runs = [read_run(recorded / name) for name in GOOD]
    other_words = [replace(run, description=replace(run.description, dataset_source="a folder")) for run in runs]
    assert said(compare(other_words), "warning") == ""
    fixed = [replace(run, description=replace(run.description, held_out_by_seed=False)) for run in runs]
    assert "run on different data" in said(compare(fixed), "warning")


def test_a_run_that_does_not_say_how_its_test_split_was_drawn_is_of_another_version(copied: Path) -> None:
    file = copied / "part-2" / "description.json"
    description = json.loads(file.read_text())
    del description["held_out_by_seed"]
    file.write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"description\.json: .* of another version: .*'held_out_by_seed'"):
        read_run(copied / "part-2")


def test_rounds_and_asynchronous_rounds_are_said_to_differ(recorded: Path) -> None:
    found = comparison(recorded)
    (letter,) = [method.letter for method in found.methods if "ormo" in method.label]
    assert "a round of an asynchronous method is a stretch of arrivals" in said(found, "note")
    assert f"(asynchronous: {letter})" in said(found, "note")


def test_nothing_but_unusable_runs_is_an_error_with_the_reason(recorded: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 2 runs can be compared: .*failed after 0 of 3 rounds"):
        comparison(recorded, "failed-3", "interrupted-4")


def test_run_directories_are_found_below_a_folder_once_each(recorded: Path) -> None:
    found = run_directories([recorded, recorded / "full-0", recorded.parent / recorded.name / ".." / recorded.name])
    assert sorted(path.name for path in found) == sorted([*GOOD, "async-0", "failed-3", "interrupted-4"])


def test_folders_without_runs_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run directory"):
        run_directories([tmp_path])
    with pytest.raises(ConfigError, match="is not there"):
        run_directories([tmp_path / "gone"])


@pytest.mark.parametrize(
    "made",
    [config("seed=3"), config("name=x", "data.root=/d", "runtime.executor=inline"), asynchronous("delays.replay=/e")],
)
def test_the_digest_is_the_configurations_own(made: ExperimentConfig) -> None:
    assert digest(made.to_mapping(), {}) == made.digest()


def labels(configs: list[dict[str, Any]]) -> list[str]:
    return labels_of([method_settings(config, {}) for config in configs])


def test_labels_name_only_what_tells_methods_apart() -> None:
    base = config("schedule=full").to_mapping()

    def changed(**changes: object) -> dict[str, Any]:
        found = copy.deepcopy(base)
        for key, value in changes.items():
            *sections, last = key.split("__")
            inner = found
            for section in sections:
                inner = inner[section]
            inner[last] = value
        return found

    prox = changed(algorithm={"name": "fedprox", "mu": 0.01})
    assert labels([base, prox]) == ["fedavg, full", "fedprox, full"]
    stronger = changed(algorithm={"name": "fedprox", "mu": 1.0})
    assert labels([base, prox, stronger]) == ["fedavg, full", "fedprox mu=0.01, full", "fedprox mu=1, full"]
    faster = changed(local__optimizer__lr=0.1, rounds=9)
    assert labels([base, faster]) == ["fedavg, full, rounds=4, lr=0.002", "fedavg, full, rounds=9, lr=0.1"]
    assert labels([base, changed(seed=5, name="other", output={"directory": "x"})])[0] == "fedavg, full (1)"
    sgd = changed(algorithm={"name": "fedprox", "mu": 0.01}, local__optimizer={"name": "sgd", "lr": 0.5, "momentum": 0})
    slow = changed(
        algorithm={"name": "fedprox", "mu": 0.01}, local__optimizer={"name": "sgd", "lr": 0.1, "momentum": 0}
    )
    assert labels([base, prox, sgd]) == [
        "fedavg, full",
        "fedprox, full, optimizer=adam",
        "fedprox, full, optimizer=sgd",
    ]
    assert labels([prox, sgd, slow])[1:] == [
        "fedprox, full, optimizer=sgd, lr=0.5",
        "fedprox, full, optimizer=sgd, lr=0.1",
    ]
    partial = changed(schedule={"name": "sequential", "cycles": 2})
    longer = changed(algorithm={"name": "fedprox", "mu": 0.01}, schedule={"name": "sequential", "cycles": 3})
    assert labels([base, partial, longer]) == ["fedavg, full", "FedPart", "FedPart x FedProx"]
    twice = changed(schedule={"name": "sequential", "cycles": 3})
    assert labels([partial, twice]) == ["FedPart cycles=2", "FedPart cycles=3"]
    served = changed(server={"name": "fedadam", "lr": 0.1})
    assert labels([base, served]) == ["fedavg, full", "fedavg, fedadam server, full"]


def with_course(run: RecordedRun, accuracies: list[float | None], uplink: list[int]) -> RecordedRun:
    rows = run.rounds.slice(0, 1).to_pylist() * len(accuracies)
    rounds = [
        row | {"round": index, "test_accuracy": accuracy, "uplink_bytes": sent, "downlink_bytes": 0}
        for index, (row, accuracy, sent) in enumerate(zip(rows, accuracies, uplink, strict=True))
    ]
    return replace(run, rounds=pa.Table.from_pylist(rounds, schema=run.rounds.schema))


def test_seeds_with_other_byte_counts_are_step_functions_on_the_union_of_their_points(recorded: Path) -> None:
    run = read_run(recorded / "full-0")
    a = with_course(run, [0.2, None, 0.6], [10, 10, 10])  # scored at 10 and 30
    b = with_course(run, [0.4, 0.8], [20, 5])  # scored at 20 and 25
    found = score_curve([a, b], "total_bytes")
    assert found is not None
    assert found.is_stepped
    assert found.x.tolist() == [20, 25, 30]
    assert found.low.tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert found.high.tolist() == pytest.approx([0.4, 0.8, 0.8])
    assert found.mean.tolist() == pytest.approx([0.3, 0.5, 0.7])


def test_common_points_are_joined_without_steps(recorded: Path) -> None:
    runs = [read_run(recorded / f"full-{seed}") for seed in range(3)]
    found = score_curve(runs, "rounds")
    assert found is not None
    assert not found.is_stepped
    assert found.x.tolist() == [1, 2, 3]
    expected = np.mean([run.column("test_accuracy") for run in runs], axis=0)
    assert found.mean.tolist() == pytest.approx(expected.tolist())


def test_a_synchronous_run_has_no_virtual_course(recorded: Path) -> None:
    assert score_curve([read_run(recorded / "full-0")], "virtual_seconds") is None
    found = score_curve([read_run(recorded / "async-0")], "virtual_seconds")
    assert found is not None
    assert found.x[-1] == pytest.approx(summary_of(recorded / "async-0")["virtual_seconds"])


def test_what_a_target_took_is_counted_to_the_end_of_its_round(recorded: Path) -> None:
    run = with_course(read_run(recorded / "full-0"), [0.2, None, 0.6, 0.9], [10, 10, 10, 10])
    spent = spent_until(run, 0.5)
    assert spent is not None
    assert (spent["rounds"], spent["total_bytes"]) == (3, 30)
    assert spent["client_flops"] == 3 * run.column("client_flops")[0]
    assert "virtual_seconds" not in spent
    assert spent_until(run, 0.91) is None


def test_the_default_target_is_nine_tenths_of_the_worst_method(recorded: Path) -> None:
    found = comparison(recorded, *GOOD)
    worst = min(method.spread("best_accuracy").mean for method in found.methods)
    target = default_target(found.methods)
    assert target <= 0.9 * worst < target + 0.001
    assert math.isclose(target * 1000, round(target * 1000))


def test_unusable_runs_are_reported_where_they_come_from() -> None:
    with pytest.raises(DataError, match="somewhere: is gone"):
        compare([Unusable("somewhere", "is gone")])


def test_the_baseline_is_plain_fedavg_or_what_is_named(recorded: Path) -> None:
    found = comparison(recorded)
    assert found.baseline(None).label == "fedavg, full"
    assert found.baseline("ormo").label.startswith("ormo")
    assert found.baseline("B").letter == "B"
    assert found.baseline("fedpart").label == "FedPart"
    with pytest.raises(ConfigError, match=r"several methods; there are: .*fedavg, full"):
        found.baseline("fed")
    with pytest.raises(ConfigError, match="did you mean 'fedavg, full'"):
        found.baseline("fedavg full")


def test_a_run_that_ended_early_or_was_never_scored_does_not_count(copied: Path) -> None:
    file = copied / "full-0" / "description.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rounds": 5}))
    change_summary(copied / "full-1", best_accuracy=None, final_accuracy=None)
    found = comparison(copied, *GOOD)
    assert found.methods[0].seeds == (2,)
    assert "full-0 (seed 0): says that it finished after 3 of 5 rounds" in said(found, "left out")
    assert "full-1 (seed 1): was never evaluated" in said(found, "left out")


def test_other_versions_are_said(copied: Path) -> None:
    change_summary(copied / "full-0", versions={"torch": "0.1"})
    assert "different versions or machines (torch 0.1: 1 runs; fedbench" in said(comparison(copied, *GOOD), "note")


def validated(run: RecordedRun) -> RecordedRun:
    """The run as if it had a validation split, on which its first round is the best."""
    scores = pa.array([1.0, *[0.0] * (run.rounds.num_rows - 1)], pa.float64())
    place = run.rounds.schema.get_field_index("validation_accuracy")
    return replace(run, rounds=run.rounds.set_column(place, "validation_accuracy", scores))


def test_best_accuracies_that_were_chosen_on_the_test_split_are_remarked_on(recorded: Path) -> None:
    runs = [read_run(recorded / name) for name in GOOD]
    on_test = "best accuracies are the largest on the test split itself"
    assert on_test in said(compare(runs), "note")
    everywhere = compare([validated(run) for run in runs])
    assert on_test not in said(everywhere, "note")
    mixed = compare([validated(run) if "full" in run.source else run for run in runs])
    assert "best accuracies cannot be compared (test: B; validation: A)" in said(mixed, "warning")
    for compared, start in ((compare(runs), "the largest"), (everywhere, "the test accuracy"), (mixed, "the test acc")):
        notes = results_table(compared.methods).notes
        assert notes[0].startswith(f"Best accuracy: {start}")
    assert notes[0].endswith("; without a validation split the largest of all rounds on the test split itself, and by "
                             "that somewhat too high.")  # fmt: skip


def test_a_name_that_was_given_is_the_label(recorded: Path) -> None:
    def named(run: str, name: str) -> RecordedRun:
        original = read_run(recorded / run)
        return replace(original, config=original.config | {"name": name})

    def labels_shown(*runs: RecordedRun) -> list[str]:
        return [method.label for method in compare(runs).methods]

    assert labels_shown(named("full-0", "ours"), named("full-1", "ours"), named("part-0", "quickstart")) == [
        "FedPart",
        "ours",
    ]
    assert labels_shown(named("full-0", "ours"), named("part-0", "ours")) == ["fedavg, full", "FedPart"]


def test_letters_do_not_depend_on_the_order_in_which_runs_are_read(recorded: Path) -> None:
    runs = load(run_directories([recorded]))
    titles = [method.title for method in compare(runs).methods]
    assert titles == [method.title for method in compare(runs[::-1]).methods]
    assert [title[0] for title in titles] == ["A", "B", "C"]


def test_a_cost_that_the_paper_does_not_define_is_left_out(recorded: Path) -> None:
    original = read_run(recorded / "full-0")
    changed = original.config | {"algorithm": {"name": "scaffold"}}
    scaffold = replace(original, config=changed, summary=original.summary | {"paper_comm_gb": None})
    methods = compare([original, scaffold]).methods
    assert {method.label: method.spread("paper_comm_gb").n for method in methods} == {
        "fedavg, full": 1,
        "scaffold, full": 0,
    }
    cells = dict(results_table(methods).rows)["B: scaffold, full"]
    assert [cell.text for cell in cells].count("none") == 1
