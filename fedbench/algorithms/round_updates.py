"""All updates of a round at once, for the server rules that look at every one of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.errors import RunError

Values = npt.NDArray[np.float64]
"""A float64 array of parameters, updates or weights at the server."""


_CHUNK = 1 << 15
"""Number of values of each update that are multiplied at a time, whatever the size of the model."""


@dataclass(frozen=True)
class RoundUpdates:
    """All updates of a round, for a rule whose `needs` is "round".

    Attributes:
        previous: float64 [n], the global values of the context's groups, one after the other.
        messages: for each accepted client, ascending by client, float32: its values of the groups that it trained.
        pieces: for each of these clients, the places of its values in `previous`.
        weights: float64 [k], p_i, the clients' weights, which sum to 1.
    """

    previous: Values
    messages: tuple[npt.NDArray[np.float32], ...]
    pieces: tuple[tuple[slice, ...], ...]
    weights: Values

    def __len__(self) -> int:
        """k, the number of clients."""
        return len(self.messages)

    def update(self, index: int) -> Values:
        """float64, Delta_i = (client's values - previous) over the groups that the client at `index` trained."""
        previous = np.concatenate([*(self.previous[piece] for piece in self.pieces[index]), self.previous[:0]])
        update: Values = self.messages[index].astype(np.float64) - previous
        return update

    def squared_norms(self) -> Values:
        """float64 [k], ||Delta_i||^2 of each client."""
        updates = (self.update(index) for index in range(len(self)))
        return np.array([update @ update for update in updates])

    def products(self) -> Values:
        """float64 [k, k], the scalar products Delta_i Delta_j of all updates.

        Raises:
            RunError: clients trained different layer groups.
        """
        if any(places != self.pieces[0] for places in self.pieces):
            raise RunError("clients have trained different layer groups, so that their updates cannot be compared")
        products = np.zeros((len(self), len(self)))
        start = 0
        for place in self.pieces[0]:
            for begin in range(place.start, place.stop, _CHUNK):
                stop = min(begin + _CHUNK, place.stop)
                offset = start - place.start
                part = np.stack([message[begin + offset : stop + offset] for message in self.messages])
                updates = part.astype(np.float64) - self.previous[begin:stop]
                products += updates @ updates.T
            start += place.stop - place.start
        return products

    def squared_distances(self) -> Values:
        """float64 [k, k], ||Delta_i - Delta_j||^2; errors as for `products`."""
        products = self.products()
        norms = np.diag(products)
        distances: Values = np.maximum(norms[:, None] + norms - 2 * products, 0.0)
        return distances

    def mean(self, weights: Values | None = None) -> Values:
        """float64 [n], the weighted mean of the updates; in each group over the clients that trained it.

        Args:
            weights: float64 [k], other weights in place of `self.weights`; they need not sum to 1.
        """
        total, normaliser = np.zeros_like(self.previous), np.zeros_like(self.previous)
        for index, weight in enumerate(self.weights if weights is None else weights):
            update, start = self.update(index), 0
            for piece in self.pieces[index]:
                stop = start + piece.stop - piece.start
                total[piece] += weight * update[start:stop]
                normaliser[piece] += weight
                start = stop
        return total / normaliser
