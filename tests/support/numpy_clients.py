"""Clients that train `small:TwoLayers` on digits in plain NumPy, as an independent statement of whole runs."""

from collections.abc import Callable

import numpy as np

from fedbench.experiment.setup import Problem
from fedbench.randomness import generator
from fedbench.training.minibatches import minibatches

Floats = np.ndarray
Correction = Callable[[Floats], Floats]


class NumpyClients:
    """Local SGD in float64 on the minibatches that the run draws, and the layer groups' places in the flat vector."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        data, config = problem.federation.data, problem.config
        self._inputs = data.train.inputs.reshape(len(data.train.inputs), -1) / 255
        self._labels = data.train.labels
        self._lr, self._batch = config.local.optimizer.lr, config.local.batch_size
        self.layout = problem.layout
        self.vector = problem.vector.astype(np.float64)

    def sizes(self) -> list[int]:
        return [len(rows) for rows in self._problem.federation.rows]

    def train(
        self, client: int, round_index: int, start: Floats, correct: Correction = lambda g: g
    ) -> tuple[Floats, int]:
        """The parameters after one epoch from `start`, and the number of steps."""
        seed, rows = self._problem.config.seed, self._problem.federation.rows[client]
        draws = generator(seed, "minibatches", round_index, client)
        vector, steps = start.copy(), 0
        for places in minibatches(draws, len(rows), self._batch, epochs=1, steps=None):
            chosen = rows[places]
            vector -= self._lr * correct(self._gradient(vector, self._inputs[chosen], self._labels[chosen]))
            steps += 1
        return vector, steps

    def _gradient(self, vector: Floats, inputs: Floats, labels: Floats) -> Floats:
        slots = {slot.name: slot for slot in self.layout.slots}
        w1, b1, w2, b2 = (
            vector[slots[name].offset : slots[name].stop].reshape(slots[name].shape)
            for name in ("first.weight", "first.bias", "second.weight", "second.bias")
        )
        hidden = np.maximum(inputs @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        errors = exponentials / exponentials.sum(axis=1, keepdims=True)
        errors[np.arange(len(labels)), labels] -= 1
        errors /= len(labels)
        back = (errors @ w2) * (hidden > 0)
        gradient = np.zeros_like(vector)
        for name, values in {
            "first.weight": back.T @ inputs, "first.bias": back.sum(axis=0),
            "second.weight": errors.T @ hidden, "second.bias": errors.sum(axis=0),
        }.items():  # fmt: skip
            gradient[slots[name].offset : slots[name].stop] = values.ravel()
        return gradient
