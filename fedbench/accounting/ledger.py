"""Protocol bytes: what each client of a real deployment would download.

A client downloads the parts (`fedbench.protocol.message`) that changed since its last download. A client that sat out
five partial rounds pays for five groups, and its first participation costs the whole model. The uplink, the active
parts after compression, is counted by `fedbench.accounting.costs.CostModel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.checkpoints.state import AttributeState
from fedbench.protocol.layout import BYTES_PER_VALUE
from fedbench.protocol.message import PARAMETERS, PartTable


@dataclass(frozen=True)
class Download:
    """What the participants of a round download.

    Attributes:
        nbytes: for each participant, the bytes.
        parts: bool [participants, parts], the parts that each downloads.
        known: bool [participants, parts], the parts of which each held some version before.
    """

    nbytes: tuple[int, ...]
    parts: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


class TransferLedger(AttributeState):
    """Records the server's version of every part, and the version that each client holds."""

    def __init__(self, table: PartTable, clients: int) -> None:
        """Args:
        table: the parts of a transfer.
        clients: size of the population.
        """
        self._bytes = np.array(table.sizes, np.int64) * BYTES_PER_VALUE
        self._parameters = np.array([part.channel == PARAMETERS for part in table.parts])
        self._versions = np.zeros(len(table.parts), np.int64)
        self._held = np.full((clients, len(table.parts)), -1, np.int64)

    @property
    def versions(self) -> tuple[int, ...]:
        """For each part, the server's version: the number of rounds after which it last changed; 0 at the start."""
        return tuple(int(version) for version in self._versions)

    def download(self, cohort: Sequence[int]) -> tuple[int, ...]:
        """Bring the participants up to date, and return the bytes that each of them downloads."""
        return self.take_over(cohort).nbytes

    def take_over(self, cohort: Sequence[int], upto: int | None = None) -> Download:
        """Bring the participants up to date, with what they have to download for it.

        Args:
            cohort: the participants.
            upto: layer groups of the parameters with a later version are left out, unless a participant holds none;
                None: nothing is left out.
        """
        clients = list(cohort)
        held = self._held[clients]
        stale = held < self._versions
        if upto is not None:
            stale &= (held < 0) | (self._versions <= upto) | ~self._parameters
        self._held[clients] = np.where(stale, self._versions, held)
        return Download(tuple(int(count) for count in stale @ self._bytes), stale, held >= 0)

    def changed(self, parts: Sequence[int], round_index: int) -> None:
        """Note that round `round_index`, counted from 0, has replaced the global values of `parts`."""
        self._versions[list(parts)] = round_index + 1

    def invalidate(self, client: int, parts: Sequence[int]) -> None:
        """Note that a client does not hold the server's values of `parts`, so that it downloads them again."""
        self._held[client, list(parts)] = -1
