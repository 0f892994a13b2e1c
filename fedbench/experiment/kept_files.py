"""Foresees and writes what a run keeps for later analysis (`runtime.keep_models`, `runtime.keep_messages`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fedbench.engine.messages import KeptMessage
from fedbench.experiment.keeping import cohort_of
from fedbench.experiment.saved_model import named_tensors
from fedbench.experiment.setup import Problem
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.schedules import Feedback
from fedbench.protocol.layout import Vector
from fedbench.records.kept import message_name, model_name, models_around
from fedbench.records.run_directory import RunDirectory

Model = tuple[Vector, Vector]
"""The global parameters and the global running statistics."""


@dataclass(frozen=True)
class Kept:
    """What a run will keep.

    Attributes:
        models: number of global models.
        messages: number of clients' messages.
        nbytes: bytes of all of them, without the headers of the files, which have some kilobytes each.
    """

    models: int = 0
    messages: int = 0
    nbytes: int = 0


def foreseen_kept(problem: Problem) -> Kept:
    """What a run will keep; where the schedule follows training, as if it trained shallow to deep."""
    config, table = problem.config, problem.spec.table
    models = len(models_around(config.runtime.keep_models))
    if not models:
        return Kept()
    whole = sum(tensor.nbytes for tensor in named_tensors(problem, problem.vector, problem.statistics).values())
    sizes = [table.nbytes(table.uploaded(groups)) for groups in _sent_groups(problem)]
    return Kept(models, len(sizes), models * whole + sum(sizes))


def _sent_groups(problem: Problem) -> Iterator[tuple[int, ...]]:
    """The layer groups of each message that is kept."""
    config, layout = problem.config, problem.layout
    chosen = config.runtime.keep_messages
    for number in config.runtime.keep_models if chosen else ():
        cohort, none = cohort_of(config, problem.federation.sizes, number - 1), Feedback.none(layout)
        _, trained = checked_groups(
            config.schedule, number - 1, layout.groups, config.seed, none, cohort, clients=problem.server.clients
        )
        yield from (groups for client, groups in zip(cohort, trained, strict=True) if client in chosen)


class Keeper:
    """Writes the models and messages that a run keeps, as its rounds end."""

    def __init__(self, problem: Problem, directory: RunDirectory) -> None:
        """Args:
        problem: the run.
        directory: its run directory.
        """
        self._problem = problem
        self._directory = directory
        self._numbers = frozenset(models_around(problem.config.runtime.keep_models))

    def model_is_due(self, rounds: int) -> bool:
        """Whether the global model after `rounds` rounds is to be kept, and is not kept yet."""
        return rounds in self._numbers and model_name(rounds) not in self._directory.kept.sums

    def keep_model(self, rounds: int, fetch: Callable[[], Model], model: Model | None = None) -> None:
        """Keep the global model after `rounds` rounds, if it is due.

        Args:
            rounds: number of rounds.
            fetch: called for the parameters and the running statistics, where they are needed.
            model: these, where they are there already.

        Raises:
            RunError: it cannot be written.
        """
        if self.model_is_due(rounds):
            tensors = named_tensors(self._problem, *(model or fetch()))
            self._directory.keep(model_name(rounds), tensors, {"rounds": rounds})

    def keep_messages(self, round_index: int, messages: Sequence[KeptMessage]) -> None:
        """Keep what clients sent in a round, counted from 0.

        Raises:
            RunError: it cannot be written.
        """
        table = self._problem.spec.table
        for message in messages:
            metadata = {
                "round": round_index + 1,
                "client": message.client,
                "samples": message.samples,
                "steps": message.steps,
            }
            self._directory.keep(
                message_name(round_index + 1, message.client),
                table.tensors(message.update, message.parts),
                metadata,
            )
