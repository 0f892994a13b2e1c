"""The `delays.uplink_groups` section: clients that share the bandwidth of one uplink, as those of a household do.

The clients of a group that send at a time t share its bandwidth B by max-min fairness (Bertsekas and Gallager, "Data
Networks", section 6.5): with b_i the bandwidth of client i's own link, each sends at

    r_i(t) = min(b_i, f(t)),   with the fair share f(t) such that sum_i r_i(t) = min(B, sum_i b_i).

Rates change whenever a client of the group begins or ends. Uploads of different rounds do not meet, and downloads are
not shared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.errors import ConfigError
from fedbench.randomness import generator


class UplinkGroups(Section):
    """Groups of clients, each of which shares one uplink.

    Attributes:
        bytes_per_second: Bandwidth that the clients of a group share, on their way up.
        groups: Number of groups, over which the clients are dealt out evenly by the seed. Set groups or clients.
        clients: The group of each client, in their order, from 0; set groups or clients.
    """

    bytes_per_second: float = Field(gt=0, allow_inf_nan=False)
    groups: int | None = Field(default=None, ge=1)
    clients: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "UplinkGroups":
        if (self.groups is None) == (self.clients is None):
            raise ValueError(f"groups={self.groups} and clients={self.clients}: set one of the two")
        if self.clients is not None and min(self.clients, default=0) < 0:
            raise ValueError(f"clients={list(self.clients)}: groups are numbered from 0")
        return self

    def of_clients(self, clients: int, seed: int) -> tuple[int, ...]:
        """The group of each of `clients` clients.

        Raises:
            ConfigError: there are more groups than clients, or `clients` is for another number of clients.
        """
        if self.groups is not None:
            if self.groups > clients:
                raise ConfigError(f"delays.uplink_groups.groups={self.groups}: more than data.clients={clients}")
            order = generator(seed, "uplink groups").permutation(clients)
            groups = [0] * clients
            for place, client in enumerate(order):
                groups[int(client)] = place % self.groups
            return tuple(groups)
        assert self.clients is not None
        if len(self.clients) != clients:
            raise ConfigError(
                f"delays.uplink_groups.clients: has {len(self.clients)} groups for data.clients={clients}; give one "
                "for each client"
            )
        return self.clients


@dataclass(frozen=True)
class Upload:
    """One client's upload.

    Attributes:
        begin: time at which it begins, in seconds.
        nbytes: bytes that it has.
        rate: b_i, bytes per second of the client's own link.
        stop: time after which the client does not send any more, whether it is done or not; infinity: it stays.
    """

    begin: float
    nbytes: float
    rate: float
    stop: float = math.inf


@dataclass(frozen=True)
class UploadEnd:
    """How an upload ended.

    Attributes:
        time: when, in seconds; not before its begin.
        sent: bytes that were sent by then.
        done: whether those are all.
    """

    time: float
    sent: float
    done: bool


def shared_ends(uploads: Sequence[Upload], bandwidth: float) -> list[UploadEnd]:
    """How the uploads of one group end.

    Args:
        uploads: of the clients of the group.
        bandwidth: B, bytes per second that they share; infinity: they share nothing.

    >>> [end.time for end in shared_ends([Upload(0.0, 30.0, 10.0), Upload(0.0, 30.0, 10.0)], 10.0)]
    [6.0, 6.0]
    >>> [end.time for end in shared_ends([Upload(0.0, 30.0, 10.0), Upload(2.0, 5.0, 10.0)], 10.0)]
    [3.5, 3.0]
    """
    if math.isinf(bandwidth):
        return [_alone(upload) for upload in uploads]
    left = [upload.nbytes for upload in uploads]
    ends: list[UploadEnd | None] = [None] * len(uploads)
    for index, upload in enumerate(uploads):
        if not upload.nbytes or upload.stop <= upload.begin:
            ends[index] = _alone(upload)
    now = min((upload.begin for upload, end in zip(uploads, ends, strict=True) if end is None), default=0.0)
    while waiting := [index for index, end in enumerate(ends) if end is None]:
        sending = [index for index in waiting if uploads[index].begin <= now]
        share = fair_share([uploads[index].rate for index in sending], bandwidth)
        rates = {index: min(uploads[index].rate, share) for index in sending}
        finishing = {index: now + left[index] / rates[index] for index in sending}
        later = [uploads[index].begin for index in waiting if index not in rates]
        until = min([*finishing.values(), *(uploads[index].stop for index in sending), *later])
        for index in sending:
            if finishing[index] <= until:
                ends[index] = UploadEnd(until, uploads[index].nbytes, True)
            else:
                left[index] = max(0.0, left[index] - rates[index] * (until - now))
                if uploads[index].stop <= until:
                    ends[index] = UploadEnd(until, uploads[index].nbytes - left[index], False)
        now = until
    return [end for end in ends if end is not None]


def fair_share(rates: Sequence[float], bandwidth: float) -> float:
    """f, the most that each of several senders is given of a bandwidth that they share.

    Args:
        rates: b_i, the most that each of them can use.
        bandwidth: B.

    >>> fair_share([1.0, 8.0, 8.0], 9.0)
    4.0
    >>> fair_share([1.0, 2.0], 9.0)
    inf
    """
    left, senders = bandwidth, len(rates)
    for rate in sorted(rates):
        if rate * senders >= left:
            return left / senders
        left, senders = left - rate, senders - 1
    return math.inf


def _alone(upload: Upload) -> UploadEnd:
    """How an upload ends that shares nothing."""
    if upload.stop <= upload.begin:
        return UploadEnd(upload.begin, 0.0, not upload.nbytes)
    end = upload.begin + upload.nbytes / upload.rate
    if end <= upload.stop:
        return UploadEnd(end, upload.nbytes, True)
    return UploadEnd(upload.stop, (upload.stop - upload.begin) * upload.rate, False)
