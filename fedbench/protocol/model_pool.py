"""A pool of models at the server, so that each participant of a round can start from a different model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.checkpoints.state import Tree
from fedbench.protocol.layout import BYTES_PER_VALUE, Vector
from fedbench.protocol.message import PartTable

Region = tuple[str, slice]
"""A piece of a channel: the channel's name, and the piece's place in its vector."""


class ModelPool:
    """Holds m models, and records which version of each of their parts every client holds.

    Each part of each model has an *identity*: two parts with the same identity have the same values. A part gets a new
    identity when a client has trained it, or when values of several models meet in it; it keeps its identity when it
    moves to another model as a whole. A client downloads the parts whose identities it does not hold.

    Attributes:
        table: the parts of a transfer.
        vectors: {channel: float32 [m, n]}; `permute` and `rewrite` change them, so that downloads are counted rightly.
        global_model: {channel: float32 [n]}, the global model before the round.
    """

    def __init__(self, table: PartTable, vectors: Mapping[str, Vector], models: int, population: int) -> None:
        """Make a pool of equal models.

        Args:
            table: the parts of a transfer.
            vectors: {channel: float32 [n]}, the initial values of every model.
            models: m, the number of models.
            population: number of clients that may download a model.
        """
        parts = len(table.parts)
        self.table = table
        self.vectors = {channel: np.repeat(vector[None], models, axis=0) for channel, vector in vectors.items()}
        self.global_model = vectors
        self._identities = np.zeros((models, parts), np.int64)
        self._held = np.full((population, parts), -1, np.int64)
        self._next_identity = 1
        self._moves: dict[int, list[tuple[slice, npt.NDArray[np.int64]]]] = {}
        self._rewritten: dict[int, npt.NDArray[np.int64]] = {}

    def state(self) -> Tree:
        """Everything that the pool keeps between two rounds, for a checkpoint."""
        return {
            "vectors": self.vectors,
            "identities": self._identities,
            "held": self._held,
            "next_identity": self._next_identity,
        }

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned; its arrays are taken over without a copy and written to."""
        self.vectors, self._identities, self._held = state["vectors"], state["identities"], state["held"]
        self._next_identity = state["next_identity"]

    def __len__(self) -> int:
        """m, the number of models."""
        return len(self._identities)

    def model(self, index: int) -> dict[str, Vector]:
        """{channel: float32 [n]} of the model with this index, as views into the pool."""
        return {channel: vectors[index] for channel, vectors in self.vectors.items()}

    def mean(self) -> dict[str, npt.NDArray[np.float64]]:
        """{channel: float64 [n]}, the unweighted mean of all models."""
        return {channel: vectors.mean(axis=0, dtype=np.float64) for channel, vectors in self.vectors.items()}

    def download(self, client: int, index: int) -> int:
        """Note that a client downloads the parts of a model that it does not hold; returns the bytes of them.

        Args:
            client: the client.
            index: index of the model.
        """
        identities = self._identities[index]
        sizes = np.array(self.table.sizes, np.int64)
        nbytes = int(sizes[self._held[client] != identities].sum()) * BYTES_PER_VALUE
        self._held[client] = identities
        return nbytes

    def trained(self, index: int, parts: Sequence[int], message: Vector) -> None:
        """Replace parts of a model by the values that a client has trained.

        Args:
            index: index of the model.
            parts: numbers of the parts.
            message: float32, their new values, one after the other.
        """
        self.table.scatter(message, self.model(index), parts)
        self._identities[index, list(parts)] = self._next_identity
        self._next_identity += 1

    def level(self, parts: Sequence[int], vectors: Mapping[str, Vector]) -> None:
        """Give all models the same values in some parts.

        Args:
            parts: numbers of the parts.
            vectors: {channel: float32 [n]}, which have the new values.
        """
        for part in (self.table.parts[number] for number in parts):
            self.vectors[part.channel][:, part.piece] = vectors[part.channel][part.piece]
        self._identities[:, list(parts)] = self._next_identity
        self._next_identity += 1

    def values(self, number: int) -> Vector:
        """float32 [m, n], the values of part `number` in every model, as a view into the pool."""
        part = self.table.parts[number]
        return self.vectors[part.channel][:, part.piece]

    def rewrite(
        self, number: int, values: npt.NDArray[np.floating[Any]], kinds: npt.NDArray[np.int64] | None = None
    ) -> None:
        """Give every model new values in a part. Call `settle` once after the last change of a round.

        Args:
            number: number of the part.
            values: [m, n], rounded to float32.
            kinds: int64 [m] in 0..m-1; models of one kind have the same values. None: each model has values of its own.
        """
        self.values(number)[...] = values
        self._rewritten[number] = np.arange(len(self)) if kinds is None else kinds

    def permute(self, regions: Sequence[Region], order: npt.NDArray[np.int64]) -> None:
        """Move regions between the models: new[i] = old[order[i]] for i = 0..m-1.

        Call `settle` once after the last move of a round.

        Args:
            regions: the pieces that move together.
            order: int64 [m], a permutation of 0..m-1.
        """
        for channel, piece in regions:
            self.vectors[channel][:, piece] = self.vectors[channel][order, piece]
            for number, part in enumerate(self.table.parts):
                if part.channel == channel and part.piece.start < piece.stop and piece.start < part.piece.stop:
                    self._moves.setdefault(number, []).append((piece, order))

    def settle(self) -> None:
        """Update the identities after changes.

        A part that has moved as a whole takes its identity along; a part that was rewritten, or of which only pieces
        have moved, or not all in the same order, gets a new identity in every model.
        """
        for number, moves in self._moves.items():
            part = self.table.parts[number]
            order = moves[0][1]
            covered = sum(min(piece.stop, part.piece.stop) - max(piece.start, part.piece.start) for piece, _ in moves)
            if covered == part.size and all(np.array_equal(other, order) for _, other in moves):
                self._identities[:, number] = self._identities[order, number]
            else:
                self._rewritten[number] = np.arange(len(self))
        for number, kinds in self._rewritten.items():
            self._identities[:, number] = self._next_identity + kinds
            self._next_identity += len(self)
        self._moves, self._rewritten = {}, {}
