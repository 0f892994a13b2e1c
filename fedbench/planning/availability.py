"""When clients are there: on and off by chance, by day and night, or by a recorded trace.

An `Availability` says for each client the spans of the virtual clock in which it is on; `Presence` answers questions
about them. All of it is a function of the seed and the client, so that a run that goes on finds what it left.
"""

import itertools
import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from fedbench.components.base import Component
from fedbench.errors import ConfigError, RunError
from fedbench.randomness import generator, seeded_if_foreign

Span = tuple[float, float]
"""The seconds of the virtual clock from which and until which a client is on; the end is not part of it."""

DAY_SECONDS = 86_400.0
HOURS = 24

MOST_WAITING_SECONDS = 365 * DAY_SECONDS
"""Seconds of the virtual clock that a round waits for its clients, at most."""

MOST_COMINGS = 100_000
"""Clients that come while a round waits for others, at most; a longer wait would hardly end."""


class Availability(Component):
    """Base of all availabilities; its spans must be the same whenever they are asked for."""

    @abstractmethod
    def spans(self, client: int, seed: int) -> Iterator[Span]:
        """The spans in which a client is on, ascending and apart from each other; they may never end.

        Args:
            client: the client, from 0.
            seed: seed of the experiment.
        """

    def check(self, clients: int) -> None:
        """Check what the spans are read from, before anything is started.

        Args:
            clients: size of the population.

        Raises:
            ConfigError: a file is missing, damaged, or names a client that there is not.
        """


class Exponential(Availability):
    """On and off for exponentially distributed times, drawn from the seed for each client by itself.

    A client is on at the start with the probability that it has at any time, on / (on + off).

    Attributes:
        on_seconds: Mean time that a client is on at a stretch.
        off_seconds: Mean time that it is off at a stretch.
    """

    name: str = "exponential"
    on_seconds: float = Field(default=3600.0, ge=1e-3, le=1e12)
    off_seconds: float = Field(default=3600.0, ge=1e-3, le=1e12)

    def spans(self, client: int, seed: int) -> Iterator[Span]:
        rng = generator(seed, "availability", client)
        now = 0.0
        if rng.random() >= self.on_seconds / (self.on_seconds + self.off_seconds):
            now = float(rng.exponential(self.off_seconds))
        while True:
            start, now = now, now + float(rng.exponential(self.on_seconds))
            yield start, now
            now += float(rng.exponential(self.off_seconds))


class DayNight(Availability):
    """On for the same hours of every day of the client's own time zone, which is drawn from the seed.

    With a zone of z hours the client's local time is t / 3600 + z, in hours; the clock starts at midnight of zone 0. It
    is on while its local hour is from `from_hour` on, for `hours` hours: over midnight, too.

    Attributes:
        from_hour: Local hour at which clients come, 0 to 24.
        hours: Hours of a day that they are on.
        zones: Number of time zones, evenly spread over a day; each client is in one of them.
    """

    name: str = "day-night"
    from_hour: float = Field(default=22.0, ge=0, lt=24)
    hours: float = Field(default=8.0, gt=0, lt=24)
    zones: int = Field(default=24, ge=1, le=1440)

    def spans(self, client: int, seed: int) -> Iterator[Span]:
        zone = int(generator(seed, "time zone", client).integers(self.zones)) * HOURS / self.zones
        first = (self.from_hour - zone) % HOURS - HOURS
        day = 0
        while True:
            start, end = ((first + day * HOURS + hour) * 3600.0 for hour in (0.0, self.hours))
            if end > 0:
                yield max(0.0, start), end
            day += 1


class Trace(Availability):
    """Times from a Parquet file: columns `client`, `start` and `end`, one row for each time that a client is on.

    A client without a row is never on.

    Attributes:
        path: The file.
        repeat_seconds: Seconds after which the trace begins again. null: after its end all clients are off.
    """

    name: str = "trace"
    path: Path
    repeat_seconds: float | None = Field(default=None, gt=0)

    @cached_property
    def _rows(self) -> dict[int, list[Span]]:
        """{client: its spans in the file}.

        Raises:
            ConfigError: the file is missing or damaged, or its spans are not in order.
        """
        given = f"delays.availability.path={self.path}"
        needed = ("client", "start", "end")
        try:
            there = pq.read_schema(self.path).names
            if missing := [name for name in needed if name not in there]:
                raise ConfigError(
                    f"{given}: no column {missing[0]!r}; needs client, start and end, has {', '.join(there) or 'none'}"
                )
            table = pq.read_table(self.path, columns=list(needed))
            clients = table["client"].cast(pa.int64()).to_pylist()
            starts, ends = (table[name].cast(pa.float64()).to_pylist() for name in ("start", "end"))
        except FileNotFoundError:
            raise ConfigError(f"{given}: no such file") from None
        except (OSError, KeyError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:150]
            raise ConfigError(f"{given}: not a Parquet file with numbers client, start, end ({reason})") from None
        rows: dict[int, list[Span]] = {}
        for number, (client, start, end) in enumerate(zip(clients, starts, ends, strict=True)):
            if client is None or start is None or end is None or not 0 <= start < end < math.inf:
                raise ConfigError(f"{given}: row {number}: needs a client and 0 <= start < end, has {start} and {end}")
            rows.setdefault(client, []).append((start, end))
        for client, spans in rows.items():
            spans.sort()
            for (_, end), (start, _) in itertools.pairwise(spans):
                if start < end:
                    raise ConfigError(
                        f"{given}: client {client} comes at {start:g} s and is there until {end:g} s; write one row for"
                        " times that overlap"
                    )
            if self.repeat_seconds is not None and spans[-1][1] > self.repeat_seconds:
                raise ConfigError(
                    f"delays.availability.repeat_seconds={self.repeat_seconds:g}: client {client} is on until "
                    f"{spans[-1][1]:g} s; raise it"
                )
        return rows

    def check(self, clients: int) -> None:
        if unknown := [client for client in self._rows if not 0 <= client < clients]:
            raise ConfigError(
                f"delays.availability.path={self.path}: has client {unknown[0]}; with data.clients={clients} there are "
                f"0 to {clients - 1}"
            )

    def spans(self, client: int, seed: int) -> Iterator[Span]:
        rows = self._rows.get(client, [])
        if self.repeat_seconds is not None and sum(end - start for start, end in rows) >= self.repeat_seconds:
            yield 0.0, math.inf
            return
        began = 0.0
        while rows:
            for start, end in rows:
                yield began + start, began + end
            if self.repeat_seconds is None:
                return
            began += self.repeat_seconds


class Presence:
    """Answers who is on at which time of the virtual clock."""

    def __init__(self, availability: Availability, clients: int, seed: int) -> None:
        """Args:
        availability: gives the spans of each client.
        clients: size of the population.
        seed: seed of the experiment.
        """
        self._availability = availability
        self._clients = range(clients)
        self._seed = seed
        self._spans = [availability.spans(client, seed) for client in self._clients]
        self._starts: list[list[float]] = [[] for _ in self._clients]
        self._ends: list[list[float]] = [[] for _ in self._clients]
        self._known = [-math.inf for _ in self._clients]

    def on_from(self, client: int, now: float) -> float:
        """The first time from `now` on at which a client is on; infinity where there is none."""
        place = self._place(client, now)
        if place >= 0 and now < self._ends[client][place]:
            return now
        following = place + 1
        return self._starts[client][following] if following < len(self._starts[client]) else math.inf

    def on_until(self, client: int, now: float) -> float:
        """The time at which a client that is on at `now` goes off; `now` where it is off."""
        place = self._place(client, now)
        return max(now, self._ends[client][place]) if place >= 0 else now

    def available(self, now: float) -> tuple[int, ...]:
        """The clients that are on, ascending."""
        return tuple(client for client in self._clients if self.on_until(client, now) > now)

    def wait_for(self, count: int, now: float, round_index: int) -> tuple[float, tuple[int, ...]]:
        """The first time from `now` on at which enough clients are on at once, and which.

        Args:
            count: clients that are needed.
            now: seconds of the virtual clock.
            round_index: the round that needs them, from 0, for the message.

        Raises:
            RunError: that does not happen within a year, or not before very many clients have come and gone.
        """
        time, most = now, 0
        for _ in range(MOST_COMINGS):
            there = self.available(time)
            most = max(most, len(there))
            if len(there) >= count:
                return time, there
            comings = [self.on_from(client, time) for client in self._clients if client not in there]
            time = min(comings, default=math.inf)
            if time - now > MOST_WAITING_SECONDS:
                break
        looked = "for ever" if time == math.inf else f"for {(time - now) / DAY_SECONDS:,.1f} days"
        raise RunError(
            f"round {round_index + 1}: {count} clients are needed and at most {most} are on at once, {looked} after "
            f"{now:,.0f} s of the virtual clock; lower participation.clients_per_round, or change delays.availability"
        )

    def _place(self, client: int, now: float) -> int:
        """The place of the last span of a client that begins by `now`, -1 for none; the next one is known, too."""
        starts, ends = self._starts[client], self._ends[client]
        while self._known[client] <= now:
            with seeded_if_foreign(self._availability, self._seed, "availability", client):
                span: Any = next(self._spans[client], None)
            if span is None:
                self._known[client] = math.inf
                break
            start, end = span
            if starts and start == ends[-1]:
                ends[-1] = end
            elif start >= end or (starts and start < ends[-1]):
                name = self._availability.name
                raise RunError(f"delays.availability.name={name}: client {client} has the span {start:g} to {end:g} s")
            else:
                starts.append(start)
                ends.append(end)
            self._known[client] = starts[-1]
        return bisect_right(starts, now) - 1
