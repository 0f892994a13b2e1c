"""The gradients that clients send in asynchronous runs are of the loss of the task."""

import pytest
import small_tasks
import torch

from fedbench.experiment.run import run
from fedbench.tasks.kinds import TASKS, TaskName

ONE_FULL_BATCH = (
    "rounds=2",
    "data.clients=1",
    f"local.batch_size={small_tasks.ROWS}",
    "local.optimizer={name: sgd, lr: 0.1, momentum: 0}",
)


@pytest.mark.parametrize("task", TASKS)
def test_one_worker_with_all_rows_descends_as_local_steps_do(task: TaskName) -> None:
    by_gradients = run(small_tasks.config(task, *ONE_FULL_BATCH, "algorithm=asgd")).state_dict()
    by_steps = run(small_tasks.config(task, *ONE_FULL_BATCH, "local.steps=1")).state_dict()
    for name, value in by_steps.items():
        torch.testing.assert_close(by_gradients[name], value, rtol=1e-4, atol=1e-6)
