"""FedAvg: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629), Algorithm 1.

Each participant trains from the global parameters w and sends its own, w_k; the server takes

    w <- sum_k (n_k / n) w_k,        n = sum_k n_k over the round's participants.

With a partial schedule the same holds for the active layer groups alone, which is FedPart's aggregation
(arXiv 2410.11559, Section 3).
"""

from typing import ClassVar, Literal

from fedbench.algorithms.base import Algorithm


class FedAvg(Algorithm):
    """Weighted mean of the participants' parameters (McMahan et al., AISTATS 2017).

    Attributes:
        weighting: weights of the participants: "samples", their numbers of samples (the paper), or "uniform".
    """

    paper: ClassVar[str] = "McMahan et al., AISTATS 2017, arXiv 1602.05629"
    name: str = "fedavg"
    weighting: Literal["samples", "uniform"] = "samples"

    def weight(self, samples: int) -> float:
        return float(samples) if self.weighting == "samples" else 1.0  # n_k
