"""A host that trains a client in its own model."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from fedbench.engine.client_message import message_values
from fedbench.engine.messages import HostOrder
from fedbench.engine.own_layers import start_parameters
from fedbench.engine.own_models import OwnModelHost
from fedbench.models.flat import FlatModel
from fedbench.protocol.client_state import LAYERS, ClientState
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.training.group_norms import gradient_norms
from fedbench.training.local import LocalResult, LocalTraining, train_client
from fedbench.training.out_of_memory import retried_out_of_memory


class TrainingHost(OwnModelHost):
    """An `OwnModelHost` that trains clients in its model, one after the other."""

    def _start_parameters(self, order: HostOrder, index: int) -> Tensor:
        """float32 [P], what a client starts from; not to be changed."""
        state = self._states.get(order.clients[index])
        return start_parameters(self._spec, order, index, self._global[PARAMETERS], state)

    def _train_one(
        self,
        client: int,
        groups: tuple[int, ...],
        round_index: int,
        lr_factor: float,
        until: float = math.inf,
        start: Tensor | None = None,
    ) -> tuple[LocalResult, ClientState]:
        """Train one client, and return its new state without storing it.

        Where the GPU's memory does not suffice, it is cleared of all that is not needed, and the client trains again.

        Args:
            groups: the layer groups that it trains.
            round_index: the round, or the client's visit in an asynchronous run; seeds minibatches and dropout.
            lr_factor: factor on the local learning rate.
            until: deadline on `time.monotonic`'s clock.
            start: float32 [P], what it starts from; None: the global parameters.

        Raises:
            OutOfTime: the deadline passed.
        """
        return retried_out_of_memory(
            lambda: self._attempt(client, groups, round_index, lr_factor, until, start), self._free_memory
        )

    def _attempt(
        self,
        client: int,
        groups: tuple[int, ...],
        round_index: int,
        lr_factor: float,
        until: float,
        start: Tensor | None,
    ) -> tuple[LocalResult, ClientState]:
        """One attempt at what `_train_one` does; arguments, result and errors as there."""
        anchor = self._global[PARAMETERS] if start is None else start
        self._model.vector.copy_(anchor)
        self._set_statistics(self._start_statistics(client))
        norms: tuple[float, ...] = ()
        if self._spec.gradient_norms:
            norms = self._gradient_norms(self._model, self._training, client, round_index)
            self._model.vector.copy_(anchor)
            self._set_statistics(self._start_statistics(client))
        until += self._score_start(client, round_index)
        old_state = self._states.get(client, ClientState())
        tensors = {
            name: torch.from_numpy(old_state.arrays[name].copy()).to(self._device)
            for name in self._training.objective.keeps
            if name in old_state.arrays
        }
        result = train_client(
            self._model,
            *self._training_rows(client),
            self._transform,
            self._training,
            anchor=anchor,
            groups=groups,
            round_index=round_index,
            client=client,
            lr_factor=lr_factor,
            shared={name: self._global[name] for name in self._training.objective.channels},
            state=tensors,
            until=until,
        )
        self._score_trained(client)
        return replace(result, gradient_norms=norms), self._new_state(
            self._model, old_state, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        )

    def _gradient_norms(
        self, model: FlatModel, settings: LocalTraining, client: int, round_index: int
    ) -> tuple[float, ...]:
        """The norms that a client reports of the layer groups where it starts; its running statistics change."""
        rows = self._training_rows(client)
        return gradient_norms(model, *rows, self._transform, settings, round_index=round_index, client=client)

    def _new_state(self, model: FlatModel, old_state: ClientState, arrays: dict[str, Vector]) -> ClientState:
        """A client's state after training: the old one with `arrays` replaced, and its own running statistics.

        Running statistics are part of the state only where clients keep them (`local.batchnorm=local`).
        """
        state = ClientState(dict(old_state.arrays) | arrays)
        if self._spec.keeps_statistics and self._spec.layout.statistics_size:
            state.arrays[STATISTICS] = model.statistics.cpu().numpy().copy()
        if self._spec.keeps_layers:
            state.arrays[LAYERS] = model.vector.cpu().numpy().copy()
        return state

    def _values(self, parts: tuple[int, ...], outgoing: dict[str, Tensor]) -> Vector:
        """A client's message: the values of `parts`, float32, one after the other.

        Args:
            parts: numbers of the parts to send.
            outgoing: {channel: tensor} for the parameters and the method's further channels; the running statistics
                are those of the model.
        """
        return message_values(self._spec.table, parts, {STATISTICS: self._model.statistics, **outgoing})
