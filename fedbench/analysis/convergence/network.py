"""A small network on digits in fedbench's own engine, of which L, sigma and min f are estimated rather than known.

The network is smooth: tanh, no normalisation, no dropout, so that f, the mean cross-entropy over all training rows, has
a gradient that depends on the parameters alone. Every run is one of `fedbench run`, in this process and unrecorded.
"""

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench.algorithms.base import Values
from fedbench.analysis.convergence.arrivals import ArrivalTrace
from fedbench.analysis.convergence.rounds import RoundTrace, squared_norm
from fedbench.analysis.convergence.theory import Constants
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.augment import prepare
from fedbench.data.digits import read_digits
from fedbench.data.holdout import hold_out
from fedbench.engine.arrivals.clocks import make_clock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.interfaces import ArrivalExecutor, RoundExecutor
from fedbench.engine.rounds.loop import RoundLoop
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import Problem
from fedbench.models.base import LayerGroup, Model, Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.protocol.layout import Vector
from fedbench.randomness import generator, torch_seed

POWER_STEPS = 20
"""Steps of the power iteration that estimates L."""

SAMPLED_BATCHES = 200
"""Minibatches over which sigma^2 is estimated."""

BATCH = 4
"""Rows of a minibatch."""

PRELIMINARY_ROUNDS, PRELIMINARY_LR = 100, 0.1
"""Length and step size of the run after which the constants are estimated once more."""


class TanhNetwork(Model):
    """Four linear layers with tanh between them, in as many layer groups as are asked for.

    Attributes:
        width: Units of the hidden layers.
        groups: M, the number of layer groups: 1, 2 or 4, each of as many consecutive layers.
    """

    name: str = "fedbench.analysis.convergence.network:TanhNetwork"
    width: int = Field(16, gt=0)
    groups: int = Field(4, ge=1, le=4)

    def build(self, task: Task) -> nn.Module:
        return _TanhModule(math.prod(task.input_shape), self.width, task.classes, self.groups)


class _TanhModule(nn.Module):
    def __init__(self, inputs: int, width: int, classes: int, groups: int) -> None:
        super().__init__()
        sizes = [inputs, width, width, width, classes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self._groups = groups
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("tanh"))

    def layer_groups(self) -> list[LayerGroup]:
        """The groups, each of consecutive layers."""
        names = [(f"layers.{index}.weight", f"layers.{index}.bias") for index in range(len(self.layers))]
        cut = np.array_split(np.arange(len(names)), self._groups)
        return [
            LayerGroup(f"group{number}", tuple(name for index in part for name in names[index]))
            for number, part in enumerate(cut)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> logits float32 [N, classes]."""
        values = images.flatten(1)
        for layer in self.layers[:-1]:
            values = torch.tanh(layer(values))
        logits: Tensor = self.layers[-1](values)
        return logits


class TrainingLoss:
    """f, the mean cross-entropy of a problem's network over the training rows of all clients."""

    def __init__(self, problem: Problem) -> None:
        """Args:
        problem: of a network whose output depends on the parameters and one row alone.
        """
        spec = problem.spec
        module = build_module(spec.model, spec.task, torch_seed(spec.seed, "model"))
        self._model = FlatModel(module, problem.layout)
        self._parameters = self._model.activate(problem.layout.all_groups)
        rows = np.unique(np.concatenate(problem.federation.rows))
        train = problem.federation.data.train
        self._inputs = prepare(torch.from_numpy(train.inputs[rows]), None, spec.mean, spec.std, None)
        self._labels = torch.from_numpy(train.labels[rows])
        self._all = torch.arange(len(rows))

    def __call__(self, w: Vector) -> float:
        """f(w)."""
        with torch.no_grad():
            return float(self._loss(w, self._all))

    def gradient(self, w: Vector) -> Values:
        """float64 [P], grad f(w), in the order of the layout."""
        gradient: Values = self._gradient(w, self._all).numpy().astype(np.float64)
        return gradient

    def smoothness(self, w: Vector) -> float:
        """The largest absolute eigenvalue of f's second derivative at w, by power iteration: an estimate of L."""
        direction = torch.from_numpy(generator(0, "power iteration").normal(size=len(w)).astype(np.float32))
        first = torch.autograd.grad(self._loss(w, self._all), self._parameters, create_graph=True)
        gradient = torch.cat([piece.flatten() for piece in first])
        norm = 0.0
        for _ in range(POWER_STEPS):
            second = torch.autograd.grad(gradient @ direction, self._parameters, retain_graph=True)
            product = torch.cat([piece.flatten() for piece in second])
            norm = float(product.norm() / direction.norm())
            direction = product / product.norm()
        return norm

    def variance(self, w: Vector, batch: int) -> float:
        """The mean of ||g - grad f(w)||^2 over sampled minibatches of `batch` rows: an estimate of sigma^2."""
        exact, rng = self._gradient(w, self._all), generator(0, "sampled minibatches")
        chosen = [torch.from_numpy(rng.choice(len(self._all), batch, replace=False)) for _ in range(SAMPLED_BATCHES)]
        return float(np.mean([float((self._gradient(w, rows) - exact).square().sum()) for rows in chosen]))

    def _loss(self, w: Vector, rows: Tensor) -> Tensor:
        self._model.vector.copy_(torch.from_numpy(w))
        return nn.functional.cross_entropy(self._model.module(self._inputs[rows]), self._labels[rows])

    def _gradient(self, w: Vector, rows: Tensor) -> Tensor:
        """float32 [P], the gradient over some rows; the layout of linear layers is that of their tensors."""
        return torch.cat([piece.flatten() for piece in torch.autograd.grad(self._loss(w, rows), self._parameters)])


def network_config(seed: int, *overrides: str) -> ExperimentConfig:
    """The configuration of a run of the network on digits: plain SGD, in this process.

    Args:
        seed: seed of the run.
        overrides: further dotted overrides.
    """
    return ExperimentConfig.load(
        None,
        [
            f"seed={seed}",
            f"model={TanhNetwork.model_fields['name'].default}",
            "data.normalize={mean: 0.3, std: 0.375}",
            f"local.batch_size={BATCH}",
            "runtime.executor=inline",
            "runtime.device=cpu",
            "tracking.enabled=false",
            *overrides,
        ],
    )


def rounds_config(seed: int, *, groups: int, clients: int, rounds: int, lr: float) -> ExperimentConfig:
    """A run of synchronous rounds on clients that hold few classes each.

    Args:
        seed: seed of the run.
        groups: M; 1: full updates.
        clients: N.
        rounds: T, a multiple of M.
        lr: gamma.
    """
    schedule = ["schedule=full"]
    if groups > 1:
        schedule = [
            "schedule=sequential",
            "schedule.warmup_rounds=0",
            "schedule.rounds_per_group=1",
            "schedule.full_rounds_between_cycles=0",
            f"schedule.cycles={rounds // groups}",
        ]
    return network_config(
        seed,
        "local.steps=1",
        f"data.clients={clients}",
        "data.partition=shards" if clients > 1 else "data.partition=iid",
        f"model.groups={groups}",
        f"rounds={rounds}",
        f"evaluation.every={rounds}",
        f"local.optimizer.lr={lr!r}",
        *schedule,
    )


def arrivals_config(
    seed: int, *, workers: int, arrivals: int, lr: float, momentum: float, delays: Mapping[str, Any]
) -> ExperimentConfig:
    """An asynchronous run in which every worker holds all training rows, as OrMo's theorem assumes.

    Args:
        seed: seed of the run.
        workers: K.
        arrivals: T.
        lr: eta.
        momentum: beta.
        delays: keys of the configuration section `delays`.
    """
    train, _ = hold_out(read_digits()[1], None, seed)
    return network_config(
        seed,
        f"data.clients={workers}",
        f"data.samples_per_client={len(train)}",
        "data.overlap=true",
        "algorithm=ormo",
        f"algorithm.momentum={momentum!r}",
        f"rounds={arrivals}",
        f"evaluation.every={arrivals}",
        f"local.optimizer.lr={lr!r}",
        "delays.arrivals_per_round=1",
        *(f"delays.{key}={json.dumps(value)}" for key, value in delays.items()),
    )


def estimated_constants() -> Constants:
    """Estimates of the constants in the theorems' step sizes, at w_0 and after a preliminary run of full updates.

    Of L and sigma^2 the larger estimate counts. In place of Delta stands f(w_0), which is larger, since f >= 0.
    """
    config = rounds_config(0, groups=1, clients=1, rounds=PRELIMINARY_ROUNDS, lr=PRELIMINARY_LR)
    with prepared(config) as (problem, executor):
        loss, points = TrainingLoss(problem), [problem.vector.copy()]
        assert isinstance(executor, RoundExecutor)
        for _ in RoundLoop(executor, problem.costs, rounds=problem.rounds).rounds(problem.rounds, _never):
            pass
        points.append(executor.model()[0].copy())
        variance = max(loss.variance(w, BATCH) for w in points)
        return Constants(loss(points[0]), max(map(loss.smoothness, points)), variance)


def follow_network_rounds(config: ExperimentConfig) -> RoundTrace:
    """Run a configuration of synchronous rounds, and measure the gradient of f at the start of each.

    Args:
        config: of `network_config`, with a number of rounds that ends with the last evaluation.
    """
    with prepared(config) as (problem, executor):
        assert isinstance(executor, RoundExecutor)
        loss, layout = TrainingLoss(problem), problem.layout
        masked, whole = [], []
        gradient = loss.gradient(executor.model()[0])
        for finished in RoundLoop(executor, problem.costs, rounds=problem.rounds).rounds(problem.rounds, _never):
            updates = finished.record.group_clients or ()
            groups = [group for group, count in enumerate(updates) if count]
            masked.append(squared_norm(gradient, layout, groups))
            whole.append(float(gradient @ gradient))
            gradient = loss.gradient(executor.model()[0])
    return RoundTrace(np.asarray(masked), np.asarray(whole))


def follow_network_arrivals(config: ExperimentConfig) -> ArrivalTrace:
    """Run an asynchronous configuration, and measure the gradient of f before each arrival.

    Args:
        config: of `network_config`, with `delays.arrivals_per_round=1`.
    """
    with prepared(config) as (problem, executor):
        assert isinstance(executor, ArrivalExecutor)
        assert problem.arrivals is not None
        loss, clock = TrainingLoss(problem), make_clock(config, executor.ready)
        whole, delays = [], []
        gradient = loss.gradient(executor.model()[0])
        for finished in ArrivalLoop(problem.arrivals, executor, clock, problem.costs).rounds(problem.rounds, _never):
            delays += [arrival.staleness for arrival in finished.arrivals]
            whole.append(float(gradient @ gradient))
            gradient = loss.gradient(executor.model()[0])
    return ArrivalTrace(np.asarray(whole), np.asarray(delays, np.int64))


def _never() -> bool:
    return False
