"""Clients that go on from their own layers, or send less than they train: their start, and what they keep in line."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.engine.messages import HostOrder, HostSpec
from fedbench.models.flat import FlatModel
from fedbench.protocol.client_state import LAYERS, ClientState
from fedbench.protocol.message import PARAMETERS


def start_parameters(spec: HostSpec, order: HostOrder, index: int, start: Tensor, state: ClientState | None) -> Tensor:
    """What a client starts from: the global parameters, and its own in the layer groups that it keeps.

    Where groups are mixed, with the share a, it is a (its own values) + (1 - a) (the global values).

    Args:
        spec: of the host.
        order: the host's share of the round.
        index: the client's position in the order.
        start: float32 [P], the global parameters.
        state: the client's state; None before its first round.

    Returns:
        float32 [P]; `start` itself where clients keep no layers.
    """
    if not spec.keeps_layers:
        return start
    start = start.clone()
    kept, mixed = (groups[index] if groups else () for groups in (order.kept, order.mixed))
    if kept or mixed:
        assert state is not None
        layers = torch.from_numpy(state.arrays[LAYERS]).to(start.device)
        for piece in spec.layout.ranges(kept):
            start[piece] = layers[piece]
        for piece in spec.layout.ranges(mixed):
            start[piece] = spec.own_share * layers[piece] + (1 - spec.own_share) * start[piece]
    return start


def take_back(
    order: HostOrder,
    index: int,
    objective: Objective,
    model: FlatModel,
    start: Tensor,
    outgoing: Mapping[str, Tensor],
    state: ClientState,
) -> None:
    """Bring what a client keeps in line with its message, where it does not send all that it has trained.

    Of the groups that it does not send the server reads nothing, as if they had not changed.

    Args:
        order: the host's share of the round.
        index: the client's position in the order.
        objective: the method's local objective.
        model: the client's model after its training.
        start: float32 [P], what the client started from.
        outgoing: {channel: float32 [P]}, what the client would add to the method's further channels.
        state: the client's new state; changed in place.
    """
    unsent = [group for group in order.groups[index] if group not in order.sent[index]]
    if not unsent or type(objective).correct_state is Objective.correct_state:
        return
    changes, pieces = {PARAMETERS: model.vector - start, **outgoing}, model.layout.ranges(unsent)
    difference = {channel: torch.zeros(model.layout.size) for channel in changes}
    for piece in pieces:
        for channel, change in changes.items():
            difference[channel][piece] = -change[piece].cpu()
    correct_state(objective, state, difference, pieces)


def correct_state(
    objective: Objective, state: ClientState, difference: dict[str, Tensor], pieces: Sequence[slice]
) -> None:
    """Call `Objective.correct_state` on a client's state, which is changed in place; arguments as there."""
    kept = {name: torch.from_numpy(state.arrays[name]) for name in objective.keeps if name in state.arrays}
    objective.correct_state(kept, difference, pieces)
    state.arrays.update({name: tensor.numpy() for name, tensor in kept.items()})
