"""A transformer of a billion parameters, laid out and costed without values; by default two of its twenty layers."""

import resource

import pytest
import torch
from large_encoder import large
from small import config

from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.models.outline import LARGE
from fedbench.protocol.layout import BYTES_PER_VALUE

GIB = 2**30


DEPTHS = pytest.mark.parametrize("depth", [2, pytest.param(20, marks=pytest.mark.exhaustive)])


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@DEPTHS
def test_a_large_network_is_costed_without_its_values(depth: int) -> None:
    before = peak_memory()
    plain = estimate(large(depth))
    size = plain.rounds_by_kind[0].parameters
    assert size == depth * 50_358_272 + 9 * 2048 + 2049 * 10 > LARGE
    assert plain.total.uplink_bytes == 2 * 3 * BYTES_PER_VALUE * size
    assert peak_memory() - before < GIB // 2


@pytest.mark.exhaustive
def test_the_memory_of_a_billion_parameters_is_foreseen() -> None:
    """Parameters and their gradients are 8 bytes a value, of bfloat16 parameters 12; the rest are activations."""
    plain, recomputed, lowered = (
        estimate(large(20, *overrides)).rounds_by_kind[0]
        for overrides in ((), ("local.checkpoint_activations=true",), ("local.precision=bf16-parameters",))
    )
    activations = plain.peak_bytes - 8 * plain.parameters
    assert 0 < recomputed.peak_bytes - 8 * plain.parameters < 0.2 * activations
    assert 0.4 * activations < lowered.peak_bytes - 12 * plain.parameters < 0.6 * activations


def test_a_small_network_is_costed_with_its_values() -> None:
    chosen = config("schedule=full", "rounds=1")
    problem = build_problem(chosen, load_federation(chosen), foresees=True)
    assert torch.from_numpy(problem.vector).abs().sum() > 0
