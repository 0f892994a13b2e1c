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
def test_a_job_runs_the_projects_own_parts_shows_its_rounds_and_fails_as_its_last_command_does(
    tmp_path: Path, on_cluster: dict[str, str]
) -> None:
    project, result = tmp_path / "project", tmp_path / "result"
    project.mkdir()
    (project / "mine.yaml").write_text(
        "data: {dataset: digits, clients: 2}\nmodel: {name: cnn-bn, width: 4}\nrounds: 2\n"
    )
    (project / "parts.py").write_text(OWN_SCHEDULE)
    sound = (
        f"fedbench run mine.yaml schedule=parts:Mine runtime.actors=1 tracking.enabled=false output.directory={result}"
    )
    done = submit(project, on_cluster, "sh", "-c", f"{sound} && fedbench run fedavg-digit")
    rounds = [line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith("round ")]
    assert rounds[:2] == ["round 1/2", "round 2/2"]
    assert rounds[2:] in (["round 2/2"], rounds[:2]), "of a job that fails, the last lines are shown again"
    assert json.loads((result / "summary.json").read_text())["status"] == "finished"
    assert done.returncode == 1, done.stdout + done.stderr
    assert "did you mean 'fedavg-digits'?" in done.stdout, "the first command has ended with exit status 0"
    assert "exit code 2" in done.stdout
