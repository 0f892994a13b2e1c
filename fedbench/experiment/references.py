"""What differs in runs that are not federated: one client has all rows (centralised), or each is alone (local)."""

from collections.abc import Iterator
from dataclasses import replace

from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.local import Local
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.own_models import scored_sample
from fedbench.experiment.federation import Federation
from fedbench.planning.samplers import draw_cohort
from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.training.minibatches import LocalLength


def round_length(config: ExperimentConfig, federation: Federation, length: LocalLength, rounds: int) -> LocalLength:
    """How long a client trains in a round: as configured, or as long as a federated round's participants together.

    One client that holds all rows trains on as many samples as the participants of the federated run do in the mean of
    its rounds, in whole minibatches.

    Args:
        config: the experiment.
        federation: its data.
        length: the length of one client's round, as configured.
        rounds: number of rounds.
    """
    sizes = federation.pooled_sizes
    if not sizes:
        return length
    trained = sum(length.samples_of(sizes[client]) for client in _participants(config, sizes, rounds)) / rounds
    (rows,) = federation.sizes
    batches = length.epoch(rows)
    epochs, left = divmod(trained, sum(batches))
    steps = int(epochs) * len(batches) + min(round(left / length.batch_size), len(batches))
    return replace(length, epochs=None, steps=max(1, steps))


def own_models_of(config: ExperimentConfig, clients: int) -> tuple[int, ...]:
    """The clients whose own models are scored in place of a global one; (): there is one.

    Args:
        config: the experiment.
        clients: number of clients.
    """
    method = config.method
    return scored_sample(config.seed, clients, method.scored_clients) if isinstance(method, Local) else ()


def remarks_on_references(method: Algorithm, federation: Federation, length: LocalLength) -> Iterator[str]:
    """A line on what a round is where one client holds all rows, or on what is scored where each client is alone.

    Args:
        method: the method.
        federation: the data.
        length: what `round_length` returned.
    """
    if isinstance(method, Local):
        clients = len(federation.sizes)
        yield (
            f"algorithm.name={method.name}: there is no global model; {_scored(federation.data.task)} the own "
            f"models of {min(method.scored_clients, clients)} of {clients} clients on the common test split, and the "
            "mean of all models is saved"
        )
    if federation.pooled_sizes:
        (rows,) = federation.sizes
        yield (
            f"algorithm.name={method.name}: the {rows:,} rows of {len(federation.pooled_sizes)} clients are in one "
            f"place, which trains on {length.samples_of(rows):,} samples a round, as many as the participants of the "
            f"federated round; its uplink is the rows, {federation.pooled_bytes:,} bytes, once"
        )


def _scored(task: TaskName) -> str:
    """What is recorded of clients' own models, as the beginning of a clause that goes on with them."""
    if task == "classification":
        return "accuracy and loss are the mean over"
    return f"loss and {TASKS[task].headline.words} are those of the predictions, taken together, of"


def _participants(config: ExperimentConfig, sizes: tuple[int, ...], rounds: int) -> Iterator[int]:
    """The participants of every round of the federated run, round after round."""
    participation = config.participation
    count = participation.size(len(sizes))
    for index in range(rounds):
        yield from draw_cohort(participation.sampler, index, count, sizes, config.seed)
