"""The answer of a client host to its share of a round."""

import numpy as np
import numpy.typing as npt

from fedbench.engine.messages import HostOrder
from fedbench.protocol.exact_sum import LARGEST_UPDATE, summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import add_message


class HostUpload:
    """Collects the answer of a host to its share of a round: one exact sum, or the clients' messages one by one."""

    def __init__(self, table: PartTable, order: HostOrder) -> None:
        """Start an empty upload.

        Args:
            table: the parts of a transfer.
            order: the host's share of the round; `order.combine` chooses between the sum and the messages.
        """
        self._table = table
        self._order = order
        self._union = table.uploaded(order.union)
        self._total = np.zeros(table.values(self._union) if order.combine else 0, np.int64)
        self._messages = np.empty(0, np.float32)
        self._filled = 0

    def add(self, index: int, parts: tuple[int, ...], values: Vector, reference: Vector) -> bool:
        """Add one client's update.

        Args:
            index: the client's position in the order.
            parts: the parts that the client sends.
            values: float32 [n], the values of these parts after local training. An order for a single client is
                answered with this very array, so that it must not change before the answer has been sent.
            reference: float32 [n], the values before it.

        Returns:
            False when the update cannot be summed exactly; it is then left out.
        """
        weight, scale = self._order.weights[index], self._order.scales[index]
        if not self._order.combine:
            # The same test as for a sum, so that acceptance does not depend on which clients share an actor.
            accepted = summable(values, reference, LARGEST_UPDATE / max(scale, 1.0))
            if accepted:
                self._keep(values)
            return accepted
        return add_message(self._total, self._union, self._table, parts, values, reference, weight, scale)

    def _keep(self, values: Vector) -> None:
        """Append a message to those that will be sent."""
        order, table = self._order, self._table
        if len(order.clients) == 1:
            self._messages, self._filled = values, len(values)
            return
        if not self._filled:
            whole = sum(table.values(table.uploaded(groups)) for groups in order.sent)
            self._messages = np.empty(whole, np.float32)
        stop = self._filled + len(values)
        self._messages[self._filled : stop] = values
        self._filled = stop

    def content(self) -> npt.NDArray[np.int64] | Vector:
        """The exact sum (int64), or the accepted messages one after the other (float32)."""
        return self._total if self._order.combine else self._messages[: self._filled]
