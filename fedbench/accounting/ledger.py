"""Protocol bytes: what each client of a real deployment would send and receive.

A transfer consists of *parts*: part g < M is layer group g; part M, where they are aggregated, the running statistics.
Uplink: the active parts. Downlink: the parts that changed since this client last downloaded, so a client that sat out
five partial rounds pays for five groups; a first participation pays for the whole model.
"""

from collections.abc import Sequence

import numpy as np

from fedbench.parameters import BYTES_PER_VALUE, ParameterLayout


class TransferLedger:
    """Which version of which part the server has, and which each client holds."""

    def __init__(self, layout: ParameterLayout, *, aggregates_statistics: bool, clients: int) -> None:
        """Args:
        aggregates_statistics: the running statistics travel (as one part, in every round).
        clients: size of the population.
        """
        self._groups = layout.groups
        self._statistics = aggregates_statistics and layout.statistics_size > 0
        sizes = [layout.group_size(group) for group in layout.all_groups]
        if self._statistics:
            sizes.append(layout.statistics_size)
        self._bytes = np.array(sizes, np.int64) * BYTES_PER_VALUE
        self._versions = np.zeros(len(sizes), np.int64)
        self._held = np.full((clients, len(sizes)), -1, np.int64)

    def parts(self, groups: Sequence[int]) -> tuple[int, ...]:
        """What travels up when `groups` are active."""
        return (*groups, self._groups) if self._statistics else tuple(groups)

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

    def upload(self, groups: Sequence[int]) -> int:
        """Bytes that each participant sends when `groups` are active."""
        return int(self._bytes[list(self.parts(groups))].sum())

    def changed(self, groups: Sequence[int], round_index: int) -> None:
        """Round `round_index` (from 0) has replaced the global values of `groups`, and the statistics."""
        self._versions[list(self.parts(groups))] = round_index + 1
