"""A host that scores its model: the global one on the splits, and clients' on their own rows."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.client_scoring import TrainingScores
from fedbench.engine.client_slots import ClientSlot
from fedbench.engine.messages import DeviceRecord, EvaluationReport, HostSpec
from fedbench.engine.model_host import ModelHost
from fedbench.errors import RunError
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.tasks.kinds import TASKS
from fedbench.training.evaluation import Rows, recalibrate, score_batches
from fedbench.training.metric_names import ALWAYS
from fedbench.training.metrics import EvaluationMetrics
from fedbench.training.out_of_memory import retried_out_of_memory
from fedbench.training.scores import BatchScore, EvaluationBatch, RowsScore, batch_borders


class ScoringHost(ModelHost):
    """A `ModelHost` that scores the global model, and the models of clients as they train."""

    def prepare(
        self,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        test_rows: Sequence[IntArray] = (),
    ) -> DeviceRecord:
        """Set the host up as `ModelHost.prepare` does.

        Args:
            test_rows: for each client, the indices in the training split of its held-out rows; (): none are held out.
        """
        device = super().prepare(spec, data, rows)
        self._test_rows = test_rows
        self._metrics: EvaluationMetrics | None = None
        if spec.metrics:
            self._metrics = EvaluationMetrics(spec.metrics, spec.task.classes, self._device, spec.task.target)
        self._headline = TASKS[spec.task.target].headline
        self._judge: EvaluationMetrics | None = None
        if self._headline.name != ALWAYS:
            names = (self._headline.name,)
            self._judge = EvaluationMetrics(names, spec.task.classes, self._device, spec.task.target)
        self._training_scores: dict[int, TrainingScores] = {}
        return device

    def evaluate(
        self,
        stale: tuple[int, ...],
        payload: Vector,
        batches: Sequence[EvaluationBatch],
        clients: Sequence[int] = (),
        client0: ClientState | None = None,
    ) -> EvaluationReport:
        """Score the global model on minibatches of the test and validation split, and on clients' training rows.

        Args:
            stale: parts whose global values come with the call.
            payload: float32, their values, one after the other.
            batches: the minibatches to score.
            clients: clients on whose own training rows the model is scored as well.
            client0: state of client 0, where `evaluation.batchnorm=client0` and another host holds it.

        Raises:
            RunError: the network changes its parameters while it is scored.
        """
        began = time.perf_counter()
        self.load(stale, payload)
        self._show_global(client0)
        scores: list[BatchScore] = []
        for split, rows in self._scored.items():
            borders = [(batch.start, batch.stop) for batch in batches if batch.split == split]
            of_split = self._score(*rows, borders, self._metrics)
            scores += [replace(score, split=split) for score in of_split]
        of_clients = {}
        for client in clients:
            if self._spec.keeps_statistics:
                self._set_statistics(self._start_statistics(client))
            of_clients[client] = self._score_rows(self._rows[client])
        self._check_unchanged()
        return EvaluationReport(tuple(scores), of_clients, time.perf_counter() - began)

    def score_clients(
        self, stale: tuple[int, ...], payload: Vector, clients: Sequence[int], client0: ClientState | None = None
    ) -> dict[int, RowsScore]:
        """Score the global model on the held-out rows of clients: {client: score}.

        Where clients keep running statistics, each is scored with its own.

        Args:
            stale, payload, client0: as for `evaluate`.
            clients: clients that have held-out rows.

        Raises:
            RunError: as for `evaluate`.
        """
        self.load(stale, payload)
        self._show_global(client0)
        scores = {}
        for client in clients:
            if self._spec.keeps_statistics:
                self._set_statistics(self._start_statistics(client))
            scores[client] = self._score_rows(self._test_rows[client])
        self._check_unchanged()
        return scores

    def _show_global(self, client0: ClientState | None) -> None:
        """Put the global parameters into the model, and the running statistics for evaluation."""
        self._reset_parameters()
        self._set_statistics(self._evaluation_statistics(client0))
        if self._spec.evaluation_statistics == "recalibrate":
            recalibrate(self._model, self._train[0], np.concatenate(self._rows), self._transform, self._spec.seed)

    def _check_unchanged(self) -> None:
        """Raises:
        RunError: the model no longer has the global parameters, so that scoring has changed them.
        """
        if (changed := self._model.changed_parameter(self._global[PARAMETERS])) is not None:
            raise RunError(
                f"model.name={self._spec.model.name}: its forward pass changes parameter {changed!r} in evaluation, so "
                "that scores would depend on the order of the minibatches; change parameters under self.training alone"
            )

    def _score_rows(self, rows: IntArray) -> RowsScore:
        """The score of the model, as it stands, on rows of the training split."""
        batches = [rows[slice(*borders)] for borders in batch_borders(len(rows), self._spec.evaluation_batch_size)]
        scores = self._score(*self._train, batches, self._judge)
        if self._judge is None:
            return RowsScore.of(scores, len(rows))
        return RowsScore.of(scores, len(rows), self._judge.figures(scores).get(f"test_{self._headline.name}", math.nan))

    def _score(
        self, inputs: Tensor, labels: Tensor, batches: Sequence[Rows], metrics: EvaluationMetrics | None = None
    ) -> list[BatchScore]:
        """Score the model, as it stands, on minibatches; arguments as for `score_batches`."""
        spec, statistics = self._spec, self._model.statistics.clone()

        def start_again() -> None:
            self._free_memory()
            self._model.reset()
            self._model.statistics.copy_(statistics)

        return retried_out_of_memory(
            lambda: score_batches(
                self._model, inputs, labels, batches, self._transform, spec.seed, metrics, spec.task.target
            ),
            start_again,
        )

    def _score_start(self, client: int, round_index: int) -> float:
        """Score the model, from which a participant of a round starts, on the client's held-out rows.

        The model stays as it is; the score is kept for `_score_trained`.

        Returns:
            Seconds that it took; 0 where the client is not scored in this round.
        """
        self._training_scores.pop(client, None)
        if not self._scores_start(client, round_index):
            return 0.0
        began = time.perf_counter()
        score = self._score_unchanged(client)
        seconds = time.perf_counter() - began
        self._training_scores[client] = TrainingScores(score, score, seconds)
        return seconds

    def _scores_start(self, client: int, round_index: int) -> bool:
        """Whether the client is scored in this round, before and after its training."""
        scoring = self._spec.client_scoring
        return bool(scoring.participants and scoring.is_due(round_index) and len(self._test_rows[client]))

    def _score_trained(self, client: int) -> None:
        """Score the model, as the client has trained it, if its start was scored. The model stays as it is."""
        if (scores := self._training_scores.get(client)) is not None:
            began = time.perf_counter()
            after = self._score_unchanged(client)
            seconds = scores.seconds + time.perf_counter() - began
            self._training_scores[client] = TrainingScores(scores.before, after, seconds)

    def _score_unchanged(self, client: int) -> RowsScore:
        vector = self._model.vector.clone()
        score = self._score_rows(self._test_rows[client])
        self._model.vector.copy_(vector)  # a network may write to its parameters in evaluation, too
        return score

    def _scoring_seconds(self, client: int) -> float:
        """Seconds that scoring a client took since its training began."""
        scores = self._training_scores.get(client)
        return 0.0 if scores is None else scores.seconds

    def _score_in_slot(self, client: int, round_index: int, slot: ClientSlot) -> None:
        """Score the start and the end of a client's training, which are both still in its slot, in the host's model."""
        if not self._scores_start(client, round_index):
            self._training_scores.pop(client, None)
            return
        self._model.vector.copy_(slot.handed_over(slot.anchor))
        self._set_statistics(self._start_statistics(client))
        self._score_start(client, round_index)
        self._model.vector.copy_(slot.handed_over(slot.model.vector))
        self._model.statistics.copy_(slot.handed_over(slot.model.statistics))
        self._score_trained(client)

    def _evaluation_statistics(self, client0: ClientState | None) -> Vector:
        if self._spec.evaluation_statistics != "client0":
            return self._received[STATISTICS]
        return client0.arrays[STATISTICS] if client0 is not None else self._start_statistics(0)
