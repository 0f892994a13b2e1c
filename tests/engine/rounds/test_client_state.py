"""What clients keep agrees with what the server has read, however an update is changed on its way."""

from collections.abc import Iterator

import numpy as np
import pytest
from small import config

from fedbench.checkpoints.state import Tree
from fedbench.errors import ConfigError
from fedbench.experiment.run import prepared

pytestmark = pytest.mark.usefixtures("flops_counted_once")

SMALL = (
    "rounds=4",
    "data.clients=4",
    "participation.clients_per_round=3",
    "model=small:TwoLayers",
    "local.optimizer=sgd",
    "local.optimizer.lr=0.1",
    "runtime.executor=inline",
)
CHANGES = {
    "nothing": (),
    "clipped": ("update.clip_norm=0.05",),
    "top k": ("update.compression=topk", "update.compression.fraction=0.05"),
    "int8": ("update.compression=int8",),
    "clipped and top k": ("update.clip_norm=0.05", "update.compression=topk", "update.compression.fraction=0.05"),
    "noise": ("update.clip_norm=0.05", "update.noise_multiplier=1"),
}
SCHEDULES = (
    ("schedule=full",),
    ("schedule=per-client", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1"),
    ("schedule=full", "exchange=rotate", "exchange.blocks=2", "exchange.shared=0"),
)


def states(*overrides: str) -> Iterator[Tree]:
    """The executor's state after each round."""
    with prepared(config(*SMALL, *overrides)) as (problem, executor):
        for index in range(problem.rounds):
            executor.train(executor.plan(index))  # type: ignore[union-attr]
            executor.finish()  # type: ignore[union-attr]
            yield executor.state()


def mean_over_clients(state: Tree, name: str, like: np.ndarray) -> np.ndarray:
    """The mean of what the four clients keep under a name; zeros for one that never took part."""
    kept = [client.arrays.get(name, np.zeros_like(like)) for client in state["clients"].values()]
    return np.sum(kept, axis=0, dtype=np.float64) / 4


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["full", "per-client", "rotate"])
@pytest.mark.parametrize("change", CHANGES)
def test_feddyns_h_is_the_mean_of_the_clients_duals(change: str, schedule: tuple[str, ...]) -> None:
    if change == "noise":
        pytest.importorskip("opacus")
        if schedule != SCHEDULES[0]:
            return  # refused
    for state in states("algorithm=feddyn", "algorithm.alpha=0.5", *schedule, *CHANGES[change]):
        h = state["server"]["rule"]["_h"]
        assert np.abs(h).max() > 0
        np.testing.assert_allclose(h, mean_over_clients(state, "dual", h), rtol=0, atol=2e-6 * np.abs(h).max() + 1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["full", "per-client", "rotate"])
@pytest.mark.parametrize("change", ["nothing", "top k", "int8"])
def test_scaffolds_control_variate_is_the_mean_of_the_clients(change: str, schedule: tuple[str, ...]) -> None:
    for state in states("algorithm=scaffold", *schedule, *CHANGES[change]):
        c = state["server"]["vectors"]["control"]
        assert np.abs(c).max() > 0
        np.testing.assert_allclose(c, mean_over_clients(state, "control", c), rtol=0, atol=1e-5 * np.abs(c).max())
        assert not any("residual control" in client.arrays for client in state["clients"].values())


def test_scaffold_does_not_clip() -> None:
    with (
        pytest.raises(ConfigError, match=r"update\.clip_norm=1\.0 with algorithm\.name=scaffold: its control variates"),
        prepared(config(*SMALL, "algorithm=scaffold", "update.clip_norm=1", "schedule=full")),
    ):
        pass
