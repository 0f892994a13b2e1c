"""The draw of a round's participants."""

from fedbench.randomness import generator


def draw_cohort(seed: int, round_index: int, population: int, size: int) -> tuple[int, ...]:
    """Draw the participants of a round uniformly, without replacement.

    Args:
        seed: seed of the experiment.
        round_index: the round, from 0.
        population: number of clients.
        size: number of participants.

    Returns:
        The participants, ascending; all clients where `size` equals `population`.

    >>> draw_cohort(0, 5, population=4, size=4)
    (0, 1, 2, 3)
    """
    if size == population:
        return tuple(range(population))
    drawn = generator(seed, "cohort", round_index).choice(population, size, replace=False)
    return tuple(sorted(int(client) for client in drawn))
