"""`fedbench cost`: what the paper states, and what the run then really spends."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Finished

from fedbench.records.metrics import METRICS
from fedbench.suites.cell_values import Absence, Measure, read

pytestmark = pytest.mark.slow

Call = Callable[..., Finished]


def cost(call: Call, *arguments: str) -> dict:
    finished = call("cost", "--json", *arguments)
    assert finished.status == 0, finished.stderr
    return json.loads(finished.stdout)


def test_four_cycles_on_cifar10_cost_what_the_paper_states(call: Call) -> None:
    """FedPart's Table 1 (arXiv 2410.11559), CIFAR-10 at C = 4: Comm. and Comp. of FedPart and of full updates."""
    found = cost(call, "fedpart-cifar10")
    assert len(found["per_round"]) == 100
    here, full = found["total"], found["full_updates"]
    assert f"{here['paper_comm_gb']:.2f}" == "5.40"
    assert f"{here['paper_comp_tflop']:.1f}" == "12.9"
    assert f"{full['paper_comm_gb']:.1f}" == "19.3"
    assert f"{full['paper_comp_tflop']:.1f}" == "17.5"


@pytest.mark.parametrize(
    ("cycles", "comm", "full_comm", "full_comp"),
    [(1, "1.40", "5.02", "17.5"), (5, "7.02", "25.1", "87.7")],
)
def test_data_that_is_not_there_is_counted_from_its_published_size(
    cycles: int, comm: str, full_comm: str, full_comp: str, call: Call
) -> None:
    """The same table, Tiny-ImageNet."""
    found = cost(call, "fedpart-tiny-imagenet", f"schedule.cycles={cycles}")
    assert found["remark"] == "tiny-imagenet is not there: counted from its published size and shape"
    assert f"{found['total']['paper_comm_gb']:.2f}" == comm
    assert f"{found['full_updates']['paper_comm_gb']:.3g}" == full_comm
    assert f"{found['full_updates']['paper_comp_tflop']:.3g}" == full_comp


def test_the_table_names_every_kind_of_round_and_all_totals(call: Call) -> None:
    finished = call("cost", "quickstart")
    assert (finished.status, finished.stderr) == (0, "")
    assert "10 of 10 clients in each of 22 rounds" in finished.stdout.splitlines()[0]
    assert "published" not in finished.stdout
    for words in ("full", "conv1", "conv2", "conv3", "fc", "sent up", "sent down", "client work"):
        assert f"\n{words} " in finished.stdout, words
    for words in ("paper's Comm.", "paper's Comp. (one client)", "as full updates", "saved"):
        assert words in finished.stdout, words


def test_published_sizes_are_remarked_on(call: Call) -> None:
    assert "counted from its published size and shape" in call("cost", "fedpart-tiny-imagenet").stdout


SMALL = ("data.clients=8", "model.width=4", "local.epochs=1", "schedule.warmup_rounds=2", "rounds=10")
FEW = "data.samples_per_client=40"
UNEQUAL = (
    "data.partition=dirichlet", "data.partition.alpha=0.5", "data.test_fraction=0.75",
    "participation.clients_per_round=3",
)  # fmt: skip
"""Of so many rows as are not held out for testing: such a partition deals out all of them."""


@pytest.mark.parametrize("statistics", ["aggregate", "local"])
@pytest.mark.parametrize(
    "cohorts",
    [(FEW,), UNEQUAL, (FEW, "data.validation_fraction=0.3")],
    ids=["everyone", "samples of unequal clients", "a validation split"],
)
def test_the_prediction_is_what_the_run_records(statistics: str, cohorts: tuple[str, ...], call: Call) -> None:
    overrides = (*SMALL, *cohorts, f"local.batchnorm={statistics}", "tracking.enabled=false", "runtime.executor=inline")
    predicted = cost(call, *overrides)
    run = json.loads(call("run", "--json", *overrides).stdout)
    rows = pq.read_table(f"{run['directory']}/rounds.parquet").to_pylist()
    columns = ("uplink_bytes", "downlink_bytes", "client_flops")
    for row, costs in zip(rows, predicted["per_round"], strict=True):
        assert [row[column] for column in columns] == [costs[column] for column in columns], row["round"]
    for key in columns:
        assert run[key] == predicted["total"][key]
        assert run["full_updates"][key] == predicted["full_updates"][key]
    for key in ("paper_comm_gb", "paper_comp_tflop"):
        assert run[key] == pytest.approx(predicted["total"][key], rel=1e-12)


@pytest.mark.parametrize("sends_more", ["algorithm=scaffold", "update.compression=fp16", "update.compression=topk"])
def test_what_the_paper_counts_as_sent_is_given_only_where_the_paper_defines_it(sends_more: str, call: Call) -> None:
    predicted = cost(call, *SMALL, sends_more, *(["local.optimizer=sgd"] if "scaffold" in sends_more else []))
    plain = cost(call, *SMALL, *(["local.optimizer=sgd"] if "scaffold" in sends_more else []))
    for key in ("total", "full_updates"):
        assert predicted[key]["paper_comm_gb"] is None
        assert plain[key]["paper_comm_gb"] > 0
        assert predicted[key]["paper_comp_tflop"] == plain[key]["paper_comp_tflop"]
    assert {costs["paper_comm_gb"] for costs in predicted["per_round"]} == {None}


@pytest.mark.parametrize("method", ["fedprox", "moon", "feddyn", "fednova", "fedmr"])
def test_a_method_that_sends_what_fedavg_sends_has_its_figure_of_the_paper(method: str, call: Call) -> None:
    settings = (*SMALL, "local.optimizer=sgd")
    found, plain = (cost(call, *settings, f"algorithm={name}")["total"] for name in (method, "fedavg"))
    assert found["paper_comm_gb"] == plain["paper_comm_gb"] > 0


def test_a_run_without_the_papers_figure_records_and_shows_none(call: Call) -> None:
    settings = (*SMALL[:-1], "rounds=2", "algorithm=scaffold", "local.optimizer=sgd", "schedule.cycles=1")
    lines = call("cost", *settings).stdout.splitlines()
    assert next(line for line in lines if line.startswith("paper's Comm.")).split()[2:] == ["-", "-", "-"]
    run = json.loads(call("run", "--json", *settings, "tracking.enabled=false", "runtime.executor=inline").stdout)
    assert run["paper_comm_gb"] is None
    assert run["full_updates"]["paper_comm_gb"] is None
    rounds = pq.read_table(f"{run['directory']}/rounds.parquet")
    assert rounds["paper_comm_gb"].to_pylist() == [None, None]
    reading = read(Measure(value="paper_comm_gb"), rounds, None)
    assert (reading.absence, reading.words) == (Absence.NOT_DEFINED, METRICS["paper_comm_gb"].undefined)


FOURIER = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.head(torch.fft.fft2(images).abs().flatten(1))
"""


def test_work_that_no_figure_holds_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "fourier.py").write_text(FOURIER)
    arguments = ("data.dataset=digits", "data.clients=2", "model=fourier:Net", "rounds=1", "local.epochs=1")
    remark = "the client work leaves out aten._fft_c2c, whose FLOPs PyTorch's counter does not know"
    assert call("cost", *arguments).stdout.count(remark) == 1
    ran = call("run", *arguments, "runtime.executor=inline", "tracking.enabled=false")
    assert ran.stderr.count(f"warning: {remark}") == 1


def test_the_memory_of_a_server_that_keeps_a_vector_of_each_client_is_said(call: Call) -> None:
    few = ("algorithm=ca2fl", "rounds=1", "delays.concurrency=2")
    assert cost(call, *few, "data.clients=5")["remark"] == "the server of ca2fl keeps up to 0.5 MB for its 5 clients"
    dana = cost(call, "algorithm=dana-zero", "rounds=1", "delays.concurrency=2", "data.clients=5")["remark"]
    assert dana.endswith("for its 2 tasks in flight")
