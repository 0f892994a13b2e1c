"""The suites that come with fedbench: their runs are those of the papers' tables, and so are their figures."""

from functools import cache

import pytest

from fedbench.cli.listing import listing
from fedbench.cli.suite import make_plan
from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.estimate import Estimate, estimate
from fedbench.suites.dry_run import foresee, total_open
from fedbench.suites.file import suite_names
from fedbench.suites.plan import Plan

pytestmark = pytest.mark.slow

SHIPPED = (
    "asynchronous",
    "fedmr-cifar10",
    "fedpart-figure1",
    "fedpart-figure6",
    "fedpart-table1",
    "fedpart-table6",
    "fedpart-table7",
    "fedpart-table9",
    "layers",
    "ormo-heterogeneity",
    "quickstart",
    "recombination",
)

DATA_SETS = ("cifar10", "cifar100", "tiny-imagenet")

MISPRINTED = {
    ("cifar100 C=2", "Comm. FNU"),
    ("cifar10 C=3", "Comp. FNU"),
    ("tiny-imagenet C=4", "Comp. FNU"),
    ("cifar100 C=3", "Comm. FNU"),
    ("tiny-imagenet C=3", "Comm. FNU"),
}
"""Figures of Table 1 that do not follow from the paper's own counting."""


@cache
def shipped(name: str) -> Plan:
    """The plan of a suite as it comes."""
    return make_plan([name])


@pytest.fixture
def table1() -> Plan:
    return shipped("fedpart-table1")


def config_of(plan: Plan, row: str, column: str) -> ExperimentConfig:
    return plan.runs[plan.cells[row, column].runs[0]].config


def test_the_suites_are_shipped_and_listed() -> None:
    assert suite_names() == list(SHIPPED)
    rows = listing("suites")
    assert [row["name"] for row in rows] == list(SHIPPED)
    assert all(row["what it is"].endswith(".") for row in rows)


@pytest.mark.parametrize(
    ("name", "rows", "columns", "runs_per_seed"),
    [
        ("fedpart-figure1", 6, 5, 6),
        ("fedpart-table1", 14, 10, 3 * 3 * 2),
        ("fedpart-table6", 9, 2, 9),
        ("fedpart-table7", 6, 3, 6),
        ("fedmr-cifar10", 5, 4, 20),
        ("ormo-heterogeneity", 8, 12, 32),
        ("layers", 9, 6, 9),
        ("quickstart", 7, 6, 7),
        ("recombination", 6, 4, 12),
        ("asynchronous", 7, 8, 14),
    ],
)
def test_a_suite_has_the_cells_and_runs_of_its_table(name: str, rows: int, columns: int, runs_per_seed: int) -> None:
    plan = shipped(name)
    assert plan.seeds == (0, 1, 2)
    assert (len(plan.rows), len(plan.columns), len(plan.cells)) == (rows, columns, rows * columns)
    assert len(plan.runs) == 3 * runs_per_seed
    assert len({run.title for run in plan.runs.values()}) == len(plan.runs)
    assert len({run.directory_name.rpartition("-")[0] for run in plan.runs.values()}) == len(plan.runs)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_suite_can_be_scaled_and_costed_without_data(name: str) -> None:
    plan = make_plan([name], seeds="0", scale=0.1)
    assert len(shipped(name).seeds) * len(plan.runs) == len(shipped(name).runs)
    found = foresee(make_plan([name], seeds="0,1", only=f"{plan.rows[0]}/{plan.columns[0]}", scale=0.1), {})
    whole = total_open(found)
    assert whole is not None
    assert whole.uplink_bytes == 2 * sum(one.costs.uplink_bytes for one in found if one.costs)
    assert whole.client_flops > 0


@pytest.mark.parametrize(
    ("suite", "row", "column", "value", "std"),
    [
        ("fedpart-table1", "cifar10 C=1", "FedAvg FNU", 56.0, 1.1),
        ("fedpart-table1", "cifar10 C=4", "MOON FedPart", 60.5, 0.6),
        ("fedpart-table1", "cifar100 C=3", "FedAvg FedPart", 36.1, 0.5),
        ("fedpart-table1", "cifar100 C=5", "FedProx FedPart", 37.5, 0.2),
        ("fedpart-table1", "tiny-imagenet C=2", "MOON FNU", 17.5, 0.6),
        ("fedpart-table1", "tiny-imagenet C=5", "FedAvg FedPart", 21.4, 0.2),
        ("fedpart-table1", "cifar100 C=2", "Comm. FNU", 9.65, None),
        ("fedpart-table1", "tiny-imagenet C=5", "Comp. FedPart", 64.3, None),
        ("fedpart-table6", "cifar10 init=60", "after", 66.18, None),
        ("fedpart-table6", "tiny-imagenet init=5", "before", 9.11, None),
        ("fedpart-table7", "cifar100 C=3", "reverse", 31.79, None),
        ("fedpart-table7", "tiny-imagenet C=2", "random", 17.71, None),
    ],
)
def test_published_figures_are_those_printed(suite: str, row: str, column: str, value: float, std: float) -> None:
    figure = shipped(suite).cells[row, column].published
    assert figure is not None
    assert (figure.value, figure.std) == (value, std)


def test_figure_6_compares_the_papers_four_models_on_digits_and_by_one_override_on_cifar10() -> None:
    plan = shipped("fedpart-figure6")
    assert [plan.runs[digest].label for digest in plan.analyses[0].runs(0)] == list(plan.rows)
    assert [analysis.part.kind for analysis in plan.analyses] == ["activations", "kernels"]
    bare, short, long = (config_of(plan, row, "rounds").schedule for row in plan.rows[1:])
    assert (bare.warmup_rounds, bare.cycles) == (0, 1)  # type: ignore[attr-defined]
    assert (short.warmup_rounds, short.cycles, long.cycles) == (4, 1, 5)  # type: ignore[attr-defined]
    named = {name for part in plan.file.analyses for statement in part.statements for name in statement.ascending}
    assert named == {f"depth_order/{row}" for row in plan.rows[:3]}
    other = make_plan(["fedpart-figure6", "base=fedpart-cifar10"])
    assert {config_of(other, row, "rounds").model.name for row in other.rows} == {"resnet8"}
    assert config_of(other, "FedAvg 100 rounds", "rounds").rounds == 100


def test_all_of_table_1_is_printed_and_partial_updates_win_with_fedavg_in_every_row(table1: Plan) -> None:
    published = {place: cell.published for place, cell in table1.cells.items()}
    assert all(published.values())
    for row in table1.rows:
        full, partial = published[row, "FedAvg FNU"], published[row, "FedAvg FedPart"]
        assert full and partial and full.value < partial.value  # noqa: PT018
    losses = [row for row in table1.rows if published[row, "MOON FedPart"].value < published[row, "MOON FNU"].value]  # type: ignore[union-attr]
    assert [row for row in losses if row.startswith("cifar10 ")] == [row for row in table1.rows if "cifar10 " in row]


def test_where_nothing_is_verified_nothing_is_shown() -> None:
    for name in ("quickstart", "fedmr-cifar10", "ormo-heterogeneity"):
        assert shipped(name).file.published is None


@pytest.mark.slow
def test_the_costs_of_table_1_are_the_printed_ones_but_for_five(table1: Plan) -> None:
    known: dict[str, Estimate] = {}
    differing = set()
    for (row, column), cell in table1.cells.items():
        if cell.measure.value not in ("paper_comm_gb", "paper_comp_tflop"):
            continue
        digest = cell.runs[0]
        if digest not in known:
            known[digest] = estimate(table1.runs[digest].config)
        rounds = known[digest].per_round[: cell.through]
        computed = sum(getattr(one, cell.measure.value) for one in rounds)
        assert cell.published is not None
        if float(f"{computed:.3g}") != cell.published.value:
            differing.add((row, column))
            assert computed == pytest.approx(cell.published.value, rel=0.02)
    assert len(known) == 6
    assert differing == MISPRINTED
    assert {place for place in table1.cells if "Printed" in table1.cells[place].note} == MISPRINTED


def test_full_and_partial_runs_of_table_1_are_read_at_the_same_rounds(table1: Plan) -> None:
    for data, cycles in (("cifar10", 4), ("cifar100", 5), ("tiny-imagenet", 5)):
        for column in table1.columns:
            ends = [table1.cells[f"{data} C={cycle}", column].through for cycle in range(1, cycles + 1)]
            assert ends == [25 * cycle for cycle in range(1, cycles + 1)]
        assert config_of(table1, f"{data} C=1", "MOON FNU").rounds == 25 * cycles


def test_every_cycle_of_table_1_can_be_read_at_a_small_scale() -> None:
    plan = make_plan(["fedpart-table1"], seeds="0", scale=0.1)
    for data, cycles in (("cifar10", 4), ("cifar100", 5), ("tiny-imagenet", 5)):
        for column in plan.columns:
            run = config_of(plan, f"{data} C=1", column)
            rounds = run.rounds if run.rounds != "auto" else run.schedule.length(10)
            # a full round, then ten groups for a round each; a full round between cycles
            ends = [plan.cells[f"{data} C={cycle}", column].through for cycle in range(1, cycles + 1)]
            assert ends == [11 * cycle for cycle in range(1, cycles + 1)]
            assert rounds == ends[-1]


def test_moon_has_the_strength_of_its_data_set(table1: Plan) -> None:
    for column in ("MOON FNU", "MOON FedPart"):
        strengths = [config_of(table1, f"{data} C=1", column).algorithm.mu for data in ("cifar10", "cifar100")]  # type: ignore[attr-defined]
        assert strengths == [5, 1]


def test_moon_in_fedparts_table_normalises_as_fedparts_code_and_elsewhere_as_moons(table1: Plan) -> None:
    fedpart = [config_of(table1, f"{data} C=1", f"MOON {kind}") for data in DATA_SETS for kind in ("FNU", "FedPart")]
    fedpart.append(ExperimentConfig.load("fedpart-moon-cifar10"))
    assert {config.algorithm.reference for config in fedpart} == {"batch"}  # type: ignore[attr-defined]
    others = [ExperimentConfig.load(name) for name in ("moon-cifar10", "moon-digits")]
    others += [config_of(shipped("fedmr-cifar10"), "MOON", "IID")]
    assert {config.algorithm.reference for config in others} == {"own"}  # type: ignore[attr-defined]


def test_table_6_and_7_have_full_updates_once_at_the_start() -> None:
    table6, table7 = shipped("fedpart-table6"), shipped("fedpart-table7")
    for warmup in (0, 5, 60):
        config = config_of(table6, f"cifar100 init={warmup}", "after")
        assert config.schedule.length(10) == warmup + 60
        assert table6.cells[f"cifar100 init={warmup}", "before"].through == warmup
    assert [config_of(table7, "cifar100 C=1", name).schedule.name for name in table7.columns] == list(table7.columns)
    assert [table7.cells[f"cifar100 C={cycle}", "random"].through for cycle in (1, 2, 3)] == [25, 45, 65]
    # the same experiment stands in both tables, with 33.59 printed in both
    first, second = (table6.cells["cifar100 init=5", "after"], table7.cells["cifar100 C=3", "sequential"])
    assert first.runs == second.runs
    assert first.published == second.published


def test_the_quickstart_compares_on_one_partition_and_as_many_samples() -> None:
    plan = make_plan(["quickstart"], seeds="0")
    configs = [run.config for run in plan.runs.values()]
    assert len({repr(config.data) for config in configs}) == 1
    lengths = [config.schedule.length(4) or config.rounds for config in configs]
    assert set(lengths) == {20}
    assert sorted(config.method.name for config in configs) == [
        "fedavg", "fedavg", "fedmr", "fedprox", "moon", "ormo", "scaffold",
    ]  # fmt: skip


def test_scaffold_has_the_plain_sgd_that_it_needs() -> None:
    plan = shipped("fedmr-cifar10")
    for column in plan.columns:
        momenta = {row: config_of(plan, row, column).local.optimizer.momentum for row in plan.rows}  # type: ignore[attr-defined]
        assert momenta == {row: 0 if row == "SCAFFOLD" else 0.5 for row in plan.rows}
    assert config_of(plan, "FedMR", "IID").data.partition.name == "iid"
    assert config_of(plan, "FedMR", "alpha=0.1").data.partition.alpha == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [(), ("data.dataset=cifar10", "data.root=/data")], ids=["digits", "cifar10"])
def test_the_suite_of_table9_keeps_its_last_cycle_and_names_figures_of_its_analysis(
    data: tuple[str, ...],
) -> None:
    plan = make_plan(["fedpart-table9", *data])
    config = config_of(plan, "128 images", "FedPart")
    groups = 4
    last = config.schedule.length(groups)
    assert last == config.runtime.keep_models[-1]
    assert len(config.runtime.keep_models) == groups * 2
    gradients, messages = plan.analyses
    called = list(gradients.runs(0).values())
    for statement in gradients.part.statements:
        for name in statement.ascending:
            assert any(name.startswith(f"psnr/{label}/gradient/") for label in called)
            assert name.rsplit("/", 1)[1] in ("first", "last", "all")
    for digest in messages.runs(0):
        assert plan.runs[digest].config.runtime.keep_messages == (0,)


@pytest.mark.parametrize("base", [(), ("base=asynchronous-cifar10", "data.root=/data")], ids=["digits", "cifar10"])
def test_the_asynchronous_methods_compute_on_as_many_samples_in_each_round(base: tuple[str, ...]) -> None:
    plan = make_plan(["asynchronous", *base], seeds="0")
    samples = set()
    for run in plan.runs.values():
        config = run.config
        assert (config.data.samples_per_client or 0) % config.local.batch_size == 0, "each minibatch is full"
        minibatches = 1 if config.delays.work == "gradient" else config.local.steps
        assert config.delays.mean_seconds == minibatches, "a slot computes as many minibatches in a second"
        assert config.delays.arrivals_per_round is not None
        assert minibatches is not None
        samples.add(config.delays.arrivals_per_round * minibatches * config.local.batch_size)
    assert len(samples) == 1
    whole = total_open(foresee(make_plan(["asynchronous", *base], seeds="0", only="local training CA2FL/*"), {}))
    assert whole is not None


@pytest.mark.parametrize("base", [(), ("base=fedmr-cifar10", "data.root=/data")], ids=["digits", "cifar10"])
def test_the_suite_of_recombination_draws_a_tenth_of_a_hundred_clients(base: tuple[str, ...]) -> None:
    plan = make_plan(["recombination", *base], seeds="0")
    for run in plan.runs.values():
        assert (run.config.data.clients, run.config.participation.clients_per_round) == (100, 10)
    of_one_task = make_plan(["recombination", *base], seeds="0", only=f"*/{plan.columns[0]}")
    assert len(of_one_task.runs) == len(plan.rows)
    assert total_open(foresee(of_one_task, {})) is not None
