"""What a federated method is: a local objective and a server rule, crossed with any schedule.

A method of one's own is one file with one class:

    from fedbench.algorithms.base import Algorithm, ServerRule

    class HalfStep(Algorithm):
        '''The mean update, halved.'''
        name: str = "mypkg.half:HalfStep"

        def rule(self) -> ServerRule:
            return Half()

    class Half(ServerRule):
        def combine(self, previous, update):
            return previous + update / 2

and is run with `fedbench run algorithm=mypkg.half:HalfStep`.
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from fedbench.component import Component

if TYPE_CHECKING:
    from torch import Tensor, nn


class Objective:
    """What a client minimises on a minibatch: the mean cross-entropy, unless a method says otherwise."""

    def loss(self, module: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
        """The scalar loss of one minibatch.

        Args:
            module: the client's model, in training mode.
            inputs: float32 [B, C, H, W] or int64 [B, L].
            labels: int64 [B].
        """
        from torch.nn.functional import cross_entropy

        return cross_entropy(module(inputs), labels)


class ServerRule:
    """How the server combines what the participants sent. Keeps its own state between rounds, if any."""

    def combine(self, previous: npt.NDArray[np.float64], update: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The new values of the active parameters; the default is averaging.

        Args:
            previous: float64 [n], the global values of the active groups.
            update: float64 [n], the weighted mean of (client - previous).
        """
        return previous + update


class Algorithm(Component):
    """A federated method."""

    paper: ClassVar[str] = ""

    def objective(self) -> Objective:
        """The local objective, made once per actor."""
        return Objective()

    def rule(self) -> ServerRule:
        """The server rule, made once per run."""
        return ServerRule()

    def weight(self, samples: int) -> float:
        """A participant's weight in the mean, before normalisation over the cohort."""
        return float(samples)
