"""Study files: what is accepted, what is refused and in which words; samplers and pruners by name."""

import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from own_method import OwnMethod
from small_studies import ACCURACY, BYTES, study, written

from fedbench.errors import ConfigError
from fedbench.studies.file import load_study, parse_study, shipped_studies
from fedbench.studies.samplers import PRUNERS, SAMPLERS, make_pruner, make_sampler

CIFAR10 = {
    "algorithms": ["base=scaffold-cifar10", "rounds=60"],
    "fedpart_pareto": ["base=fedpart-cifar10", "rounds=100"],
    "fedpart_schedules": ["base=fedpart-cifar10", "run_budget.mb=11000"],
    "ormo_momentum": ["base=ormo-cifar10-k16-het", "rounds=100"],
}


@pytest.mark.parametrize("name", sorted(CIFAR10))
def test_every_shipped_study_is_valid_on_digits_and_on_cifar10(name: str) -> None:
    assert sorted(shipped_studies()) == sorted(CIFAR10)
    assert load_study(name).config(next(load_study(name).drawn_from.branches()), 0).data.dataset.name == "digits"
    other = load_study(name, CIFAR10[name])
    assert other.name == f"{name}-{CIFAR10[name][0].removeprefix('base=')}"
    assert other.check().data.dataset.name == "cifar10"


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samplers_go_by_optunas_names(name: str) -> None:
    space = {"local.epochs": {"type": "int", "low": 1, "high": 2}}
    if name == "cmaes":
        pytest.importorskip("cmaes")
    for spelt in (name, SAMPLERS[name]):
        sampler = make_sampler(parse_study(study(sampler={"name": spelt, "seed": 3}, space=space)), 0)
        kind = "RandomSampler" if name == "grid" else SAMPLERS[name]  # a grid's trials wait in the queue
        assert isinstance(sampler, getattr(optuna.samplers, kind))


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_pruners_go_by_optunas_names(name: str) -> None:
    given = {"percentile": {"percentile": 25.0}, "threshold": {"lower": 0.2}}.get(name, {})
    pruner = make_pruner(parse_study(study(pruner={"name": name, **given})))
    assert isinstance(pruner, getattr(optuna.pruners, PRUNERS[name]))


def test_processes_of_one_study_draw_differently_and_yet_reproducibly() -> None:
    def drawn(start: int) -> list[float]:
        sampler = make_sampler(parse_study(study(sampler={"name": "random", "seed": 3})), start)
        made = optuna.create_study(sampler=sampler)
        return [made.ask().suggest_float("x", 0, 1) for _ in range(3)]

    assert drawn(0) == drawn(0) != drawn(1)


def test_command_line_changes_the_base_the_name_and_the_budget(tmp_path: Path) -> None:
    path = written(tmp_path)
    changed = load_study(path, ["data.clients=4"], trials=9, concurrency=2, storage="sqlite:///x.db")
    assert changed.config({}, 0).data.clients == 4
    assert (changed.budget.trials, changed.concurrency, changed.storage) == (9, 2, "sqlite:///x.db")
    assert changed.name == "small"
    assert load_study(path, ["base=fedavg-digits", "name=mine"]).name == "mine"


def test_what_makes_trials_comparable_is_what_the_definition_tells_apart() -> None:
    def definition(**changes: Any) -> str:
        return parse_study(study(**changes)).definition()

    assert definition(budget={"trials": 9}, sampler="tpe", pruner="median", concurrency=2) == definition()
    space = {"local.optimizer.lr": {"type": "float", "low": 0.01, "high": 0.02}}
    others = [definition(seeds=[1]), definition(space=space), definition(base="fedprox-digits")]
    assert len({definition(), *others}) == 4


def test_other_code_of_ones_own_makes_another_study(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = OwnMethod(run_folder, monkeypatch)
    space = {"algorithm": {"type": "categorical", "choices": ["fedavg", "own_method:Step"]}}
    definitions = []
    for factor in (1.0, 0.5, 1.0):
        method.set_factor(factor)
        definitions.append(parse_study(study(space=space)).definition())
    assert definitions[0] == definitions[2] != definitions[1]


def test_a_trial_has_one_actor_unless_the_base_says_otherwise() -> None:
    on_ray = [text for text in study()["overrides"] if "executor" not in text]
    assert parse_study(study(overrides=on_ray)).config({}, 0).runtime.actors == 1
    assert parse_study(study(overrides=[*on_ray, "runtime.actors=3"])).config({}, 0).runtime.actors == 3


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"objectivs": []}, ["objectivs", "'objectives'"]),
        ({"objectives": []}, ["objectives"]),
        ({"objectives": [{"metric": "best_acuracy", "direction": "maximize"}]}, ["best_acuracy", "'best_accuracy'"]),
        ({"objectives": [{"metric": "best_accuracy", "direction": "up"}]}, ["direction=up", "'maximize'"]),
        ({"objectives": [ACCURACY, BYTES], "pruner": "median"}, ["pruner.name=median", "one objective", "2"]),
        ({"objectives": [BYTES], "pruner": "median"}, ["pruner.name=median", "best_accuracy", "maximize"]),
        ({"objectives": [{"metric": "bytes_to_target", "direction": "minimize"}]}, ["target", "bytes_to_target"]),
        ({"target": 0.9}, ["target=0.9", "no effect"]),
        ({"objectives": [{"metric": "virtual_seconds", "direction": "minimize"}]}, ["virtual_seconds", "fedavg"]),
        ({"seeds": [1, 1]}, ["seeds=[1, 1]", "twice"]),
        ({"budget": {"trials": 0}}, ["budget.trials=0"]),
        ({"constraints": [{"metric": "total_bytes"}]}, ["at_most", "at_least"]),
        ({"overrides": ["output.directory=x"]}, ["output.directory=x", "trials"]),
        ({"overrides": ["rounds=auto", "schedule=full"]}, ["rounds=auto", "no end"]),
        ({"base": "quickstrt"}, ["quickstrt", "'quickstart'"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_study(study(**changes))
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sampler": "tep"}, ["sampler.name=tep", "'tpe'"]),
        ({"sampler": {"name": "tpe", "multivarate": True}}, ["sampler.multivarate", "'multivariate'"]),
        ({"sampler": "grid"}, ["space.local.optimizer.lr", "step"]),
        ({"sampler": "cmaes", "objectives": [ACCURACY, BYTES]}, ["cmaes", "one objective|not installed"]),
        (
            {"sampler": "random", "constraints": [{"metric": "total_bytes", "at_most": 1}]},
            ["sampler.name=random", "tpe, nsgaii, nsgaiii, gp"],
        ),
        ({"pruner": "medin"}, ["pruner.name=medin", "'median'"]),
        ({"pruner": {"name": "median", "n_startup": 2}}, ["pruner.n_startup", "'n_startup_trials'"]),
        ({"pruner": "percentile"}, ["pruner.name=percentile", "percentile"]),
    ],
)
def test_what_optuna_cannot_do_is_refused_by_name(changes: dict[str, Any], parts: list[str]) -> None:
    file = parse_study(study(**changes))
    with pytest.raises(ConfigError) as refused:
        make_pruner(file), make_sampler(file, 0)
    for part in parts:
        assert any(word in str(refused.value) for word in part.split("|"))


def test_the_readmes_study_is_valid() -> None:
    text = (Path(__file__).parents[2] / "sweeps" / "README.md").read_text(encoding="utf-8")
    block = text.split("## A study file")[1].split("    base:")[1].split("\n\n")[0]
    file = parse_study({"name": "readme"} | yaml.safe_load(textwrap.dedent(f"    base:{block}")))
    assert file.drawn_from.names == ["schedule", "schedule.cycles", "local.optimizer.lr"]


@pytest.mark.parametrize(
    ("overrides", "metric", "direction"),
    [
        (["data.validation_fraction=0.1"], "best_validation_accuracy", "maximize"),
        ([], "best_accuracy", "maximize"),
        (["task=regression"], "best_mae", "minimize"),
        (["task=regression", "data.validation_fraction=0.1"], "best_validation_mae", "minimize"),
    ],
)
def test_without_an_objective_the_best_of_the_task_s_own_metric_is_sought(
    overrides: list[str], metric: str, direction: str
) -> None:
    values = study(overrides=[*study()["overrides"], *overrides])
    del values["objectives"]
    (objective,) = parse_study(values).objectives
    assert (objective.metric, objective.direction) == (metric, direction)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("best_accuracy", "maximize"), ("final_validation_mean_iou", "maximize"), ("best_r2", "maximize"),
        ("best_perplexity", "minimize"), ("final_mae", "minimize"), ("total_bytes", "minimize"),
    ],
)  # fmt: skip
def test_an_objective_without_a_direction_has_that_in_which_it_is_better(metric: str, direction: str) -> None:
    task = with_task_of(metric)
    for objective in ({"metric": metric}, metric):
        assert parse_study(study(objectives=[objective], **task)).objectives[0].direction == direction
    contrary = "minimize" if direction == "maximize" else "maximize"
    kept = parse_study(study(objectives=[{"metric": metric, "direction": contrary}], **task))
    assert kept.objectives[0].direction == contrary


def with_task_of(metric: str) -> dict[str, list[str]]:
    """The overrides of a study whose task has a metric."""
    names = {"perplexity": "next_token", "mean_iou": "segmentation", "mae": "regression", "r2": "regression"}
    task = next((task for score, task in names.items() if metric.endswith(score)), "classification")
    return {"overrides": [*study()["overrides"], f"task={task}"]}


def test_a_mere_description_needs_a_direction() -> None:
    with pytest.raises(ConfigError, match=r"objectives.*direction"):
        parse_study(study(objectives=[{"metric": "parameters"}]))


@pytest.mark.parametrize(
    ("objective", "is_refused"),
    [
        ({"metric": "best_perplexity", "direction": "minimize"}, False),
        ({"metric": "final_validation_mean_iou", "direction": "maximize"}, False),
        ({"metric": "best_perplexity", "direction": "maximize"}, True),
        ({"metric": "best_r2", "direction": "maximize"}, True),
    ],
)
def test_scores_of_other_tasks_are_pruned_in_their_own_direction(objective: dict[str, str], is_refused: bool) -> None:
    refused = pytest.raises(ConfigError, match=r"pruner\.name=median: compares scores") if is_refused else nullcontext()
    with refused:
        parse_study(study(objectives=[objective], pruner="median", **with_task_of(objective["metric"])))


@pytest.mark.parametrize("key", ["objectives", "constraints"])
def test_figures_by_which_another_task_is_judged_are_refused(key: str) -> None:
    bound = {"at_most": 2.0} if key == "constraints" else {}
    with pytest.raises(
        ConfigError, match=r"^best_perplexity: the task of the data is classification, which has no perp"
    ):
        parse_study(study(**{key: [{"metric": "best_perplexity", **bound}]}))
    overrides = [*study()["overrides"], "task=regression"]
    refusal = r"^best_validation_accuracy: .* regression, .* judged by MAE; choose best_validation_mae$"
    with pytest.raises(ConfigError, match=refusal):
        parse_study(study(overrides=overrides, objectives=["best_validation_accuracy"]))
    wider = [*study()["overrides"], "evaluation.metrics=[macro_f1]"]
    assert parse_study(study(overrides=wider, objectives=["best_macro_f1"])).objectives[0].direction == "maximize"


def test_a_target_above_one_is_for_metrics_that_are_no_shares() -> None:
    sought = {"objectives": [{"metric": "rounds_to_target"}], "target": 3.5}
    with pytest.raises(ConfigError, match=r"target=3\.5: must be at most 1, the accuracy sought is a share in 0\.\.1"):
        parse_study(study(**sought))
    overrides = [*study()["overrides"], "task=regression"]
    assert parse_study(study(overrides=overrides, **sought)).target == 3.5


def test_trials_of_several_tasks_are_refused() -> None:
    space = {"task": {"type": "categorical", "choices": ["classification", "regression"]}}
    with pytest.raises(ConfigError, match="space: trials would have the tasks classification and regression"):
        parse_study(study(space=space))
