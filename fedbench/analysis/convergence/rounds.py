"""Synchronous rounds on a known problem, by fedbench's schedules and server rules, and the theorems' two quantities.

FedPart's theorem bounds the mean of E||S_t * grad f(w_t)||^2 over T iterations, S_t being the mask of the layer groups
that round t trains; FedAvg's bounds that of E||grad f(w_t)||^2. With full updates they are the same quantity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.algorithms.base import Algorithm, RuleContext, Values
from fedbench.analysis.convergence.problems import KnownProblem
from fedbench.planning.schedules import Feedback, Schedule
from fedbench.protocol.layout import ParameterLayout


@dataclass(frozen=True)
class RoundTrace:
    """What was measured at the start of each round.

    Attributes:
        masked: float64 [T], ||S_t * grad f(w_t)||^2.
        whole: float64 [T], ||grad f(w_t)||^2.
    """

    masked: Values
    whole: Values


def squared_norm(vector: Values, layout: ParameterLayout, groups: Sequence[int]) -> float:
    """||S * v||^2, the squared norm of the slices of `groups` in a vector [P]."""
    return sum(float(vector[piece] @ vector[piece]) for piece in layout.ranges(groups))


def follow_rounds(
    problem: KnownProblem,
    layout: ParameterLayout,
    algorithm: Algorithm,
    schedule: Schedule,
    *,
    rounds: int,
    steps: int,
    lr: float,
    seed: int,
) -> RoundTrace:
    """Run the rounds of a method whose local steps are plain SGD, and measure the gradient at the start of each.

    The schedule chooses the layer groups, the method weighs the clients and its server rule combines; all clients take
    part in every round.

    Args:
        problem: gives the gradients.
        layout: the layer groups of the parameters.
        algorithm: a method with the plain local objective and a rule that takes the mean update.
        schedule: the layer groups of each round.
        rounds: number of rounds.
        steps: local steps of a round.
        lr: gamma, the learning rate of the local steps.
        seed: seed of the run.
    """
    rule, clients = algorithm.rule(), problem.clients
    raw, scales = algorithm.weights_and_scales((1,) * clients, (steps,) * clients)
    weights = np.asarray(raw) * np.asarray(scales)
    feedback = Feedback.none(layout)
    w = problem.start.copy()
    masked, whole = np.empty(rounds), np.empty(rounds)
    for t in range(rounds):
        groups = schedule.active(t, layout.groups, seed, feedback).groups
        pieces = layout.ranges(groups)
        gradient = problem.gradient(w)
        masked[t], whole[t] = squared_norm(gradient, layout, groups), float(gradient @ gradient)
        points = np.tile(w, (clients, 1))
        for draws in problem.round_draws(seed, t, steps):
            gradients = problem.client_gradients(points, draws)
            for piece in pieces:
                points[:, piece] -= lr * gradients[:, piece]
        context = RuleContext(layout, groups, t, clients, clients, seed)
        context.scatter(rule.combine(context.gather(w), context.gather(weights @ (points - w)), context), w)
    return RoundTrace(masked, whole)
