"""One sum per node: what lies between the actors of a node and the server."""

import numpy as np

from fedbench.protocol.exact_sum import FixedPoint


class Combiner:
    """Adds up the exact sums that the actors of one node send, so that the server receives one.

    The sums are integers (`fedbench.protocol.exact_sum`): whatever their number and order, the total has the same
    bits. On a cluster it is an actor that takes no resources and reads from its node's shared memory.
    """

    def __init__(self) -> None:
        self._total: FixedPoint | None = None

    def add(self, upload: FixedPoint) -> None:
        """Args:
        upload: int64 [n], the sum over an actor's clients; the same n until `total`.
        """
        if self._total is None:
            self._total = upload.copy()
        else:
            np.add(self._total, upload, out=self._total)

    def total(self) -> FixedPoint:
        """int64 [n], of all that was added since the last call."""
        total, self._total = self._total, None
        assert total is not None
        return total
