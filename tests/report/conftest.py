"""Tiny real runs on digits, made once: two methods with three seeds, one that failed, one that was interrupted."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from small import asynchronous, config

from fedbench.errors import RunError
from fedbench.experiment.run import run
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord

SEEDS = (0, 1, 2)
SHORT = (
    "rounds=3", "data.clients=3", "data.samples_per_client=160", "model.width=4", "runtime.executor=inline",
)  # fmt: skip
FULL = (*SHORT, "schedule=full")


class Interrupting:
    """An observer that presses Ctrl-C in the middle of a run."""

    def run_started(self, run: RunDescription) -> None:
        pass

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        if record.round == 0:
            raise KeyboardInterrupt

    def run_finished(self, summary: dict[str, object]) -> None:
        pass


@pytest.fixture
def no_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """PDF files of charts are empty: embedding their fonts takes longer than a report."""
    for name in ("chart_pdf", "heatmap_pdf"):
        monkeypatch.setattr(f"fedbench.report.files.{name}", lambda picture: b"")


@pytest.fixture(scope="session")
def recorded(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of run directories: full-0 .. full-2, part-0 .. part-2, failed-3, interrupted-4, async-0."""
    root = tmp_path_factory.mktemp("recorded")
    cache = pytest.MonkeyPatch()
    cache.setenv("FEDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    cache.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    for seed in SEEDS:
        run(config(*FULL, f"seed={seed}", f"output.directory={root / f'full-{seed}'}"))
        run(config(*SHORT, f"seed={seed}", f"output.directory={root / f'part-{seed}'}"))
    with pytest.raises(RunError):
        run(config(*FULL, "seed=3", "local.optimizer.lr=1e6", f"output.directory={root / 'failed-3'}"))
    with pytest.raises(KeyboardInterrupt):
        run(config(*FULL, "seed=4", f"output.directory={root / 'interrupted-4'}"), [Interrupting()])
    run(asynchronous("runtime.executor=inline", "rounds=2", f"output.directory={root / 'async-0'}"))
    cache.undo()
    return root
