"""Compares the updates of a round's clients, layer group by layer group."""

from collections.abc import Mapping, Sequence

from fedbench.engine.messages import RoundPlan
from fedbench.measures.divergence import Divergence, UpdateProducts, divergence, update_products, whole_divergence
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, PartTable


def divergences_of(
    plan: RoundPlan,
    table: PartTable,
    union: Sequence[int],
    reference: Vector,
    messages: Mapping[int, Vector],
    groups: Sequence[int],
) -> tuple[Divergence, ...]:
    """How far the accepted updates of a round point apart: over all layer groups together, then in each.

    Args:
        plan: the round's plan.
        table: the parts of a transfer.
        union: numbers of the parts that any participant sends.
        reference: float32, the values of `union` that updates are measured from.
        messages: {accepted client: float32, its message}.
        groups: the layer groups that an accepted client sent.
    """
    position = {client: index for index, client in enumerate(plan.cohort)}
    accepted = tuple(sorted(messages))
    by_group: dict[int, tuple[tuple[int, ...], UpdateProducts]] = {}
    for number, (part, segment) in zip(union, table.segments(union, union), strict=True):
        if part.channel != PARAMETERS or part.group not in groups:
            continue
        clients = tuple(client for client in accepted if part.group in plan.sent[position[client]])
        values = []
        for client in clients:
            sent = table.uploaded(plan.sent[position[client]])
            values.append(messages[client][table.segments((number,), sent)[0][1]])
        weights = [plan.weights[position[client]] for client in clients]
        by_group[part.group] = clients, update_products(values, reference[segment], weights)
    whole = whole_divergence(accepted, by_group)
    return whole, *(divergence(group, *of_group) for group, of_group in by_group.items())
