"""The weights and factors of a round's sum, where fewer clients count in it than were planned."""

from collections.abc import Sequence

from fedbench.algorithms.base import Algorithm
from fedbench.engine.messages import RoundPlan
from fedbench.training.minibatches import LocalLength


def normalisers(plan: RoundPlan, accepted: Sequence[int]) -> dict[int, float]:
    """Normaliser per layer group: 1 / sum of w_k over the accepted clients that sent it.

    Key -1 stands for all accepted clients (running statistics). A group that no accepted client sent has no entry. A
    factor is exactly 1 where the whole cohort counts, so that nothing is rounded twice.
    """
    factors = {}
    for group in (-1, *plan.combined):
        weights = [plan.weights[place] for place in _counting(plan, accepted, group)]
        if weights:
            factors[group] = 1.0 if len(weights) == len(plan.cohort) else 1.0 / sum(weights)
    return factors


def scale_correction(
    plan: RoundPlan,
    accepted: Sequence[int],
    group: int,
    algorithm: Algorithm,
    sizes: Sequence[int],
    local: LocalLength,
) -> float:
    """The factor on the sum of a group that turns the cohort's scales into those of the clients that count in it.

    They are the accepted clients that sent the group. The factor is exactly 1 where that is the whole cohort.

    Args:
        sizes: training samples of each client of the population.
        local: number of minibatches that a client trains on.
    """
    counting = _counting(plan, accepted, group)
    if len(counting) == len(plan.cohort):
        return 1.0
    samples = [sizes[plan.cohort[place]] for place in counting]
    _, scales = algorithm.weights_and_scales(samples, [local.steps_of(count) for count in samples])
    return scales[0] / plan.scales[counting[0]]


def _counting(plan: RoundPlan, accepted: Sequence[int], group: int) -> list[int]:
    """Places in the cohort of the accepted clients that sent a group; -1: of all accepted clients."""
    known = set(accepted)
    return [
        place
        for place, (client, sent) in enumerate(zip(plan.cohort, plan.sent, strict=True))
        if client in known and (group == -1 or group in sent)
    ]
