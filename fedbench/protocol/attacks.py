"""Byzantine clients: what some of the clients do to harm the run, and who they are.

An attacker trains as the others do, and then changes what it sends, or it trains on changed labels. Its message is
changed before clipping, noise and compression, which it therefore keeps to: a longer update than `update.clip_norm`
would give it away, and a message in another format could not be read. What it keeps from round to round is that of its
honest training. To write another attack, derive a class from `Attack` and override `update` or `labels`.
"""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.components.base import Component
from fedbench.errors import FedbenchError, RunError
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import STATISTICS, PartTable
from fedbench.randomness import generator

Labels = npt.NDArray[np.int64]


class Attack(Component):
    """Base of all attacks; an attacker of this class is honest.

    Attributes:
        share: share of the clients of the population that attack, drawn by the seed for the whole run.
        statistics: whether the running statistics that an attacker sends are changed as well. A variance may become
            negative by that, so that a mean of the clients' statistics is of no use and ends the run.
    """

    share: float = Field(default=0.2, gt=0, le=1)
    statistics: bool = False

    def update(self, update: Vector, rng: np.random.Generator) -> Vector:
        """What an attacker sends in place of its update.

        Args:
            update: float32 [n], the change of everything that it sends: parameters, a method's further channels and,
                with `statistics`, running statistics. Not to be changed.
            rng: the only source of chance; another one for each client and round.

        Returns:
            float32 [n]; `update` itself where nothing is changed.
        """
        return update

    def labels(self, labels: Labels, classes: int, rng: np.random.Generator) -> Labels:
        """The labels that an attacker trains on.

        Args:
            labels: int64 [N], 0..classes-1. Not to be changed.
            classes: number of classes.
            rng: the only source of chance; another one for each client, the same in every round.

        Returns:
            int64 [N]; `labels` itself where nothing is changed.
        """
        return labels

    @property
    def changes_updates(self) -> bool:
        """Whether the attack overrides `update`."""
        return type(self).update is not Attack.update

    @property
    def changes_labels(self) -> bool:
        """Whether the attack overrides `labels`."""
        return type(self).labels is not Attack.labels

    def attackers(self, clients: int, seed: int) -> frozenset[int]:
        """The Byzantine ones among `clients` clients, drawn from the seed."""
        count = round(self.share * clients)
        return frozenset(int(client) for client in generator(seed, "byzantine clients").permutation(clients)[:count])


class SignFlip(Attack):
    """The update in the opposite direction: u -> -factor u.

    Attributes:
        factor: how many times as long it is.
    """

    name: str = "sign-flip"
    factor: float = Field(default=1.0, gt=0)

    def update(self, update: Vector, rng: np.random.Generator) -> Vector:
        return np.float32(-self.factor) * update


class Scaled(Attack):
    """The honest update, many times as long: u -> factor u.

    Attributes:
        factor: how many times as long it is.
    """

    name: str = "scaled"
    factor: float = Field(default=10.0, gt=0)

    def update(self, update: Vector, rng: np.random.Generator) -> Vector:
        return np.float32(self.factor) * update


class Noise(Attack):
    """Gaussian noise in place of the update.

    Attributes:
        factor: standard deviation of each value, in units of the root mean square of the honest update.
    """

    name: str = "noise"
    factor: float = Field(default=10.0, gt=0)

    def update(self, update: Vector, rng: np.random.Generator) -> Vector:
        std = self.factor * float(np.sqrt(np.mean(np.square(update, dtype=np.float64))))
        noise: Vector = (std * rng.standard_normal(len(update))).astype(np.float32)
        return noise


class LabelFlip(Attack):
    """Training on the opposite labels: class y of C becomes C - 1 - y; the update is then sent as it is."""

    name: str = "label-flip"

    def labels(self, labels: Labels, classes: int, rng: np.random.Generator) -> Labels:
        return classes - 1 - labels


def attacked(
    attack: Attack,
    table: PartTable,
    parts: tuple[int, ...],
    values: Vector,
    start: Vector,
    rng: np.random.Generator,
    sign: float = 1.0,
) -> Vector:
    """The message of an attacker in place of the honest one.

    Args:
        attack: what it does.
        table: the parts of a transfer.
        parts: numbers of the message's parts.
        values: float32 [n], the honest message.
        start: float32 [n], the values from which its update is measured.
        rng: draws what the attack leaves to chance.
        sign: -1 for a message that is (start - trained).

    Returns:
        float32 [n]; `values` itself where nothing is changed.

    Raises:
        RunError: the attack returned something else than it was asked for.
    """
    if not attack.changes_updates:
        return values
    changed = [
        segment for part, segment in table.segments(parts, parts) if attack.statistics or part.channel != STATISTICS
    ]
    if not changed:
        return values
    update = np.concatenate([np.float32(sign) * (values[piece] - start[piece]) for piece in changed])
    sent = checked_update(attack, update, rng)
    message, begin = values.copy(), 0
    for piece in changed:
        stop = begin + piece.stop - piece.start
        message[piece] = start[piece] + np.float32(sign) * sent[begin:stop]
        begin = stop
    return message


def checked_update(
    attack: Attack, update: Vector, rng: np.random.Generator, error: type[FedbenchError] = RunError
) -> Vector:
    """float32 [n], what `attack.update` returned; arguments as there.

    Args:
        error: the kind of error: a `ConfigError` before a run, a `RunError` within it.

    Raises:
        FedbenchError: it is not an array of n numbers.
    """
    # Values beyond float32 become infinite, and the server refuses the update.
    with np.errstate(over="ignore", invalid="ignore"):
        sent: object = attack.update(update, rng)
        if isinstance(sent, np.ndarray) and sent.shape == update.shape and sent.dtype.kind == "f":
            return sent.astype(np.float32, copy=False)
    raise error(f"participation.byzantine.name={attack.name}: update returned {_shown(sent)}, not as it was given")


def checked_labels(
    attack: Attack, labels: Labels, classes: int, rng: np.random.Generator, error: type[FedbenchError] = RunError
) -> Labels:
    """int64 [N], what `attack.labels` returned; arguments as there, and `error` as for `checked_update`.

    Raises:
        FedbenchError: it is not an array of N labels from 0 to classes - 1.
    """
    given: object = attack.labels(labels, classes, rng)
    if not isinstance(given, np.ndarray) or given.shape != labels.shape or given.dtype != labels.dtype:
        raise error(f"participation.byzantine.name={attack.name}: labels returned {_shown(given)}, not as it was given")
    if given.size and not 0 <= given.min() <= given.max() < classes:
        returned = f"labels returned {given.min()} to {given.max()}; allowed: 0 to {classes - 1}"
        raise error(f"participation.byzantine.name={attack.name}: {returned}")
    return given


def _shown(value: object) -> str:
    """The kind of a value, for an error message."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
