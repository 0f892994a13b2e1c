"""Compares a client's model with the model that the server has made of all of them: features, and losses on the way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbench.data.base import IntArray
from fedbench.engine.messages import HostOrder
from fedbench.engine.probing import ClientProbe, Probing
from fedbench.measures.barrier import places_on_line
from fedbench.measures.features import feature_modules, recorded_features
from fedbench.measures.line import on_line
from fedbench.measures.similarity import linear_cka
from fedbench.models.flat import FlatModel
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.randomness import generator, torch_seed
from fedbench.training.evaluation import score_batches
from fedbench.training.prepared import Transform
from fedbench.training.scores import batch_borders
from fedbench.training.seeding import seeded


@dataclass(frozen=True)
class ModelValues:
    """The values of a whole model.

    Attributes:
        parameters: float32 [P].
        statistics: float32, the running statistics.
    """

    parameters: Tensor
    statistics: Tensor

    @classmethod
    def of(cls, vectors: Mapping[str, Vector], device: torch.device) -> "ModelValues":
        """The values on a device.

        Args:
            vectors: {channel: float32 vector}.
            device: where they are to be.
        """
        return cls(*(torch.from_numpy(vectors[channel]).to(device) for channel in (PARAMETERS, STATISTICS)))


@dataclass(frozen=True)
class ProbedRound:
    """What a host keeps of a round until the global model is there that its clients are compared with.

    Attributes:
        round: the round, from 0.
        groups: the layer groups that the round trains.
        start: {channel: float32 vector}, the global values from which the clients start.
        messages: {accepted client: (numbers of its parts, their values as the server reads them)}.
    """

    round: int
    groups: tuple[int, ...]
    start: dict[str, Vector]
    messages: dict[int, tuple[tuple[int, ...], Vector]]

    @classmethod
    def begun(cls, order: HostOrder, received: Mapping[str, Vector]) -> "ProbedRound":
        """A round of which nothing has been trained yet.

        Args:
            order: a host's share of the round.
            received: {channel: vector}, the global values; copied.
        """
        return cls(order.round, order.union, {channel: vector.copy() for channel, vector in received.items()}, {})

    def keep(self, client: int, parts: tuple[int, ...], values: Vector | Tensor) -> None:
        """Keep a copy of an accepted client's message."""
        self.messages[client] = parts, (values.cpu().numpy() if isinstance(values, Tensor) else values).copy()

    def trained(self, client: int, table: PartTable) -> dict[str, Vector]:
        """{channel: vector} of a client's model after its training."""
        parts, values = self.messages[client]
        vectors = {channel: vector.copy() for channel, vector in self.start.items()}
        table.scatter(values, vectors, parts)
        return vectors


class Prober:
    """Compares models on the same rows of the test split, whoever compares them."""

    def __init__(
        self,
        model: FlatModel,
        inputs: Tensor,
        labels: Tensor,
        transform: Transform,
        probing: Probing,
        batch_size: int,
        seed: int,
    ) -> None:
        """Args:
        model: in which the models are computed; its values are overwritten.
        inputs, labels: the test split, as for `score_batches`.
        transform: turns stored inputs into what the module takes.
        probing: how many rows and points.
        batch_size: samples of a forward pass.
        seed: of the experiment; it draws the rows.
        """
        self._model = model
        self._rows = (inputs, labels)
        self._transform = transform
        self._probing = probing
        self._seed = seed
        chosen = np.sort(generator(seed, "probe").permutation(len(labels))[: probing.samples]).astype(np.int64)
        self._batches: list[IntArray] = [chosen[start:stop] for start, stop in batch_borders(len(chosen), batch_size)]

    def compare(self, probed: ProbedRound, client: int, mine: ModelValues, mean: ModelValues) -> ClientProbe:
        """Compare a client's model with the global one.

        Args:
            probed: the round.
            client: the client.
            mine: its model after its training.
            mean: the global model after the round.
        """
        similarities = dict(self._similarities(mine, mean)) if probed.round in self._probing.cka else {}
        losses = dict(self._losses(mine, mean, probed.groups)) if probed.round in self._probing.barrier else {}
        return ClientProbe(client, similarities, losses)

    def _similarities(self, mine: ModelValues, mean: ModelValues) -> Iterator[tuple[int, float]]:
        """(layer group, linear CKA of its features), one group at a time, since features take much memory."""
        self._put(mine)
        module = self._model.module.eval()
        modules = feature_modules(module, self._model.layout, lambda: self._forward(self._batches[0]))
        for group, name in sorted(modules.items()):
            pair = [self._features(values, group, name) for values in (mine, mean)]
            yield group, linear_cka(pair[0], pair[1]) if pair[0] is not None and pair[1] is not None else float("nan")

    def _features(self, values: ModelValues, group: int, name: str) -> Tensor | None:
        """[samples, features]; None where the module does not put out a row for each sample."""
        parts = []
        for batch in self._batches:
            self._put(values)
            with recorded_features(self._model.module.eval(), {group: name}) as features:
                self._forward(batch)
            if group not in features or len(features[group]) != len(batch):
                return None
            parts.append(features[group].float())
        return torch.cat(parts)

    def _forward(self, batch: IntArray) -> Tensor:
        inputs, labels = self._rows
        rows = torch.from_numpy(batch).to(labels.device)
        device = self._model.vector.device
        with torch.inference_mode(), seeded(device, torch_seed(self._seed, "evaluation", int(batch[0]))):
            outputs: Tensor = self._model.module(self._transform(inputs.index_select(0, rows).to(device), None))
        return outputs

    def _losses(
        self, mine: ModelValues, mean: ModelValues, groups: tuple[int, ...]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """(layer group or -1, losses on its line), which goes from the client's model to the group's global values."""
        places = places_on_line(self._probing.points)
        start = self._loss(mine)
        for group in (-1, *groups):
            line = (self._moved(mine, mean, group, t) for t in places[1:])
            yield group, (start, *(self._loss(values) for values in line))

    def _moved(self, mine: ModelValues, mean: ModelValues, group: int, t: float) -> ModelValues:
        """The client's model with one group, or all (-1), moved by the share t to the global values."""
        if group == -1:
            return ModelValues(
                on_line(mine.parameters, mean.parameters, t), on_line(mine.statistics, mean.statistics, t)
            )
        layout = self._model.layout
        moved = ModelValues(mine.parameters.clone(), mine.statistics.clone())
        pieces = [(moved.parameters, mean.parameters, layout.slices[group])]
        pieces += [
            (moved.statistics, mean.statistics, slice(slot.offset, slot.stop))
            for slot in layout.statistics
            if slot.group == group
        ]
        for target, end, piece in pieces:
            target[piece] = on_line(target[piece], end[piece], t)
        return moved

    def _put(self, values: ModelValues) -> None:
        self._model.vector.copy_(values.parameters)
        self._model.reset()
        self._model.statistics.copy_(values.statistics)

    def _loss(self, values: ModelValues) -> float:
        """Mean loss over the rows."""
        self._put(values)
        scores = score_batches(self._model, *self._rows, self._batches, self._transform, self._seed)
        return sum(score.loss_sum for score in scores) / sum(score.samples for score in scores)
