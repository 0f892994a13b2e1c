"""Steps around aggregations over several runs: what is shown is what the runs recorded."""

import pyarrow.parquet as pq
import pytest
from small import config

from fedbench.analysis.mismatch import SCHEMA, Mismatch
from fedbench.analysis.recorded_model import open_model
from fedbench.analysis.results import silent, write_analysis
from fedbench.errors import ConfigError
from fedbench.experiment.run import Result, run
from fedbench.records.metrics import METRICS

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


def inline(*overrides: str) -> Result:
    return run(config("runtime.executor=inline", *overrides))


def test_jumps_of_several_runs_side_by_side() -> None:
    full = inline("rounds=3", "analysis.step_norms=true", "schedule=full")
    partial = inline("rounds=5", "analysis.step_norms=true", "schedule.rounds_per_group=2")
    models = [open_model(result.directory) for result in (full, partial)]
    analysis = Mismatch.checked().performed(models, silent)
    expected = {
        f"{short}_jump_{phase}/{model.label}": value
        for result, model in zip((full, partial), models, strict=True)
        for short, norm in (("step", "step_norm"), ("gradient", "gradient_norm"))
        for phase in ("full", "partial")
        if (value := METRICS[f"{norm}_jump_{phase}"].by_round(result.history)[-1]) is not None
    }
    assert dict(analysis.metrics) == pytest.approx(expected)
    assert len(expected) == 4
    written = write_analysis(analysis, full.directory, "mismatch")
    table = pq.read_table(written.folder / "jumps.parquet")
    assert table.schema == SCHEMA
    assert table.num_rows == 2 * (2 + 2)
    assert [picture.file.name for picture in written.pictures] == ["steps.png", "profiles.png"]


def test_a_run_without_norms_is_refused() -> None:
    model = open_model(inline("rounds=1").directory)
    with pytest.raises(ConfigError, match=r"recorded no norms of steps; run it with analysis\.step_norms=true"):
        Mismatch.checked().performed([model], silent)
