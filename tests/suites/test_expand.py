"""From a suite file to runs and cells: what is chosen, what is shared, what is refused."""

from pathlib import Path

import pytest
import yaml
from small_suites import BASE, TINY, plan_of, write_suite

from fedbench.cli.suite import make_plan
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.suites.file import read_suite
from fedbench.suites.scale import scaled


def refusal(tmp_path: Path, *arguments: str, options: dict[str, object] | None = None, **changes: object) -> str:
    """The one line that a suite is refused with."""
    with pytest.raises(ConfigError) as refused:
        plan_of(write_suite(tmp_path, **changes), *arguments, **(options or {}))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_full_updates_have_the_rounds_of_the_cells_own_schedule(tmp_path: Path) -> None:
    plan = plan_of(write_suite(tmp_path))
    full, partial = (next(run.config for run in plan.runs.values() if run.label == name) for name in ("FNU", "FedPart"))
    assert (full.rounds, full.schedule.name) == (10, "full")
    assert (partial.rounds, partial.schedule.name) == ("auto", "sequential")
    assert {cell.through for cell in plan.cells.values() if cell.row == "C=1"} == {5}
    assert full.model_copy(update={"rounds": "auto", "schedule": partial.schedule}).digest() == partial.digest()


def test_all_cells_come_with_the_first_seed_before_any_with_the_next(tmp_path: Path) -> None:
    plan = plan_of(write_suite(tmp_path), seeds="5,3")
    assert [run.title for run in plan.runs.values()] == ["FNU seed 5", "FedPart seed 5", "FNU seed 3", "FedPart seed 3"]


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        ("C=1", {("C=1", "FNU"), ("C=1", "FedPart"), ("C=1", "Comm.")}),
        ("c=2/fnu", {("C=2", "FNU")}),
        ("*/F*", {(row, column) for row in ("C=1", "C=2") for column in ("FNU", "FedPart")}),
        ("FedPart", {("C=1", "FedPart"), ("C=2", "FedPart")}),
        ("/Comm.", {("C=1", "Comm."), ("C=2", "Comm.")}),
    ],
)
def test_only_takes_rows_and_columns_with_wildcards(tmp_path: Path, only: str, cells: set[tuple[str, str]]) -> None:
    plan = plan_of(write_suite(tmp_path), only=only)
    assert set(plan.cells) == cells
    everything = plan_of(write_suite(tmp_path))
    assert {plan.cells[place].runs[0] for place in cells} == {everything.cells[place].runs[0] for place in cells}
    assert set(plan.runs) == {digest for place in cells for digest in plan.cells[place].runs.values()}


def test_only_takes_a_whole_group(tmp_path: Path) -> None:
    rows = [{"name": "small", "rows": TINY["rows"]}, {"name": "wide", "set": {"model.width": 8}, "rows": TINY["rows"]}]
    suite = write_suite(tmp_path, rows=rows, published=None)
    assert plan_of(suite, only="wide").rows == ("wide C=1", "wide C=2")
    assert plan_of(suite, only="C=1").rows == ("small C=1", "wide C=1")
    assert {run.label for run in plan_of(suite, only="wide/FNU").runs.values()} == {"wide FNU"}


def test_only_that_misses_names_what_there_is(tmp_path: Path) -> None:
    message = refusal(tmp_path, options={"only": "C=9/FNU"})
    assert message == "--only=C=9/FNU: suite tiny has no such row; rows: C=1, C=2; columns: FNU, FedPart, Comm."
    assert "no such column" in refusal(tmp_path, options={"only": "C=1/Fed"})


def test_a_cell_may_set_something_of_its_own(tmp_path: Path) -> None:
    cells = [{"at": "C=1/FNU", "set": {"local.optimizer.lr": 0.125}, "note": "another step"}]
    plan = plan_of(write_suite(tmp_path, cells=cells))
    rates = {place: plan.runs[cell.runs[0]].config.local.optimizer.lr for place, cell in plan.cells.items()}
    assert [place for place, rate in rates.items() if rate == 0.125] == [("C=1", "FNU")]
    assert plan.cells["C=1", "FNU"].note == "another step"
    assert len({run.label for run in plan.runs.values()}) == 3


def test_parameters_of_a_replaced_part_are_forgotten(tmp_path: Path) -> None:
    rows = [
        {"name": "mu", "set": {"algorithm": {"name": "fedprox", "mu": 0.3}}},
    ]
    columns = [
        {"name": "prox", "measure": "best_accuracy"},
        {"name": "moon", "measure": "best_accuracy", "set": {"algorithm": "moon"}},
    ]
    plan = plan_of(write_suite(tmp_path, rows=rows, columns=columns, published=None))
    prox, moon = (plan.runs[plan.cells["mu", name].runs[0]].config.algorithm for name in ("prox", "moon"))
    assert (prox.name, prox.mu, moon.name) == ("fedprox", 0.3, "moon")


def test_overrides_go_over_everything_that_a_suite_sets(tmp_path: Path) -> None:
    rows = [{"name": "a", "set": {"local.batch_size": 8}}]
    plan = plan_of(write_suite(tmp_path, rows=rows, published=None), "local.batch_size=9")
    assert {run.config.local.batch_size for run in plan.runs.values()} == {9}


def test_interpolations_in_a_base_are_those_of_a_run_after_all_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {**BASE, "seed": 5, "output": {"directory": "runs/${name}-${seed}"}}
    base["evaluation"] = {"batch_size": "${local.batch_size}"}
    base["data"] = {**base["data"], "root": "${oc.env:SUITE_DATA}/digits"}  # type: ignore[dict-item]
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(base))
    monkeypatch.setenv("SUITE_DATA", "/srv")
    rows = [
        {"name": "a"},
        {"name": "b", "set": {"local.batch_size": 8}},
        {"name": "c", "set": {"evaluation.every": "${data.clients}"}},
    ]
    columns = [{"name": "x", "measure": "best_accuracy"}]
    for given in (str(path), base):
        suite = write_suite(tmp_path, base=given, rows=rows, columns=columns, published=None)
        for overrides, sizes in (((), (16, 8, 16)), (("local.batch_size=9",), (9, 9, 9))):
            plan = plan_of(suite, *overrides)
            configs = [plan.runs[plan.cells[row, "x"].runs[0]].config for row in "abc"]
            assert tuple(one.evaluation.batch_size for one in configs) == sizes
            assert [one.evaluation.every for one in configs] == [1, 1, 3]
            assert {str(one.data.root) for one in configs} == {"/srv/digits"}
            assert {run.config.seed for run in plan.runs.values()} == {0, 1}
        alone = ExperimentConfig.load(path, ["evaluation.every=1", "seed=1"])
        assert alone.digest() in plan_of(suite).runs


def test_an_interpolation_that_stands_for_nothing_is_one_line(tmp_path: Path) -> None:
    for text, message in (
        ("${local.batchsize}", "suite tiny: C=1/FNU: configuration: Interpolation key 'local.batchsize' not found"),
        ("${seed}", "suite tiny: C=1/FNU: ${seed}: a suite gives each run its seed"),
    ):
        assert refusal(tmp_path, base={**BASE, "evaluation": {"batch_size": text}}).startswith(message)


@pytest.mark.parametrize("text", ["seed=3", "output.directory=x", "name=x"])
def test_what_a_suite_sets_itself_cannot_be_overridden(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(f"{text}: a suite sets this for each run")


@pytest.mark.parametrize("seeds", ["", "a", "0,0", "-1", "0;1"])
def test_seeds_must_be_different_whole_numbers(tmp_path: Path, seeds: str) -> None:
    assert refusal(tmp_path, options={"seeds": seeds}).startswith(f"--seeds={seeds}: must be different whole numbers")


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_is_a_share(tmp_path: Path, scale: float) -> None:
    assert refusal(tmp_path, options={"scale": scale}).startswith(f"--scale={scale:g}: must be greater than 0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colums": []}, "suite tiny: colums: unknown key; did you mean 'columns'?"),
        ({"rows": []}, "suite tiny: rows=[]: "),
        ({"seeds": [1, 1]}, "suite tiny: seeds=[1, 1]: must be different whole numbers"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "suite tiny: rows: 'a' stands there twice"),
        ({"rows": [{"name": "a/b"}]}, "suite tiny: rows.0.name=a/b: "),
        ({"rows": [{"name": "a", "untl": "warmup"}]}, "suite tiny: rows.0.untl: unknown key; did you mean 'until'?"),
        (
            {"columns": [{"name": "x", "measure": "acuracy"}]},
            "suite tiny: columns.0.measure.value=acuracy: no such quantity",
        ),
        (
            {"columns": [{"name": "x", "measure": {"value": "best_accuracy", "target": 50}}]},
            "suite tiny: columns.0.measure.target=50: has no effect on value=best_accuracy; allowed with: rounds, ",
        ),
        (
            {"columns": [{"name": "x"}], "published": None},
            "suite tiny: C=1/x: measure must be set by the row or the column",
        ),
        ({"base": None}, "suite tiny: C=1/FNU: base must be set by the suite, the row or the column"),
        ({"base": "fedpart-cifar"}, "suite tiny: C=1/FNU: fedpart-cifar: no such preset; did you mean"),
        ({"set": {"algorithm.mu": 1}}, "suite tiny: C=1/FNU: algorithm.mu: unknown key with algorithm.name=fedavg"),
        ({"set": {"schedule": "full"}}, "suite tiny: C=1/FNU: schedule.name=full: has no cycles, so until="),
        (
            {"published": {"source": "x", "values": {"C=1": {"FNU": "5o"}}}},
            "suite tiny: published.values.C=1.FNU: '5o' is no figure; write a number or 'MEAN +- STD'",
        ),
        (
            {"published": {"source": "x", "values": {"C=7": {"FNU": 1}}}},
            "suite tiny: published.values.C=7: no such row; did you mean 'C=",
        ),
        (
            {"published": {"source": "x", "values": {"C=1": {"FUN": 1}}}},
            "suite tiny: published.values.C=1.FUN: no such column; did you mean 'FNU'?",
        ),
        (
            {"published": {"source": "x", "values": {"C=1": [1, 2]}}},
            "suite tiny: published.values.C=1: 2 figures for 3 columns",
        ),
        ({"cells": [{"at": "C=7/FNU"}]}, "suite tiny: cells.at=C=7/FNU: suite tiny has no such row"),
    ],
)
def test_a_mistake_in_a_suite_is_one_line_with_suite_key_and_value(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    assert refusal(tmp_path, **changes).startswith(message)


def test_a_suite_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    for name, message in (
        ("fedpart-table2", "fedpart-table2: no such suite; did you mean 'fedpart-table"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        ("seed=1", "seed=1: the suite's name goes first"),
    ):
        with pytest.raises(ConfigError) as refused:
            make_plan([name])
        assert str(refused.value).startswith(message)
    path = tmp_path / "broken.yaml"
    for text, message in (("[1", "suite broken: not readable as YAML"), ("3", "suite broken: expected a mapping")):
        path.write_text(text)
        with pytest.raises(ConfigError) as refused:
            read_suite(path)
        assert str(refused.value).startswith(message)


def config(**changes: object) -> ExperimentConfig:
    return ExperimentConfig.from_mapping({**yaml.safe_load(yaml.safe_dump(TINY["base"])), **changes})


def cyclic(**counts: int) -> dict[str, object]:
    return {"name": "sequential", **counts}


@pytest.mark.parametrize(
    ("factor", "counts"),
    [
        # cycles of 25 rounds with 10 groups; a tenth of 125 rounds is about one cycle of a round each
        (0.1, {"warmup_rounds": 1, "rounds_per_group": 1, "full_rounds_between_cycles": 1, "cycles": 1}),
        (0.5, {"warmup_rounds": 2, "rounds_per_group": 1, "full_rounds_between_cycles": 2, "cycles": 5}),
        (0.001, {"warmup_rounds": 1, "rounds_per_group": 1, "full_rounds_between_cycles": 1, "cycles": 1}),
    ],
)
def test_a_scaled_schedule_stays_whole(factor: float, counts: dict[str, int]) -> None:
    schedule = cyclic(warmup_rounds=5, cycles=5, rounds_per_group=2, full_rounds_between_cycles=5)
    found, words = scaled(config(schedule=schedule), factor, 10)
    assert {key: getattr(found.schedule, key) for key in counts} == counts
    assert found.schedule.length(10) >= 10
    assert words.startswith(f"{found.schedule.length(10)} of 125 rounds, ")


@pytest.mark.parametrize(
    ("factor", "read", "cycles"), [(0.1, 5, 5), (0.1, 3, 3), (0.1, 9, 5), (0.5, 1, 5), (0.2, 2, 2)]
)
def test_cycles_that_are_read_stay_when_a_schedule_is_scaled(factor: float, read: int, cycles: int) -> None:
    schedule = cyclic(warmup_rounds=5, cycles=5, rounds_per_group=2, full_rounds_between_cycles=5)
    found, words = scaled(config(schedule=schedule), factor, 10, read)
    assert found.schedule.cycles == cycles
    assert words.startswith(f"{found.schedule.length(10)} of 125 rounds, ")


def test_a_client_keeps_a_minibatch() -> None:
    assert scaled(config(), 0.5, 4)[0].data.samples_per_client == 20
    assert scaled(config(), 0.01, 4)[0].data.samples_per_client == 16


def test_rows_that_are_held_out_for_validation_are_not_dealt_out_at_a_scale() -> None:
    for fraction, samples in ((0.0, 250), (0.2, 200)):
        data = {"dataset": "cifar10", "clients": 100, "validation_fraction": fraction}
        assert scaled(config(data=data, model="cnn"), 0.5, 4)[0].data.samples_per_client == samples


def test_milestones_and_epochs_of_arrivals_are_scaled_along() -> None:
    whole = ExperimentConfig.load("ormo-cifar10-k16-hom")
    found, words = scaled(whole, 0.1, 0)
    assert (found.rounds, found.local.lr_schedule.milestones) == (16, (8, 12))
    assert found.data.samples_per_client == 312  # a tenth of 50,000 / 16
    assert found.delays.arrivals_per_round == 156
    assert words == "16 of 160 rounds, 312 samples a client"


def test_data_that_a_partition_deals_out_whole_stays() -> None:
    found, words = scaled(ExperimentConfig.load("fedmr-cifar10"), 0.1, 0)
    assert found.data == ExperimentConfig.load("fedmr-cifar10").data
    assert words == "50 of 500 rounds, data whole"


def test_at_full_scale_nothing_changes() -> None:
    assert scaled(config(), 1, 4) == (config(), "")


def test_another_base_stands_for_the_suites_own(run_folder: Path) -> None:
    suite = write_suite(run_folder)
    other = run_folder / "other.yaml"
    other.write_text(yaml.safe_dump({**TINY["base"], "model": {"name": "cnn-bn", "width": 2}}))
    plan = plan_of(suite, f"base={other}", "local.epochs=2")
    for run in plan.runs.values():
        assert (run.config.model.width, run.config.local.epochs) == (2, 2)
    assert plan.overrides[2:] == (f"base={other}", "local.epochs=2")
    with pytest.raises(ConfigError, match="base=x: is set 2 times; set it once"):
        plan_of(suite, "base=fedpart-digits", "base=x")
    with pytest.raises(ConfigError, match="suite fedpart-table1 has no base of its own that it could stand for"):
        plan_of("fedpart-table1", "base=fedpart-digits")
