"""What an exchange answers for one round, checked against what its base class promises."""

from fedbench.errors import ConfigError, FedbenchError
from fedbench.planning.checked_groups import problem_of_groups
from fedbench.planning.exchange import Exchange, Memory, TrainedRound
from fedbench.randomness import seeded_if_foreign


def checked_exchange(
    exchange: Exchange, trained: TrainedRound, memory: Memory, error: type[FedbenchError] = ConfigError
) -> tuple[tuple[int, ...], ...]:
    """The layer groups that each participant of a round sends.

    Args:
        exchange: the exchange; built in, or a user's own.
        trained: the round.
        memory: what the server keeps for the exchange.
        error: the kind of error that a broken promise is: a `ConfigError` before a run, a `RunError` within it.

    Raises:
        FedbenchError: of the kind `error`, where `sent` did not return a tuple of layer groups for each participant.
    """
    with seeded_if_foreign(exchange, trained.seed, "exchange", trained.round):
        sent: object = exchange.sent(trained, memory)
    if sent is trained.trained:
        return trained.trained
    owner = f"exchange.name={exchange.name}: sent, in round {trained.round + 1}, returned"
    if not isinstance(sent, tuple) or len(sent) != len(trained.cohort):
        raise error(f"{owner} {sent!r}; a tuple of layer groups for each of {len(trained.cohort)} clients is needed")
    for groups in sent:
        if groups != () and (problem := problem_of_groups(groups, trained.all_groups)):
            raise error(f"{owner} {problem}")
    return sent
