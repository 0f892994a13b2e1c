"""Samplers: how the participants of a round are drawn from the population.

A draw is a function of the seed, the round, the clients' sizes and what the clients have reported so far. To write
another sampler, derive a class from `Sampler`; one that looks at the reports says `follows_training = True`, and the
server then keeps them between rounds (`ClientHistory`).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.checkpoints.state import AttributeState
from fedbench.components.base import Component
from fedbench.errors import ConfigError, FedbenchError
from fedbench.randomness import generator, seeded_if_foreign


class ClientHistory(AttributeState):
    """The latest report of every client of the population.

    Attributes:
        rounds: int64 [N], the round from which a client's latest update was accepted, from 0; -1: none yet.
        losses: float64 [N], the root of the mean squared loss of the minibatches that it trained on then; NaN: none.
        gradient_norms: float64 [N, M], the norm of the gradient in each layer group, of its first minibatch; NaN: none.
    """

    def __init__(self, clients: int, groups: int = 0) -> None:
        """Args:
        clients: N, the size of the population, of whom nothing is known yet.
        groups: M, the number of layer groups; 0 where clients report no norms.
        """
        self.rounds: npt.NDArray[np.int64] = np.full(clients, -1, np.int64)
        self.losses: npt.NDArray[np.float64] = np.full(clients, np.nan)
        self.gradient_norms: npt.NDArray[np.float64] = np.full((clients, groups), np.nan)

    def reported(
        self, round_index: int, losses: Mapping[int, float], norms: Mapping[int, Sequence[float]] | None = None
    ) -> None:
        """Note {client: loss} and {client: norms} of the clients whose updates were accepted in a round."""
        for client, loss in losses.items():
            self.rounds[client], self.losses[client] = round_index, loss
        for client, of_client in (norms or {}).items():
            self.gradient_norms[client] = of_client

    def of(self, clients: Sequence[int]) -> "ClientHistory":
        """The reports of some clients alone, in their order."""
        chosen = ClientHistory(0)
        rows = list(clients)
        chosen.rounds, chosen.losses = self.rounds[rows], self.losses[rows]
        chosen.gradient_norms = self.gradient_norms[rows]
        return chosen


class Sampler(Component):
    """Base of all samplers.

    Attributes:
        follows_training: whether the draw depends on what clients have reported in earlier rounds.
    """

    follows_training: ClassVar[bool] = False

    @abstractmethod
    def draw(
        self, round_index: int, size: int, sizes: Sequence[int], seed: int, history: ClientHistory
    ) -> Sequence[int]:
        """Draw the participants of a round.

        The same arguments must always give the same answer.

        Args:
            round_index: the round, from 0.
            size: m, the number of participants, at most that of the clients.
            sizes: for each of the N clients of the population its number of training samples, at least 1.
            seed: seed of the experiment.
            history: what the clients have reported; not to be changed.

        Returns:
            m different clients from 0..N-1, in any order.
        """


class Uniform(Sampler):
    """At random without replacement, every client alike, anew in every round."""

    name: str = "uniform"

    def draw(
        self, round_index: int, size: int, sizes: Sequence[int], seed: int, history: ClientHistory
    ) -> Sequence[int]:
        return draw_uniformly(seed, round_index, len(sizes), size)


class Weighted(Sampler):
    """Without replacement, a client's chance in proportion to its number of samples.

    The draw is systematic (W. G. Madow, "On the Theory of Systematic Sampling, II", Ann. Math. Stat. 20, 1949), on the
    clients in random order: of m participants, client i with its share p_i of all samples takes part with probability
    exactly m p_i. The mean of the participants' updates in which all count alike (`algorithm.weighting=uniform`) then
    has the mean over all clients, weighted by samples, as its expectation. A mean that weights by samples counts large
    clients twice. A client with m p_i of 1 or more takes part in every round, and the others share the places that
    are left; the expectation is then no longer exact.
    """

    name: str = "weighted"

    def draw(
        self, round_index: int, size: int, sizes: Sequence[int], seed: int, history: ClientHistory
    ) -> Sequence[int]:
        rng = generator(seed, "cohort", round_index)
        always = certain(sizes, size)
        others = rng.permutation([client for client in range(len(sizes)) if client not in always])
        places = size - len(always)
        if not places:
            return always
        borders = np.cumsum([sizes[client] for client in others])  # in samples
        start = int(rng.integers(borders[-1]))
        # Every total/places-th sample from a random one on, in whole numbers: no border is missed by rounding.
        hits = np.searchsorted(borders * places, start + borders[-1] * np.arange(places), side="right")
        return [*always, *(int(client) for client in others[hits])]


def certain(sizes: Sequence[int], places: int) -> tuple[int, ...]:
    """The clients whose share of the samples, times the places that are left, is 1 or more, ascending.

    Args:
        sizes: for each client its number of samples.
        places: number of participants.
    """
    chosen: set[int] = set()
    left = sum(sizes)
    for client in sorted(range(len(sizes)), key=lambda client: (-sizes[client], client)):
        if len(chosen) == places or sizes[client] * (places - len(chosen)) < left:
            break
        chosen.add(client)
        left -= sizes[client]
    return tuple(sorted(chosen))


class Oort(Sampler):
    """Clients whose losses are large, some that are not known yet, and some not seen for long (Lai et al., OSDI 2021).

    F. Lai, X. Zhu, H. V. Madhyastha, M. Chowdhury, "Oort: Efficient Federated Learning via Guided Participant
    Selection" (arXiv 2010.06081), Algorithm 1. With |B_i| samples and the losses of client i's last training,

        U_i    = |B_i| sqrt(mean of the squared losses), at most the `clip` quantile of all known clients' U
        Util_i = (U_i - min U) / (max U - min U) + sqrt(staleness ln R / L_i),

    in round R, from 1, for a client that last took part in round L_i. Of m participants floor(epsilon m) are drawn
    uniformly from clients that never took part, with epsilon = max(exploration_min, exploration exploration_decay^R).
    The others are drawn with probability in proportion to Util_i from the clients with Util_i of at least `cutoff`
    times the last of the best; where one kind runs out, the other takes its places.

    Deviations: losses are squared by minibatch, not by sample, so that nothing is computed for them; U is scaled to
    0..1 before staleness is added, as in the authors' published code, since |B_i| would drown it; there is no system
    utility, hence no pacer, and unknown clients are drawn uniformly rather than by speed; no client is excluded after
    a number of rounds. A participant that was dropped or rejected has reported nothing.

    Attributes:
        exploration: epsilon before the first round, the share of participants that never took part before.
        exploration_decay: factor on epsilon in each round.
        exploration_min: smallest epsilon.
        staleness: weight of the time since a client last took part.
        cutoff: share of the last of the best utilities that a client must have to be drawn.
        clip: quantile of the utilities above which they count alike.
    """

    follows_training: ClassVar[bool] = True
    name: str = "oort"
    exploration: float = Field(default=0.9, ge=0, le=1)
    exploration_decay: float = Field(default=0.98, gt=0, le=1)
    exploration_min: float = Field(default=0.2, ge=0, le=1)
    staleness: float = Field(default=0.1, gt=0)
    cutoff: float = Field(default=0.95, gt=0, le=1)
    clip: float = Field(default=0.95, gt=0, le=1)

    def draw(
        self, round_index: int, size: int, sizes: Sequence[int], seed: int, history: ClientHistory
    ) -> Sequence[int]:
        rng = generator(seed, "cohort", round_index)
        known, unknown = np.flatnonzero(history.rounds >= 0), np.flatnonzero(history.rounds < 0)
        epsilon = max(self.exploration_min, self.exploration * self.exploration_decay ** (round_index + 1))
        exploited = min(max(size - int(epsilon * size), size - len(unknown)), len(known))
        drawn: list[int] = []
        if exploited:
            utilities = self.utilities(round_index, np.asarray(sizes)[known], known, history)
            worst_of_best = np.sort(utilities)[-exploited]
            good = utilities >= self.cutoff * worst_of_best
            chances = utilities[good] / utilities[good].sum()
            drawn += rng.choice(known[good], exploited, replace=False, p=chances).tolist()
        drawn += rng.choice(unknown, size - exploited, replace=False).tolist()
        return drawn

    def utilities(
        self,
        round_index: int,
        samples: npt.NDArray[np.int64],
        clients: npt.NDArray[np.int64],
        history: ClientHistory,
    ) -> npt.NDArray[np.float64]:
        """float64 [k], Util_i of k clients that have taken part, all above 0 from the second round on.

        Args:
            round_index: the round, from 0.
            samples: int64 [k], |B_i|.
            clients: int64 [k].
            history: what they have reported.
        """
        statistical = samples * history.losses[clients]  # U_i
        statistical = np.minimum(statistical, np.quantile(statistical, self.clip))
        spread = np.ptp(statistical)
        scaled = (statistical - statistical.min()) / (spread if spread else 1.0)
        staleness = np.sqrt(self.staleness * np.log(round_index + 1) / (history.rounds[clients] + 1))
        utilities: npt.NDArray[np.float64] = scaled + staleness
        return utilities


UNIFORM = Uniform()


def draw_uniformly(seed: int, round_index: int, population: int, size: int) -> tuple[int, ...]:
    """Draw the participants of a round uniformly, without replacement.

    Args:
        seed: seed of the experiment.
        round_index: the round, from 0.
        population: number of clients.
        size: number of participants.

    Returns:
        The participants, ascending; all clients where `size` equals `population`.

    >>> draw_uniformly(0, 5, population=4, size=4)
    (0, 1, 2, 3)
    """
    if size == population:
        return tuple(range(population))
    drawn = generator(seed, "cohort", round_index).choice(population, size, replace=False)
    return tuple(sorted(int(client) for client in drawn))


def draw_cohort(
    sampler: Sampler,
    round_index: int,
    size: int,
    sizes: Sequence[int],
    seed: int,
    history: ClientHistory | None = None,
    error: type[FedbenchError] = ConfigError,
    available: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The participants of a round, ascending, as a sampler draws them.

    Args:
        sampler: built in, or a user's own.
        round_index, size, sizes, seed: as for `Sampler.draw`.
        history: what the clients have reported; None: as long as none has, which is all that is known before a run.
        error: the kind of error that a broken promise is: a `ConfigError` before a run, a `RunError` within it.
        available: the clients that may be drawn, ascending, at least `size`; None: all. The sampler draws from these
            as if there were no others.

    Raises:
        FedbenchError: of the kind `error`, where the sampler did not return `size` different clients.
    """
    if available is not None and len(available) < len(sizes):
        of_available = history.of(available) if history else None
        there = [sizes[client] for client in available]
        drawn_places = draw_cohort(sampler, round_index, size, there, seed, of_available, error)
        return tuple(available[place] for place in drawn_places)
    with seeded_if_foreign(sampler, seed, "sampler", round_index):
        drawn: object = sampler.draw(round_index, size, sizes, seed, history or ClientHistory(len(sizes)))
    owner = f"participation.sampler={sampler.name}: draw({round_index}, {size}, ...) returned"
    if not isinstance(drawn, Sequence) or not all(isinstance(client, int | np.integer) for client in drawn):
        raise error(f"{owner} {drawn!r}; a sequence of whole numbers is needed")
    if unknown := [client for client in drawn if not 0 <= client < len(sizes)]:
        raise error(f"{owner} client {unknown[0]}; allowed: 0 to {len(sizes) - 1}")
    if len(drawn) != size or len(set(drawn)) != size:
        raise error(f"{owner} {len(set(drawn))} different clients among {len(drawn)}; {size} are needed, each once")
    return tuple(sorted(int(client) for client in drawn))
