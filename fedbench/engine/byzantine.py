"""Byzantine clients in a client host: the labels that they train on, and what they send."""

import torch

from fedbench.engine.device_rows import ClientRows
from fedbench.engine.messages import HostSpec
from fedbench.protocol.attacks import attacked, checked_labels
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.randomness import generator


class ByzantineClients:
    """Changes what the attackers of a run train on and send; of all others, nothing."""

    def __init__(self, spec: HostSpec) -> None:
        """Args:
        spec: has the attack and the attackers.
        """
        self._spec = spec
        self._attack = spec.attack

    @property
    def change_updates(self) -> bool:
        """Whether attackers send something else than they have trained."""
        return self._attack is not None and self._attack.changes_updates

    def rows(self, client: int, honest: ClientRows) -> ClientRows:
        """What a client trains on: its rows, an attacker's with the labels that it gives them.

        Args:
            client: the client.
            honest: its rows as they are.
        """
        attack = self._attack
        if attack is None or not attack.changes_labels or client not in self._spec.attackers:
            return honest
        inputs, labels, rows = honest
        places = torch.from_numpy(rows).to(labels.device)
        rng = generator(self._spec.seed, "attack labels", client)
        changed = checked_labels(attack, labels[places].cpu().numpy(), self._spec.task.classes, rng)
        own = labels.clone()
        own[places] = torch.from_numpy(changed).to(labels.device)
        return inputs, own, rows

    def message(
        self, client: int, index: int, parts: tuple[int, ...], values: Vector, start: Vector, sign: float = 1.0
    ) -> Vector:
        """What a client sends: `values`, or an attacker's message in place of it.

        Args:
            client: the client.
            index: the round, or the client's visit in an asynchronous run.
            parts, values, start, sign: as for `fedbench.protocol.attacks.attacked`.
        """
        if self._attack is None or client not in self._spec.attackers or not summable(values, start):
            return values
        rng = generator(self._spec.seed, "attack", index, client)
        return attacked(self._attack, self._spec.table, parts, values, start, rng, sign)
