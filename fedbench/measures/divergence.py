"""How far the updates of a round's clients point apart, layer group by layer group.

For the k clients that trained a layer group of n parameters, with updates delta_i = x_i - u (x_i what client i arrived
at, u what all started from) and weights p_i that sum to 1, the mean update is m = sum_i p_i delta_i, and

    cosine of client i       c_i = <delta_i, m> / (||delta_i|| ||m||)
    discrepancy              d   = (1 / n) sum_i p_i ||delta_i - m||^2
    share that cancels       1 - ||m|| / sqrt(sum_i p_i ||delta_i||^2)

d is the discrepancy of FedLAMA (Lee, Zhang, Avestimehr, "Layer-wise Adaptive Model Aggregation for Scalable Federated
Learning", AAAI 2023) for one round: sum_i p_i ||u_l - x_i,l||^2 over the layer's size, with u_l the mean of
the x_i,l. The share is 0 where all updates are equal, and 1 - 1 / sqrt(k) where k of equal length are orthogonal.

All sums are computed in float64, in the order of the clients and in pieces of a fixed size, of which a BLAS computes
scalar products in one thread: they have the same bits on any number of processes and threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.measures.spread import Values

PIECE = 1 << 13
"""Parameters that are processed at a time, so that what is computed of them stays in the cache."""


@dataclass(frozen=True)
class UpdateProducts:
    """Scalar products of the updates of one layer group; those of several groups add up.

    Attributes:
        size: n, the number of parameters.
        squares: float64 [k], ||delta_i||^2.
        products: float64 [k], <delta_i, m>.
        mean_square: ||m||^2.
        mean_of_squares: sum_i p_i ||delta_i||^2.
    """

    size: int
    squares: Values
    products: Values
    mean_square: float
    mean_of_squares: float

    @property
    def spread(self) -> float:
        """sum_i p_i ||delta_i - m||^2, which is sum_i p_i ||delta_i||^2 - ||m||^2."""
        return max(0.0, self.mean_of_squares - self.mean_square)


@dataclass(frozen=True)
class Divergence:
    """How far the clients' updates of a layer group point apart in one round.

    Attributes:
        group: the layer group; -1 for all that the round trained.
        clients: the clients that trained it, ascending.
        cosines: float64 [k], c_i; NaN where the client's update or the mean update is zero.
        discrepancy: d.
        cancelled_share: 0..1; NaN where all updates are zero.
        mean_norm: ||m||.
        client_norm: sqrt(sum_i p_i ||delta_i||^2).
    """

    group: int
    clients: tuple[int, ...]
    cosines: Values
    discrepancy: float
    cancelled_share: float
    mean_norm: float
    client_norm: float


def update_products(
    values: Sequence[npt.NDArray[np.float32]], reference: npt.NDArray[np.float32], weights: Sequence[float]
) -> UpdateProducts:
    """The scalar products of a layer group's updates.

    Args:
        values: for each client float32 [n], x_i.
        reference: float32 [n], u.
        weights: for each client its weight; they are divided by their sum.
    """
    shares = np.asarray(weights, np.float64) / np.sum(np.asarray(weights, np.float64))
    clients, size = len(values), len(reference)
    squares, products = np.zeros(clients), np.zeros(clients)
    memory, mean_square = np.empty((clients, min(PIECE, size))), 0.0
    for start in range(0, size, PIECE):
        piece = slice(start, min(start + PIECE, size))
        origin = reference[piece].astype(np.float64)
        updates, mean = memory[:, : len(origin)], np.zeros(len(origin))
        for update, client, share in zip(updates, values, shares, strict=True):
            update[...] = client[piece]
            update -= origin
            mean += share * update
        for place, update in enumerate(updates):
            squares[place] += float(update @ update)
            products[place] += float(update @ mean)
        mean_square += float(mean @ mean)
    return UpdateProducts(size, squares, products, mean_square, float((shares * squares).sum()))


def divergence(group: int, clients: tuple[int, ...], products: UpdateProducts) -> Divergence:
    """The divergence of one layer group, from the scalar products of its updates."""
    lengths = np.sqrt(products.squares) * np.sqrt(products.mean_square)
    return Divergence(
        group,
        clients,
        _ratio(products.products, lengths),
        products.spread / products.size,
        _cancelled_share(products.mean_square, products.mean_of_squares),
        float(np.sqrt(products.mean_square)),
        float(np.sqrt(products.mean_of_squares)),
    )


def whole_divergence(
    clients: tuple[int, ...], groups: Mapping[int, tuple[tuple[int, ...], UpdateProducts]]
) -> Divergence:
    """The divergence over all layer groups that a round trained.

    A client's cosine is over the layer groups that this client trained.

    Args:
        clients: the clients of the round, ascending.
        groups: {layer group: (the clients that trained it, the products of their updates in that order)}.
    """
    place = {client: index for index, client in enumerate(clients)}
    squares, products, mean_squares = np.zeros((3, len(clients)))
    for trainers, of_group in groups.values():
        rows = [place[client] for client in trainers]
        squares[rows] += of_group.squares
        products[rows] += of_group.products
        mean_squares[rows] += of_group.mean_square
    of_groups = [of_group for _, of_group in groups.values()]
    mean_square = sum(of_group.mean_square for of_group in of_groups)
    mean_of_squares = sum(of_group.mean_of_squares for of_group in of_groups)
    return Divergence(
        -1,
        clients,
        _ratio(products, np.sqrt(squares) * np.sqrt(mean_squares)),
        sum(of_group.spread for of_group in of_groups) / sum(of_group.size for of_group in of_groups),
        _cancelled_share(mean_square, mean_of_squares),
        float(np.sqrt(mean_square)),
        float(np.sqrt(mean_of_squares)),
    )


def _ratio(products: Values, lengths: Values) -> Values:
    ratio: Values = np.full(len(products), np.nan)
    np.divide(products, lengths, out=ratio, where=lengths > 0)
    return ratio


def _cancelled_share(mean_square: float, mean_of_squares: float) -> float:
    # Rounding may leave the mean update longer than the updates where all are equal.
    return max(0.0, 1.0 - float(np.sqrt(mean_square / mean_of_squares))) if mean_of_squares > 0 else float("nan")
