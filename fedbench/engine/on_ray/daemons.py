"""The daemons that a local Ray starts: those that run actors, and none that watch or serve a cluster."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import node, parameter, ray_constants, services, utils

from fedbench.engine.on_ray import idle_agent

ray_node: Any = node
ray_parameter: Any = parameter
ray_services: Any = services
ray_utils: Any = utils

UNUSED = -1
"""What Ray's agents write in place of a port where they do not serve."""

ENVIRONMENTS = "--runtime_env_agent_command"
"""The option by which a node is told how to start the agent that makes runtime environments."""

PORTS = {
    "--dashboard_agent_command": (
        "METRICS_AGENT_PORT_NAME",
        "METRICS_EXPORT_PORT_NAME",
        "DASHBOARD_AGENT_LISTEN_PORT_NAME",
    ),
    ENVIRONMENTS: ("RUNTIME_ENV_AGENT_PORT_NAME",),
}
"""For the option by which a node is told how to start an agent, Ray's constants that name the ports of that agent."""


@contextmanager
def fewest_daemons(has_environments: Callable[[], bool]) -> Iterator[None]:
    """Context in which `ray.init` starts a local Ray without the daemons that only a cluster or a dashboard needs.

    They are the autoscaler's monitor, the monitor that sends the workers' output to the driver, the dashboard's server,
    which `include_dashboard=False` leaves out the pages of and not the process, and the agents of a node: one collects
    metrics for the dashboard, the other makes runtime environments. The node waits for its agents before it takes
    actors, and all of them together take longer to start than two actors. A version of Ray that makes its nodes
    otherwise starts what it always does.

    Args:
        has_environments: called when the node is started; whether runtime environments may be asked for, so that their
            agent is needed.
    """
    known: Any = getattr(ray_parameter, "RayParams", None)
    start: Any = getattr(ray_services, "start_ray_process", None)

    def parameters(*arguments: Any, **named: Any) -> Any:
        made = known(*arguments, **named)
        made.no_monitor, made.include_log_monitor = True, False
        return made

    def start_process(command: Sequence[str], kind: str, *arguments: Any, **named: Any) -> Any:
        if kind == ray_constants.PROCESS_TYPE_RAYLET:
            command = without_agents(command, has_environments())
        return start(command, kind, *arguments, **named)

    def no_server(self: Any, **named: Any) -> None:
        """Start nothing."""

    def nothing_is_missing() -> None:
        """Do not import all that the agents need, only to know whether it is installed."""

    replacements = [
        (ray_parameter, "RayParams", parameters),
        (getattr(ray_node, "Node", None), "start_api_server", no_server),
        (ray_services, "start_ray_process", start_process),
        (ray_utils, "get_dashboard_dependency_error", nothing_is_missing),
    ]
    present = [(owner, name, made, getattr(owner, name)) for owner, name, made in replacements if hasattr(owner, name)]
    for owner, name, made, _ in present:
        setattr(owner, name, made)
    try:
        yield
    finally:
        for owner, name, _, original in present:
            setattr(owner, name, original)


def without_agents(command: Sequence[str], has_environments: bool) -> list[str]:
    """The command that starts a node, with an idle program in the place of agents that nobody needs.

    Writes for the node that the ports of these agents are not used, as agents do that do not serve.

    Args:
        command: the program and its options, each as NAME=VALUE.
        has_environments: whether the agent that makes runtime environments is needed.
    """
    raylet: Any = ray._raylet
    options = dict(part.partition("=")[::2] for part in command)
    places = options.get("--session_dir"), options.get("--node_id")
    idle = subprocess.list2cmdline([sys.executable, "-S", "-E", str(idle_agent.__file__)])
    replaced: dict[str, str] = {}
    for option, constants in PORTS.items():
        names = [getattr(raylet, constant, None) for constant in constants]
        is_needed = has_environments and option == ENVIRONMENTS
        if is_needed or option not in options or None in (*names, *places) or not hasattr(raylet, "persist_port"):
            continue
        for name in names:
            raylet.persist_port(*places, name, UNUSED)
        replaced[f"{option}={options[option]}"] = f"{option}={idle}"
    return [replaced.get(part, part) for part in command]
