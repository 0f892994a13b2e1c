"""A Ray cluster of several nodes on this machine, to rehearse what a real one will do.

    python cluster/local.py --nodes 3 --cpus 2
    python cluster/local.py --nodes 3 --command "fedbench run fedavg-digits runtime.actors=4"

Python code finds the same in `local_cluster.LocalCluster`.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from local_cluster import ClusterError, LocalCluster, search_path
from process_trees import heeded_signals, signals_later


def describe(cluster: LocalCluster) -> str:
    """What a user needs to know of a cluster that runs."""
    where = "workers in network namespaces of their own" if cluster.namespaces else "loopback addresses"
    # Not RAY_AUTH_TOKEN: that is a secret, and was in the environment already.
    names = [name for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH") if name in cluster.environment]
    shell = " ".join(f"{name}={shlex.quote(cluster.environment[name])}" for name in names)
    return "\n".join(
        [
            f"{len(cluster.nodes)} nodes ({where}): {' '.join(node.address for node in cluster.nodes)}",
            f"address      {cluster.address}",
            f"jobs         {cluster.job_address} (and the dashboard)",
            f"other shells export {shell}",
        ]
    )


def run_command(command: str, environment: Mapping[str, str]) -> int:
    """Run a shell command on the cluster and return its exit code; a signal ends it first."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with signals_later() as come:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                env={**os.environ, **environment, "PATH": search_path()},
                start_new_session=True,
            )
        if come:  # before the shell starts the command it may lose SIGINT, and there is nothing to finish yet
            os.killpg(process.pid, signal.SIGKILL)
        for number in come:
            signal.raise_signal(number)
        status = process.wait()
        return status if status >= 0 else 128 - status
    except BaseException:
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(30)
        raise
    finally:
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A Ray cluster of several nodes on one machine.")
    parser.add_argument("--nodes", type=int, default=3, help="with the head (default 3)")
    parser.add_argument("--cpus", type=int, default=2, help="of each node, logical (default 2)")
    parser.add_argument("--gpus", type=int, default=0, help="of each node, logical (default 0)")
    parser.add_argument(
        "--resources", type=json.loads, metavar="JSON", help="of each node, as an object, or a list with one per node"
    )
    parser.add_argument(
        "--namespaces",
        choices=["auto", "on", "off"],
        default="auto",
        help="network namespaces for the workers: where they are to be had (default), or else fail, or never",
    )
    parser.add_argument("--dashboard-port", type=int, default=8265, help="on 127.0.0.1 (default 8265; 0: a free one)")
    parser.add_argument("--object-store-memory", type=int, default=200_000_000, help="bytes per node (default 200 MB)")
    parser.add_argument("--command", help="run this on the cluster and end with its exit code; none: until Ctrl-C")
    return parser.parse_args(arguments)


def main() -> int:
    """Entry point."""
    options = parse()

    def end(number: int, frame: object) -> None:
        for ending in heeded_signals():
            signal.signal(ending, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for ending in heeded_signals():
        signal.signal(ending, end)
    try:
        cluster = LocalCluster(
            options.nodes,
            options.cpus,
            options.gpus,
            options.resources,
            namespaces=options.namespaces,
            dashboard_port=options.dashboard_port or None,
            object_store_memory=options.object_store_memory,
        )
        try:
            cluster.start()
            print(describe(cluster), file=sys.stderr, flush=True)
            if options.command:
                return run_command(options.command, cluster.environment)
            print("Ctrl-C ends it", file=sys.stderr, flush=True)
            while True:
                signal.pause()
        finally:
            cluster.stop()
    except (ClusterError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
