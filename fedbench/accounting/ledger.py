"""Protocol bytes: what each client of a real deployment would download.

A client downloads the parts (`fedbench.protocol.message`) that changed since its last download. A client that sat out
five partial rounds pays for five groups, and its first participation costs the whole model. The uplink, the active
parts after compression, is counted by `fedbench.accounting.costs.CostModel`.
"""

from collections.abc import Sequence

import numpy as np

from fedbench.checkpoints.state import AttributeState
from fedbench.protocol.layout import BYTES_PER_VALUE
from fedbench.protocol.message import PartTable


class TransferLedger(AttributeState):
    """Records the server's version of every part, and the version that each client holds."""

    def __init__(self, table: PartTable, clients: int) -> None:
        """Args:
        table: the parts of a transfer.
        clients: size of the population.
        """
        self._bytes = np.array(table.sizes, np.int64) * BYTES_PER_VALUE
        self._versions = np.zeros(len(table.parts), np.int64)
        self._held = np.full((clients, len(table.parts)), -1, np.int64)

    @property
    def versions(self) -> tuple[int, ...]:
        """For each part, the server's version: the number of rounds after which it last changed; 0 at the start."""
        return tuple(int(version) for version in self._versions)

    def download(self, cohort: Sequence[int]) -> tuple[int, ...]:
        """Bring the participants up to date, and return the bytes that each of them downloads."""
        clients = list(cohort)
        stale = self._held[clients] < self._versions
        self._held[clients] = self._versions
        return tuple(int(count) for count in stale @ self._bytes)

    def changed(self, parts: Sequence[int], round_index: int) -> None:
        """Note that round `round_index`, counted from 0, has replaced the global values of `parts`."""
        self._versions[list(parts)] = round_index + 1

    def invalidate(self, client: int, parts: Sequence[int]) -> None:
        """Note that a client does not hold the server's values of `parts`, so that it downloads them again."""
        self._held[client, list(parts)] = -1
