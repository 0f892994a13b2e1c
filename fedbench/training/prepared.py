"""A client's minibatches, gathered and prepared many at a time, so that a step starts with its inputs ready."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.data.arrays import ArrayScaling
from fedbench.data.augment import MinibatchDraws, prepare
from fedbench.data.augmentation import Augmentation
from fedbench.data.base import InputKind

Transform = Callable[[Tensor, MinibatchDraws | None], Tensor]
"""Turns stored inputs into what the module takes; None: without augmentation."""

PREPARED_BYTES = {"cpu": 4 << 20}
"""Bytes of prepared inputs that are made at a time on a kind of device.

On a CPU as many as stay in its cache: on two cores of a Zen EPYC, preparing a minibatch of 32 images of 32x32x3 took
29 us by itself, 20 us among 8 (3 MB) and 43 us among 63 (25 MB).
"""

OTHER_PREPARED_BYTES = 64 << 20
"""Bytes of prepared inputs on other kinds of devices: the whole work of most clients."""

WIDENING = {torch.uint8: 4, torch.int32: 2}
"""How many times as large inputs of a stored type are once prepared."""

ALIGNMENT = 64
"""Bytes to whose multiples PyTorch aligns new tensors. Kernels may round otherwise where a tensor starts elsewhere."""


def transform_of(
    kind: InputKind,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    augmentation: Augmentation | None = None,
    device: torch.device | None = None,
) -> Transform:
    """What turns stored inputs of a kind of data into what a module takes.

    Args:
        kind: "image": uint8 [B, H, W, C] becomes float32 [B, C, H, W]. "text": token ids become int64. "array": float32
            keeps its shape.
        mean, std: by which images and arrays are normalised (`FederatedData`); both None: they are not.
        augmentation: the random changes to images, where there are draws; None: none.
        device: of the inputs; None: the CPU.
    """
    if kind == "text":
        return lambda batch, draws: batch.long()
    if kind == "array":
        return ArrayScaling(mean, std, device)
    return lambda batch, draws: prepare(batch, augmentation if draws is not None else None, mean, std, draws)


def prepared_minibatches(
    inputs: Tensor,
    labels: Tensor,
    rows: npt.NDArray[np.int64],
    positions: Iterator[npt.NDArray[np.int64]],
    transform: Transform,
    augmentation: np.random.Generator,
    budget: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the inputs and labels of a client's minibatches.

    As many minibatches as fit into a budget are gathered, augmented and converted at a time: the rows that they consist
    of and the random parameters of their augmentation are uploaded once for all of them, and a minibatch is a view.
    What is yielded does not depend on the budget, bit for bit.

    Args:
        inputs: uint8 [N, H, W, C] or int32 [N, L], the inputs of all clients.
        labels: int64 [N], the labels of all clients, on the same device.
        rows: int64 [n], the client's rows of `inputs`.
        positions: for each minibatch, int64 [B], positions among the client's rows.
        transform: turns stored inputs into what the module takes.
        augmentation: draws the augmentations of one minibatch after the other.
        budget: bytes of prepared inputs at a time; None: `PREPARED_BYTES`. A single minibatch may be larger.

    Yields:
        The minibatch's inputs as the module takes them, and its labels, int64 [B].
    """
    device = inputs.device
    if budget is None:
        budget = PREPARED_BYTES.get(device.type, OTHER_PREPARED_BYTES)
    row_bytes = inputs[:1].nbytes * WIDENING.get(inputs.dtype, 1)
    for group in _within_budget(positions, budget // max(row_bytes, 1)):
        sizes = [len(minibatch) for minibatch in group]
        chosen = torch.from_numpy(rows[np.concatenate(group)]).to(device)
        prepared = transform(inputs.index_select(0, chosen), MinibatchDraws(augmentation, sizes))
        of_labels = labels.index_select(0, chosen)
        for batch, targets in zip(torch.split(prepared, sizes), torch.split(of_labels, sizes), strict=True):
            yield _aligned(batch), targets


def _within_budget(positions: Iterator[npt.NDArray[np.int64]], samples: int) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Yield lists of consecutive minibatches: as many as have at most `samples` samples together, but at least one."""
    waiting = next(positions, None)
    while waiting is not None:
        group, total = [waiting], len(waiting)
        waiting = None
        for minibatch in positions:
            if total + len(minibatch) > samples:
                waiting = minibatch
                break
            group.append(minibatch)
            total += len(minibatch)
        yield group


def _aligned(batch: Tensor) -> Tensor:
    """The minibatch, copied if it does not start where PyTorch would have put a tensor of its own."""
    return batch if batch.data_ptr() % ALIGNMENT == 0 else batch.clone()
