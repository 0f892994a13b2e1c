"""What several tests share: one local Ray, a cluster of three nodes, and where real data may lie."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import LocalCluster

HERE = Path(__file__).parent
IMPORTABLE = [str(HERE / "support"), str(HERE / "benchmarks")]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that need one; its workers can import the tests' own parts."""
    import logging

    import ray

    path = os.pathsep.join([*IMPORTABLE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real data sets as Parquet: FEDBENCH_TEST_DATA, or `shared/data` beside the checkout."""
    given = os.environ.get("FEDBENCH_TEST_DATA")
    root = Path(given) if given else HERE.parents[1] / "shared" / "data"
    if not root.is_dir():
        pytest.skip("no real data: set FEDBENCH_TEST_DATA to a folder of Parquet data sets")
    return root


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that runs/ and mlflow.db stay out of the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes on this machine, with a token of their own; losses are noticed soon."""
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
