"""Streaming DiLoCo: A. Douillard, Y. Donchev, K. Rush, S. Kale, Z. Charles, Z. Garrett, et al., "Streaming DiLoCo with
overlapping communication: Towards a Distributed Free Lunch", 2025 (arXiv 2501.18512).

Clients train the whole model and keep their own between rounds. Fragment p of the layers is combined every H rounds;
its m values theta_m,p and the values theta_p of its last combination give an outer gradient, on which the server takes
a step of Nesterov's momentum,

    Delta_p = mean_m (theta_p - theta_m,p),      theta_p <- OuterOpt(theta_p, Delta_p),

written here with updates -Delta_p as in PyTorch's SGD (`fedbench.algorithms.fedopt`). Clients take the result over tau
rounds later, and mix it with their own: theta_m,p <- alpha theta_m,p + (1 - alpha) theta_p.

It takes `exchange=strided` unless another exchange is set, which has H (every), the number of fragments, tau (delay)
and alpha (mixing) as its parameters. With every=1, server_lr=1 and momentum=0 it is FedAvg with equal weights; with one
fragment it is DiLoCo (Douillard et al., 2023, arXiv 2311.08105).

Deviations: the paper counts H, tau and the fragments' offsets in optimizer steps, here they are counted in rounds of
local work. The local optimizer is made anew in every round; the paper's AdamW (`local.optimizer=adamw`) keeps its
moments. server_lr=0.7 and momentum=0.9 are those of a public implementation, and fit AdamW better than SGD: with plain
SGD start lower. The paper's messages have 4 bits a value; here `update.compression` says.

Bytes: with n parameters in the fragments that are due and s running statistics, a participant sends 4 (n + s) and
receives 4 bytes for every value that it takes over.
"""

from typing import ClassVar, Literal

from pydantic import Field

from fedbench.algorithms.fedopt import FedAvgM
from fedbench.planning.exchange import Exchange, Strided


class StreamingDiLoCo(FedAvgM):
    """All layers are trained and kept by the clients; fragments are combined in turn (Douillard et al., 2025).

    The fragments are set by the exchange: exchange=strided exchange.every=3 exchange.fragments=3.

    Attributes:
        server_lr: the outer learning rate.
        momentum: decay of the outer velocity.
        nesterov: whether the outer momentum is Nesterov's (true unless set), or the heavy ball (false).
        weighting: weights of the participants: "uniform" (the paper), or "samples", their numbers of samples.
    """

    paper: ClassVar[str] = "Douillard et al., 2025, arXiv 2501.18512"
    sends: ClassVar[str] = "the fragments of layer groups that are due, both ways"
    keeps: ClassVar[str] = "its model, one value per parameter"
    name: str = "streaming-diloco"
    server_lr: float = Field(default=0.7, gt=0, allow_inf_nan=False)
    weighting: Literal["samples", "uniform"] = "uniform"

    def exchange(self) -> Exchange:
        return Strided()
