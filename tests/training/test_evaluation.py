"""Scores add up however the minibatches are shared out; recalibrated statistics are those of the data."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbench.models.base import LayerGroup
from fedbench.models.flat import FlatModel
from fedbench.models.groups import parameter_layout
from fedbench.training.evaluation import recalibrate, score_batches
from fedbench.training.optimizers import Cosine, Step
from fedbench.training.scores import batch_borders, total_score


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(images).mean((2, 3)))


def flat() -> FlatModel:
    module = Normalised()
    groups = [LayerGroup("norm", ("norm.weight", "norm.bias")), LayerGroup("head", ("head.weight", "head.bias"))]
    return FlatModel(module, parameter_layout(module, groups))


def to_float(batch: torch.Tensor, rng: np.random.Generator | None) -> torch.Tensor:
    return batch.permute(0, 3, 1, 2).float()


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.integers(0, 256, (517, 4, 4, 3), dtype=np.uint8))
    return inputs, torch.from_numpy(rng.integers(0, 4, 517))


def test_scores_equal_one_pass_over_everything(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = flat()
    borders = batch_borders(517, 100)
    assert borders[-1] == (500, 517)
    whole = score_batches(model, *data, borders, to_float, 0)
    shared = score_batches(model, *data, borders[:2], to_float, 0) + score_batches(
        model, *data, borders[2:], to_float, 0
    )
    assert whole == shared
    model.module.eval()
    with torch.no_grad():
        outputs = model.module(to_float(data[0], None))
    loss, accuracy = total_score(whole)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(outputs, data[1])), rel=1e-5)
    assert accuracy == float((outputs.argmax(1) == data[1]).double().mean())


def test_chosen_rows_are_scored_as_a_slice_of_them_would_be(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = flat()
    assert score_batches(model, *data, [np.arange(30, 80)], to_float, 0) == score_batches(
        model, *data, [(30, 80)], to_float, 0
    )


def test_recalibrated_statistics_are_those_of_the_rows(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = flat()
    momentum = model.module.norm.momentum
    recalibrate(model, data[0], np.arange(512), to_float, seed=0)
    images = to_float(data[0][:512], None)
    torch.testing.assert_close(model.module.norm.running_mean, images.mean((0, 2, 3)), rtol=1e-4, atol=1e-3)
    assert model.module.norm.momentum == momentum
    parameters = model.vector.clone()
    recalibrate(model, data[0], np.arange(512), to_float, seed=0)
    assert torch.equal(model.vector, parameters)


def test_learning_rate_factors() -> None:
    step = Step(milestones=(2, 4), gamma=0.1)
    assert [round(step.factor(index, 6), 6) for index in range(6)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    cosine = Cosine(floor=0.2)
    assert cosine.factor(0, 10) == 1
    assert cosine.factor(5, 10) == pytest.approx(0.6)


def test_scores_of_arrays_do_not_depend_on_where_in_memory_the_rows_begin() -> None:
    """A process may hold the data at any address, and a matrix product rounds by the alignment of what it reads."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    groups = [LayerGroup("all", tuple(name for name, _ in module.named_parameters()))]
    model = FlatModel(module, parameter_layout(module, groups))
    values = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)
    losses = set()
    for places in range(16):  # by which the rows begin behind an address that is a multiple of 64 bytes
        rows, targets = torch.zeros(32 * 4 + 16)[places:], torch.zeros(32 + 16)[places:]
        inputs, labels = rows[: 32 * 4].view(32, 4), targets[:32].view(32, 1)
        inputs.copy_(torch.from_numpy(values[:32, :4].copy()))
        labels.copy_(torch.from_numpy(values[:32, 4:].copy()))
        scores = score_batches(model, inputs, labels, [(0, 32)], lambda batch, _: batch, 0, None, "regression")
        losses.add(scores[0].loss_sum)
    assert len(losses) == 1
