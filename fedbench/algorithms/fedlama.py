"""FedLAMA: S. Lee, T. Zhang, S. Avestimehr, "Layer-wise Adaptive Model Aggregation for Scalable Federated Learning",
AAAI 2023 (arXiv 2110.10302).

Clients train the whole model and keep their own between rounds. Layer l is combined, by a plain weighted mean
u_l = sum_i p_i x_i,l, after every I_l-th round, and I_l is 1, or phi for those layers on which the clients agree most;
the rule is that of `fedbench.planning.exchange.AdaptiveIntervals`.

It takes `exchange=adaptive-intervals` unless another exchange is set; exchange.factor is phi. With phi = 1 it is
FedAvg bit for bit. A round's local work is the paper's interval tau'; rounds should be a multiple of phi, or the last
training of some layers is in no global model.

Deviations: a layer is a layer group with all its parameters, where the authors' code compares the kernels alone.
Running statistics are averaged in every round.

Bytes: with n parameters in the groups that are due and s running statistics, a participant sends 4 (n + s) and receives
4 bytes for every value that it takes over. What the server needs to adapt the intervals it computes from the messages.
"""

from typing import ClassVar

from fedbench.algorithms.fedavg import FedAvg
from fedbench.planning.exchange import AdaptiveIntervals, Exchange


class FedLAMA(FedAvg):
    """Layers on which the clients agree are averaged less often (Lee et al., AAAI 2023).

    The intervals are set by the exchange: exchange=adaptive-intervals exchange.factor=2.

    Attributes:
        weighting: weights of the participants: "samples", their numbers of samples (the paper), or "uniform".
    """

    paper: ClassVar[str] = "Lee et al., AAAI 2023, arXiv 2110.10302"
    sends: ClassVar[str] = "the layer groups that are due, both ways"
    keeps: ClassVar[str] = "its model, one value per parameter"
    name: str = "fedlama"

    def exchange(self) -> Exchange:
        return AdaptiveIntervals()
