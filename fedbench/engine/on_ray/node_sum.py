"""The sum of a node: adds the uploads of one node's actors before they travel to the server.

Nothing here imports PyTorch, which would take longer than the rest of the actor's start.
"""

import numpy as np

from fedbench.protocol.exact_sum import FixedPoint


class NodeSum:
    """Adds the exact sums that the actors of one node send, so that the server receives one sum per node.

    The sums are integers (`fedbench.protocol.exact_sum`): the total has the same bits whatever their number and order.
    It runs inside an actor that takes no resources and reads the sums from its node's shared memory.
    """

    def __init__(self) -> None:
        self._total: FixedPoint | None = None

    def add(self, upload: FixedPoint) -> None:
        """Add one actor's sum.

        Args:
            upload: int64 [n], the exact sum over the actor's clients; n must not change before the next `total`.
        """
        if self._total is None:
            self._total = upload.copy()
        else:
            np.add(self._total, upload, out=self._total)

    def total(self) -> FixedPoint:
        """int64 [n], the sum of everything added since the last call; at least one upload must have been added."""
        total, self._total = self._total, None
        assert total is not None
        return total


class NodeSumActor(NodeSum):
    """The sum of a node in its own process, as a Ray actor."""
