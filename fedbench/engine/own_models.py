"""Runs without a global model: each client's own model is scored, and their mean is what is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from fedbench.engine.scoring_host import ScoringHost
from fedbench.errors import RunError
from fedbench.protocol.client_state import LAYERS, ClientState
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import STATISTICS
from fedbench.randomness import generator
from fedbench.training.scores import BatchScore, EvaluationBatch, RowsScore


class OwnModelHost(ScoringHost):
    """A `ScoringHost` that scores clients' own models, too."""

    def evaluate_own(
        self, stale: tuple[int, ...], payload: Vector, clients: Sequence[int], batches: Sequence[EvaluationBatch]
    ) -> dict[int, tuple[BatchScore, ...]]:
        """Score clients' own models, each with its own running statistics: {client: one score for each minibatch}.

        A client that has not trained yet is scored with the initial model.

        Args:
            stale: parts whose initial values come with the call.
            payload: float32, their values, one after the other.
            clients: clients whose state is here, or that have none.
            batches: the minibatches of the test and the validation split, split after split.

        Raises:
            RunError: the network changes its parameters while it is scored.
        """
        self.load(stale, payload)
        return {client: self._score_own(client, batches) for client in clients}

    def score_clients(
        self, stale: tuple[int, ...], payload: Vector, clients: Sequence[int], client0: ClientState | None = None
    ) -> dict[int, RowsScore]:
        """Score the global model, or where there is none each client's own, on the held-out rows of clients.

        Arguments, result and errors as for `ScoringHost.score_clients`.
        """
        if self._spec.has_global_model:
            return super().score_clients(stale, payload, clients, client0)
        self.load(stale, payload)
        scores = {}
        for client in clients:
            self._show_own(client)
            scores[client] = self._score_rows(self._test_rows[client])
        return scores

    def _show_own(self, client: int) -> None:
        """Put a client's own parameters and running statistics into the model."""
        state = self._states.get(client)
        self._reset_parameters()
        if state is not None and LAYERS in state.arrays:
            self._model.vector.copy_(torch.from_numpy(state.arrays[LAYERS]))
        self._set_statistics(self._start_statistics(client))

    def _score_own(self, client: int, batches: Sequence[EvaluationBatch]) -> tuple[BatchScore, ...]:
        self._show_own(client)
        before = self._model.vector.clone()
        scores: list[BatchScore] = []
        for split, rows in self._scored.items():
            borders = [(batch.start, batch.stop) for batch in batches if batch.split == split]
            of_split = self._score(*rows, borders, self._metrics)
            scores += [replace(score, split=split) for score in of_split]
        if (changed := self._model.changed_parameter(before)) is not None:
            raise RunError(
                f"model.name={self._spec.model.name}: its forward pass changes parameter {changed!r} in evaluation, so "
                "that scores would depend on the order of the minibatches; change parameters under self.training alone"
            )
        return tuple(scores)


def scored_sample(seed: int, population: int, most: int) -> tuple[int, ...]:
    """The clients whose own models are scored, ascending: all, or `most` of them, drawn once for the whole run."""
    if population <= most:
        return tuple(range(population))
    return tuple(sorted(generator(seed, "scored clients").permutation(population)[:most].tolist()))


def mean_model(
    initial: tuple[Vector, Vector], states: Mapping[int, ClientState], population: int
) -> tuple[Vector, Vector]:
    """The unweighted mean of all clients' models: parameters and running statistics, both float32.

    It is added up in float64, in the order of the clients, so that it is the same wherever they are.

    Args:
        initial: parameters and running statistics of a client that has not trained yet, both float32.
        states: {client: state} of the others.
        population: number of clients.
    """
    means = []
    for name, start in zip((LAYERS, STATISTICS), initial, strict=True):
        total = np.zeros(len(start))
        for client in range(population):
            total += states[client].arrays.get(name, start) if client in states else start
        means.append((total / population).astype(np.float32))
    return means[0], means[1]
