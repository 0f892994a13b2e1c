"""SCAFFOLD: S. P. Karimireddy, S. Kale, M. Mohri, S. J. Reddi, S. U. Stich, A. T. Suresh, "SCAFFOLD: Stochastic
Controlled Averaging for Federated Learning", ICML 2020 (arXiv 1910.06378), Algorithm 1, option II, Eqs. 3 to 5.

The server keeps a control variate c and client i its own c_i, both zero at first. They estimate the mean gradient and
the client's gradient. In K local steps from x the client corrects its drift (Eq. 3), then replaces c_i by the mean
gradient of its steps, which it recovers from the distance that it went (Eq. 4, option II):

    y_i  <- y_i - lr (g_i(y_i) + c - c_i)                    (3)
    c_i+  = c_i - c + (x - y_i) / (K lr).                    (4)

Over the set S of participants out of N clients, unweighted, with a global learning rate of 1, the server takes

    x <- x + (1/|S|) sum_i (y_i - x)                         (5)
    c <- c + (|S|/N) (1/|S|) sum_i (c_i+ - c_i).

With a partial schedule all of this holds on the active layer groups; the control variates of the others stay as they
are, on both sides. A client that could not take a step keeps its c_i.

Where c_i+ - c_i is compressed on its way, the client adds to c_i what the server reads of it, so that c stays the mean
of all c_i. What was left out is a part of the next difference, since c_i lacks it: no residual is kept beside.
Clipping is refused: it would shorten y_i - x and leave the control variates, which rest on it, as they are.

With a single client c and c_i are the same sum, c - c_i is exactly 0 and the method is FedAvg bit for bit, as long as
what is added to c arrives as it was sent: single values below 2**-17 may be rounded to a multiple of 2**-40 (see
`fedbench.protocol.exact_sum`), and from then on the two agree to within such roundings only.

Bytes: with n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a participant
sends 4 (2 n + s) and receives 4 bytes for every parameter, statistic and value of c that changed since it last
downloaded: twice FedAvg's bytes, except for the statistics.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fedbench.algorithms.base import Algorithm, LocalContext, Objective
from fedbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

CONTROL = "control"
"""Name of the channel that carries c, and of c_i in the client's state."""

REASON = "a client recovers its mean gradient as (x - y) / (K lr)"
"""Why the local optimizer has to be plain SGD."""


class Scaffold(Algorithm):
    """Control variates against client drift, option II (Karimireddy et al., ICML 2020)."""

    paper: ClassVar[str] = "Karimireddy et al., ICML 2020, arXiv 1910.06378"
    sends: ClassVar[str] = "the active groups and their control variates, both ways"
    keeps: ClassVar[str] = "a control variate, one value per parameter"
    refuses: ClassVar[str] = "optimizers other than sgd without momentum and weight decay; update.clip_norm"
    name: str = "scaffold"

    def objective(self) -> Objective:
        return Controlled()

    def weight(self, samples: int) -> float:
        return 1.0

    def check(self, config: Any) -> None:
        optimizer, method = config.local.optimizer, f"algorithm.name={self.name}"
        if not optimizer.is_sgd:
            raise ConfigError(f"local.optimizer.name={optimizer.name}: must be sgd with {method}, where {REASON}")
        for key in ("momentum", "weight_decay"):
            if value := getattr(optimizer, key):
                raise ConfigError(f"local.optimizer.{key}={value}: must be 0 with {method}, where {REASON}")
        if (norm := config.update.clip_norm) is not None and config.update.noise_multiplier is None:
            raise ConfigError(
                f"update.clip_norm={norm} with {method}: its control variates would be sent unclipped, "
                "and rest on the unclipped update; leave one of them out"
            )


class Controlled(Objective):
    """Cross-entropy with every gradient corrected by c - c_i."""

    channels: tuple[str, ...] = (CONTROL,)
    keeps: tuple[str, ...] = (CONTROL,)
    tracks: tuple[str, ...] = (CONTROL,)
    working_vectors: int = 3
    _difference: "Tensor | None" = None

    def begin(self, context: LocalContext) -> None:
        from torch import empty_like, sub

        # c - c_i, which does not change during the local steps
        if self._difference is None:
            self._difference = empty_like(context.anchor)
        for piece in context.pieces:
            control, client_control = (_control(kept, context, piece) for kept in (context.shared, context.state))
            sub(control, client_control, out=self._difference[piece])

    def variant(self) -> Hashable | None:
        return () if type(self) is Controlled else None

    def correct(self, context: LocalContext) -> None:
        # Eq. 3: g_i(y_i) + c - c_i
        assert self._difference is not None
        for piece in context.pieces:
            context.model.gradient[piece].add_(self._difference[piece])

    def finish(self, context: LocalContext, steps: int) -> None:
        from torch import zeros_like

        vector, anchor = context.model.vector, context.anchor
        change = zeros_like(vector)
        if steps:
            for piece in context.pieces:
                mean_gradient = (anchor[piece] - vector[piece]) / (steps * context.learning_rate)  # (x - y_i) / (K lr)
                change[piece] = mean_gradient - _control(context.shared, context, piece)  # Eq. 4: c_i+ - c_i
        context.outgoing[CONTROL] = change  # the server's sum of these is the last line of Eq. 5
        client_control = context.state.get(CONTROL)
        context.state[CONTROL] = change.clone() if client_control is None else client_control + change

    def correct_state(
        self, state: "dict[str, Tensor]", difference: "dict[str, Tensor]", pieces: Sequence[slice]
    ) -> None:
        state[CONTROL] = state[CONTROL] + difference[CONTROL]  # c_i <- c_i + (what the server reads of c_i+ - c_i)


def _control(vectors: "dict[str, Tensor]", context: LocalContext, piece: slice) -> "Tensor":
    """A control variate's values in a piece: c of `context.shared`, or c_i of `context.state`; zeros at first."""
    from torch import zeros_like

    control = vectors.get(CONTROL)
    return zeros_like(context.anchor[piece]) if control is None else control[piece]
