"""The virtual world of a run: how long clients' work takes on their devices and links, what energy, and who is there.

Of a client that receives D bytes, computes F FLOPs and sends U bytes, with the figures of its profile,

    download  d = latency + D / down      (0 where D = 0)
    compute   c = F / speed
    upload    u = latency + U / up        (0 where U = 0; longer on a shared uplink: `fedbench.planning.uplinks`)
    energy    E = F e_F + D e_D + U e_U.

A round lasts until the slowest participant has sent its update, max_i (d_i + c_i + u_i), or until `delays.deadline`,
which drops all that are not done. A participant that goes off before it is done is dropped at that time, and is not
waited for. What a dropped client has spent until then counts as energy, in proportion to the time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedbench.planning.availability import Presence
from fedbench.planning.profiles import Profile
from fedbench.planning.uplinks import Upload, UploadEnd, shared_ends


@dataclass(frozen=True)
class Work:
    """What a client does in a round, or in a task of an asynchronous run.

    Attributes:
        flops: FLOPs that it computes.
        down_bytes: bytes that it receives before.
        up_bytes: bytes that it sends afterwards.
    """

    flops: int
    down_bytes: int
    up_bytes: int


@dataclass(frozen=True)
class ClientTimes:
    """The parts of the virtual time of a client's work, and its energy.

    Attributes:
        start: time of the virtual clock at which it began, in seconds.
        download, compute, upload: seconds that it received, computed and sent.
        joules: energy that it spent; None where its profile does not know it.
        done: whether it was done before it went off, and before the deadline.
    """

    start: float
    download: float
    compute: float
    upload: float
    joules: float | None
    done: bool = True

    @property
    def end(self) -> float:
        """Time of the virtual clock at which it was done, or stopped."""
        return self.start + self.download + self.compute + self.upload


@dataclass(frozen=True)
class RoundTimes:
    """The virtual time and the energy of a round.

    Attributes:
        end: time of the virtual clock at its end, in seconds.
        clients: {participant: its times}.
        went_off: participants that went off before they were done.
        too_slow: participants that were not done by the deadline.
    """

    end: float
    clients: Mapping[int, ClientTimes]
    went_off: frozenset[int] = frozenset()
    too_slow: frozenset[int] = frozenset()

    @property
    def dropped(self) -> frozenset[int]:
        """Participants whose updates do not arrive."""
        return self.went_off | self.too_slow

    @property
    def joules(self) -> float | None:
        """Energy of all participants; None where the profile of one does not know it."""
        return total_joules([times.joules for times in self.clients.values()])


@dataclass(frozen=True)
class Opening:
    """When a round can begin.

    Attributes:
        start: time of the virtual clock, in seconds.
        waited: seconds since the round before, until enough clients were on.
        available: the clients that are on; None: all are.
    """

    start: float
    waited: float = 0.0
    available: tuple[int, ...] | None = None


class World:
    """The devices, links and times of all clients; the same answers for the same questions, whoever asks and when."""

    def __init__(
        self,
        profiles: Sequence[Profile],
        presence: Presence | None = None,
        uplinks: Sequence[int] | None = None,
        uplink_bandwidth: float = math.inf,
        deadline: float | None = None,
    ) -> None:
        """Args:
        profiles: of each client.
        presence: who is on when; None: everyone, always.
        uplinks: of each client, the group that it shares its uplink with; None: no uplink is shared.
        uplink_bandwidth: bytes per second that the clients of a group share.
        deadline: seconds after which a round ends; None: with its slowest participant.
        """
        self.profiles = tuple(profiles)
        self.presence = presence
        self._uplinks = uplinks
        self._bandwidth = uplink_bandwidth
        self.deadline = deadline

    def open(self, now: float, size: int, round_index: int) -> Opening:
        """When the next round can begin.

        Args:
            now: time of the virtual clock at the end of the round before.
            size: participants of the round.
            round_index: the round, from 0.

        Raises:
            RunError: there are never so many clients at once.
        """
        if self.presence is None:
            return Opening(now)
        start, available = self.presence.wait_for(size, now, round_index)
        return Opening(start, start - now, available)

    def round(self, start: float, cohort: Sequence[int], works: Sequence[Work]) -> RoundTimes:
        """The times of a round.

        Args:
            start: time of the virtual clock at which it begins.
            cohort: the participants.
            works: what each of them does.
        """
        deadline = math.inf if self.deadline is None else start + self.deadline
        leaves = {client: self._leaves(client, start) for client in cohort}
        stops = {client: min(leaves[client], deadline) for client in cohort}
        received = {client: start + self._download(client, work) for client, work in zip(cohort, works, strict=True)}
        computed = {
            client: received[client] + work.flops / self.profiles[client].device.flops_per_second
            for client, work in zip(cohort, works, strict=True)
        }
        ends = self._uploads(cohort, works, computed, stops)
        clients = {
            client: self._times(client, work, start, received[client], computed[client], ends[client], stops[client])
            for client, work in zip(cohort, works, strict=True)
        }
        late = [client for client in cohort if not clients[client].done]
        went_off = frozenset(client for client in late if leaves[client] < deadline)
        too_slow = frozenset(late) - went_off
        done = [times.end for times in clients.values() if times.done]
        end = deadline if too_slow else max(done, default=max(times.end for times in clients.values()))
        return RoundTimes(end, clients, went_off, too_slow)

    def task(self, client: int, start: float, work: Work) -> ClientTimes:
        """The times of one client's work that begins at `start`, whatever the others do."""
        return self.round(start, (client,), (work,)).clients[client]

    def _leaves(self, client: int, start: float) -> float:
        return math.inf if self.presence is None else self.presence.on_until(client, start)

    def _download(self, client: int, work: Work) -> float:
        link = self.profiles[client].link
        return link.latency_seconds + work.down_bytes / link.down_bytes_per_second if work.down_bytes else 0.0

    def _uploads(
        self, cohort: Sequence[int], works: Sequence[Work], computed: Mapping[int, float], stops: Mapping[int, float]
    ) -> dict[int, UploadEnd]:
        """{participant: how its upload ends}, those of a group in the order of the participants."""
        groups: dict[int, list[int]] = {}
        uploads: dict[int, Upload] = {}
        for client, work in zip(cohort, works, strict=True):
            link = self.profiles[client].link
            begin = computed[client] + (link.latency_seconds if work.up_bytes else 0.0)
            uploads[client] = Upload(begin, work.up_bytes, link.up_bytes_per_second, stops[client])
            # Without groups each client is alone: its own negative number.
            groups.setdefault(-1 - client if self._uplinks is None else self._uplinks[client], []).append(client)
        ends: dict[int, UploadEnd] = {}
        for group, members in groups.items():
            bandwidth = math.inf if group < 0 else self._bandwidth
            ends |= zip(members, shared_ends([uploads[client] for client in members], bandwidth), strict=True)
        return ends

    def _times(
        self, client: int, work: Work, start: float, received: float, computed: float, end: UploadEnd, stop: float
    ) -> ClientTimes:
        """The times of a participant, cut off at `stop`; other arguments are times of its own work."""
        profile, done = self.profiles[client], end.done and end.time <= stop
        if done:
            joules = profile.joules(work.flops, work.down_bytes, work.up_bytes)
            return ClientTimes(start, received - start, computed - received, end.time - computed, joules)
        download = min(received, stop) - start
        compute = min(max(stop - received, 0.0), computed - received)
        upload = max(0.0, stop - computed)
        joules = profile.joules(
            work.flops * _share(compute, computed - received),
            work.down_bytes * _share(download, received - start),
            end.sent,
        )
        return ClientTimes(start, download, compute, upload, joules, done=False)


def without_training(times: ClientTimes, profile: Profile, down_bytes: int) -> ClientTimes:
    """The times of a client that failed: it has received, and what it computed before is not counted."""
    return replace(times, compute=0.0, upload=0.0, joules=profile.joules(0, down_bytes, 0), done=False)


def total_joules(joules: Sequence[float | None]) -> float | None:
    """The sum of several energies; None where one of them is not known."""
    known = [value for value in joules if value is not None]
    return None if len(known) < len(joules) else math.fsum(known)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
