"""Who takes part in a round."""

from fedbench.randomness import generator


def draw_cohort(seed: int, round_index: int, population: int, size: int) -> tuple[int, ...]:
    """Uniformly drawn distinct clients, ascending; everyone when `size` is the population.

    >>> draw_cohort(0, 5, population=4, size=4)
    (0, 1, 2, 3)
    """
    if size == population:
        return tuple(range(population))
    drawn = generator(seed, "cohort", round_index).choice(population, size, replace=False)
    return tuple(sorted(int(client) for client in drawn))
