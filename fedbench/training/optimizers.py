"""Local optimizers and learning-rate schedules, as checked components over PyTorch's own.

An optimizer is made again in every round: over the network's own parameters where each value's step depends on nothing
but that value's gradients, else over the active slices of the flat parameter vector.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from fedbench.components.base import Component

if TYPE_CHECKING:
    import torch


class ReusableStep(ABC):
    """An optimizer's step over fixed tensors, which begins anew for each client and can be captured in a graph.

    Attributes:
        variant: distinguishes steps that launch different kernels: whether it is the first.
    """

    variant: bool = False

    def __init__(self, parameters: "list[torch.nn.Parameter]", lr: float) -> None:
        """Keep the parameters; `lr` is the learning rate before a client's factor on it."""
        import torch

        self._parameters = parameters
        self._values = [parameter.detach() for parameter in parameters]
        self._base_lr = lr
        self._on_gpu = bool(self._values) and self._values[0].device.type == "cuda"
        # A number would become a part of a graph. On a GPU the learning rate is always read from there, so that a step
        # rounds it in the same way with and without a graph.
        self._lr: Any = torch.empty((), device=self._values[0].device) if self._on_gpu else lr

    def reset(self, factor: float) -> None:
        """Begin a client's training, with the learning rate times `factor`."""
        if self._on_gpu:
            self._lr.fill_(self._base_lr * factor)
        else:
            self._lr = self._base_lr * factor

    @property
    def tensors(self) -> "list[torch.Tensor]":
        """Everything that a step changes beside the parameters."""
        return []

    def stepped(self) -> None:  # noqa: B027 - a step that counts nothing has nothing to notice
        """Take notice of a step that was done by a graph."""

    @abstractmethod
    def __call__(self) -> None:
        """Do one step with the gradients of the parameters."""


class Optimizer(Component):
    """Base of the local optimizers.

    Attributes:
        lr: learning rate, before the factor of `local.lr_schedule`.
        is_sgd: whether a step without momentum is minus the learning rate times the gradient, weight decay included.
            SCAFFOLD and FedNova need that.
    """

    is_sgd: ClassVar[bool] = False
    lr: float = Field(gt=0)

    @property
    def elementwise(self) -> bool:
        """Whether the step of each value depends on that value and its gradients alone.

        Such an optimizer gets the tensors of the network, as in a plain PyTorch loop, and is spared the copy of their
        gradients into the flat vector. What it computes over slices of the vector may differ in the last bit, since
        vector instructions round otherwise than the single ones at the end of a tensor.
        """
        return False

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number of values that the optimizer keeps for each parameter, for the memory estimate."""

    @abstractmethod
    def make(self, parameters: "list[torch.nn.Parameter]", factor: float) -> "torch.optim.Optimizer":
        """A new PyTorch optimizer with learning rate `lr * factor`.

        Args:
            parameters: slices of the flat vector, each a run of active layer groups; an elementwise optimizer gets the
                network's parameters.
            factor: factor on the learning rate.
        """

    def step_function(self, parameters: "list[torch.nn.Parameter]", factor: float) -> Callable[[], object]:
        """A function that makes one step with the gradients in `parameters`; it keeps the state between steps.

        Its steps are those of the optimizer that `make` returns. fedbench's own optimizers call PyTorch's fused kernels
        themselves, bit for bit the same: the classes of `torch.optim` import the compiler, which takes a process a
        second that trains for less, and in each step go through hooks and sort the tensors by device.
        """
        return self.make(parameters, factor).step


class SGD(Optimizer):
    """Stochastic gradient descent, as torch.optim.SGD.

    Attributes:
        momentum: heavy-ball momentum.
        nesterov: Nesterov's momentum instead of the heavy ball's.
        weight_decay: L2 penalty added to the gradient.
    """

    is_sgd: ClassVar[bool] = True
    name: str = "sgd"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true has no effect with momentum=0; set momentum in (0, 1)")
        return self

    @property
    def slots(self) -> int:
        return 1 if self.momentum else 0

    def make(self, parameters: "list[torch.nn.Parameter]", factor: float) -> "torch.optim.Optimizer":
        import torch

        return torch.optim.SGD(
            parameters,
            lr=self.lr * factor,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )

    @property
    def elementwise(self) -> bool:
        return type(self).step_function is SGD.step_function

    def step_function(self, parameters: "list[torch.nn.Parameter]", factor: float) -> Callable[[], object]:
        step = SgdStep(self, parameters)
        step.reset(factor)
        return step


class SgdStep(ReusableStep):
    """A step of `SGD`."""

    def __init__(self, settings: SGD, parameters: "list[torch.nn.Parameter]") -> None:
        import torch

        super().__init__(parameters, settings.lr)
        self._momenta = [torch.zeros_like(value) for value in self._values] if settings.momentum else []
        self._step = torch._fused_sgd_
        self._options: dict[str, Any] = {
            "weight_decay": settings.weight_decay,
            "momentum": settings.momentum,
            "dampening": 0.0,
            "nesterov": settings.nesterov,
            "maximize": False,
        }

    def reset(self, factor: float) -> None:
        super().reset(factor)
        self.variant = bool(self._momenta)

    @property
    def tensors(self) -> "list[torch.Tensor]":
        return self._momenta

    def stepped(self) -> None:
        self.variant = False

    def __call__(self) -> None:
        if not self._values:
            return
        self._step(
            self._values,
            gradients(self._parameters),
            self._momenta,
            lr=self._lr,
            is_first_step=self.variant,
            **self._options,
        )
        self.variant = False


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), as torch.optim.Adam.

    Attributes:
        betas: decay rates of the first and the second moment.
        eps: constant added to the denominator.
        weight_decay: factor of the L2 penalty, whose gradient is added.
    """

    decoupled: ClassVar[bool] = False
    name: str = "adam"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _betas_in_range(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={list(self.betas)}: each must be in [0, 1)")
        return self

    @property
    def slots(self) -> int:
        return 2

    def make(self, parameters: "list[torch.nn.Parameter]", factor: float) -> "torch.optim.Optimizer":
        import torch

        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(
            parameters,
            lr=self.lr * factor,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )

    @property
    def elementwise(self) -> bool:
        return type(self).step_function is Adam.step_function

    def step_function(self, parameters: "list[torch.nn.Parameter]", factor: float) -> Callable[[], object]:
        step = AdamStep(self, parameters)
        step.reset(factor)
        return step


class AdamStep(ReusableStep):
    """A step of `Adam` or `AdamW`."""

    def __init__(self, settings: Adam, parameters: "list[torch.nn.Parameter]") -> None:
        import torch

        super().__init__(parameters, settings.lr)
        self._first, self._second = ([torch.empty_like(value) for value in self._values] for _ in range(2))
        # One counter of steps serves all tensors: each is updated in each step.
        self._count = torch.empty((), device=self._values[0].device if self._values else None)
        self._counts = [self._count] * len(self._values)
        self._step = torch._fused_adamw_ if settings.decoupled else torch._fused_adam_
        beta1, beta2 = settings.betas
        self._options: dict[str, Any] = {
            "amsgrad": False,
            "beta1": beta1,
            "beta2": beta2,
            "weight_decay": settings.weight_decay,
            "eps": settings.eps,
            "maximize": False,
        }

    def reset(self, factor: float) -> None:
        super().reset(factor)
        for tensor in self.tensors:
            tensor.zero_()

    @property
    def tensors(self) -> "list[torch.Tensor]":
        return [*self._first, *self._second, self._count]

    def __call__(self) -> None:
        if not self._values:
            return
        self._count.add_(1)
        self._step(
            self._values,
            gradients(self._parameters),
            self._first,
            self._second,
            [],
            self._counts,
            lr=self._lr,
            **self._options,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW."""

    decoupled: ClassVar[bool] = True
    name: str = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)


def gradients(parameters: "list[torch.nn.Parameter]") -> "list[torch.Tensor]":
    """The gradient of each parameter, all of which have been through a backward pass."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class LearningRate(Component):
    """Base of the learning-rate schedules: a factor on the learning rate for every round."""

    @abstractmethod
    def factor(self, round_index: int, rounds: int) -> float:
        """The factor in round `round_index` (from 0) of `rounds`."""


class Constant(LearningRate):
    """The same learning rate in every round."""

    name: str = "constant"

    def factor(self, round_index: int, rounds: int) -> float:
        return 1.0


class Cosine(LearningRate):
    """Falls from 1 to `floor` along half a cosine over the run (Loshchilov and Hutter, 2017).

    Attributes:
        floor: the factor that the last rounds approach.
    """

    name: str = "cosine"
    floor: float = Field(default=0.0, ge=0, le=1)

    def factor(self, round_index: int, rounds: int) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * round_index / rounds))


class Step(LearningRate):
    """Multiplies the learning rate by `gamma` at each milestone.

    Attributes:
        milestones: rounds, counted from 0, at which the learning rate is multiplied once more.
        gamma: the factor at each milestone.
    """

    name: str = "step"
    milestones: tuple[int, ...] = Field(min_length=1)
    gamma: float = Field(default=0.1, gt=0, le=1)

    def factor(self, round_index: int, rounds: int) -> float:
        return self.gamma ** sum(round_index >= milestone for milestone in self.milestones)
