"""Compares a client's model with the model that the server has made of all of them: features, and losses on the way."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.data.base import IntArray
from fedbench.engine.messages import HostOrder
from fedbench.engine.probing import ClientProbe, Probing
from fedbench.measures.barrier import places_on_line
from fedbench.measures.features import feature_modules, recorded_features
from fedbench.measures.line import on_line
from fedbench.measures.similarity import centred_gram, cka_of_grams
from fedbench.models.flat import FlatModel
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.randomness import generator, torch_seed
from fedbench.tasks.kinds import TaskName
from fedbench.training.evaluation import score_batches
from fedbench.training.prepared import Transform
from fedbench.training.scores import batch_borders, total_score
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

    def pairs(
        self,
        table: PartTable,
        received: Mapping[str, Vector],
        device: torch.device,
        own_statistics: Callable[[int], Vector] | None,
    ) -> Iterator[tuple[int, ModelValues, ModelValues]]:
        """(client, its model after its training, the global one) of each accepted client, ascending by client.

        Args:
            table: the parts of a transfer.
            received: {channel: vector}, the global values after the round.
            device: where the values are to be.
            own_statistics: of a client, where clients keep running statistics of their own; both models then have them.
        """
        shared = ModelValues.of(received, device)
        for client in sorted(self.messages):
            trained, mean = ModelValues.of(self.trained(client, table), device), shared
            if own_statistics is not None:
                statistics = torch.from_numpy(own_statistics(client)).to(device)
                trained, mean = ModelValues(trained.parameters, statistics), ModelValues(shared.parameters, statistics)
            yield client, trained, mean


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
        task: TaskName = "classification",
    ) -> None:
        """Args:
        model: in which the models are computed; its values are overwritten.
        inputs, labels: the test split, as for `score_batches`.
        transform: turns stored inputs into what the module takes.
        probing: how many rows and points.
        batch_size: samples of a forward pass that scores; all rows pass at once where features are compared.
        seed: of the experiment; it draws the rows.
        task: decides the loss.
        """
        self._model = model
        self._rows = (inputs, labels)
        self._transform = transform
        self._probing = probing
        self._task = task
        self._seed = seed
        chosen = np.sort(generator(seed, "probe").permutation(len(labels))[: probing.samples]).astype(np.int64)
        self._chosen: IntArray = chosen
        self._batches: list[IntArray] = [chosen[start:stop] for start, stop in batch_borders(len(chosen), batch_size)]
        self._modules: dict[int, str] = {}

    def compare(
        self, probed: ProbedRound, pairs: Iterable[tuple[int, ModelValues, ModelValues]]
    ) -> tuple[ClientProbe, ...]:
        """Compare the models of clients with the global one.

        Args:
            probed: the round.
            pairs: (client, its model after its training, the global model after the round) each.
        """
        results = []
        known: tuple[ModelValues, dict[int, Tensor]] | None = None
        for client, trained, mean in pairs:
            similarities: dict[int, float] = {}
            if probed.round in self._probing.cka:
                if known is None or known[0] is not mean:
                    known = mean, self._grams(mean)
                grams = self._grams(trained)
                similarities = {
                    group: cka_of_grams(grams[group], known[1][group])
                    if group in grams and group in known[1]
                    else float("nan")
                    for group in self._model.layout.all_groups
                }
            losses = dict(self._losses(trained, mean, probed.groups)) if probed.round in self._probing.barrier else {}
            results.append(ClientProbe(client, similarities, losses))
        return tuple(results)

    def _grams(self, values: ModelValues) -> dict[int, Tensor]:
        """{layer group: float64 [samples, samples], the centred Gram matrix of its features}.

        A group whose module does not put out a row for each sample is left out.
        """
        self._put(values)
        module = self._model.module.eval()
        if not self._modules:
            self._modules = self._modules_with_rows(module)
            self._put(values)
        with recorded_features(module, self._modules, centred_gram) as grams:
            self._forward(self._chosen)
        return {group: gram for group, gram in grams.items() if len(gram) == len(self._chosen)}

    def _modules_with_rows(self, module: nn.Module) -> dict[int, str]:
        """{layer group: its feature module}, for those that put out one row for one sample."""
        first = self._chosen[:1]
        modules = feature_modules(module, self._model.layout, lambda: self._forward(first))
        with recorded_features(module, modules) as features:
            self._forward(first)
        return {group: name for group, name in modules.items() if group in features and len(features[group]) == 1}

    def _forward(self, rows: IntArray) -> None:
        """One forward pass over rows of the test split."""
        inputs, labels = self._rows
        places, device = torch.from_numpy(rows).to(labels.device), self._model.vector.device
        with torch.inference_mode(), seeded(device, torch_seed(self._seed, "evaluation", int(rows[0]))):
            self._model.module(self._transform(inputs.index_select(0, places).to(device), None))

    def _losses(
        self, trained: ModelValues, mean: ModelValues, groups: tuple[int, ...]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """(layer group or -1, losses on its line), which goes from the client's model to the group's global values."""
        places = places_on_line(self._probing.points)
        start = self._loss(trained)
        for group in (-1, *groups):
            line = (self._moved(trained, mean, group, t) for t in places[1:])
            yield group, (start, *(self._loss(values) for values in line))

    def _moved(self, trained: ModelValues, mean: ModelValues, group: int, t: float) -> ModelValues:
        """The client's model with one group, or all (-1), moved by the share t to the global values."""
        if group == -1:
            return ModelValues(
                on_line(trained.parameters, mean.parameters, t), on_line(trained.statistics, mean.statistics, t)
            )
        layout = self._model.layout
        moved = ModelValues(trained.parameters.clone(), trained.statistics.clone())
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
        """Mean loss over the rows; NaN where none of their tokens or pixels counts."""
        self._put(values)
        batches, transform = self._batches, self._transform
        scores = score_batches(self._model, *self._rows, batches, transform, self._seed, task=self._task)
        return total_score(scores)[0]
