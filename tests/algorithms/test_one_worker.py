"""With one worker: which of PyTorch's momenta each method is.

What is sent is what the gradients are computed on. With K = 1 it follows the heavy ball for all methods but
ssgd-nesterov, whose parameters are Nesterov's, and the two that send estimates, smega2 and dana-zero: their *estimates*
follow Nesterov's momentum, while their parameters are the heavy ball's for the same gradients.
"""

import numpy as np
import pytest
import torch

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.algorithms.base import Algorithm
from fedbench.components.catalogue import make_component

START = np.array([1.0, -2.0, 0.5, 3.0])
CURVATURE = np.array([0.1, 1.0, 4.0, 9.0])
LR, BETA, STEPS = 0.05, 0.8, 40
HEAVY_BALL = [
    {"name": "asgdm"},
    {"name": "shifted-momentum"},
    {"name": "ormo"},
    {"name": "ormo-vanilla"},
    {"name": "ormo-da", "smoothness": 1.0},
    {"name": "ormo-da-free"},
    {"name": "ssgdm"},
]
ESTIMATES = [{"name": "smega2"}, {"name": "dana-zero"}]
NESTEROV = [{"name": "ssgd-nesterov"}, *ESTIMATES]


def make(parameters: dict[str, object]) -> AsyncAlgorithm:
    method = make_component("algorithm", Algorithm, parameters)
    assert isinstance(method, AsyncAlgorithm)
    return method


def trajectories(parameters: dict[str, object], nesterov: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On a noisy quadratic, float64 [steps, 4] each: what is sent, PyTorch's parameters, and the former's gradients."""
    torch_parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    momentum = {"momentum": 0.0} if parameters["name"] == "asgd" else {"momentum": BETA, "nesterov": nesterov}
    reference = torch.optim.SGD([torch_parameter], lr=LR, **momentum)
    machine = make(parameters).machine(START, workers=1)
    sent, index = machine.pull(0)
    seen, expected, gradients = [], [], []
    for noise in np.random.default_rng(0).normal(size=(STEPS, len(START))):
        gradients.append(CURVATURE * sent + noise)
        sent, index = machine.push(gradients[-1], index, 0, LR)
        torch_parameter.grad = torch.from_numpy(CURVATURE * torch_parameter.detach().numpy() + noise)
        reference.step()
        seen.append(sent)
        expected.append(torch_parameter.detach().numpy().copy())
    return np.array(seen), np.array(expected), np.array(gradients)


@pytest.mark.parametrize("parameters", HEAVY_BALL, ids=lambda one: one["name"])
def test_k1_is_heavy_ball_sgd(parameters: dict[str, object]) -> None:
    seen, expected, _ = trajectories(parameters | {"momentum": BETA}, nesterov=False)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parameters", NESTEROV, ids=lambda one: one["name"])
def test_k1_is_nesterov_sgd_in_what_is_sent(parameters: dict[str, object]) -> None:
    seen, expected, _ = trajectories(parameters | {"momentum": BETA}, nesterov=True)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-12)


def test_k1_without_momentum_is_plain_sgd() -> None:
    seen, expected, _ = trajectories({"name": "asgd"}, nesterov=False)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parameters", ESTIMATES, ids=lambda one: one["name"])
def test_k1_parameters_behind_the_estimates_are_heavy_ball_sgd(parameters: dict[str, object]) -> None:
    sent, _, gradients = trajectories(parameters | {"momentum": BETA}, nesterov=True)
    torch_parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    reference = torch.optim.SGD([torch_parameter], lr=LR, momentum=BETA)
    machine = make(parameters | {"momentum": BETA}).machine(START, workers=1)
    for index, (gradient, estimate) in enumerate(zip(gradients, sent, strict=True)):
        again, _ = machine.push(gradient, index, 0, LR)
        assert again.tobytes() == estimate.tobytes()
        torch_parameter.grad = torch.from_numpy(gradient)
        reference.step()
        np.testing.assert_allclose(machine.parameters, torch_parameter.detach().numpy(), rtol=0, atol=1e-12)
        assert (machine.parameters != estimate).any()
