"""The daemons that a local Ray starts: those that run actors, and none that watch or serve a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import node, parameter

ray_parameter: Any = parameter
ray_node: Any = node


@contextmanager
def fewest_daemons() -> Iterator[None]:
    """Context in which `ray.init` starts a local Ray without the daemons that only a cluster or a dashboard needs.

    They are the autoscaler's monitor, the monitor that sends the workers' output to the driver, and the dashboard's
    server, which `include_dashboard=False` leaves out the pages of and not the process. Together they take as long to
    start as an actor. A version of Ray that makes its nodes otherwise starts what it always does.
    """
    known = getattr(ray_parameter, "RayParams", None)
    start_server = getattr(getattr(ray_node, "Node", None), "start_api_server", None)
    if known is None or start_server is None:
        yield
        return

    def parameters(*arguments: Any, **named: Any) -> Any:
        made = known(*arguments, **named)
        made.no_monitor, made.include_log_monitor = True, False
        return made

    def no_server(self: Any, **named: Any) -> None:
        """Start nothing."""

    ray_parameter.RayParams, ray_node.Node.start_api_server = parameters, no_server
    try:
        yield
    finally:
        ray_parameter.RayParams, ray_node.Node.start_api_server = known, start_server
