"""What rounds cost, added up."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Costs:
    """What some rounds cost.

    Attributes:
        uplink_bytes, downlink_bytes: all participants, protocol.
        client_flops: all participants, as measured on the step that runs.
        paper_comm_gb, paper_comp_tflop: as FedPart's tables count (uplink of all clients; one client's computation).
    """

    uplink_bytes: int = 0
    downlink_bytes: int = 0
    client_flops: int = 0
    paper_comm_gb: float = 0.0
    paper_comp_tflop: float = 0.0

    def to_mapping(self) -> dict[str, float]:
        """{name: value}, as `summary.json` and the tables of `fedbench cost` hold it."""
        return asdict(self)

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.uplink_bytes + other.uplink_bytes,
            self.downlink_bytes + other.downlink_bytes,
            self.client_flops + other.client_flops,
            self.paper_comm_gb + other.paper_comm_gb,
            self.paper_comp_tflop + other.paper_comp_tflop,
        )


def total(costs: Sequence[Costs]) -> Costs:
    """The sum over rounds."""
    return sum(costs, Costs())
