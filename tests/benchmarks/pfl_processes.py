"""Processes in which pfl-research trains the clients of a benchmark; `pfl_rounds.py` is what runs in them."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bare_loop import RAY_WORKER_NICENESS

from fedbench.engine.on_ray.allocator import GROWTH_BYTES, KEPT_BYTES, LARGEST_MMAP_THRESHOLD

PFL_PYTHON = os.environ.get("FEDBENCH_PFL_PYTHON")
"""Interpreter of a virtual environment that has pfl-research; None: it is not compared with."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PflProcesses:
    """One process for each rank; they share the clients out as pfl-research does, by their numbers of samples.

    Args:
        network, memory_format: names in `plain_networks`.
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        rows: for each client its rows.
        batch_size: samples of a minibatch.
        processes: number of processes.
    """

    def __init__(
        self,
        network: str,
        memory_format: str,
        images: np.ndarray,
        labels: np.ndarray,
        rows: Sequence[np.ndarray],
        batch_size: int,
        processes: int,
    ) -> None:
        assert PFL_PYTHON is not None
        chosen = np.concatenate(rows)
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "data.npz"
        borders = np.cumsum([0, *(len(of_client) for of_client in rows)])
        np.savez(file, images=images[chosen], labels=labels[chosen], borders=borders)
        settings = {
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "TORCHELASTIC_RUN_ID": "benchmark",
            "PFL_PYTORCH_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "NICENESS": str(RAY_WORKER_NICENESS),
            # The allocator's settings of fedbench's actors.
            "MALLOC_MMAP_THRESHOLD_": str(LARGEST_MMAP_THRESHOLD),
            "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
            "MALLOC_TOP_PAD_": str(GROWTH_BYTES),
        }
        script = str(Path(__file__).with_name("pfl_rounds.py"))
        self._processes = [
            subprocess.Popen(
                [PFL_PYTHON, script, str(file), network, memory_format, str(batch_size)],
                env=os.environ | settings | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]
        self._wait()

    def _wait(self) -> None:
        for process in self._processes:
            assert process.stdout is not None
            for line in process.stdout:  # pfl-research prints its metrics there, too
                if line == "ready\n":
                    break
            else:
                raise RuntimeError("pfl-research ended; what it says of it is above")

    def round(self, round_index: int) -> None:
        """One round of federated averaging."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{round_index}\n")
            process.stdin.flush()
        self._wait()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()
        self._folder.cleanup()
