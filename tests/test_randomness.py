"""Random draws: functions of seed, purpose and indices."""

from itertools import product

from fedbench.planning.samplers import draw_uniformly
from fedbench.randomness import generator, torch_seed


def test_draws_repeat_and_differ_by_each_argument() -> None:
    keys = list(product((0, 1), ("cohort", "minibatches"), (0, 1), (0, 1)))
    draws = {key: int(generator(*key).integers(2**62)) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert all(int(generator(*key).integers(2**62)) == draw for key, draw in draws.items())
    assert torch_seed(0, "model") == torch_seed(0, "model") != torch_seed(1, "model")


def test_cohorts_are_distinct_uniform_and_seeded() -> None:
    cohorts = [draw_uniformly(0, index, population=10, size=4) for index in range(400)]
    assert all(len(set(cohort)) == 4 and cohort == tuple(sorted(cohort)) for cohort in cohorts)
    assert cohorts[3] == draw_uniformly(0, 3, population=10, size=4) != draw_uniformly(1, 3, population=10, size=4)
    times = [sum(client in cohort for cohort in cohorts) for client in range(10)]
    assert 120 < min(times)
    assert max(times) < 200
    assert draw_uniformly(0, 0, population=5, size=5) == (0, 1, 2, 3, 4)
