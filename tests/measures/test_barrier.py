"""The loss barrier: by hand, 0 between equal models, and exact ends of the line."""

import math

import pytest
import torch

from fedbench.measures.barrier import loss_barrier, places_on_line
from fedbench.measures.line import on_line


def test_the_barrier_is_the_highest_rise_above_the_line_between_the_ends() -> None:
    assert loss_barrier([1, 2, 5, 4, 3]) == pytest.approx(5 - 2)


def test_a_loss_that_sags_below_the_line_has_no_barrier() -> None:
    assert loss_barrier([3, 1, 0, 1, 3]) == 0


def test_equal_models_have_the_barrier_0() -> None:
    model = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    losses = [float(on_line(model, model.clone(), t).square().sum()) for t in places_on_line(7)]
    assert loss_barrier(losses) == 0


def test_a_convex_loss_has_no_barrier_and_a_double_well_has_its_height() -> None:
    start, end = torch.tensor([-1.0]), torch.tensor([1.0])
    line = [on_line(start, end, t) for t in places_on_line(11)]
    assert loss_barrier([float(w**2) for w in line]) == 0
    assert loss_barrier([float((w**2 - 1) ** 2) for w in line]) == pytest.approx(1)


def test_the_ends_of_the_line_are_exact() -> None:
    start, end = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(on_line(start, end, 0.0), start)
    assert torch.equal(on_line(start, end, 1.0), end)
    assert places_on_line(5) == [0, 0.25, 0.5, 0.75, 1]


def test_a_loss_that_is_not_finite_has_no_barrier() -> None:
    assert math.isnan(loss_barrier([1, math.inf, 2]))
