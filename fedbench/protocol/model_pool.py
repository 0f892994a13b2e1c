"""Several models at the server in place of one: each participant of a round starts from a model of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.protocol.layout import BYTES_PER_VALUE, Vector
from fedbench.protocol.message import PartTable

Region = tuple[str, slice]
"""A stretch of a channel: its name, and where the stretch lies in the channel's vector."""


class ModelPool:
    """m models, and which version of each of their parts every client holds.

    Each part of each model has an *identity*: two parts with the same identity have the same values. A part gets a new
    identity when a client has trained it, or when values of several models meet in it; it keeps its identity when it
    moves to another model as a whole. A client downloads the parts whose identities it does not hold.

    Attributes:
        table: the parts of a transfer.
        vectors: {channel: float32 [m, n]}.
    """

    def __init__(self, table: PartTable, vectors: Mapping[str, Vector], models: int, population: int) -> None:
        """Make a pool of equal models.

        Args:
            vectors: {channel: float32 [n]}, the values of each model.
            models: m.
            population: the number of clients that may download a model.
        """
        parts = len(table.parts)
        self.table = table
        self.vectors = {channel: np.repeat(vector[None], models, axis=0) for channel, vector in vectors.items()}
        self._identities = np.zeros((models, parts), np.int64)
        self._held = np.full((population, parts), -1, np.int64)
        self._next_identity = 1
        self._moves: dict[int, list[tuple[slice, npt.NDArray[np.int64]]]] = {}

    def state(self) -> dict[str, Any]:
        """All that the pool keeps between two rounds."""
        return {
            "vectors": self.vectors,
            "identities": self._identities,
            "held": self._held,
            "next_identity": self._next_identity,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; the arrays are taken over and written to."""
        self.vectors, self._identities, self._held = state["vectors"], state["identities"], state["held"]
        self._next_identity = state["next_identity"]

    def __len__(self) -> int:
        """m, the number of models."""
        return len(self._identities)

    def model(self, index: int) -> dict[str, Vector]:
        """{channel: float32 [n]}, views of one model."""
        return {channel: vectors[index] for channel, vectors in self.vectors.items()}

    def mean(self) -> dict[str, npt.NDArray[np.float64]]:
        """{channel: float64 [n]}, the unweighted mean of all models."""
        return {channel: vectors.mean(axis=0, dtype=np.float64) for channel, vectors in self.vectors.items()}

    def download(self, client: int, index: int) -> int:
        """Let a client download what it lacks of a model; the number of bytes that takes."""
        wanted = self._identities[index]
        sizes = np.array(self.table.sizes, np.int64)
        nbytes = int(sizes[self._held[client] != wanted].sum()) * BYTES_PER_VALUE
        self._held[client] = wanted
        return nbytes

    def trained(self, index: int, parts: Sequence[int], message: Vector) -> None:
        """Put what a client has trained in the place of some parts of a model.

        Args:
            message: float32, the values of the parts, one after the other.
        """
        self.table.scatter(message, self.model(index), parts)
        self._identities[index, list(parts)] = self._next_identity
        self._next_identity += 1

    def level(self, parts: Sequence[int], vectors: Mapping[str, Vector]) -> None:
        """Give all models the same values in some parts.

        Args:
            vectors: {channel: float32 [n]}, from which the values are taken.
        """
        for part in (self.table.parts[number] for number in parts):
            self.vectors[part.channel][:, part.piece] = vectors[part.channel][part.piece]
        self._identities[:, list(parts)] = self._next_identity
        self._next_identity += 1

    def permute(self, regions: Sequence[Region], order: npt.NDArray[np.int64]) -> None:
        """Move regions between the models: new[i] = old[order[i]] for i = 0..m-1.

        `settle` has to follow, once, after the last move of a round.

        Args:
            order: int64 [m], a permutation of 0..m-1.
        """
        for channel, piece in regions:
            self.vectors[channel][:, piece] = self.vectors[channel][order, piece]
            for number, part in enumerate(self.table.parts):
                if part.channel == channel and part.piece.start < piece.stop and piece.start < part.piece.stop:
                    self._moves.setdefault(number, []).append((piece, order))

    def settle(self) -> None:
        """Renew identities: a part that has moved as a whole takes its identity along, any other is new everywhere."""
        for number, moves in self._moves.items():
            part = self.table.parts[number]
            order = moves[0][1]
            covered = sum(min(piece.stop, part.piece.stop) - max(piece.start, part.piece.start) for piece, _ in moves)
            if covered == part.size and all(np.array_equal(other, order) for _, other in moves):
                self._identities[:, number] = self._identities[order, number]
            else:
                self._identities[:, number] = self._next_identity + np.arange(len(self))
                self._next_identity += len(self)
        self._moves = {}
