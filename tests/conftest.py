"""What several tests share: one local Ray, a cluster of two nodes, and where real data may lie."""

import copy
import gc
import os
import re
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command_line import Finished, cache_in, in_this_process
from local_cluster import LocalCluster
from unobserved import UNOBSERVED
from warm_pools import RESOURCE, WarmPools

HERE = Path(__file__).parent
IMPORTABLE = [str(HERE / "support"), str(HERE / "benchmarks")]

SHARED = ("cluster", "warm_pools")
"""Fixtures that take long to make: the files whose tests ask for one of them stay together."""
SLOW_COST = 100
"""How much longer a slow test takes than another, roughly."""
MOST_SLOW = 12
"""Of more slow tests in a file, each takes less: the file is marked for all of them together."""

POOLS: list[WarmPools] = []
"""The warm actors of this process, once a test has asked for them."""
CLUSTERS: list[LocalCluster] = []
"""The clusters that this process has started and not stopped."""

# What one of the tests' many processes has compiled is there for the others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# For tests in this process and for what they start. For small tensors several threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@cache
def group_of(file: str) -> str:
    """The fixture of `SHARED` that the tests of a file ask for, or the file itself.

    Args:
        file: its path in the checkout.
    """
    text = (HERE.parent / file).read_text(encoding="utf-8")
    asked = r"\b(on_)?{0}: (LocalCluster|WarmPools|dict\[)|usefixtures\(.*\"{0}\""
    return next((name for name in SHARED if re.search(asked.format(name), text)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 3` distributes the groups in the order below. Marks of groups do not reach pytest-xdist 3.8."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    if config.option.dist != "load":
        return None
    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Nothing of what collecting makes is garbage: looking for it takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Benchmarks and exhaustive tests are slow, too: `-m 'not slow'` replaces the choice that is made by default.

    Distributed, a file's tests stay together, and so do all on shared actors; what takes longest begins first.
    """
    for item in items:
        if item.get_closest_marker("exhaustive") or item.get_closest_marker("benchmark"):
            item.add_marker("slow")
    if not hasattr(config, "workerinput"):
        return
    files = {item.nodeid.partition("::")[0] for item in items}
    group = {file: group_of(file) for file in files}
    groups = {item: group[item.nodeid.partition("::")[0]] for item in items}
    costs, slow = Counter[str](), Counter[str]()
    for item in items:
        slow[groups[item]] += item.get_closest_marker("slow") is not None
        costs[groups[item]] += 1
    for name, count in slow.items():
        costs[name] += SLOW_COST * min(count, MOST_SLOW)
    items.sort(key=lambda item: (groups[item] not in SHARED, -costs[groups[item]], groups[item]))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests that need one; its workers can import the tests' own parts."""
    import logging

    import ray

    from fedbench.engine.on_ray.daemons import fewest_daemons

    path = os.pathsep.join([*IMPORTABLE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with pytest.MonkeyPatch.context() as patch, fewest_daemons(has_environments=lambda: True):
        patch.setenv("PYTHONPATH", path)  # not as a runtime environment: with one, no worker is started ahead
        ray.init(
            num_cpus=2,
            resources={RESOURCE: 1},
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    yield
    ray.shutdown()


@pytest.fixture
def joined_ray(local_ray: None) -> dict[str, str]:
    """The environment by which a process joins the Ray of the tests: starting its own takes longer than a small run."""
    import ray

    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_AUTH_MODE": "token"}


@pytest.fixture(scope="session")
def warm_pools(local_ray: None) -> Iterator[WarmPools]:
    """Client actors that outlive a run, for tests that do not ask how actors start."""
    POOLS.append(WarmPools())
    yield POOLS[0]
    POOLS.pop().close()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Distributed, warm actors and clusters end when another group of files follows: idle ones slow its tests, too."""
    if nextitem is None or not hasattr(item.config, "workerinput"):
        return
    following = group_of(nextitem.nodeid.partition("::")[0])
    if POOLS and following != "warm_pools":
        POOLS[0].close()
    if following != "cluster":
        stop_clusters()


@pytest.fixture(scope="session")
def flops_counted_once() -> Iterator[None]:
    """A model is looked at, and its FLOPs are counted, in its first run: that takes longer than a small run itself.

    Of models from outside fedbench, whose code may differ under one name, and of those that name their layer groups
    themselves, the FLOPs alone are remembered, and of networks with another forward pass than their classes' nothing.
    """
    from fedbench.accounting.flops import StepFlops
    from fedbench.experiment import device_memory, initial_model
    from fedbench.models import groups

    looks: dict[str, Any] = {}

    def at_first(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked_at(module: Any, task: Any) -> Any:
            if not type(module).__module__.startswith("fedbench.") or hasattr(module, "layer_groups"):
                return look(module, task)
            shapes = [tuple(parameter.shape) for parameter in module.parameters()]
            key = f"{look.__name__} {type(module)} {module} {shapes} {task}"
            if key not in looks:
                looks[key] = look(module, task)
            return copy.copy(looks[key])

        return looked_at

    known: dict[tuple[str, tuple[int, ...], int], tuple[int, set[str]]] = {}
    count = StepFlops._count

    def remembered(self: StepFlops, groups: tuple[int, ...], size: int) -> int:
        if any("forward" in vars(part) for part in self._module.modules()):
            return count(self, groups, size)
        shapes = [tuple(parameter.shape) for parameter in self._module.parameters()]
        key = (f"{type(self._module)} {self._module} {shapes} {self._task} {self._groups}", groups, size)
        if key not in known:
            flops = count(self, groups, size)
            known[key] = flops, set(self._uncounted)
        flops, uncounted = known[key]
        self._uncounted |= uncounted
        return flops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepFlops, "_count", remembered)
        derive, macs = at_first(groups.derive_layer_groups), at_first(initial_model.forward_macs)
        patch.setattr(initial_model, "forward_macs", macs)
        for user in (groups, initial_model, device_memory):
            patch.setattr(user, "derive_layer_groups", derive)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """Nothing that a test writes has to outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def ctrl_c_heeded() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as in a terminal; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than small runs, and embedding fonts longer than a report."""
    monkeypatch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    for name in ("chart_pdf", "heatmap_pdf"):
        monkeypatch.setattr(f"fedbench.report.files.{name}", lambda picture: b"")
    monkeypatch.setattr("fedbench.report.timelines.timeline_figure", lambda *arguments: None)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite file of MLflow's, to be copied: making one takes seconds."""
    from fedbench.tracking.store import make_database

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDBENCH_CACHE", cache_in(file.parent / "cache"))
        make_database(file)
    return file


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


@pytest.fixture
def call(
    run_folder: Path,
    flops_counted_once: None,
    no_figures: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., Finished]:
    """The command line within the test, which takes less than a process of its own.

    `call("run", "rounds=2")` is `fedbench run rounds=2` in the empty folder `run_folder`.
    """
    monkeypatch.setenv("FEDBENCH_CACHE", cache_in(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    return in_this_process(monkeypatch, capfd)


def stop_clusters() -> None:
    while CLUSTERS:
        CLUSTERS.pop().stop()


@pytest.fixture(scope="session")
def clusters() -> Iterator[list[LocalCluster]]:
    """The clusters that were started."""
    yield CLUSTERS
    stop_clusters()


@pytest.fixture
def cluster(clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    """Two nodes on this machine with small object stores, of all tests together, as long as none kills the head.

    They have a token of their own, and notice losses soon.
    """
    if not clusters or clusters[-1].nodes[0].killed:
        token = tmp_path_factory.mktemp("token") / "auth_token"
        token.write_text(secrets.token_hex(32))
        # For the start alone: a Ray that this process starts later would take over a part of it.
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("RAY_AUTH_TOKEN", raising=False)
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
            patch.setenv("RAY_health_check_period_ms", "500")
            patch.setenv("RAY_health_check_failure_threshold", "3")
            for setting, value in UNOBSERVED.items():
                patch.setenv(setting, value)
            resources = [{"left": 1}, {"right": 1}]
            clusters.append(LocalCluster(nodes=2, cpus=1, resources=resources, object_store_memory=80_000_000))
            clusters[-1].start()
    return clusters[-1]


@pytest.fixture
def on_cluster(cluster: LocalCluster) -> dict[str, str]:
    """The environment of a process that uses the cluster."""
    return {**os.environ, **cluster.environment}
