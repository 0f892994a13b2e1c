"""A real MLflow server for tests that take it away."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil


class MlflowServer:
    """A real `mlflow server` on a loopback port, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store = f"sqlite:///{directory}/server.db"
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store, "--workers", "1"]
        self._command += ["--artifacts-destination", str(self.directory / "artifacts"), "--port", str(self.port)]
        self._environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # ten processes that nobody asks for
        self._serves = False

    def start(self) -> None:
        """Start it, and wait until it answers.

        `mlflow server` starts a process that serves. When it is started again, that process is started as it was the
        first time: the command imports all of MLflow, as the process does.
        """
        self.process = subprocess.Popen(
            self._command,
            cwd=self.directory,
            env={**os.environ, **self._environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(720):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.25)
        else:
            raise AssertionError("the server did not start")
        if not self._serves:
            (serving,) = psutil.Process(self.process.pid).children()
            self._command, self._environment, self._serves = serving.cmdline(), serving.environ(), True

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
