"""The state that a client keeps between its rounds."""

from dataclasses import dataclass, field

from fedbench.protocol.layout import Vector

LAYERS = "layers"
"""Name of the array that holds a client's own parameters, where it goes on from these (`Exchange.keeps_layers`)."""


@dataclass
class ClientState:
    """Everything that one client keeps between its rounds, as named arrays.

    Attributes:
        arrays: {name: float32 array in layout order}, for example "statistics" for its own running statistics.
    """

    arrays: dict[str, Vector] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())
