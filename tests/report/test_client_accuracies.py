"""What a report says of the accuracy of single clients."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import config

from fedbench.experiment.run import run
from fedbench.records.recorded_run import run_directories
from fedbench.report.client_accuracies import client_charts, clients_table
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report

SHORT = ("rounds=2", "data.clients=8", "model.width=4", "runtime.executor=inline", "schedule=full")
HELD_OUT = ("data.client_test_fraction=0.3", "participation.clients_per_round=5", "data.partition=dirichlet")


@pytest.fixture(scope="module")
def folder(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of FedAvg that are scored on clients' rows, and one FedProx that is not."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        for seed in (0, 1):
            places = (f"seed={seed}", f"output.directory={root / f'scored-{seed}'}")
            run(config(*SHORT, *HELD_OUT, "data.partition.alpha=0.5", *places))
        run(config(*SHORT, "algorithm=fedprox", f"output.directory={root / 'plain-0'}"))
    return root


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return make_report(compare(load(run_directories([folder]))))


def test_lines_are_the_sorted_accuracies_of_the_last_round(report: Report, folder: Path) -> None:
    chart, trained = report.parts[0].client_charts
    (line,) = chart.lines  # FedProx has no held-out rows
    tables = [pq.read_table(folder / f"scored-{seed}" / "client_scores.parquet").to_pandas() for seed in (0, 1)]
    ascending = np.stack([np.sort(table[table["round"] == 1]["global_accuracy"]) for table in tables])
    assert line.curve.mean == pytest.approx(ascending.mean(axis=0))
    assert line.curve.low == pytest.approx(ascending.min(axis=0))
    assert line.curve.x == pytest.approx(100 * (np.arange(8) + 0.5) / 8)
    assert len(trained.lines[0].curve.x) == 5


def test_the_table_has_the_figures_of_the_summary(report: Report) -> None:
    assert report.parts[0].clients is not None
    assert report.parts[0].clients in report.tables
    assert report.parts[0].printed_clients is not None
    assert report.parts[0].printed_clients.columns == report.parts[0].clients.columns[:4]
    method = next(method for method in report.comparison.methods if len(method.runs) == 2)
    worst = np.mean([run.summary["client_accuracy_worst"] for run in method.runs])
    cells = dict(report.parts[0].clients.rows)[method.title]
    assert cells[3].spread is not None
    assert cells[3].spread.mean == pytest.approx(worst)
    other = next(method for method in report.comparison.methods if len(method.runs) == 1)
    assert dict(report.parts[0].clients.rows)[other.title][0].spread is None


@pytest.mark.slow
def test_charts_are_files_and_pictures_of_the_page(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    for name in ("clients-global", "clients-trained"):
        for kind in ("svg", "pdf"):
            assert (tmp_path / "charts" / f"{name}.{kind}").stat().st_size > 1000
        assert f"charts/{name}.svg" in (tmp_path / "report.md").read_text()
        assert f'id="{name}-title"' in (tmp_path / "report.html").read_text()


def test_without_held_out_rows_there_is_neither(folder: Path) -> None:
    methods = compare(load(run_directories([folder / "plain-0"]))).methods
    assert clients_table(methods) is None
    assert client_charts(methods) == []
