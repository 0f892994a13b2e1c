"""Network namespaces on one Linux machine, joined by a bridge that leads nowhere else."""

import random
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field


class NoNamespacesError(RuntimeError):
    """This user or machine has no network namespaces; the text says why."""


@dataclass(frozen=True)
class Bridge:
    """A bridge that joins network namespaces; its own address is the head's."""

    name: str
    prefix: str
    namespaces: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, identity: str) -> "Bridge":
        """Raises: NoNamespacesError where this user or machine cannot have network namespaces."""
        bridge = cls(f"fb{identity}", unused_prefix())
        try:
            ip("link", "add", bridge.name, "type", "bridge")
            ip("addr", "add", f"{bridge.prefix}.1/24", "dev", bridge.name)
            ip("link", "set", bridge.name, "up")
            # A container may give bridges without namespaces.
            ip("netns", "add", bridge.name)
            bridge.namespaces.append(bridge.name)
            ip("netns", "exec", bridge.name, "true")
        except BaseException:
            bridge.remove()
            raise
        return bridge

    def add(self, index: int) -> str:
        """The name of a new namespace, with the address PREFIX.(INDEX + 1)."""
        namespace, outside = f"{self.name}-{index}", f"{self.name}v{index}"
        ip("netns", "add", namespace)
        self.namespaces.append(namespace)
        ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", outside, "master", self.name, "up")
        ip("-n", namespace, "addr", "add", f"{self.prefix}.{index + 1}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        return namespace

    def remove(self) -> None:
        """The bridge and every namespace; may be called twice."""
        while self.namespaces:
            with suppress(NoNamespacesError):
                ip("netns", "del", self.namespaces.pop())
        with suppress(NoNamespacesError):
            ip("link", "del", self.name)


def ip(*arguments: str) -> str:
    """Output of iproute2's `ip`.

    Raises:
        NoNamespacesError: it is missing or refuses.
    """
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise NoNamespacesError(f"no network namespaces here: ip {' '.join(arguments)}: {said.strip()}") from None
    return done.stdout


def unused_prefix() -> str:
    """First three bytes of a private network that no interface and no route of this machine is in."""
    taken = ip("-4", "route", "show", "table", "all")
    return next(
        prefix
        for prefix in (f"10.{random.randrange(64, 255)}.{random.randrange(255)}" for _ in range(1000))
        if f"{prefix}." not in taken
    )
