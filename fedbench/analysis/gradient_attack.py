"""Gradient leakage: images that would have made a client send what it sent.

An attacker who knows the network, its parameters w and what was sent, looks for the images x that explain it:

    min_x  sum_m D(g_m(x), g_m*) + a TV(x)

g_m* is the visible part of the m-th message, g_m(x) what images x would have made of it, TV the total variation. D is

* dlg: ||g - g*||^2 / ||g*||^2, matched by L-BFGS (Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019,
  Algorithm 1; there without the denominator, which changes no minimum and makes the size of the gradient irrelevant);
* cosine: 1 - <g, g*> / (||g|| ||g*||), matched by Adam over images clamped to [0, 1] (Geiping et al., "Inverting
  Gradients", NeurIPS 2020).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Attack = Literal["dlg", "cosine"]
Matching = Literal["lbfgs", "adam"]

Seen = Sequence[Tensor]
"""The visible parts of what was sent, one float32 vector for each message."""

HISTORY = 100
"""Pairs of steps and gradients that L-BFGS keeps."""

CHUNK = 20
"""Iterations of L-BFGS from which it is asked whether it still moves."""

CONVERGED = 1e-14
"""The distance at which the images explain what was sent as well as float32 can tell."""

ADAM_RATE, DECAY, MILESTONES = 0.1, 0.1, (3 / 8, 5 / 8, 7 / 8)
"""Adam's step size on pixels in [0, 1], and the factor on it at these shares of the iterations."""


@dataclass(frozen=True)
class AttackSettings:
    """How images are looked for.

    Attributes:
        attack: the distance D.
        matching: what minimises it.
        iterations: of the minimisation, at most.
        total_variation: the weight a.
    """

    attack: Attack
    matching: Matching
    iterations: int
    total_variation: float = 0.0


@dataclass(frozen=True)
class Reconstruction:
    """What an attack arrived at.

    Attributes:
        final: float32 [n, C, H, W] in [0, 1], the images at its end, which the attacker has.
        best: the images of the highest score on the way, which only somebody who knows the originals can choose.
        distance: the distance D of the final images.
    """

    final: Tensor
    best: Tensor
    distance: float


def distance(seen: Seen, sent: Seen, attack: Attack) -> Tensor:
    """The sum of D over the messages, a scalar."""
    total = torch.zeros((), device=sent[0].device)
    for here, there in zip(seen, sent, strict=True):
        if attack == "cosine":
            total = total + 1 - torch.dot(here, there) / (here.norm() * there.norm()).clamp_min(1e-30)
        else:
            total = total + (here - there).square().sum() / there.square().sum().clamp_min(1e-30)
    return total


def total_variation(images: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels, a scalar; images are [n, C, H, W]."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    right = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return down + right


class _Search:
    """The images looked for, what else is unknown beside them, and the best on the way."""

    def __init__(
        self,
        observe: Callable[..., Seen],
        sent: Seen,
        start: Sequence[Tensor],
        settings: AttackSettings,
        score: Callable[[Tensor], float],
    ) -> None:
        self.unknown = [tensor.detach().clone().requires_grad_() for tensor in start]
        self._observe, self._sent, self._settings, self._score = observe, sent, settings, score
        self.final = self.best = self.unknown[0].detach().clamp(0, 1)
        self._highest = score(self.best)
        self.distance = float("inf")

    def evaluate(self) -> Tensor:
        """The value to be minimised, with its gradient in the `grad` of the unknown."""
        for tensor in self.unknown:
            tensor.grad = None
        away = distance(self._observe(*self.unknown), self._sent, self._settings.attack)
        value = away + self._settings.total_variation * total_variation(self.unknown[0])
        gradients = torch.autograd.grad(value, self.unknown)
        for tensor, gradient in zip(self.unknown, gradients, strict=True):
            tensor.grad = gradient
        self._note(float(away.detach()))
        return value.detach()

    def _note(self, away: float) -> None:
        """Keep the images if they are finite, and as the best if they are that."""
        images = self.unknown[0].detach().clamp(0, 1)
        if not (away < float("inf") and bool(torch.isfinite(images).all())):
            return
        self.final, self.distance = images, away
        if (score := self._score(images)) > self._highest:
            self.best, self._highest = images, score


def reconstruct(
    observe: Callable[..., Seen],
    sent: Seen,
    start: Sequence[Tensor],
    settings: AttackSettings,
    score: Callable[[Tensor], float],
) -> Reconstruction:
    """Look for the images that explain what was sent.

    Args:
        observe: called with tensors like those of `start`; what would be visible of them, twice differentiable.
        sent: what was visible.
        start: the first guess: images [n, C, H, W], and what else is unknown, such as scores of labels.
        settings: distance and minimisation.
        score: how near images in [0, 1] are to the originals; the higher the nearer. It chooses `best` alone.
    """
    search = _Search(observe, sent, start, settings, score)
    if settings.matching == "lbfgs":
        _by_lbfgs(search, settings.iterations)
    else:
        _by_adam(search, settings.iterations)
    return Reconstruction(search.final, search.best, search.distance)


def _by_lbfgs(search: _Search, iterations: int) -> None:
    optimizer = torch.optim.LBFGS(
        search.unknown,
        max_iter=CHUNK,
        history_size=HISTORY,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    before = float("inf")
    for _ in range(max(1, iterations // CHUNK)):
        optimizer.step(search.evaluate)  # type: ignore[no-untyped-call]
        now = float(search.evaluate())
        if not CONVERGED < now < before:
            return
        before = now


def _by_adam(search: _Search, iterations: int) -> None:
    optimizer = torch.optim.Adam(search.unknown, lr=ADAM_RATE)
    milestones = [int(share * iterations) for share in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, DECAY)
    for _ in range(iterations):
        value = float(search.evaluate())
        if not CONVERGED < value < float("inf"):
            return
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            search.unknown[0].clamp_(0, 1)
    search.evaluate()
