"""A transformer of a billion parameters: laid out and costed without values, its layer groups through the object store.

No step is trained, and no process holds more than a few of its layer groups at a time. By default it has two of its
twenty layers.
"""

import resource
from typing import Any

import numpy as np
import pytest
import torch
from small import config
from torch import Tensor, nn
from warm_pools import RESOURCE, WarmPools

from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.models.outline import LARGE
from fedbench.protocol.exact_sum import SCALE, accumulate
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout

GIB = 2**30


class Encoder(nn.Module):
    """Encoder layers of PyTorch's with 50.4 million parameters each, over the rows of an image."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(input_shape[1] * input_shape[2], 2048)
        layer = {"d_model": 2048, "nhead": 16, "dim_feedforward": 8192, "dropout": 0.0, "batch_first": True}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(depth))  # type: ignore[arg-type]
        self.last = nn.Linear(2048, classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images.flatten(2).unflatten(2, images.shape[2:]).movedim(1, 3).flatten(2))
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.last(values.mean(1))
        return logits


def large(depth: int, *overrides: str) -> Any:
    return config(
        f"model={__name__}:Encoder", f"model.depth={depth}", "rounds=2", "schedule=full", "data.clients=3",
        "local.optimizer=sgd", *overrides,
    )  # fmt: skip


DEPTHS = pytest.mark.parametrize("depth", [2, pytest.param(20, marks=pytest.mark.exhaustive)])


def layout_of(depth: int) -> ParameterLayout:
    chosen = large(depth)
    return build_problem(chosen, load_federation(chosen), foresees=True).layout


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


def moved(layout: ParameterLayout, group: int) -> None:
    """One layer group to a worker and back, where it is added up; its bytes are those of the protocol."""
    import ray

    @ray.remote(num_cpus=0, resources={RESOURCE: 0.01})
    def trained(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        assert not values.flags.writeable  # read where it lies in the object store
        return values + np.float32(0.5)

    size = layout.group_size(group)
    start = np.full(size, group, np.float32)
    reference = ray.put(start)
    arrived = ray.get(trained.remote(reference))
    assert arrived.nbytes == BYTES_PER_VALUE * layout.count([group]) == BYTES_PER_VALUE * size
    total = np.zeros(size, np.int64)
    assert accumulate(total, arrived, start, 1.0)
    assert (total == round(0.5 * SCALE)).all()


@DEPTHS
def test_its_layer_groups_go_through_the_object_store(depth: int, warm_pools: WarmPools) -> None:
    """With two layers, one group of each size."""
    layout = layout_of(depth)
    before = peak_memory()
    with warm_pools.lent(config("runtime.actors=1").runtime):
        for group in range(layout.groups) if depth > 2 else (0, 1, 2, layout.groups - 1):
            moved(layout, group)
    assert peak_memory() - before < GIB


def test_a_small_network_is_costed_with_its_values() -> None:
    chosen = config("schedule=full", "rounds=1")
    problem = build_problem(chosen, load_federation(chosen), foresees=True)
    assert torch.from_numpy(problem.vector).abs().sum() > 0
