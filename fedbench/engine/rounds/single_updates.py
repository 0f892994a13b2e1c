"""The single updates of a round, taken from the messages that the server has kept."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedbench.algorithms.base import RoundUpdates, Values
from fedbench.engine.messages import RoundPlan
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PartTable

Messages = Mapping[int, Vector]
"""{client: float32, its message}."""


def updates_of_part(
    plan: RoundPlan,
    table: PartTable,
    messages: Messages,
    accepted: Sequence[int],
    channel: str,
    group: int,
    previous: Values,
) -> tuple[Values, Values]:
    """The single updates of one part, by the k accepted clients that sent it.

    Args:
        plan: the round.
        table: the parts of a transfer.
        messages: what the clients sent.
        accepted: the accepted clients, ascending.
        channel, group: the part; group -1: running statistics.
        previous: float64 [n], the part's global values.

    Returns:
        float64 [k, n], one update a row, and float64 [k], the clients' weights, which sum to 1.
    """
    position = {client: index for index, client in enumerate(plan.cohort)}
    clients = [client for client in accepted if group == -1 or group in plan.sent[position[client]]]
    number = next(index for index, part in enumerate(table.parts) if (part.channel, part.group) == (channel, group))
    updates = []
    for client in clients:
        _, segment = table.segments((number,), table.uploaded(plan.sent[position[client]]))[0]
        updates.append(messages[client][segment] - previous)
    weights = np.array([plan.weights[position[client]] for client in clients])
    return np.array(updates), weights / weights.sum()


def updates_of_round(
    plan: RoundPlan,
    table: PartTable,
    messages: Messages,
    accepted: Sequence[int],
    groups: Sequence[int],
    previous: Values,
) -> RoundUpdates:
    """The updates of all accepted clients, ascending by client, over the layer groups `groups`.

    Args:
        plan, table, messages, accepted: as for `updates_of_part`.
        groups: all layer groups that any of these clients sent, ascending.
        previous: float64 [n], their global values, one group after the other.
    """
    position = {client: index for index, client in enumerate(plan.cohort)}
    piece_of_group, start = {}, 0
    for group in groups:
        stop = start + table.layout.group_size(group)
        piece_of_group[group], start = slice(start, stop), stop
    values, pieces = [], []
    for client in accepted:
        sent = plan.sent[position[client]]
        segments = table.segments(sent, table.uploaded(sent))
        values.append(np.concatenate([*(messages[client][segment] for _, segment in segments), messages[client][:0]]))
        pieces.append(tuple(piece_of_group[group] for group in sent))
    weights = np.array([plan.weights[position[client]] for client in accepted])
    return RoundUpdates(previous, tuple(values), tuple(pieces), weights / weights.sum())
