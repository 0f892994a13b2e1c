"""Ports for clusters on one machine."""

from local_access import PORTS, free_port


def test_no_port_is_given_to_two_components() -> None:
    """Ray refuses to start a node two of whose components have one port."""
    given = [free_port() for _ in range(300)]
    assert len(set(given)) == 300
    assert set(given) <= set(PORTS)
