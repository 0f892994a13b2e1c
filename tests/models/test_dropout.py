"""Dropout of the built-in networks against its definition."""

import math

import pytest
import torch
from torch import nn

from fedbench.models.networks.dropout import LEVELS, Dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_zero_at_the_rate_and_scaled_otherwise(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.full((1000, 1001), 3.0, dtype=dtype)
    out = Dropout(rate)(values)
    assert out.dtype == dtype
    kept = out != 0
    scaled = out[kept].double()
    assert torch.allclose(
        scaled, torch.full_like(scaled, 3 / (1 - rate)), rtol=1e-4 if dtype == torch.float32 else 1e-2
    )
    deviation = math.sqrt(rate * (1 - rate) / values.numel())
    assert abs(kept.double().mean().item() - (1 - rate)) < 4 * deviation


def test_what_is_dropped_is_independent_of_neighbours_and_of_the_call_before() -> None:
    torch.manual_seed(0)
    module = Dropout(0.3)
    first, second = (module(torch.ones(1_000_000)) != 0 for _ in range(2))
    for kept, later in ((first, second), *((first[:-lag], first[lag:]) for lag in range(1, 6))):
        both = (kept & later).double().mean().item()
        assert abs(both - 0.49) < 4 * math.sqrt(0.49 * 0.51 / 1_000_000)


def test_each_of_the_bits_of_a_draw_is_used_evenly() -> None:
    torch.manual_seed(0)
    columns = (Dropout(0.5)(torch.ones(400_000)) != 0).view(-1, 4).double().mean(dim=0)
    assert (columns - 0.5).abs().max().item() < 4 * math.sqrt(0.25 / 100_000)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3, 5)])
def test_the_gradient_is_what_the_values_were_multiplied_with(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.ones(shape, requires_grad=True)
    out = Dropout(0.5)(values)
    out.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, out.detach())
    assert out.shape == shape


def test_the_seed_decides_and_memory_format_does_not() -> None:
    values = torch.rand(4, 3, 8, 8) + 1
    outs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(5)
        outs.append(Dropout(0.4)(values.contiguous(memory_format=layout)))
    assert torch.equal(*outs)
    assert not torch.equal(outs[0], Dropout(0.4)(values))


def test_in_evaluation_and_without_a_rate_nothing_changes() -> None:
    values = torch.rand(100)
    assert Dropout(0.5).eval()(values) is values
    assert torch.equal(Dropout(0.0)(values), values)


@pytest.mark.parametrize("rate", [0.4 / LEVELS, 1 - 0.4 / LEVELS, 1.0])
def test_rates_beside_zero_and_one_are_those_of_pytorch(rate: float) -> None:
    values = torch.rand(100_000)
    outs = []
    for module in (Dropout(rate), nn.Dropout(rate)):
        torch.manual_seed(1)
        outs.append(module(values))
    assert torch.equal(*outs)


def test_other_devices_have_the_one_operator_of_pytorch() -> None:
    assert Dropout(0.5)(torch.empty(4, device="meta")).device.type == "meta"
