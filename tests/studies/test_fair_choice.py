"""What a study chooses by, and what its trials may spend: validation rather than test, and equal cost."""

import json
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pytest
from small import asynchronous, config
from small_studies import ACCURACY, BYTES, run_study, study

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.affordable import affordable_rounds
from fedbench.experiment.estimate import estimate
from fedbench.experiment.run import run
from fedbench.records.schema import ROUND_SCHEMA
from fedbench.studies.file import load_study, parse_study, shipped_studies
from fedbench.studies.metrics import CHOOSERS, HEADLINES, lacking, measure
from fedbench.studies.results import DIGESTS, DIRECTORIES, METRICS, remarks_on_choice

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flops_counted_once", "no_figures")]

VALIDATED = {"metric": "best_validation_accuracy", "direction": "maximize"}
HELD = "data.validation_fraction=0.2"
SMALL = (
    "schedule=full", "data.clients=3", "data.samples_per_client=60", "model.width=2", "local.epochs=1",
    "tracking.enabled=false", "runtime.executor=inline",
)  # fmt: skip
CYCLES = {"schedule.cycles": {"type": "int", "low": 1, "high": 3}}
IN_TURN = [*SMALL[1:], "schedule=sequential", "rounds=auto"]


@pytest.mark.parametrize(
    "changes",
    [
        {"space": {"rounds": {"type": "int", "low": 2, "high": 9}}},
        {"space": CYCLES, "overrides": IN_TURN},
        {"space": {"schedule": {"type": "categorical", "choices": ["sequential", "random"]},
                   "schedule.warmup_rounds": {"type": "int", "low": 0, "high": 4}}, "overrides": IN_TURN},
        {"space": {"delays.concurrency": {"type": "categorical", "choices": [2, 3]}},
         "overrides": [*SMALL, "rounds=2", "algorithm=asgd", "local.optimizer=sgd"]},
    ],
)  # fmt: skip
def test_trials_of_different_lengths_are_refused_where_the_longest_would_be_the_best(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"space: trials would have \d+ to \d+ (rounds|arrivals), and the longest"):
        parse_study(study(**changes))
    cost = {"metric": "client_flops", "at_most": 1e12}
    for more in ({"objectives": [ACCURACY, BYTES]}, {"constraints": [cost]}, {"objectives": [BYTES]}):
        assert parse_study(study(**changes | more))
    if "rounds" not in changes["space"]:
        assert parse_study(study(**changes, run_budget={"rounds": 2}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run_budget": {}}, "set one of the three"),
        ({"run_budget": {"rounds": 2, "mb": 3}}, "set one of the three"),
        ({"run_budget": {"mb": -1}}, r"run_budget\.mb=-1"),
        ({"run_budget": {"rounds": 2}, "space": {"rounds": {"type": "int", "low": 2, "high": 9}}}, "has no effect"),
        ({"overrides": [*SMALL, "rounds=2", HELD]}, "best_accuracy: is of the test split, .* choose by best_validati"),
    ],
)
def test_a_budget_or_a_choice_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_study(study(**changes))


@pytest.mark.parametrize(
    "settings",
    [
        config("rounds=auto", "schedule.cycles=9", "model.width=4"),
        config("schedule=full", "model.width=4", "participation.clients_per_round=2"),
        asynchronous("rounds=1"),
    ],
    ids=["a schedule with an end", "one without", "arrivals"],
)
def test_a_budget_buys_the_rounds_that_cost_no_more(settings: ExperimentConfig) -> None:
    spent = estimate(settings.model_copy(update={"rounds": 9})).per_round
    sent = sum(costs.uplink_bytes + costs.downlink_bytes for costs in spent[:7])
    worked = sum(costs.client_flops for costs in spent[:7])
    assert affordable_rounds(settings, total_bytes=sent) == affordable_rounds(settings, client_flops=worked) == 7
    assert (
        affordable_rounds(settings, total_bytes=sent - 1) == affordable_rounds(settings, client_flops=worked - 1) == 6
    )
    assert affordable_rounds(settings, total_bytes=sent, client_flops=worked - 1) == 6
    with pytest.raises(ConfigError, match="the first round alone takes"):
        affordable_rounds(settings, total_bytes=10)


def test_a_budget_that_outlasts_the_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"less than the budget; schedule\.name=sequential ends there: raise sch"):
        affordable_rounds(config("rounds=auto", "model.width=4"), total_bytes=1e12)


def test_a_budget_of_what_nobody_knows_beforehand_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"only rounds can be fixed here, since schedule\.name=importance follows"):
        affordable_rounds(config("schedule=importance", "rounds=4", "model.width=4"), total_bytes=1e5)


def test_trials_spend_alike_and_the_best_file_has_the_rounds_that_it_bought(here: Path) -> None:
    budget = 0.05
    result = run_study(
        space=CYCLES | {"schedule.warmup_rounds": {"type": "categorical", "choices": [0, 5]}},
        overrides=[*IN_TURN, HELD, "schedule.rounds_per_group=4"], objectives=[VALIDATED], sampler="grid",
        run_budget={"mb": budget}, concurrency=1,
    )  # fmt: skip
    rounds = set()
    for trial in result.study.trials:
        sent = trial.user_attrs[METRICS]["total_bytes"]
        assert 0.7 * budget * 1e6 < sent <= budget * 1e6
        rounds.add(trial.user_attrs[METRICS]["rounds"])
    assert len(rounds) > 1
    best = result.best[0]
    again = run(ExperimentConfig.load(result.best_files[0]))
    assert again.summary["model_sha256"] == best.user_attrs[DIGESTS][0]


def test_a_study_chooses_on_validation_and_reports_test_at_that_round(here: Path) -> None:
    result = run_study(
        overrides=[*SMALL, "rounds=4", HELD],
        objectives=[VALIDATED],
        concurrency=1,
        pruner="median",
        budget={"trials": 2},
    )
    assert not result.warnings
    for trial in (trial for trial in result.study.trials if trial.values):
        summary = json.loads((Path(trial.user_attrs[DIRECTORIES][0]) / "summary.json").read_text())
        assert trial.value == summary["best_validation_accuracy"] == max(trial.intermediate_values.values())
        assert trial.user_attrs[METRICS]["best_accuracy"] == summary["best_accuracy"]
    best = result.best[0].user_attrs[METRICS]
    comment = result.best_files[0].read_text().splitlines()[0]
    expected = f"best_validation_accuracy {best['best_validation_accuracy']:.6g}, best_accuracy on test "
    assert f"{expected}{best['best_accuracy']:.4f}." in comment


def test_a_study_that_compares_by_the_test_split_says_so() -> None:
    def remarks(measured: dict[str, float], **changes: Any) -> list[str]:
        made = optuna.create_study(direction="maximize")
        trial = optuna.trial.create_trial(value=0.5, user_attrs={METRICS: measured})
        made.add_trial(trial)
        return remarks_on_choice(made, parse_study(study(**changes)))

    target = {"objectives": [{"metric": "rounds_to_target", "direction": "minimize"}], "target": 0.5}
    for changes in ({}, target):
        (line,) = remarks({"best_accuracy": 0.5}, **changes)
        assert "compared by their accuracy on the test split, so that of the best one is too high" in line
    assert remarks({"best_accuracy": 0.5, "best_validation_accuracy": 0.5}, **target) == []
    assert remarks({"total_bytes": 1.0}, objectives=[BYTES]) == []


@pytest.mark.parametrize(
    ("name", "measured", "words"),
    [
        ("best_validation_accuracy", {"best_accuracy": 0.5}, "no validation split; set data.validation_fraction"),
        (
            "best_accuracy",
            {"best_accuracy": 0.5, "best_validation_accuracy": 0.4},
            "choose by best_validation_accuracy",
        ),
    ],
)
def test_a_trial_without_the_split_that_is_asked_for_fails_with_the_way_out(
    name: str, measured: dict[str, float], words: str
) -> None:
    reason = lacking([name], measured, None)
    assert reason is not None
    assert words in reason
    assert lacking([name], {name: 0.5}, None) is None


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_shipped_study_chooses_on_validation(name: str) -> None:
    file = load_study(name)
    accuracies = set(file.metrics()) & set(HEADLINES)
    assert accuracies
    assert not accuracies & set(CHOOSERS)
    assert file.check().data.validation_fraction > 0


def test_the_command_line_sets_the_budget_of_each_run() -> None:
    assert load_study("fedpart_schedules", ["run_budget.mb=3"]).run_budget.mb == 3  # type: ignore[union-attr]
    changed = load_study("fedpart_schedules", ["run_budget.rounds=7"])
    assert changed.concrete(next(changed.drawn_from.branches()), 0).rounds == 7
    assert parse_study(study(run_budget={"rounds": 3})).definition() != parse_study(study()).definition()


def test_a_target_is_reached_on_validation_where_there_is_such_a_split() -> None:
    row = {field.name: None if pa.types.is_nested(field.type) else 0 for field in ROUND_SCHEMA}
    row |= {"phase": "full", "virtual_seconds": None, "epochs": None}
    scores = [(0.9, 0.1), (0.2, 0.3), (0.1, 0.6)]
    rows = [
        row | {"round": index, "test_accuracy": test, "validation_accuracy": validation}
        for index, (test, validation) in enumerate(scores)
    ]
    validated = pa.Table.from_pylist(rows, schema=ROUND_SCHEMA)
    alone = pa.Table.from_pylist([row | {"validation_accuracy": None} for row in rows], schema=ROUND_SCHEMA)
    assert measure({}, validated, 0.5)["rounds_to_target"] == 3
    assert measure({}, alone, 0.5)["rounds_to_target"] == 1
