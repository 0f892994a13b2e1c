"""`evaluation.metrics` in whole runs: against scikit-learn, on any number of actors, after a resumption, in records."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_runs import BreakAfter, Broken
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, top_k_accuracy_score
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.result import Result
from fedbench.experiment.run import run
from fedbench.models.groups import build_module
from fedbench.records.metrics import METRICS
from fedbench.records.recorded_run import read_run
from fedbench.records.schema import RoundRecord
from fedbench.tracking.round_metrics import further_metrics
from fedbench.training.metric_names import CLASS_COLUMNS, METRIC_COLUMNS, METRICS_OF_TASK, OWN_METRICS

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures")

CLASSIFICATION = METRICS_OF_TASK["classification"]
EVERY = f"evaluation.metrics=[{','.join(CLASSIFICATION)},'own_metric:MeanSpecificity','own_metric:precision']"
COLUMNS = (*METRIC_COLUMNS, *CLASS_COLUMNS, OWN_METRICS)
SMALL = ("rounds=2", "evaluation.batch_size=50", "data.validation_fraction=0.1")


def inline(*overrides: str) -> ExperimentConfig:
    return config("runtime.executor=inline", *SMALL, EVERY, *overrides)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run with every metric, which several tests only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        return run(inline(f"output.directory={tmp_path_factory.mktemp('measured') / 'run'}"))


def test_figures_are_those_of_scikit_learn_on_the_final_model(measured: Result) -> None:
    settings, result = inline(), measured
    federation = load_federation(settings)
    module = build_module(settings.model, federation.task, 0)
    module.load_state_dict({name: torch.as_tensor(values) for name, values in result.state_dict().items()})
    test = federation.data.test
    with torch.inference_mode():
        outputs = module.eval()(torch.from_numpy(test.inputs).permute(0, 3, 1, 2).float() / 255)
    predicted, last = outputs.argmax(1).numpy(), result.history.to_pylist()[-1]
    assert last["test_accuracy"] == (predicted == test.labels).mean()
    assert last["test_top5_accuracy"] == pytest.approx(
        top_k_accuracy_score(test.labels, outputs.numpy(), k=5), abs=1e-6
    )
    assert last["test_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(test.labels, predicted), abs=1e-12)
    assert last["test_macro_f1"] == pytest.approx(f1_score(test.labels, predicted, average="macro"), abs=1e-6)
    recalls = recall_score(test.labels, predicted, average=None)
    assert last["test_per_class_recall"] == pytest.approx(recalls, abs=1e-12)
    precisions = precision_score(test.labels, predicted, average=None, zero_division=0)
    assert dict(last[OWN_METRICS])["test/precision"] == pytest.approx(precisions, abs=1e-6)
    assert result.summary["final_macro_f1"] == last["test_macro_f1"]
    assert result.summary["final_worst_class_recall"] == pytest.approx(recalls.min(), abs=1e-12)
    assert result.summary["final_per_class_recall"] == last["test_per_class_recall"]
    assert result.summary["final_validation_macro_f1"] == last["validation_macro_f1"]
    best = result.summary["best_round"] - 1
    assert result.summary["best_macro_f1"] == result.history.column("test_macro_f1")[best].as_py()


def test_metrics_change_no_result_and_leave_no_trace_where_they_are_not_asked_for(measured: Result) -> None:
    with_them, without = measured, run(config("runtime.executor=inline", *SMALL))
    assert with_them.summary["model_sha256"] == without.summary["model_sha256"]
    assert all(without.history.column(name).null_count == 2 for name in COLUMNS)
    assert not {name for name in without.summary if "macro_f1" in name or "recall" in name or name == OWN_METRICS}
    runs = [read_run(result.directory) for result in (with_them, without)]
    assert runs[0].settings == runs[1].settings  # what is measured makes no other method
    assert runs[0].digest != runs[1].digest


@pytest.mark.slow
def test_same_figures_to_the_last_bit_on_several_actors(measured: Result, warm_pools: WarmPools) -> None:
    expected = figures_of(measured)
    result = warm_pools.run(config(*SMALL, EVERY, "runtime.actors=2", "runtime.cpus_per_client=0.1"))
    assert figures_of(result) == expected


def test_a_resumed_run_has_the_same_figures(run_folder: Path) -> None:
    settings = ("rounds=3", "runtime.checkpoint_every=1")
    whole = run(inline(*settings))
    with pytest.raises(Broken):
        run(inline(*settings, f"output.directory={run_folder / 'broken'}"), [BreakAfter(1)])
    again = resume(run_folder / "broken")
    assert figures_of(again) == figures_of(whole)
    assert again.summary["best_macro_f1"] == whole.summary["best_macro_f1"]


def test_an_asynchronous_run_has_them_too() -> None:
    result = run(asynchronous("runtime.executor=inline", EVERY))
    assert result.history.column("test_macro_f1").null_count == 0
    assert result.summary["final_macro_f1"] == result.history.column("test_macro_f1")[-1].as_py()


def figures_of(result: Result) -> str:
    """All metrics of all rounds, as text, to the last bit."""
    return repr([{name: record[name] for name in COLUMNS} for record in result.history.to_pylist()])


def test_every_figure_has_a_name_in_mlflow_and_for_studies_and_suites(measured: Result) -> None:
    from fedbench.studies.metrics import CHOOSERS, OBJECTIVES
    from fedbench.suites.cell_values import QUANTITIES

    result = measured
    sent = further_metrics(RoundRecord(**result.history.to_pylist()[-1]))
    assert {"test/macro_f1", "validation/macro_f1", "test/per_class_recall/3", "test/MeanSpecificity"} <= set(sent)
    assert {"validation/precision/9", "test/expected_calibration_error"} <= set(sent)
    assert CHOOSERS["best_macro_f1"] == "best_validation_macro_f1"
    finals = [f"final_{name}" for name in CLASSIFICATION if name != "per_class_recall"]
    for name in (*finals, "worst_class_recall"):
        name = name if name in METRICS else f"best_{name}"
        assert name in OBJECTIVES
        assert name in QUANTITIES
        assert result.summary[name] is not None


def test_a_bad_name_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation.metrics.*balanced_acuracy.*did you mean 'balanced_accuracy'\?"
    ) as raised:
        config("evaluation.metrics=[balanced_acuracy]")
    assert "\n" not in str(raised.value)
    assert config("evaluation.metrics=macro_f1").evaluation.metrics == ("macro_f1",)
    assert config("evaluation.metrics=[accuracy]").digest() == config().digest()
    with pytest.raises(ConfigError, match="own_metric:Nothing: own_metric has no class or function Nothing"):
        run(config("runtime.executor=inline", "evaluation.metrics=['own_metric:Nothing']"))


def test_clients_alone_have_no_model_that_the_metrics_are_of() -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation.metrics=\['macro_f1'\]: algorithm.name=local has a model for each"
    ):
        run(config("runtime.executor=inline", "algorithm=local", "schedule=full", "evaluation.metrics=[macro_f1]"))


def test_the_content_of_an_own_metric_is_part_of_what_a_run_is(measured: Result) -> None:
    result = measured
    assert set(json.loads((result.directory / "summary.json").read_text())["own_code"]) == {
        "own_metric:MeanSpecificity",
        "own_metric:precision",
    }
    assert np.isfinite(result.summary["own_metrics"]["test/MeanSpecificity"]).all()
    assert result.summary["own_metrics_better"] == {"MeanSpecificity": "higher", "precision": "higher"}
