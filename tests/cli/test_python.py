"""`fedbench` from Python."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbench import ExperimentConfig, run
from fedbench.data.digits import Digits
from fedbench.models.base import Task
from fedbench.models.groups import build_module


@pytest.mark.slow
def test_a_result_loads_into_a_plain_module_and_scores_as_recorded(run_folder: Path) -> None:
    config = ExperimentConfig.load(
        "quickstart", ["rounds=6", "runtime.executor=inline", "tracking.enabled=false", "data.clients=5"]
    )
    result = run(config)
    assert result.history.num_rows == result.summary["rounds"] == 6
    assert result.directory.parent == run_folder / "runs"

    data = Digits().load(None, test_fraction=None, seed=config.seed)
    module = build_module(config.model, Task("image", data.input_shape, data.classes), 0)
    assert set(result.state_dict()) == set(module.state_dict())
    module.load_state_dict(result.state_dict(), strict=True)
    module.eval()
    images = torch.tensor(np.asarray(data.test.inputs)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        right = (module(images).argmax(1).numpy() == data.test.labels).sum()
    assert right / len(data.test) == result.summary["final_accuracy"] > 0.9


def test_nested_values_run_as_the_preset_and_the_overrides_that_say_the_same(
    run_folder: Path, no_figures: None
) -> None:
    values = {
        "name": "own",
        "rounds": 2,
        "data": {"clients": 3},
        "algorithm": "fedpart",
        "runtime": {"executor": "inline"},
        "tracking": {"enabled": False},
    }
    overrides = ["rounds=2", "data.clients=3", "algorithm=fedpart"]
    assert ExperimentConfig.load(values).digest() == ExperimentConfig.load(None, overrides).digest()
    assert ExperimentConfig.load(values, ["seed=5"]).seed == 5
    result = run(values)
    frame = result.frame()
    assert list(frame.columns) == result.history.column_names
    assert list(frame["test_accuracy"]) == result.history["test_accuracy"].to_pylist()
