"""Models of recorded runs: what the run ended with, what a checkpoint holds, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small import config

from fedbench.analysis.recorded_model import open_model, open_models
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.run import run
from fedbench.training.evaluation import score_batches


def test_the_final_model_scores_as_the_run_recorded(tiny_run: Path) -> None:
    import torch

    model = open_model(tiny_run)
    data = model.experiment.problem.federation.data
    flat = model.scored().build()
    inputs, labels = torch.from_numpy(data.test.inputs), torch.from_numpy(data.test.labels)
    (score,) = score_batches(flat, inputs, labels, [(0, len(labels))], model.experiment.transform, 0)
    assert score.correct / score.samples == model.experiment.run.summary["final_accuracy"]
    assert model.layout.group_names == ("conv1", "conv2", "conv3", "fc")


def test_a_checkpoint_is_the_model_of_a_run_that_ended_there(tiny_run: Path, tmp_path: Path, no_figures: None) -> None:
    shorter = tmp_path / "shorter"
    recorded = open_model(tiny_run).experiment.config
    run(recorded.model_copy(update={"rounds": 2, "output": recorded.output.model_copy(update={"directory": shorter})}))
    kept = open_model(tiny_run / "checkpoints" / "round-00000002")
    np.testing.assert_array_equal(kept.vector, open_model(shorter).vector)
    assert kept.label == "tiny after round 2"


def test_recalibrated_statistics_are_those_of_training_rows(tiny_run: Path) -> None:
    model = open_model(tiny_run)
    again = model.recalibrated()
    np.testing.assert_array_equal(again.vector, model.vector)
    assert not np.array_equal(again.statistics, model.statistics)
    np.testing.assert_array_equal(again.recalibrated().statistics, again.statistics)


def test_what_is_damaged_changed_or_no_run_is_refused_in_one_line(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    model = copy / "model.safetensors"
    tensors = load_file(model)
    save_file({**tensors, "fc.bias": tensors["fc.bias"] + 1}, model)
    with pytest.raises(DataError, match=r"^[^\n]*model.safetensors: is not as the run wrote it[^\n]*$"):
        open_model(copy)
    model.unlink()
    with pytest.raises(DataError, match=r"model.safetensors: is missing"):
        open_model(copy)
    with pytest.raises(ConfigError, match="name a run directory"):
        open_model(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is this a run directory|is missing"):
        open_model(tmp_path)
    with pytest.raises(ConfigError, match=r"^seed=3: a recorded run is what it was; only data.root may change$"):
        open_models([str(tiny_run), "seed=3"])
    with pytest.raises(ConfigError, match="is named twice"):
        open_models([str(tiny_run), f"{tiny_run}/../tiny"])


def test_a_run_without_a_final_model_says_so(tmp_path: Path, flops_counted_once: None, no_figures: None) -> None:
    failed = tmp_path / "failed"
    with pytest.raises(Exception, match=r"not finite|finite"):
        run(config("rounds=2", "data.clients=3", "runtime.executor=inline", "schedule=full", "local.optimizer.lr=1e6",
                   f"output.directory={failed}"))  # fmt: skip
    with pytest.raises(DataError, match=r"the run is failed and has left no model\.safetensors"):
        open_model(failed)
