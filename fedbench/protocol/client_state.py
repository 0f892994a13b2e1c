"""What a client keeps between its rounds."""

from dataclasses import dataclass, field

from fedbench.protocol.layout import Vector


@dataclass
class ClientState:
    """Named arrays that belong to one client: the only place where a client keeps anything.

    Attributes:
        arrays: {"statistics": its own running statistics, ...}, float32 in layout order.
    """

    arrays: dict[str, Vector] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(array.nbytes for array in self.arrays.values())
