"""What the participants of a round download, and what each of them goes on from."""

from dataclasses import dataclass

from fedbench.accounting.ledger import Download
from fedbench.planning.exchange import Exchange


@dataclass(frozen=True)
class Starts:
    """What the participants of a round start from.

    Attributes:
        downlink_bytes: for each participant, the bytes that it downloads.
        kept: for each participant, the layer groups in which it goes on from its own values; (): none does.
        mixed: for each participant, the layer groups that it goes on from its own and the global values in; (): none.
    """

    downlink_bytes: tuple[int, ...]
    kept: tuple[tuple[int, ...], ...] = ()
    mixed: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, download: Download, exchange: Exchange, groups: tuple[int, ...]) -> "Starts":
        """What participants start from after a download.

        Args:
            download: what each takes over; the parts of the parameters come first, one for each layer group.
            exchange: says whether clients go on from their own values.
            groups: all layer groups of the model.
        """
        if not exchange.keeps_layers:
            return cls(download.nbytes)
        pairs = list(zip(download.parts, download.known, strict=True))
        kept = tuple(tuple(group for group in groups if not parts[group]) for parts, _ in pairs)
        mixed = tuple(tuple(group for group in groups if parts[group] and known[group]) for parts, known in pairs)
        return cls(download.nbytes, kept, mixed if exchange.own_share else ())
