"""`ray job submit` from a project directory: its parts are found, progress is lines, the exit code is carried."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

OWN_SCHEDULE = '''
from fedbench.planning.schedules import Full


class Mine(Full):
    """A schedule of the project's own."""
'''


def submit(folder: Path, environment: dict[str, str], *entrypoint: str) -> "subprocess.CompletedProcess[str]":
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", str(folder), "--"]
    return subprocess.run([*ray, *entrypoint], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_job_runs_the_projects_own_parts_and_shows_its_rounds(tmp_path: Path, on_cluster: dict[str, str]) -> None:
    project, result = tmp_path / "project", tmp_path / "result"
    project.mkdir()
    (project / "mine.yaml").write_text("data: {dataset: digits, clients: 4}\nmodel: cnn-bn\nrounds: 2\n")
    (project / "parts.py").write_text(OWN_SCHEDULE)
    done = submit(
        project,
        on_cluster,
        *["fedbench", "run", "mine.yaml", "schedule=parts:Mine", "runtime.actors=2"],
        *["tracking.enabled=false", f"output.directory={result}"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert [line.split("  ")[0] for line in rounds] == ["round 1/2", "round 2/2"]
    assert json.loads((result / "summary.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_exits_non_zero(tmp_path: Path, on_cluster: dict[str, str]) -> None:
    done = submit(tmp_path, on_cluster, "fedbench", "run", "fedavg-digit")
    assert done.returncode == 1
    assert "did you mean 'fedavg-digits'?" in done.stdout
    assert "exit code 2" in done.stdout
