"""Mean and quartiles of a figure over the clients that have it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClientSpread:
    """How a figure differs from client to client; NaN where no client has it.

    Attributes:
        clients: int64 [...], the clients that have it.
        mean: float64 [...].
        q25: float64 [...], the first quartile, as that of `numpy.quantile`.
        median: float64 [...].
        q75: float64 [...], the third quartile.
    """

    clients: npt.NDArray[np.int64]
    mean: Values
    q25: Values
    median: Values
    q75: Values

    def columns(self, name: str) -> dict[str, Values]:
        """{column of a table: its values, flattened}; each column begins with `name`."""
        return {f"{name}_{key}": getattr(self, key).ravel() for key in SPREAD_COLUMNS}


SPREAD_COLUMNS = ("mean", "q25", "median", "q75")
"""What a table says of a figure that differs from client to client."""


def client_spread(values: Values) -> ClientSpread:
    """Mean and quartiles over the first axis.

    Args:
        values: float64 [clients, ...], NaN where a client does not have the figure.

    >>> client_spread(np.array([[1.0, 5.0], [2.0, np.nan], [6.0, 7.0]])).mean.tolist()
    [3.0, 6.0]
    """
    ordered = np.sort(values, axis=0)  # NaN comes last
    clients = np.isfinite(values).sum(axis=0)
    divisor = np.where(clients > 0, clients, np.nan)
    mean = np.nansum(values, axis=0) / divisor
    return ClientSpread(clients, mean, *(_quantile(ordered, clients, share) for share in (0.25, 0.5, 0.75)))


def _quantile(ordered: Values, clients: npt.NDArray[np.int64], share: float) -> Values:
    """The quantile between the two nearest of the first `clients` values of each column, linearly."""
    place = share * np.maximum(clients - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.ceil(place).astype(np.int64)
    lower = np.take_along_axis(ordered, below[None], axis=0)[0]
    upper = np.take_along_axis(ordered, above[None], axis=0)[0]
    quantile: Values = lower + (upper - lower) * (place - below)
    return quantile
