"""Small experiments on digits for tests, and parts that misbehave. Importable by path: "small:Name"."""

import os
import time
from typing import Literal

import torch
from torch import Tensor, nn

from fedbench.algorithms.base import Algorithm, LocalContext, Objective, RuleContext, ServerRule, Values
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import RunError
from fedbench.models.base import LayerGroup

HUGE = 1e4
"""What a client with too large an update adds to each parameter."""


WITHOUT_CYCLES = ("schedule=full", "schedule=selective")
DIVIDED_OTHERWISE = ("data.partition", "data.overlap=", "data.samples_per_client=", "data.dataset")
"""Beginnings of overrides that say by themselves how many rows a client has, or what the rows are."""


def config(*overrides: str) -> ExperimentConfig:
    """The quickstart, cut down to a fraction of a second, without tracking.

    Each client has forty rows, where the overrides do not divide the rows in another way.
    """
    divided = any(override.startswith(DIVIDED_OTHERWISE) for override in overrides)
    return ExperimentConfig.load(
        "quickstart",
        [
            "rounds=4",
            "data.clients=6",
            *([] if any(override.startswith("model=") for override in overrides) else ["model.width=8"]),
            "local.epochs=1",
            *([] if divided else ["data.samples_per_client=40"]),
            *([] if {*overrides} & {*WITHOUT_CYCLES} else ["schedule.warmup_rounds=1", "schedule.rounds_per_group=1"]),
            "tracking.enabled=false",
            "runtime.device=cpu",
            *overrides,
        ],
    )


def asynchronous(*overrides: str) -> ExperimentConfig:
    """OrMo with four workers on a few digits each, a tenth of a second long, without tracking."""
    model = [] if any(override.startswith("model=") for override in overrides) else ["model=cnn-bn", "model.width=2"]
    algorithm = [] if any(override.startswith(("algorithm=", "server=")) for override in overrides) else ["ormo"]
    return ExperimentConfig.load(
        None,
        [
            "rounds=3",
            "data.clients=4",
            "data.samples_per_client=40",
            "local.batch_size=16",
            "local.optimizer.lr=0.05",
            "tracking.enabled=false",
            "runtime.device=cpu",
            *model,
            *(f"algorithm={name}" for name in algorithm),
            *overrides,
        ],
    )


def process_of(actor: object) -> int:
    """The id of the process that an actor is; to be called there."""
    return os.getpid()


class Faulty(Algorithm):
    """FedAvg in which some clients misbehave.

    Attributes:
        bad_label: clients with minibatches of this label alone are bad.
        how: raise an exception, send values that are not finite, or an update that is far too large.
    """

    name: str = "small:Faulty"
    bad_label: int = 0
    how: Literal["raise", "nan", "huge"] = "raise"

    def objective(self) -> Objective:
        return FaultyObjective(self.bad_label, self.how)


class FaultyObjective(Objective):
    """Misbehaves on minibatches that consist of one label only, as those of a single-class client do."""

    def __init__(self, bad_label: int, how: str) -> None:
        self._bad_label = bad_label
        self._how = how
        self._bad = False

    def begin(self, context: LocalContext) -> None:
        self._bad = False

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        loss = super().loss(module, inputs, labels)
        if bool((labels == self._bad_label).all()):
            if self._how == "raise":
                raise ValueError("this client\nis broken")
            self._bad = True
            return loss * float("nan") if self._how == "nan" else loss
        return loss

    def finish(self, context: LocalContext, steps: int) -> None:
        if self._bad and self._how == "huge":
            for piece in context.pieces:
                context.model.vector[piece].add_(HUGE)


class Slow(Algorithm):
    """FedAvg in which clients that hold mostly one label take their time.

    Attributes:
        slow_label: theirs.
        seconds: that a minibatch takes.
    """

    name: str = "small:Slow"
    slow_label: int = 0
    seconds: float = 0.0

    def objective(self) -> Objective:
        return SlowObjective(self.slow_label, self.seconds)


class SlowObjective(Objective):
    """Sleeps over minibatches of mostly one label."""

    def __init__(self, slow_label: int, seconds: float) -> None:
        self._slow_label = slow_label
        self._seconds = seconds

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        if float((labels == self._slow_label).double().mean()) > 0.6:
            time.sleep(self._seconds)
        return super().loss(module, inputs, labels)


class Leaps(Algorithm):
    """FedAvg whose server multiplies its step.

    Attributes:
        factor: by which the mean update is multiplied.
    """

    name: str = "small:Leaps"
    factor: float = 1e25

    def rule(self) -> ServerRule:
        return Leap(self.factor)


class Leap(ServerRule):
    """Adds a multiple of the mean update."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        return previous + self._factor * update


class Misshapen(Algorithm):
    """Some clients send a further channel of the wrong length."""

    name: str = "small:Misshapen"

    def objective(self) -> Objective:
        return MisshapenObjective()


class MisshapenObjective(Objective):
    """Cuts the channel short where the client took an odd number of steps."""

    channels: tuple[str, ...] = ("extra",)

    def finish(self, context: LocalContext, steps: int) -> None:
        extra = torch.zeros_like(context.anchor)
        context.outgoing["extra"] = extra[:7] if steps % 2 else extra


class Exhausted(Algorithm):
    """Raises fedbench's own error where a client starts."""

    name: str = "small:Exhausted"

    def objective(self) -> Objective:
        raise RunError("nothing left to minimise")


class TwoLayers(nn.Module):
    """A perceptron whose parameters are easy to tell apart; without running statistics."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, hidden: int = 16) -> None:
        super().__init__()
        height, width, channels = input_shape
        self.first = nn.Linear(height * width * channels, hidden)
        self.second = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(images.flatten(1))))

    def layer_groups(self) -> list[LayerGroup]:
        return [LayerGroup(name, (f"{name}.weight", f"{name}.bias")) for name in ("first", "second")]
