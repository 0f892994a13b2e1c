"""Server optimizers against PyTorch's own and the paper's formulas, coordinate by coordinate."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedbench.algorithms.base import Algorithm, RuleContext, ServerRule
from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.fedopt import Adaptive, FedAdagrad, FedAdam, FedAvgM, FedYogi, Momentum
from fedbench.components.catalogue import make_component
from fedbench.errors import ConfigError
from fedbench.protocol.layout import ParameterLayout

LAYOUT = ParameterLayout.build([("a", {"a.weight": (3, 4)}), ("b", {"b.weight": (5,)}), ("c", {"c.weight": (2, 3)})])
FULL = [LAYOUT.all_groups] * 12
MASKED = [(0, 1, 2), (1,), (0, 2), (2,), (1, 2), (0,), (0, 1, 2), (1,), (0, 2)]
FAMILY = [FedAvgM(), FedAvgM(nesterov=False), FedAdagrad(beta1=0.5), FedAdam(), FedYogi()]
Optimizer = Callable[[torch.Tensor], torch.optim.Optimizer]


def context(groups: tuple[int, ...], round_index: int = 0) -> RuleContext:
    return RuleContext(LAYOUT, groups, round_index, participants=5, population=9)


def mean_updates(rounds: int, seed: int = 0) -> np.ndarray:
    """float64 [rounds, P], of magnitudes around tau, where the methods differ most."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rounds, LAYOUT.size)) * 10.0 ** rng.uniform(-5, 0, size=(rounds, LAYOUT.size))


def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=LAYOUT.size)


def trained(rule: ServerRule, schedule: list[tuple[int, ...]]) -> np.ndarray:
    """float64 [rounds, P]: the parameters after each round of `schedule`."""
    x, history = start(), []
    for index, (groups, update) in enumerate(zip(schedule, mean_updates(len(schedule)), strict=True)):
        now = context(groups, index)
        now.scatter(rule.combine(now.gather(x), now.gather(update), now), x)
        history.append(x.copy())
    return np.array(history)


def torch_trained(make: Optimizer, schedule: list[tuple[int, ...]]) -> np.ndarray:
    """The same by one torch optimizer a layer group, which steps when its group is active, on minus the update."""
    x = start()
    groups = [torch.nn.Parameter(torch.from_numpy(x[piece].copy())) for piece in LAYOUT.slices]
    optimizers = [make(parameter) for parameter in groups]
    history = []
    for active, update in zip(schedule, mean_updates(len(schedule)), strict=True):
        for group in active:
            groups[group].grad = -torch.from_numpy(update[LAYOUT.slices[group]])
            optimizers[group].step()
        history.append(torch.cat([parameter.detach() for parameter in groups]).numpy())
    return np.array(history)


def adam_without_bias_correction(parameter: torch.Tensor) -> torch.optim.Optimizer:
    """torch's Adam as if it had made a million steps, after which its corrections are exactly 1."""
    adam = torch.optim.Adam([parameter], lr=0.01, betas=(0.9, 0.99), eps=1e-3)
    adam.state[parameter] = {
        "step": torch.tensor(1e6),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.full_like(parameter, 1e-3**2),
    }
    return adam


@pytest.mark.parametrize("schedule", [FULL, MASKED], ids=["full", "masked"])
@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        (FedAvgM(server_lr=0.7), lambda p: torch.optim.SGD([p], lr=0.7, momentum=0.9, nesterov=True)),
        (FedAvgM(server_lr=0.7, nesterov=False), lambda p: torch.optim.SGD([p], lr=0.7, momentum=0.9)),
        (
            FedAdagrad(server_lr=0.1, tau=1e-2),
            lambda p: torch.optim.Adagrad([p], lr=0.1, eps=1e-2, initial_accumulator_value=1e-4),
        ),
        (FedAdam(), adam_without_bias_correction),
    ],
    ids=["fedavgm", "fedavgm with a heavy ball", "fedadagrad", "fedadam"],
)
def test_it_is_torchs_optimizer_on_the_pseudo_gradient(
    algorithm: Algorithm, make: Optimizer, schedule: list[tuple[int, ...]]
) -> None:
    np.testing.assert_allclose(trained(algorithm.rule(), schedule), torch_trained(make, schedule), rtol=0, atol=1e-13)


SECOND_MOMENTS: dict[str, Callable[[float, float], float]] = {
    "fedadagrad": lambda v, delta: v + delta**2,
    "fedyogi": lambda v, delta: v - (1 - 0.95) * delta**2 * ((v > delta**2) - (v < delta**2)),
    "fedadam": lambda v, delta: 0.95 * v + (1 - 0.95) * delta**2,
}


@pytest.mark.parametrize("schedule", [FULL, MASKED], ids=["full", "masked"])
@pytest.mark.parametrize("name", list(SECOND_MOMENTS))
def test_algorithm_2_coordinate_by_coordinate(name: str, schedule: list[tuple[int, ...]]) -> None:
    parameters = {"name": name, "server_lr": 0.03, "beta1": 0.8, "tau": 5e-3}
    algorithm = make_component("algorithm", Algorithm, parameters | ({} if name == "fedadagrad" else {"beta2": 0.95}))
    assert isinstance(algorithm, Algorithm)
    history = trained(algorithm.rule(), schedule)
    updates = mean_updates(len(schedule))
    for group, piece in enumerate(LAYOUT.slices):
        for i in range(piece.start, piece.stop):
            x, m, v = float(start()[i]), 0.0, 5e-3**2
            for t, active in enumerate(schedule):
                if group in active:
                    delta = float(updates[t, i])
                    m = 0.8 * m + 0.2 * delta
                    v = SECOND_MOMENTS[name](v, delta)
                    x += 0.03 * m / (math.sqrt(v) + 5e-3)
                assert history[t, i] == pytest.approx(x, rel=0, abs=1e-13)


@pytest.mark.parametrize("schedule", [FULL, MASKED], ids=["full", "masked"])
def test_fedavgm_without_momentum_is_fedavg_bit_for_bit(schedule: list[tuple[int, ...]]) -> None:
    plain = trained(FedAvg().rule(), schedule)
    assert trained(FedAvgM(momentum=0, server_lr=1).rule(), schedule).tobytes() == plain.tobytes()


def moments(rule: ServerRule) -> list[np.ndarray]:
    if isinstance(rule, Momentum):
        return [rule.velocity]
    assert isinstance(rule, Adaptive)
    return [rule.first, rule.second]


@pytest.mark.parametrize("algorithm", FAMILY, ids=lambda algorithm: algorithm.name)
def test_moments_of_inactive_groups_stay_untouched(algorithm: Algorithm) -> None:
    rule = algorithm.rule()
    rule.combine(start(), mean_updates(1)[0], context((0, 1, 2)))
    before = [moment.copy() for moment in moments(rule)]
    active = context((0, 2))
    rule.combine(active.gather(start()), active.gather(mean_updates(1, seed=7)[0]), active)
    for old, new in zip(before, moments(rule), strict=True):
        assert new[LAYOUT.slices[1]].tobytes() == old[LAYOUT.slices[1]].tobytes()
        assert (new[LAYOUT.slices[0]] != old[LAYOUT.slices[0]]).all()
        assert (new[LAYOUT.slices[2]] != old[LAYOUT.slices[2]]).all()


@pytest.mark.parametrize("algorithm", FAMILY, ids=lambda algorithm: algorithm.name)
def test_two_runs_share_no_moments_and_arguments_are_not_changed(algorithm: Algorithm) -> None:
    previous, update = start(), mean_updates(1)[0]
    first = algorithm.rule().combine(previous, update, context((0, 1, 2)))
    assert algorithm.rule().combine(previous, update, context((0, 1, 2))).tobytes() == first.tobytes()
    assert previous.tobytes() == start().tobytes()
    assert update.tobytes() == mean_updates(1)[0].tobytes()


def test_the_first_adaptive_step_from_a_zero_update_is_none() -> None:
    for algorithm in (FedAdagrad(), FedAdam(), FedYogi()):
        rule = algorithm.rule()
        still = rule.combine(start(), np.zeros(LAYOUT.size), context((0, 1, 2)))
        np.testing.assert_array_equal(still, start())


@pytest.mark.parametrize("algorithm", FAMILY, ids=lambda algorithm: algorithm.name)
def test_weights_are_those_of_fedavg(algorithm: Algorithm) -> None:
    assert algorithm.weight(30) == 30.0
    assert type(algorithm)(weighting="uniform").weight(30) == 1.0  # type: ignore[call-arg]


def test_the_papers_settings_are_the_defaults() -> None:
    assert (FedAvgM().server_lr, FedAvgM().momentum) == (1.0, 0.9)
    assert FedAvgM().nesterov is None, "Nesterov's, as with Hsu et al."
    assert (FedAdagrad().beta1, FedAdagrad().tau) == (0.0, 1e-3)
    for algorithm in (FedAdam(), FedYogi()):
        assert (algorithm.beta1, algorithm.beta2, algorithm.tau) == (0.9, 0.99, 1e-3)


@pytest.mark.parametrize(
    "parameters",
    [
        {"name": "fedavgm", "momentum": 1.0},
        {"name": "fedavgm", "server_lr": 0.0},
        {"name": "fedadagrad", "beta2": 0.9},
        {"name": "fedadam", "beta1": -0.1},
        {"name": "fedadam", "tau": 0.0},
        {"name": "fedyogi", "beta2": 1.0},
        {"name": "fedyogi", "server_lr": math.inf},
    ],
    ids=str,
)
def test_impossible_parameters_are_refused_by_name(parameters: dict[str, object]) -> None:
    key = next(key for key in parameters if key != "name")
    with pytest.raises(ConfigError, match=rf"^algorithm\.{key}"):
        make_component("algorithm", Algorithm, parameters)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_kind_of_momentum_is_refused_without_momentum(nesterov: bool) -> None:
    with pytest.raises(ConfigError, match=f"nesterov={str(nesterov).lower()} has no effect with momentum=0"):
        make_component("algorithm", Algorithm, {"name": "fedavgm", "momentum": 0.0, "nesterov": nesterov})
