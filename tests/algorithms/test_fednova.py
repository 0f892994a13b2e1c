"""FedNova: the factors on the updates."""

import numpy as np
import pytest

from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.fednova import FedNova
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError


def normalised(samples: list[int]) -> list[float]:
    weights = [FedNova().weight(count) for count in samples]
    return [weight / sum(weights) for weight in weights]


def test_updates_are_scaled_by_tau_eff_over_tau() -> None:
    weights, steps = normalised([30, 50, 20]), [3, 10, 1]
    effective = 0.3 * 3 + 0.5 * 10 + 0.2 * 1
    np.testing.assert_allclose(FedNova().scales(weights, steps), [effective / 3, effective / 10, effective], rtol=1e-14)


def test_the_scaled_mean_is_the_papers_update() -> None:
    rng = np.random.default_rng(0)
    weights, steps, updates = normalised([7, 90, 13, 40]), [2, 30, 5, 14], rng.normal(size=(4, 6))
    scaled = sum(
        weight * scale * update
        for weight, scale, update in zip(weights, FedNova().scales(weights, steps), updates, strict=True)
    )
    direction = sum(weight * update / tau for weight, update, tau in zip(weights, updates, steps, strict=True))
    np.testing.assert_allclose(scaled, np.dot(weights, steps) * direction, rtol=1e-12)


@pytest.mark.parametrize("clients", [1, 3, 7, 49])
def test_equal_steps_give_factors_of_exactly_one_however_the_weights_are_rounded(clients: int) -> None:
    weights = normalised([3 * index + 1 for index in range(clients)])
    for steps in range(1, 50):
        assert FedNova().scales(weights, [steps] * clients) == (1.0,) * clients


def test_weights_are_fedavgs() -> None:
    assert [FedNova().weight(count) for count in (1, 500)] == [FedAvg().weight(count) for count in (1, 500)]


def test_a_client_without_a_step_gets_a_finite_factor() -> None:
    assert FedNova().scales([0.5, 0.5], [0, 4]) == (2.0, 0.5)
    assert FedNova().scales([0.5, 0.5], [0, 0]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("override", "key"), [("local.optimizer=adam", "name=adam"), ("local.optimizer.momentum=0.9", "momentum=0.9")]
)
def test_it_refuses_optimizers_that_count_gradients_otherwise(override: str, key: str) -> None:
    FedNova().check(ExperimentConfig())
    FedNova().check(ExperimentConfig.load(None, ["local.optimizer.weight_decay=0.001"]))
    with pytest.raises(ConfigError, match=rf"local\.optimizer\.{key}: must be .* count once"):
        FedNova().check(ExperimentConfig.load(None, [override]))
