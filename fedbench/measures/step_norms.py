"""The norms of a client's local steps: of the change of its parameters, and of the gradient that led to it.

FedPart (Wang, Liu, Niu, Guo, Tang, NeurIPS 2024, arXiv 2410.11559) shows layer mismatch in its Figure 1 as the size of
the update step by local step, which with full network updates jumps after each aggregation. The paper does not say how
the size is measured. Here it is

    s_k = || w_{k+1} - w_k ||_2      and      g_k = || grad_k ||_2

over the parameters that train, whole and by layer group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.measures.spread import Values


@dataclass(frozen=True)
class StepNorms:
    """The norms of one client's K local steps, for each of the G layer groups that it trains.

    Attributes:
        groups: the layer groups, ascending.
        steps: float64 [K, G], || w_{k+1} - w_k || of each group.
        gradients: float64 [K, G], the norm of each group's gradient.
    """

    groups: tuple[int, ...]
    steps: Values
    gradients: Values


def norms_by_client(clients: Sequence[StepNorms], groups: Sequence[int]) -> tuple[Values, Values]:
    """The norms of several clients' steps in one array each, with those of the whole before those of the groups.

    Args:
        clients: the norms of each client.
        groups: the layer groups that any of them trains, ascending.

    Returns:
        float64 [clients, K, 1 + len(groups)] of the steps and of the gradients, K the most steps of a client; NaN where
        a client has made no such step, or does not train the group.
    """
    longest = max((len(client.steps) for client in clients), default=0)
    shape = (len(clients), longest, 1 + len(groups))
    steps, gradients = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, client in enumerate(clients):
        columns = [1 + list(groups).index(group) for group in client.groups]
        for target, norms in ((steps, client.steps), (gradients, client.gradients)):
            made = target[place, : len(norms)]
            made[:, columns] = norms
            made[:, 0] = whole_norm(norms)
    return steps, gradients


def whole_norm(by_group: npt.NDArray[np.float64]) -> Values:
    """The norm over all layer groups from the norm of each, which stand along the last axis.

    >>> whole_norm(np.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    norm: Values = np.sqrt((by_group**2).sum(axis=-1))
    return norm
