"""Protocol bytes: what each client of a real deployment would send and receive.

Uplink: the active parts (`fedbench.protocol.message`), after compression. Downlink: the parts that changed since this
client last downloaded, so a client that sat out five partial rounds pays for five groups; a first participation pays
for the whole model.
"""

from collections.abc import Sequence

import numpy as np

from fedbench.checkpoints.state import AttributeState
from fedbench.protocol.layout import BYTES_PER_VALUE
from fedbench.protocol.message import PartTable


class TransferLedger(AttributeState):
    """Which version of which part the server has, and which each client holds."""

    def __init__(self, table: PartTable, clients: int) -> None:
        """Args:
        clients: size of the population.
        """
        self._bytes = np.array(table.sizes, np.int64) * BYTES_PER_VALUE
        self._versions = np.zeros(len(table.parts), np.int64)
        self._held = np.full((clients, len(table.parts)), -1, np.int64)

    @property
    def versions(self) -> tuple[int, ...]:
        """Of each part, the round after which it last changed; 0 for the initial model."""
        return tuple(int(version) for version in self._versions)

    def download(self, cohort: Sequence[int]) -> tuple[int, ...]:
        """Bring the participants up to date; bytes that each of them receives."""
        chosen = list(cohort)
        stale = self._held[chosen] < self._versions
        self._held[chosen] = self._versions
        return tuple(int(count) for count in stale @ self._bytes)

    def changed(self, parts: Sequence[int], round_index: int) -> None:
        """Round `round_index` (from 0) has replaced the global values of `parts`."""
        self._versions[list(parts)] = round_index + 1

    def invalidate(self, client: int, parts: Sequence[int]) -> None:
        """What the client has of `parts` is not the server's, and has to be sent again."""
        self._held[client, list(parts)] = -1
