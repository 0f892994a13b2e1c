"""Problems on which everything that the convergence theorems speak of is known: f, its gradient, L, sigma and min f.

A problem is made of 16 blocks of data that differ, and f is the mean of the blocks' losses. N clients, N a divisor of
16, hold the same number of blocks each: F_i is the mean over client i's blocks, and f = (1/N) sum_i F_i is the same
function for every N. All is float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedbench.algorithms.base import Values
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator
from fedbench.training.minibatches import epoch_sizes, minibatches, nth_minibatch

PARAMETERS = 32
"""P, the number of parameters of every problem."""

BLOCKS = 16
"""Number of blocks of data, which the clients share out among them."""

Draws = Sequence[npt.NDArray[np.float64]] | Sequence[npt.NDArray[np.int64]]
"""For each client, what its stochastic gradient depends on beside the parameters: noise, or the rows of a minibatch."""


def equal_groups(parameters: int, groups: int) -> ParameterLayout:
    """A layout of `parameters` values in `groups` layer groups of the same size.

    Raises:
        ValueError: `groups` does not divide `parameters`.
    """
    if parameters % groups:
        raise ValueError(f"{groups} groups of equal size cannot hold {parameters} parameters")
    size = parameters // groups
    return ParameterLayout.build([(f"group{group}", {f"group{group}": (size,)}) for group in range(groups)])


class KnownProblem(ABC):
    """A problem whose constants are known.

    Attributes:
        name: name of the problem.
        clients: N.
        start: float64 [P], w_0.
        smoothness: L, a Lipschitz constant of the gradient of f.
        variance: sigma^2, a bound on E||g_i - grad F_i(w)||^2 of a client's stochastic gradient g_i, in the mean over
            the clients.
        minimum: min f.
    """

    name: ClassVar[str]
    clients: int
    start: Values
    smoothness: float
    variance: float
    minimum: float

    @property
    def gap(self) -> float:
        """Delta = f(w_0) - min f."""
        return self.loss(self.start) - self.minimum

    @abstractmethod
    def loss(self, w: Values) -> float:
        """f(w)."""

    @abstractmethod
    def gradient(self, w: Values) -> Values:
        """float64 [P], grad f(w)."""

    @abstractmethod
    def round_draws(self, seed: int, round_index: int, steps: int) -> Sequence[Draws]:
        """The draws of a round, one for each local step.

        Args:
            seed: seed of the run.
            round_index: the round, from 0.
            steps: local steps of the round.
        """

    @abstractmethod
    def client_gradients(self, points: Values, draws: Draws) -> Values:
        """The stochastic gradient of each client at a point of its own.

        Args:
            points: float64 [N, P], one row for each client.
            draws: the draws of one step.

        Returns:
            float64 [N, P].
        """

    @abstractmethod
    def worker_gradient(self, w: Values, seed: int, worker: int, visit: int) -> Values:
        """float64 [P], the stochastic gradient that a worker of an asynchronous run computes at w.

        Every worker draws from all of the data: whoever computes it, its mean is grad f(w).

        Args:
            w: float64 [P].
            seed: seed of the run.
            worker: the worker.
            visit: number of gradients that the worker has computed before.
        """


class Quadratic(KnownProblem):
    """F_i(w) = mean over the client's blocks of (w - b)' A (w - b) / 2, with Gaussian noise on the gradient.

    The eigenvalues of each block's A are spread over [0.3, 1], and the b differ. L is the largest eigenvalue of the
    mean of all A. The noise of a gradient is N(0, (sigma^2 / P) I): its squared norm is sigma^2 in the mean, wherever w
    is.
    """

    name = "quadratic"

    def __init__(self, clients: int, seed: int, noise: float = 4.0) -> None:
        """Args:
        clients: N.
        seed: draws the A, the b and w_0.
        noise: sigma^2.
        """
        rng = generator(seed, "quadratic problem")
        rotations = np.linalg.qr(rng.normal(size=(BLOCKS, PARAMETERS, PARAMETERS)))[0]
        spectra = rng.uniform(0.3, 1.0, (BLOCKS, PARAMETERS))
        self._blocks = rotations * spectra[:, None, :] @ rotations.transpose(0, 2, 1)  # A of each block
        self._centres = rng.normal(size=(BLOCKS, PARAMETERS)) / 2  # b of each block
        pulls = (self._blocks @ self._centres[:, :, None])[:, :, 0]  # A b
        self.clients = clients
        self._client_curvature = self._blocks.reshape(clients, -1, PARAMETERS, PARAMETERS).mean(1)
        self._client_pull = pulls.reshape(clients, -1, PARAMETERS).mean(1)
        self._curvature, self._pull = self._blocks.mean(0), pulls.mean(0)
        self.smoothness = float(np.linalg.eigvalsh(self._curvature)[-1])
        self.variance = noise
        optimum: Values = np.linalg.solve(self._curvature, self._pull)
        self.minimum = self.loss(optimum)
        away = rng.normal(size=PARAMETERS)
        self.start = optimum + 3 * away / float(np.linalg.norm(away))

    def loss(self, w: Values) -> float:
        differences = w - self._centres
        return float(np.einsum("bp,bpq,bq->", differences, self._blocks, differences) / (2 * BLOCKS))

    def gradient(self, w: Values) -> Values:
        result: Values = self._curvature @ w - self._pull
        return result

    def round_draws(self, seed: int, round_index: int, steps: int) -> Sequence[Draws]:
        noise = self._noise(generator(seed, "gradient noise", round_index), (steps, self.clients))
        return [list(step) for step in noise]

    def client_gradients(self, points: Values, draws: Draws) -> Values:
        exact = (self._client_curvature @ points[:, :, None])[:, :, 0] - self._client_pull  # grad F_i = A_i w - (A b)_i
        result: Values = exact + np.asarray(draws)
        return result

    def worker_gradient(self, w: Values, seed: int, worker: int, visit: int) -> Values:
        return self.gradient(w) + self._noise(generator(seed, "gradient noise", visit, worker), ())

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
        return rng.normal(scale=np.sqrt(self.variance / PARAMETERS), size=(*shape, PARAMETERS))


class Logistic(KnownProblem):
    """Binary logistic regression with an L2 penalty, on clients whose labels follow rules of their own.

    F_i(w) = mean over the client's rows of log(1 + exp(-y x'w)) + (lambda / 2) ||w||^2 with labels y of -1 and 1. The
    features are whole numbers of 0..255, scaled to [-1, 1] as fedbench scales images with a mean and a deviation of
    0.5. The labels of each block are drawn by a direction of its own. Minibatches of B rows are those that a run of
    fedbench draws.

    L = lambda + (largest eigenvalue of the mean of x x') / 4. Since the gradient of a row has at most the norm of its
    x, and a minibatch is drawn without replacement, sigma^2 = mean ||x||^2 / B.

    Attributes:
        pixels: uint8 [N, n, P], the features of each client's rows as they are stored.
        labels: int64 [N, n], 0 for y = -1 and 1 for y = 1.
    """

    name = "logistic"
    penalty = 0.02
    block_rows = 64
    batch = 4

    def __init__(self, clients: int, seed: int) -> None:
        """Args:
        clients: N.
        seed: draws features, labels and directions.
        """
        rng = generator(seed, "logistic problem")
        self.clients = clients
        pixels = rng.integers(0, 256, size=(BLOCKS, self.block_rows, PARAMETERS), dtype=np.uint8)
        features = pixels / 127.5 - 1  # x
        directions = rng.normal(size=PARAMETERS) + rng.normal(size=(BLOCKS, PARAMETERS))
        chances = _sigmoid(1.5 * np.einsum("brp,bp->br", features, directions))
        labels = (rng.random(chances.shape) < chances).astype(np.int64)
        self.pixels, self.labels = pixels.reshape(clients, -1, PARAMETERS), labels.reshape(clients, -1)
        self._features = features.reshape(clients, -1, PARAMETERS)
        self._signs: Values = np.where(self.labels == 1, 1.0, -1.0)  # y
        self._all_features, self._all_signs = features.reshape(-1, PARAMETERS), self._signs.reshape(-1)
        moments = self._all_features.T @ self._all_features / len(self._all_features)  # the mean of x x'
        self.smoothness = float(np.linalg.eigvalsh(moments)[-1]) / 4 + self.penalty
        self.variance = float(np.trace(moments)) / self.batch
        self.start = np.zeros(PARAMETERS)
        self.minimum = self.loss(self._optimum())

    def _optimum(self) -> Values:
        """float64 [P], where f is least, by Newton's method."""
        w: Values = np.zeros(PARAMETERS)
        for _ in range(50):
            chances = _sigmoid(self._all_features @ w)
            weighted = self._all_features * (chances * (1 - chances))[:, None]
            curvature = weighted.T @ self._all_features / len(self._all_features) + self.penalty * np.eye(PARAMETERS)
            step = np.linalg.solve(curvature, self.gradient(w))
            w = w - step
            if np.linalg.norm(step) < 1e-12:
                break
        return w

    def loss(self, w: Values) -> float:
        margins = self._all_signs * (self._all_features @ w)
        return float(np.logaddexp(0, -margins).mean() + self.penalty / 2 * (w @ w))

    def gradient(self, w: Values) -> Values:
        return self._mean_gradient(self._all_features, self._all_signs, w)

    def round_draws(self, seed: int, round_index: int, steps: int) -> Sequence[Draws]:
        rows = self._features.shape[1]
        of_clients = [
            minibatches(generator(seed, "minibatches", round_index, client), rows, self.batch, epochs=None, steps=steps)
            for client in range(self.clients)
        ]
        return [list(step) for step in zip(*of_clients, strict=True)]

    def client_gradients(self, points: Values, draws: Draws) -> Values:
        rows = np.asarray(draws, np.int64)  # [N, B]
        features = np.take_along_axis(self._features, rows[:, :, None], 1)  # [N, B, P]
        signs = np.take_along_axis(self._signs, rows, 1)
        pulls = -signs * _sigmoid(-signs * np.einsum("nbp,np->nb", features, points))
        result: Values = np.einsum("nb,nbp->np", pulls, features) / rows.shape[1] + self.penalty * points
        return result

    def worker_gradient(self, w: Values, seed: int, worker: int, visit: int) -> Values:
        total = len(self._all_signs)
        chosen = nth_minibatch(seed, worker, visit, total, epoch_sizes(total, self.batch))
        return self._mean_gradient(self._all_features[chosen], self._all_signs[chosen], w)

    def _mean_gradient(self, features: Values, signs: Values, w: Values) -> Values:
        """The mean over rows of -y sigmoid(-y x'w) x, and the gradient of the penalty."""
        pulls = -signs * _sigmoid(-signs * (features @ w))
        result: Values = pulls @ features / len(signs) + self.penalty * w
        return result


def _sigmoid(values: Values) -> Values:
    result: Values = 1 / (1 + np.exp(-values))
    return result
