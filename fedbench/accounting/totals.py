"""The costs of one or several rounds, which can be added."""

import functools
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Costs:
    """The costs of one or several rounds.

    Attributes:
        uplink_bytes: protocol bytes that all participants sent.
        downlink_bytes: protocol bytes that all participants downloaded.
        client_flops: FLOPs of all participants, as counted on the training step that runs.
        paper_comm_gb: uplink of all clients in "GB", as FedPart's tables count it; None where the paper does not define
            it (`CostModel.paper_defines_comm`).
        paper_comp_tflop: computation of one client in "TFLOP", as FedPart's tables count it.
        virtual_seconds: seconds on the virtual clock, waiting included; None without one.
        joules: energy of all participants; None where it is not known.
    """

    uplink_bytes: int = 0
    downlink_bytes: int = 0
    client_flops: int = 0
    paper_comm_gb: float | None = 0.0
    paper_comp_tflop: float = 0.0
    virtual_seconds: float | None = None
    joules: float | None = None

    def to_mapping(self) -> dict[str, float | None]:
        """{name: value}, as in `summary.json` and in the tables of `fedbench cost`."""
        return asdict(self)

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.uplink_bytes + other.uplink_bytes,
            self.downlink_bytes + other.downlink_bytes,
            self.client_flops + other.client_flops,
            added(self.paper_comm_gb, other.paper_comm_gb),
            self.paper_comp_tflop + other.paper_comp_tflop,
            added(self.virtual_seconds, other.virtual_seconds),
            added(self.joules, other.joules),
        )


def added(first: float | None, second: float | None) -> float | None:
    """The sum of two costs; None where one of them is not defined."""
    return None if first is None or second is None else first + second


def total(costs: Sequence[Costs]) -> Costs:
    """The sum of several costs."""
    return functools.reduce(operator.add, costs) if costs else Costs()
