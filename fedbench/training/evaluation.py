"""Evaluation of a model, in minibatches with fixed borders, so that sums do not depend on which host scored which."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbench.models.flat import FlatModel
from fedbench.randomness import generator, torch_seed
from fedbench.tasks.kinds import TaskName
from fedbench.tasks.losses import hits, loss_sum
from fedbench.training.metrics import EvaluationMetrics
from fedbench.training.prepared import Transform
from fedbench.training.scores import BatchScore, batch_borders
from fedbench.training.seeding import seeded

Rows = npt.NDArray[np.int64] | tuple[int, int]
"""The rows of a minibatch: int64 [B], or their borders [start, stop)."""

RECALIBRATION_ROWS = 2048
"""Number of training rows over which `evaluation.batchnorm=recalibrate` computes the running statistics again."""

RECALIBRATION_BATCH = 256
"""Samples of a minibatch of the recalibration."""


def score_batches(
    model: FlatModel,
    inputs: Tensor,
    labels: Tensor,
    batches: Sequence[Rows],
    transform: Transform,
    seed: int,
    metrics: EvaluationMetrics | None = None,
    task: TaskName = "classification",
) -> list[BatchScore]:
    """Score the model, in evaluation mode, on minibatches of a split.

    A network that draws random numbers in evaluation, too, draws them from (seed, first row of the minibatch), and
    buffers and attributes that it changes are put back after each minibatch: its score does not depend on which host
    scored which minibatch.

    Args:
        model: the model.
        inputs: the split's inputs, as in `fedbench.data.base.Split`, in host memory or on the model's device.
        labels: its labels, in the same place.
        batches: for each minibatch its borders [start, stop), or int64 [B], its row indices.
        transform: turns stored inputs into what the module takes; called without augmentation.
        seed: seed of the experiment.
        metrics: further metrics, whose states the scores have; None: none.
        task: decides the loss, and whether there are hits to count.

    Returns:
        One score for each minibatch.
    """
    device = model.vector.device
    model.module.eval()
    statistics = model.statistics.clone()
    scores = []
    with torch.inference_mode():
        for batch in batches:
            if isinstance(batch, tuple):
                chosen_inputs, chosen_labels = _aligned(inputs[slice(*batch)]), _aligned(labels[slice(*batch)])
            else:
                rows = torch.from_numpy(batch).to(labels.device)
                chosen_inputs, chosen_labels = inputs.index_select(0, rows), labels.index_select(0, rows)
            chosen_inputs, chosen_labels = chosen_inputs.to(device), chosen_labels.to(device)
            with seeded(device, torch_seed(seed, "evaluation", int(batch[0]))):
                outputs = model.module(transform(chosen_inputs, None))
            loss, samples = loss_sum(task, outputs, chosen_labels)
            correct = hits(task, outputs, chosen_labels)
            states = () if metrics is None or not math.isfinite(loss) else metrics.states(outputs, chosen_labels)
            scores.append(BatchScore(samples, loss, correct, states=states))
            model.reset()
            model.statistics.copy_(statistics)
    return scores


def _aligned(rows: Tensor) -> Tensor:
    """Rows at the beginning of memory of their own where they are numbers that a network computes with as they are.

    Kernels round by where in memory their inputs begin, which is not the same in every process that holds the data.
    """
    return rows.clone() if rows.is_floating_point() else rows


def recalibrate(
    model: FlatModel,
    inputs: Tensor,
    rows: npt.NDArray[np.int64],
    transform: Transform,
    seed: int,
) -> None:
    """Replace BatchNorm's running statistics by cumulative averages over a seeded sample of training rows, in place.

    Args:
        model: the model; only the running statistics of its BatchNorm layers change.
        inputs: the training split's inputs, in host memory or on the model's device.
        rows: int64, the rows to draw from; `RECALIBRATION_ROWS` of them are used, without augmentation.
        transform: turns stored inputs into what the module takes; called without augmentation.
        seed: seed of the experiment.
    """
    sample = generator(seed, "recalibration").permutation(np.unique(rows))[:RECALIBRATION_ROWS]
    layers = [module for module in model.module.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    before = model.statistics.clone()
    model.module.train()
    with torch.no_grad(), seeded(model.vector.device, torch_seed(seed, "recalibration")):
        for index, batch in enumerate(_chunks(sample)):
            for layer in layers:
                layer.momentum = 1.0 / (index + 1)
            chosen = inputs.index_select(0, torch.from_numpy(batch).to(inputs.device))
            model.module(transform(chosen.to(model.vector.device), None))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.collect_statistics()
    for slot in model.layout.statistics:
        if not isinstance(model.module.get_submodule(slot.name.rpartition(".")[0]), nn.modules.batchnorm._BatchNorm):
            model.statistics[slot.offset : slot.stop] = before[slot.offset : slot.stop]
    model.reset()


def _chunks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Cut the rows into minibatches; a last one of a single row is left out, since BatchNorm cannot train on it."""
    for start, stop in batch_borders(len(rows), RECALIBRATION_BATCH):
        if stop - start > 1:
            yield rows[start:stop]
