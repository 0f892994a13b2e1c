"""FedExP against its formula written out with other means, and against FedAvg where the two must agree."""

from pathlib import Path

import numpy as np
import pytest
from small import config

from fedbench.algorithms.base import RoundUpdates, RuleContext
from fedbench.algorithms.fedexp import FedExP, step_size
from fedbench.experiment.run import run
from fedbench.protocol.layout import ParameterLayout

LAYOUT = ParameterLayout.build([("first", {"a": (3,)}), ("second", {"b": (2,)})], statistics=[])
CONTEXT = RuleContext(LAYOUT, (0, 1), 0, participants=2, population=4)
WHOLE = (slice(0, 3), slice(3, 5))


def combined(clients: list[list[float]], pieces: tuple[tuple[slice, ...], ...], eps: float = 0.0) -> np.ndarray:
    previous = np.array([1.0, -2.0, 3.0, 0.0, 5.0])
    messages = []
    for update, places in zip(clients, pieces, strict=True):
        start = np.concatenate([previous[piece] for piece in places])
        messages.append((start + np.array(update)).astype(np.float32))
    weights = np.full(len(clients), 1 / len(clients))
    updates = RoundUpdates(previous, tuple(messages), pieces, weights)
    return FedExP(eps=eps).rule().combine_round(previous, updates, CONTEXT) - previous


def test_orthogonal_updates_are_extrapolated_by_half_their_number() -> None:
    """m orthogonal updates of norm 1: sum ||Delta_i||^2 = m, ||Delta||^2 = 1/m, so eta = m / 2."""
    updates = np.eye(5)[:4].tolist()
    step = combined(updates, (WHOLE,) * 4)
    np.testing.assert_allclose(step, 4 / 2 * np.mean(updates, axis=0), atol=1e-6)


def test_equal_updates_are_averaged() -> None:
    update = [0.5, 0.25, -1.0, 2.0, 0.125]
    np.testing.assert_allclose(combined([update] * 3, (WHOLE,) * 3), update, atol=1e-7)


def test_norms_are_over_the_whole_model_and_not_by_layer_group() -> None:
    """Two clients that agree in the first group and cancel in the second: one step size for both groups."""
    step = combined([[1, 0, 0, 3, 0], [1, 0, 0, -3, 0]], (WHOLE, WHOLE))
    eta = (10 + 10) / (2 * 2 * 1)
    np.testing.assert_allclose(step, [eta, 0, 0, 0, 0], atol=1e-6)


def test_a_group_is_averaged_over_the_clients_that_trained_it() -> None:
    step = combined([[2, 0, 0], [4, 0, 0, 0, 6]], ((WHOLE[0],), WHOLE))
    mean = np.array([3.0, 0, 0, 0, 6.0])
    eta = max(1.0, (4 + 52) / (2 * 2 * float(mean @ mean)))
    np.testing.assert_allclose(step, eta * mean, atol=1e-6)


@pytest.mark.parametrize(("norms", "mean", "eps", "eta"), [((4.0, 4.0), 1.0, 0.0, 2.0), ((4.0, 4.0), 1.0, 1.0, 1.0)])
def test_eps_shortens_the_step_down_to_one(norms: tuple[float, ...], mean: float, eps: float, eta: float) -> None:
    assert step_size(np.array(norms), mean, eps) == eta


def test_updates_of_zero_change_nothing() -> None:
    assert step_size(np.zeros(3), 0.0, 0.0) == 1.0


@pytest.mark.slow
def test_with_a_large_eps_a_run_is_fedavg_with_uniform_weights(run_folder: Path) -> None:
    common = (
        "rounds=3",
        "data.partition=quantity",
        "data.partition.alpha=1.0",
        "runtime.executor=inline",
        "local.optimizer=sgd",
    )
    extrapolated = run(config("algorithm=fedexp", "algorithm.eps=1e9", *common))
    averaged = run(config("algorithm=fedavg", "algorithm.weighting=uniform", *common))
    for name, value in averaged.state_dict().items():
        np.testing.assert_allclose(extrapolated.state_dict()[name], value, atol=2e-6, err_msg=name)
