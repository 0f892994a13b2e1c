"""Selective layers: Y. Sun, Y. Xie, B. Ding, Y. Li, J. Zhang, "Exploring Selective Layer Fine-Tuning in Federated
Learning" (arXiv 2408.15600): each participant trains the layers with the largest gradients that it can afford, and
layers that few others train count for less.

With x_ij = 1 where participant i trains layer group j, n participants and the clients' budgets (`Clients`), the choice
is to maximise

    J(x) = sum_ij norm_ij x_ij - lambda sum_j sum_(i<k) (x_ij - x_kj)^2,      sum_j cost_j x_ij <= budget_i.

Each group is averaged over those who trained it. norm_ij is the norm of the gradient of the mean loss over a minibatch,
at the parameters from which the client started: the client computes it for all layer groups, on the first minibatch
that it trains on, and reports the norms, so that a participant costs the FLOPs of one more full step, and 4 bytes for
each layer group. Running statistics are as they were afterwards.

For binary x, sum_(i<k) (x_ij - x_kj)^2 = c_j (n - c_j) where c_j participants train group j. While the others stand
still, J is linear in the choice of participant i, which is then a knapsack problem:

    value_ij = norm_ij - lambda (n - 1 - 2 c_j),      c_j among the others.

It is solved exactly, for one participant after the other until none gains (coordinate ascent), from three starts: all
choose what is best for the sum of norms and the smallest budget; for the sum of norms and their own budget; for
themselves. The best of the three results counts, the earliest of equal ones. With lambda = 0 it is the optimum.

Deviations: the paper's clients compute the norms at the start of every round, before the choice, which costs a further
exchange of messages; here they are those of the client's last round. A client that has reported none counts as the mean
of those who have; before anyone has, all groups count alike, and are chosen from the shallow ones on.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.planning.capacities import Clients
from fedbench.planning.schedules import ActiveGroups, Feedback, Schedule

MOST_SWEEPS = 100
"""Sweeps over all participants, at most; each one gains, so that there are far fewer."""

SMALLEST_GAIN = 1e-12
"""What a new choice must gain at least, relative to all norms, so that rounding does not lead round in circles."""


class Selective(Schedule):
    """Each client trains the layers with the largest gradients that it can afford (Sun et al., arXiv 2408.15600).

    What a client can afford is set by `participation.capacities`. With agreement=0 and no limits it is FedAvg.

    Attributes:
        agreement: lambda, the price of each pair of participants of whom one alone trains a layer group, in the units
            of the gradient's norm.
    """

    follows_training: ClassVar[bool] = True
    keeps_to_limits: ClassVar[bool] = True
    reads_gradient_norms: ClassVar[bool] = True
    name: str = "selective"
    agreement: float = Field(default=0.0, ge=0, le=1e9)

    def length(self, groups: int) -> int | None:
        return None

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return ActiveGroups(tuple(range(groups)), partial=True)

    def cohort_groups(
        self, cohort: Sequence[int], round_index: int, groups: int, active: ActiveGroups, clients: Clients
    ) -> tuple[tuple[int, ...], ...]:
        costs = clients.costs or (1,) * groups
        budgets = [clients.budgets[client] if clients.budgets else sum(costs) for client in cohort]
        return chosen_groups(known_norms(cohort, groups, clients), budgets, costs, self.agreement)


def known_norms(cohort: Sequence[int], groups: int, clients: Clients) -> npt.NDArray[np.float64]:
    """float64 [n, M], norm_ij of the participants, the mean of all clients' for one that has reported none."""
    reported = clients.gradient_norms
    known = reported[~np.isnan(reported).any(axis=1)] if reported.size else reported
    if not len(known):
        return np.ones((len(cohort), groups))
    norms = reported[list(cohort)]
    return np.where(np.isnan(norms), known.mean(axis=0), norms)


def chosen_groups(
    norms: npt.NDArray[np.float64], budgets: Sequence[int], costs: Sequence[int], agreement: float
) -> tuple[tuple[int, ...], ...]:
    """For each participant, the layer groups that it trains; ascending, at least one.

    Args:
        norms: float64 [n, M], norm_ij, at least 0.
        budgets: for each participant, the most that its groups may cost; at least the smallest cost.
        costs: for each layer group, what it costs.
        agreement: lambda.

    >>> chosen_groups(np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]]), [1, 1], [1, 1, 1], 0.0)
    ((0,), (1,))
    >>> chosen_groups(np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]]), [1, 1], [1, 1, 1], 9.0)
    ((0,), (0,))
    """
    together = norms.sum(axis=0)
    starts = [
        [best_within(together, costs, min(budgets))] * len(budgets),
        [best_within(together, costs, budget) for budget in budgets],
        [best_within(own, costs, budget) for own, budget in zip(norms, budgets, strict=True)],
    ]
    if agreement == 0:
        return tuple(starts[-1])
    ends = [_ascended(norms, budgets, costs, agreement, start) for start in starts]
    best = max(range(len(ends)), key=lambda index: (objective(norms, ends[index], agreement), -index))
    return tuple(ends[best])


def objective(norms: npt.NDArray[np.float64], choice: Sequence[Sequence[int]], agreement: float) -> float:
    """J(x) of a choice: for each participant, the layer groups that it trains; other arguments as there."""
    x = np.zeros_like(norms)
    for row, groups in zip(x, choice, strict=True):
        row[list(groups)] = 1
    count = x.sum(axis=0)  # c_j
    return float((norms * x).sum() - agreement * (count * (len(x) - count)).sum())


def _ascended(
    norms: npt.NDArray[np.float64],
    budgets: Sequence[int],
    costs: Sequence[int],
    agreement: float,
    start: Sequence[tuple[int, ...]],
) -> list[tuple[int, ...]]:
    """A choice that no participant can better alone, from a start on; arguments as for `chosen_groups`."""
    choice, scale = list(start), norms.sum()
    x = np.zeros_like(norms)
    for row, groups in zip(x, choice, strict=True):
        row[list(groups)] = 1
    for _ in range(MOST_SWEEPS):
        moved = False
        for participant, budget in enumerate(budgets):
            others = x.sum(axis=0) - x[participant]  # c_j
            values = norms[participant] - agreement * (len(x) - 1 - 2 * others)
            better = best_within(values, costs, budget)
            if values[list(better)].sum() > values @ x[participant] + SMALLEST_GAIN * scale:
                choice[participant], moved = better, True
                x[participant] = 0
                x[participant, list(better)] = 1
        if not moved:
            break
    return choice


def best_within(values: npt.NDArray[np.float64], costs: Sequence[int], budget: int) -> tuple[int, ...]:
    """The layer groups with the largest summed value that cost no more than a budget; ascending, at least one.

    Exact, by the list of all undominated pairs of cost and value (Nemhauser and Ullmann, Management Science 1969).
    Groups of value 0 are added where there is room; where all values are negative, it is the least of these evils.

    Args:
        values: float64 [M].
        costs: for each group, what it costs.
        budget: at least the smallest cost.

    >>> best_within(np.array([4.0, 3.0, 3.0, -1.0]), [3, 2, 2, 1], 4)
    (1, 2)
    """
    frontier: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for group, (value, cost) in enumerate(zip(values.tolist(), costs, strict=True)):
        if value <= 0:
            continue
        grown = [(spent + cost, worth + value, (*taken, group)) for spent, worth, taken in frontier]
        merged = sorted([*frontier, *(entry for entry in grown if entry[0] <= budget)], key=lambda e: (e[0], -e[1]))
        frontier = []
        for entry in merged:
            if not frontier or entry[1] > frontier[-1][1]:
                frontier.append(entry)
    spent, _, taken = frontier[-1]
    chosen = [*taken]
    for group, value in enumerate(values.tolist()):
        if value == 0 and spent + costs[group] <= budget:
            chosen.append(group)
            spent += costs[group]
    if not chosen:
        affordable = [group for group, cost in enumerate(costs) if cost <= budget]
        chosen = [max(affordable, key=lambda group: (values[group], -group))]
    return tuple(sorted(chosen))
