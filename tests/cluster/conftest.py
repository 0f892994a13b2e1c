"""A cluster of three nodes on this machine, with a token of its own."""

import os
import secrets
from collections.abc import Iterator

import pytest
from local import LocalCluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    token = tmp_path_factory.mktemp("token") / "auth_token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        cluster = LocalCluster(nodes=3, cpus=1, resources=[{}, {"left": 1}, {"right": 1}])
        cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def on_cluster(cluster: LocalCluster) -> dict[str, str]:
    """The environment of a process that uses the cluster."""
    return {**os.environ, **cluster.environment}
