"""Studies run to their end: what is drawn, what is told, what is left behind."""

import csv
import itertools
import re
from pathlib import Path

import pytest
import ray
import yaml
from optuna.trial import TrialState
from small_studies import ACCURACY, BASE, BYTES, LEARNING_RATE, Silent, run_study, study

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.run import run
from fedbench.studies import run as study_module
from fedbench.studies.file import parse_study
from fedbench.studies.results import DIGESTS, DIRECTORIES, METRICS
from fedbench.studies.run import StudyResult
from fedbench.studies.samplers import make_pruner, make_sampler
from fedbench.studies.shared_study import REASON, open_study
from fedbench.studies.storage import open_storage

pytestmark = [
    pytest.mark.usefixtures("here", "flops_counted_once", "no_figures"),
    pytest.mark.slow,
]

TRAINED = [text for text in BASE if not text.startswith(("rounds", "model"))] + ["rounds=3", "model.width=4"]
ON_RAY = [text for text in BASE if "executor" not in text] + ["runtime.actors=1"]


def states(result: StudyResult) -> list[str]:
    return [trial.state.name for trial in result.study.trials]


def test_a_grid_visits_every_combination_of_a_conditional_space_once(here: Path) -> None:
    space = {
        "algorithm": {"type": "categorical", "choices": ["fedavg", "fedprox"]},
        "algorithm.mu": {"type": "categorical", "choices": [0.1, 1.0], "when": {"algorithm": "fedprox"}},
        "local.batch_size": {"type": "int", "low": 16, "high": 32, "step": 16},
    }
    result = run_study(space=space, sampler="grid", budget={"trials": 100}, concurrency=1)
    assert states(result) == ["COMPLETE"] * 6
    expected = [
        {"algorithm": algorithm} | ({"algorithm.mu": mu} if mu else {}) | {"local.batch_size": size}
        for (algorithm, mu), size in itertools.product((("fedavg", None), ("fedprox", 0.1), ("fedprox", 1.0)), (16, 32))
    ]
    drawn = [trial.params for trial in result.study.trials]
    assert sorted(drawn, key=str) == sorted(expected, key=str)
    # What was drawn is what was run.
    for trial in result.study.trials:
        config = ExperimentConfig.load(Path(trial.user_attrs[DIRECTORIES][0]) / "config.yaml")
        assert config.algorithm.name == trial.params["algorithm"]
        assert config.local.batch_size == trial.params["local.batch_size"]
        if "algorithm.mu" in trial.params:
            assert config.algorithm.model_dump()["mu"] == trial.params["algorithm.mu"]


def test_the_pareto_front_is_that_of_all_pairs_compared_and_each_of_its_files_runs_again(here: Path) -> None:
    space = {
        "local.optimizer.lr": LEARNING_RATE,
        "rounds": {"type": "int", "low": 1, "high": 4},
        "update.compression": {"type": "categorical", "choices": ["none", "fp16"]},
    }
    result = run_study(
        space=space, objectives=[ACCURACY, BYTES], sampler={"name": "nsgaii", "seed": 0}, budget={"trials": 10},
        overrides=TRAINED, concurrency=1,
    )  # fmt: skip
    assert states(result) == ["COMPLETE"] * 10
    values = {}
    for trial in result.study.trials:  # from the runs' own records
        summary = yaml.safe_load((Path(trial.user_attrs[DIRECTORIES][0]) / "summary.json").read_text())
        values[trial.number] = (summary["best_accuracy"], summary["uplink_bytes"] + summary["downlink_bytes"])
        assert list(values[trial.number]) == trial.values
    front = {
        number
        for number, (accuracy, sent) in values.items()
        if not any(other[0] >= accuracy and other[1] <= sent and other != (accuracy, sent) for other in values.values())
    }
    assert {trial.number for trial in result.best} == front
    assert {trial.number for trial in result.study.best_trials} == front
    assert {path.name for path in result.best_files} == {f"best-{number:04d}.yaml" for number in front}
    chosen = min(front)
    again = run(ExperimentConfig.load(result.directory / f"best-{chosen:04d}.yaml"))
    assert again.summary["model_sha256"] == result.study.trials[chosen].user_attrs[DIGESTS][0]


@pytest.mark.usefixtures("local_ray")
def test_trials_beside_each_other_on_actors_fail_alone_and_are_heard_of_and_best_yaml_gives_the_best_model_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(study_module, "POLL_SECONDS", 0.2)
    # The trial that fails is the last one: after a failure a runner ends its actors, and starting others takes long.
    space = {"algorithm": {"type": "categorical", "choices": ["fedavg", "fedprox", "small:Exhausted"]}}
    listener = Silent()
    result = run_study(
        listener, space=space, sampler="grid", overrides=[*ON_RAY, "rounds=15", "evaluation.every=3"], seeds=[3, 4],
        budget={"trials": 10}, concurrency=2,
    )  # fmt: skip
    assert listener.slots == 2
    assert len(result.study.trials) == 3
    complete = [trial for trial in result.study.trials if trial.state == TrialState.COMPLETE]
    (failed,) = [trial for trial in result.study.trials if trial.state == TrialState.FAIL]
    assert failed.params == {"algorithm": "small:Exhausted"}
    assert "nothing left to minimise" in failed.user_attrs[REASON]
    for trial in complete:  # their values are means over the seeds
        assert REASON not in trial.user_attrs
        runs = [Path(directory) for directory in trial.user_attrs[DIRECTORIES]]
        assert [path.name for path in runs] == [f"trial-{trial.number:04d}-seed-{seed}" for seed in (3, 4)]
        accuracies = [yaml.safe_load((path / "summary.json").read_text())["best_accuracy"] for path in runs]
        assert trial.value == pytest.approx(sum(accuracies) / 2, abs=1e-12)

    first, *lines = listener.lines
    assert first == "starting the study small"
    assert all(line.startswith("running: trial ") for line in lines)
    stands = r"trial (\d) seed ([34]) round (\d+)/15( accuracy 0\.\d{4})?"
    found = [re.findall(stands, line) for line in lines]
    assert {trial for line in found for trial, *_ in line} >= {str(trial.number) for trial in complete}
    for number in "012":
        rounds = [(seed, int(done)) for line in found for trial, seed, done, _ in line if trial == number]
        assert rounds == sorted(rounds)
    assert all(accuracy for line in found for *_, done, accuracy in line if int(done) >= 3)

    best = max(complete, key=lambda trial: trial.value)
    again = run(ExperimentConfig.load(result.best_files[0], ["runtime.executor=inline", "runtime.actors=null"]))
    assert again.summary["model_sha256"] == best.user_attrs[DIGESTS][0] != best.user_attrs[DIGESTS][1]


def test_pruned_trials_stop_at_the_round_at_which_they_fall_behind(here: Path) -> None:
    # Of two learning rates one learns nothing; medians are compared from the second round on.
    space = {
        "local.optimizer.lr": {"type": "categorical", "choices": [0.02, 1e-6]},
        "local.epochs": {"type": "int", "low": 1, "high": 3},
    }
    result = run_study(
        space=space, sampler="grid", overrides=[*TRAINED, "rounds=5"], concurrency=1,
        pruner={"name": "median", "n_startup_trials": 3, "n_warmup_steps": 2},
    )  # fmt: skip
    for trial in result.study.trials:
        summary = yaml.safe_load((result.directory / f"trial-{trial.number:04d}-seed-0" / "summary.json").read_text())
        if trial.params["local.optimizer.lr"] == 1e-6:
            assert trial.state == TrialState.PRUNED
            assert list(trial.intermediate_values) == [1, 2]
            assert (summary["status"], summary["rounds"]) == ("interrupted", 2)
        else:
            assert trial.state == TrialState.COMPLETE
            assert list(trial.intermediate_values) == [1, 2, 3, 4, 5]
            assert trial.value == max(trial.intermediate_values.values())


def test_a_budget_in_tflop_ends_the_study_and_a_larger_one_goes_on(here: Path) -> None:
    first = run_study(budget={"tflop": 1e-12}, concurrency=1).study.trials
    assert len(first) == 1
    one = first[0].user_attrs[METRICS]["client_flops"]
    result = run_study(budget={"tflop": 2.5 * one / 1e12}, concurrency=1)
    assert states(result) == ["COMPLETE"] * 3
    assert result.study.trials[0].values == first[0].values


def test_constraints_reach_the_sampler_and_the_best_trial_keeps_them(here: Path) -> None:
    result = run_study(
        space={"rounds": {"type": "int", "low": 1, "high": 4}},
        constraints=[{"metric": "rounds", "at_most": 2}],
        sampler={"name": "tpe", "seed": 1},
        budget={"trials": 8},
        overrides=TRAINED,
        concurrency=1,
    )
    kept = [trial for trial in result.study.trials if trial.params["rounds"] <= 2]
    assert 0 < len(kept) < 8
    for trial in result.study.trials:
        (violation,) = trial.constraints.values()
        assert violation == trial.params["rounds"] - 2
    assert result.best[0].value == max(trial.value for trial in kept) == result.study.best_value


def test_a_trial_that_never_reaches_the_target_fails_and_says_so(here: Path) -> None:
    space = {"local.optimizer.lr": {"type": "categorical", "choices": [1e-6, 0.02]}}
    result = run_study(
        space=space, sampler="grid", target=0.2, objectives=[{"metric": "bytes_to_target", "direction": "minimize"}],
        overrides=[*TRAINED, "rounds=5"], concurrency=1,
    )  # fmt: skip
    by_rate = {trial.params["local.optimizer.lr"]: trial for trial in result.study.trials}
    assert by_rate[1e-6].state == TrialState.FAIL
    assert "never reached target=0.2" in by_rate[1e-6].user_attrs[REASON]
    reached = by_rate[0.02]
    import pyarrow.parquet as pq

    rounds = pq.read_table(Path(reached.user_attrs[DIRECTORIES][0]) / "rounds.parquet").to_pylist()
    first = next(i for i, row in enumerate(rounds) if row["test_accuracy"] >= 0.2)
    assert reached.value == sum(row["uplink_bytes"] + row["downlink_bytes"] for row in rounds[: first + 1])


def test_a_study_by_the_same_name_about_something_else_is_refused(here: Path) -> None:
    there, storage = parse_study(study()), open_storage("small.log")
    open_study(there, storage, make_sampler(there, 0), make_pruner(there))
    with pytest.raises(ConfigError, match="name=small: the storage has a study"):
        run_study(storage="small.log", seeds=[1])


@pytest.mark.usefixtures("local_ray")
def test_more_trials_at_a_time_than_there_is_room_for_are_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"concurrency=3: .* have no room, 2 trials do"):
        run_study(concurrency=3)
    assert ray.is_initialized()


def test_a_trial_at_a_time_without_actors_needs_no_ray(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *arguments, **options: pytest.fail("Ray was started"))
    assert states(run_study(budget={"trials": 1})) == ["COMPLETE"]


def test_a_slot_runs_the_next_trial_after_one_that_has_failed(here: Path) -> None:
    space = {"algorithm": {"type": "categorical", "choices": ["small:Exhausted", "fedavg"]}}
    result = run_study(space=space, sampler="grid", concurrency=1)
    assert [(trial.params["algorithm"], trial.state.name) for trial in result.study.trials] == [
        ("small:Exhausted", "FAIL"), ("fedavg", "COMPLETE"),
    ]  # fmt: skip


def test_sqlite_serves_as_storage_and_the_table_holds_every_trial(here: Path) -> None:
    result = run_study(storage=f"sqlite:///{here}/study.db", budget={"trials": 3}, concurrency=1)
    rows = list(csv.DictReader((result.directory / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["COMPLETE"] * 3
    for row, trial in zip(rows, result.study.trials, strict=True):
        assert float(row["value:best_accuracy"]) == trial.value
        assert float(row["local.optimizer.lr"]) == trial.params["local.optimizer.lr"]
    assert not (result.directory / "journal.log").exists()
