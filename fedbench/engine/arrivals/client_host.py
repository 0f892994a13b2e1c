"""A client host that also does the single works of asynchronous runs: a gradient, or the delta of local training."""

import time

import numpy as np
import torch
from torch import Tensor

from fedbench.engine.client_host import ClientHost, failure
from fedbench.engine.messages import ArrivalOrder, ClientReport
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS
from fedbench.randomness import generator
from fedbench.training.gradient import minibatch_gradient
from fedbench.training.local import LocalResult
from fedbench.training.minibatches import epoch_sizes, nth_minibatch


class ArrivalHost(ClientHost):
    """Holds what a `ClientHost` does; each work starts from the parameters as they were when it was given out."""

    def work(
        self, order: ArrivalOrder, payload: Vector, state: ClientState | None = None
    ) -> tuple[Vector, ClientReport]:
        """Do one work of an asynchronous run.

        Args:
            payload: the order's stale parts.
            state: of the client, where it was last with another host.

        Returns:
            The uploaded parts (float32): of the parameters the gradient, or what local training took off them; the
            running statistics as the client has them. Empty where its work failed or is not accepted.
        """
        started = time.perf_counter()
        self.load(order.stale, payload)
        client, table, nothing = order.client, self._spec.table, np.empty(0, np.float32)
        if state is not None:
            self._states[client] = state
        parts = table.uploaded(order.groups)
        try:
            samples, result, kept, direction = (
                self._differentiate(order) if order.gradient else self._train_delta(order)
            )
            message = self._values(parts, {PARAMETERS: direction})
        except Exception as error:
            if order.on_failure == "raise":
                raise
            seconds = time.perf_counter() - started
            return nothing, failure(client, len(self._rows[client]), seconds, error)
        reference = np.zeros(table.values(parts), np.float32)
        accepted = message.shape == reference.shape and summable(message, reference)
        if accepted:
            rng = generator(self._spec.seed, "update", order.visit, client)
            message = self._spec.update.apply(table, parts, message, reference, kept, rng)
            accepted = summable(message, reference)
        if accepted:
            self._states[client] = kept
        report = ClientReport(
            client,
            "ok" if accepted else "rejected",
            samples,
            result.steps,
            result.loss,
            time.perf_counter() - started,
            result.passes,
        )
        return message if accepted else nothing, report

    def _train_delta(self, order: ArrivalOrder) -> tuple[int, LocalResult, ClientState, Tensor]:
        """Local training: samples, how it went, what the client keeps, and what it took off the parameters."""
        result, kept = self._train_one(order.client, order.groups, order.visit, order.lr_factor)
        start, trained = self._global[PARAMETERS], self._model.vector
        delta = torch.empty_like(trained)
        for piece in self._model.layout.ranges(order.groups):
            torch.sub(start[piece], trained[piece], out=delta[piece])
        return len(self._rows[order.client]), result, kept, delta

    def _differentiate(self, order: ArrivalOrder) -> tuple[int, LocalResult, ClientState, Tensor]:
        """One minibatch: samples, how it went, what the client keeps, and the gradient."""
        spec, rows = self._spec, self._rows[order.client]
        self._reset_parameters()
        self._set_statistics(self._own_statistics(order.client))
        sizes = epoch_sizes(len(rows), spec.batch_size, self._model.smallest_batch)
        chosen = rows[nth_minibatch(spec.seed, order.client, order.visit, len(rows), sizes)]
        loss = minibatch_gradient(
            self._model,
            *self._train,
            chosen,
            self._transform,
            groups=order.groups,
            weight_decay=spec.weight_decay,
            bf16=spec.bf16,
            seed=spec.seed,
            client=order.client,
            visit=order.visit,
        )
        kept = self._renewed(self._states.get(order.client, ClientState()), {})
        return len(chosen), LocalResult(1, loss, 0, {}), kept, self._model.gradient
