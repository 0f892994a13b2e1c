"""Data sets that take long to load, and interrupt the process while they do; importable by path: "slow_data:Name"."""

import os
import signal
import time
from pathlib import Path

from fedbench.data.base import FederatedData
from fedbench.data.digits import Digits

ENDED = Path("ended")
"""A file that is made where the loading was ended early and could clean up."""


class Interrupting(Digits):
    """Digits during whose loading, which takes half a minute, the user presses Ctrl-C.

    Attributes:
        number: of the signal.
    """

    name: str = "slow_data:Interrupting"
    number: int = int(signal.SIGINT)

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        os.kill(os.getpid(), self.number)
        try:
            for _ in range(3000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            ENDED.touch()
            raise
        return super().load(root, test_fraction=test_fraction, seed=seed)
