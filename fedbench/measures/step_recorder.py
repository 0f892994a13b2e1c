"""Records the norms of a client's local steps on the device where it trains."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedbench.measures.step_norms import StepNorms
from fedbench.models.flat import FlatModel

LOOSE = 512
"""Norms that are kept as single tensors, which takes a step less time than to join them, before they are joined."""


class StepNormRecorder:
    """Records the norms of a client's local steps.

    The norms stay on the model's device until `result` reads them, all at once, so that no step waits for them.
    """

    def __init__(self, model: FlatModel, groups: Sequence[int]) -> None:
        """Remember the parameters w_0 from which a client starts.

        Args:
            model: the model, whose active groups are `groups` by now.
            groups: the layer groups that train.
        """
        layout = model.layout
        self._model = model
        self._groups = tuple(sorted(set(groups)))
        ranges = layout.ranges(self._groups)
        self._current = [model.vector[piece] for piece in ranges]
        self._previous = [piece.clone() for piece in self._current]
        self._pieces = [
            previous[layout.slices[group].start - piece.start : layout.slices[group].stop - piece.start]
            for previous, piece in zip(self._previous, ranges, strict=True)
            for group in self._groups
            if piece.start <= layout.slices[group].start < piece.stop
        ]
        self._group_of_tensor = [slot.group for slot in layout.slots if slot.group in self._groups]
        self._cleared = torch.full((1,), torch.nan, device=model.vector.device)
        """In place of a gradient that an optimizer has cleared, whose norm is not known."""
        self._norms: list[Tensor] = []
        self._joined: list[Tensor] = []

    def after_step(self) -> None:
        """Take the norms of the step that has just been made."""
        torch._foreach_sub_(self._previous, self._current)  # w_k - w_{k+1}
        gradients = [self._cleared if p.grad is None else p.grad for p in self._model.trained]
        self._norms += torch._foreach_norm([*self._pieces, *gradients])
        torch._foreach_copy_(self._previous, self._current)
        if len(self._norms) >= LOOSE:
            self._joined.append(torch.stack(self._norms))
            self._norms = []

    def result(self) -> StepNorms:
        """The norms of all steps so far; the only time that they are read from the device."""
        groups = len(self._groups)
        tensors = len(self._group_of_tensor)
        joined = [*self._joined, *([torch.stack(self._norms)] if self._norms else [])]
        if not joined:
            return StepNorms(self._groups, np.empty((0, groups)), np.empty((0, groups)))
        norms = torch.cat(joined).cpu().double().numpy().reshape(-1, groups + tensors)
        gradients = np.zeros((len(norms), groups))
        for place in range(tensors):
            gradients[:, self._groups.index(self._group_of_tensor[place])] += norms[:, groups + place] ** 2
        return StepNorms(self._groups, norms[:, :groups].copy(), np.sqrt(gradients))
