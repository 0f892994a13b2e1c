"""What a person sees of runs on MLflow's own pages: a real server, in a real browser."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest
from mlflow_server import MlflowServer
from small import config

from fedbench.experiment.run import run
from fedbench.records.observers import Membership
from fedbench.tracking.pages import charts_fragment
from fedbench.tracking.parent_run import ParentRun

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.slow

PATIENCE = 90_000
"""Milliseconds until something must be there: a loaded machine takes long to load MLflow's pages."""

SECTIONS = ("best", "comm", "compute", "paper", "schedule", "test", "time", "train")
PLAIN, PROXIMAL = "fedavg quickstart-0-plain", "fedprox sequential quickstart-0-proximal"


@dataclass(frozen=True)
class Recorded:
    """Runs in a store with a server: two on their own, and two below one that holds them.

    Attributes:
        uri: of the server.
        experiment_id: of the experiment "methods".
        parent_id: of the run "both methods".
        proximal_id: of the run on its own with FedProx.
        directory: of that run.
    """

    uri: str
    experiment_id: str
    parent_id: str
    proximal_id: str
    directory: Path

    def address(self, fragment: str) -> str:
        return f"{self.uri}/{fragment}"

    def run_page(self, run_id: str) -> str:
        return self.address(f"#/experiments/{self.experiment_id}/runs/{run_id}?workflowType=machine_learning")

    def run_list(self, search: str = "") -> str:
        found = f"&searchFilter={quote(search)}" if search else ""
        return self.address(f"#/experiments/{self.experiment_id}/runs?workflowType=machine_learning{found}")


@pytest.fixture(scope="module")
def recorded(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("pages")
    server = MlflowServer(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        server.start()
        try:
            yield _record(server.uri, folder)
        finally:
            server.kill()


def _record(uri: str, folder: Path) -> Recorded:
    from mlflow import MlflowClient

    def one(name: str, *overrides: str, member: Membership = Membership()) -> None:  # noqa: B008
        tracked = ("tracking.enabled=true", f"tracking.mlflow_uri={uri}", "tracking.experiment=methods")
        small = ("rounds=3", "model.width=4", "data.samples_per_client=40", "runtime.executor=inline")
        run(config(*small, *tracked, *overrides, f"output.directory={folder / name}"), member=member)

    one("quickstart-0-plain", "schedule=full")
    one("quickstart-0-proximal", "algorithm=fedprox")
    parent = ParentRun()
    parent_id = parent.open("both methods", "methods", uri, {"suite": "both"}, "**Both methods**\n\nTwo runs.", "key")
    assert parent_id is not None, parent.warning
    for step, name in enumerate(("fedavg", "fedprox"), 1):
        member = Membership(parent_id, f"{name} seed 0", {"suite": "both"})
        one(f"nested-{name}", f"algorithm={name}", "schedule=full", member=member)
        parent.log({"best/best_accuracy": 0.1 * step}, step)
    parent.close("finished")
    assert parent.warning is None
    assert parent.experiment_id is not None
    (found,) = MlflowClient(uri).search_runs(
        [parent.experiment_id], "tags.algorithm = 'fedprox' and tags.schedule = 'sequential'"
    )
    return Recorded(uri, parent.experiment_id, parent_id, found.info.run_id, folder / "quickstart-0-proximal")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    own = os.environ.get("FEDBENCH_CHROMIUM")
    path = own or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        if path is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium: set FEDBENCH_CHROMIUM, or run playwright install chromium")
        only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        launched = driver.chromium.launch(executable_path=path, args=[only_here])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def tab(browser: "playwright.Browser") -> Iterator["playwright.Page"]:
    """High enough for the first charts of a page alone: drawing all of them takes most of the time."""
    expect.set_options(timeout=PATIENCE)
    context = browser.new_context(viewport={"width": 1500, "height": 1500}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: "playwright.Page") -> Iterator["playwright.Page"]:
    """The tab, of a person who was never here: what MLflow's pages remember is forgotten afterwards.

    They are one program, which is loaded once; the next address shows another part of it.
    """
    yield tab
    tab.evaluate("localStorage.clear()")
    tab.context.clear_cookies()


def test_the_run_list_tells_runs_apart_and_says_what_the_experiment_is(
    recorded: Recorded, page: "playwright.Page"
) -> None:
    page.goto(recorded.run_list())
    for name in (PLAIN, PROXIMAL, "both methods"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    expect(page.get_by_text("Federated-learning experiments of fedbench.").first).to_be_visible()


def test_a_search_by_tag_leaves_only_the_runs_that_have_it(recorded: Recorded, page: "playwright.Page") -> None:
    for search, there, not_there in (
        ("tags.algorithm = 'fedprox' and tags.schedule = 'sequential'", PROXIMAL, PLAIN),
        ("tags.partition = 'iid' and tags.schedule = 'full' and tags.algorithm = 'fedavg'", PLAIN, PROXIMAL),
        ("tags.suite = 'both'", "both methods", PLAIN),
    ):
        page.goto(recorded.run_list(search))
        expect(page.get_by_text(there, exact=True).first).to_be_visible()
        expect(page.get_by_text(not_there, exact=True)).to_have_count(0)


def test_the_chart_page_opens_with_bars_of_the_best_and_curves_by_round(
    recorded: Recorded, page: "playwright.Page"
) -> None:
    page.goto(recorded.address(charts_fragment(recorded.experiment_id)))
    for section in SECTIONS:
        expect(page.get_by_text(section, exact=True).first).to_be_visible()
    expect(page.locator(".barlayer .point path").first).to_be_attached()
    expect(_curves(page).first).to_be_attached()


def test_a_run_page_has_its_tags_its_note_and_its_metrics_in_sections(
    recorded: Recorded, page: "playwright.Page"
) -> None:
    page.goto(recorded.run_page(recorded.proximal_id))
    expect(page.get_by_role("heading", name=PROXIMAL)).to_be_visible()
    for tag, value in (("algorithm", "fedprox"), ("schedule", "sequential"), ("partition", "iid")):
        expect(page.get_by_text(re.compile(rf"^{tag}\s*:\s*{value}$")).first).to_be_visible()
    expect(page.get_by_text("fedprox, sequential schedule, cnn-bn on digits")).to_be_visible()
    expect(page.get_by_text("6 clients (iid partition, 40 samples each)")).to_be_visible()
    expect(page.get_by_text(str(recorded.directory)).first).to_be_attached()
    page.get_by_role("tab", name="Model metrics").click()
    for section in SECTIONS:
        expect(page.get_by_text(section, exact=True).first).to_be_visible()
    expect(_curves(page).first).to_be_attached()


def test_a_run_that_holds_others_has_a_link_to_the_charts_of_those(recorded: Recorded, page: "playwright.Page") -> None:
    page.goto(recorded.run_page(recorded.parent_id))
    for child in ("fedavg seed 0", "fedprox seed 0"):
        expect(page.get_by_text(child).first).to_be_visible()
    link = page.get_by_role("link", name="Charts of the runs below this one")
    expect(link).to_be_visible()
    page.goto(urljoin(page.url, link.get_attribute("href")))  # a click would load the pages anew, in another tab
    for child in ("fedavg seed 0", "fedprox seed 0"):
        expect(page.get_by_text(child, exact=True).first).to_be_visible()
    expect(page.locator(".barlayer .point path").first).to_be_attached()
    expect(_curves(page).first).to_be_attached()
    for other in ("both methods", PLAIN):
        expect(page.get_by_text(other, exact=True)).to_have_count(0)


def _curves(page: "playwright.Page") -> "playwright.Locator":
    """Lines that are drawn through at least two points."""
    return page.locator('path.js-line[d*="L"], path.js-line[d*="C"]')
