"""FedBCGD and FedBCGD+: J. Liu, F. Shang, Y. Liu, H. Liu, Y. Li, Y. Gong, "FedBCGD: Communication-Efficient
Accelerated Block Coordinate Gradient Descent for Federated Learning", ACM Multimedia 2024.

All m participants train the whole model from w. It is divided into N_b blocks and a shared head; the blocks are dealt
evenly over the participants, and client i sends its block b(i) and the head. With the changes d_i = y_i - w,

    w_b    <- w_b    + (N_b / m) sum_{i: b(i) = b} d_i,b
    w_head <- w_head + (1 / m)   sum_i d_i,head.

FedBCGD+ corrects the clients' drift as SCAFFOLD does, and accelerates the server:

    y_i  <- y_i - lr (g_i(y_i) + c - c_i)                     in each of K local steps
    c_i+  = c_i - c + (w - y_i) / (K lr)
    v    <- beta v + mean(d),       w <- w + v                on each block and the head, over those that sent it
    c    <- c + gamma mean(c_i+ - c)                          likewise; beta = 0.45, gamma = 0.1.

Both take `exchange=rotate` unless another exchange is set, which has N_b and the head's size as its parameters; with
one block FedBCGD is FedAvg with equal weights.

Deviations: blocks are made of whole layer groups, with parameters as equal as may be. Where m is no multiple of N_b a
block is averaged over those that sent it, where the paper's factor N_b / m would shrink or stretch the mean. Gradients
are not clipped (the authors' code clips at 10); FedBCGD's weight decay is the local optimizer's. The rules are those of
the authors' code; the paper's text was not at hand. A client replaces c_i in all groups, whatever it sends.

Bytes: with n parameters in a block and the head together and s running statistics, a participant of FedBCGD sends
4 (n + s) and one of FedBCGD+ 4 (2 n + s); it receives every value that changed since it last downloaded, which are all
of the model where each block is sent in each round.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from fedbench.algorithms.base import Algorithm, LocalContext, Objective, RuleContext, ServerRule, Values
from fedbench.algorithms.fedopt import Momentum
from fedbench.algorithms.scaffold import CONTROL, Controlled, Scaffold
from fedbench.planning.exchange import Exchange, Rotating

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "Liu et al., ACM Multimedia 2024"


class FedBCGD(Algorithm):
    """All layers are trained, and each client sends one block of them and the head (Liu et al., ACM MM 2024).

    The blocks are set by the exchange: exchange=rotate exchange.blocks=5 exchange.shared=1.
    """

    paper: ClassVar[str] = PAPER
    sends: ClassVar[str] = "a block of layer groups and the head up, what changed down"
    name: str = "fedbcgd"

    def exchange(self) -> Exchange:
        return Rotating()

    def weight(self, samples: int) -> float:
        return 1.0


class FedBCGDPlus(Scaffold):
    """FedBCGD with control variates and momentum on the server (Liu et al., ACM MM 2024).

    Attributes:
        momentum: beta, the decay of the server's velocity.
        control_lr: gamma, the server's step on the control variate.
    """

    paper: ClassVar[str] = PAPER
    sends: ClassVar[str] = "a block of layer groups and the head with their control variates up, what changed down"
    name: str = "fedbcgd-plus"
    momentum: float = Field(default=0.45, ge=0, lt=1)
    control_lr: float = Field(default=0.1, gt=0, le=1)

    def objective(self) -> Objective:
        return BlockControlled()

    def rule(self) -> ServerRule:
        return Accelerated(self.momentum, self.control_lr)

    def exchange(self) -> Exchange:
        return Rotating()


class BlockControlled(Controlled):
    """SCAFFOLD's objective, whose clients send c_i+ - c, so that the server's c moves towards the mean of the c_i."""

    tracks: tuple[str, ...] = ()

    def variant(self) -> Hashable | None:
        return () if type(self) is BlockControlled else None

    def finish(self, context: LocalContext, steps: int) -> None:
        super().finish(context, steps)
        control = context.shared.get(CONTROL)
        state = context.state[CONTROL]
        context.outgoing[CONTROL] = state.clone() if control is None else state - control  # c_i+ - c

    def correct_state(
        self, state: "dict[str, Tensor]", difference: "dict[str, Tensor]", pieces: Sequence[slice]
    ) -> None:
        """Change nothing: the server's c is no sum of what clients keep."""


class Accelerated(Momentum):
    """The server rule of FedBCGD+: w <- w + v with v <- beta v + mean(d), and c <- c + gamma mean(c_i+ - c)."""

    def __init__(self, momentum: float, control_lr: float) -> None:
        """Args:
        momentum: beta.
        control_lr: gamma.
        """
        super().__init__(1.0, momentum, nesterov=False)
        self._control_lr = control_lr

    def combine_channel(self, previous: Values, update: Values, context: RuleContext) -> Values:
        return previous + self._control_lr * update
