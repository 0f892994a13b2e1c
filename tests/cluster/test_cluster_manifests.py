"""The files of cluster/ against the schema of the tool that reads them, the versions of pyproject.toml and fedbench."""

import os
import re
import shlex
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedbench import ExperimentConfig

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHED = ["aws", "gcp", "onprem"]
PINNED = re.findall(r"^FROM rayproject/ray:([\d.]+)-", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)[0]
IMAGE = f"fedbench:ray{PINNED}"


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def load_all(name: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for document in yaml.safe_load_all((CLUSTER / name).read_text()):
        found.setdefault(document["kind"], []).append(document)
    return found


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {canonicalize_name(found.name): found for found in map(Requirement, project["dependencies"])}


def text_files() -> list[Path]:
    kinds = ("*.yaml", "*.sh", "*.md", "*.py", "Dockerfile*")
    return sorted(path for kind in kinds for path in CLUSTER.rglob(kind))


# Versions


@pytest.mark.parametrize("path", text_files(), ids=lambda path: path.name)
def test_every_ray_version_named_is_that_of_the_image(path: Path) -> None:
    named = re.findall(
        r"(?:rayproject/ray:|ray\[default\]==|fedbench:ray|rayVersion: \")(\d+\.\d+\.\d+)", path.read_text()
    )
    assert set(named) <= {PINNED}
    assert PINNED in requirements()["ray"].specifier


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "onprem.yaml", "Dockerfile"])
def test_ray_is_installed_at_its_pin_and_with_fedbench(name: str) -> None:
    text = (CLUSTER / name).read_text()
    commands = yaml.safe_load(text)["setup_commands"] if name.endswith(".yaml") else text.splitlines()
    installed = [command for command in commands if "pip install" in command]
    assert len(installed) == 1
    assert f'"ray[default]=={PINNED}"' in installed[0]
    assert "fedbench" in installed[0].split("==")[1]


def test_base_images_have_a_python_that_fedbench_runs_on() -> None:
    images = re.findall(r"rayproject/ray:[\d.]+-py(\d)(\d+)", "".join(path.read_text() for path in text_files()))
    asked = Requirement(f"python{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['requires-python']}")
    assert images
    assert all(f"{major}.{minor}" in asked.specifier for major, minor in images)


def test_runtime_env_pins_what_pyproject_pins() -> None:
    own, *packages = load("runtime_env.yaml")["pip"]["packages"]
    assert own == "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
    pinned = {canonicalize_name(found.name): found for found in map(Requirement, packages)}
    expected = requirements()
    del expected["ray"]  # a job cannot have another one than its cluster
    assert pinned == expected


def test_runtime_env_is_one() -> None:
    from ray.runtime_env import RuntimeEnv

    assert RuntimeEnv(**load("runtime_env.yaml")).env_vars()["RAY_JOB_STOP_SIGNAL"] == "SIGINT"


def test_docker_context_has_what_the_image_copies() -> None:
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    allowed = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("path", text_files(), ids=lambda path: path.name)
def test_names_no_place_of_one_machine(path: Path) -> None:
    assert str(ROOT) not in path.read_text()


# ray up


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_takes_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(f"{name}.yaml"))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_turns_the_token_on_and_keeps_the_dashboard_in(name: str) -> None:
    config = load(f"{name}.yaml")
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    assert "RAY_AUTH_MODE=token" in yaml.safe_dump(config.get("docker") or config["setup_commands"])
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "$RAY_HEAD_IP:6379" in " ".join(config["worker_start_ray_commands"])
    assert "--port=6379" in head


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_again_installs_the_newest_wheel_even_of_the_version_that_is_there(name: str, tmp_path: Path) -> None:
    setup = load(f"{name}.yaml")["setup_commands"]
    (uninstalled,) = (index for index, command in enumerate(setup) if "pip uninstall -y fedbench-ray" in command)
    (installed,) = (index for index, command in enumerate(setup) if "pip install" in command)
    assert uninstalled < installed  # pip passes over a wheel of a version that is installed
    wheels = re.search(r"(?:~|/home/ray)/\S*dist/fedbench_ray-\*\.whl", setup[installed])
    assert wheels
    for wheel in ("fedbench_ray-0.9.0", "fedbench_ray-0.10.0", "fedbench_ray-0.2.0", "torch-2.11.0"):
        (tmp_path / f"{wheel}-py3-none-any.whl").touch()
    command = re.sub(r"\S*pip install", "printf '%s\\\\n'", setup[installed]).replace(
        wheels[0], f"{tmp_path}/fedbench_ray-*.whl"
    )
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [f"ray[default]=={PINNED}", f"{tmp_path}/fedbench_ray-0.10.0-py3-none-any.whl"]


def test_machines_of_your_own_all_become_nodes() -> None:
    """Ray's default autoscaler takes the head for one of min_workers; the last assignment before `ray start` counts."""
    config = load("onprem.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    before = config["head_start_ray_commands"][-1].split("ray start --head")[0]
    assert re.findall(r"RAY_enable_autoscaler_v2=(\d)", before)[-1:] == ["0"]


def test_the_head_takes_the_address_that_ssh_came_to() -> None:
    (asked,) = re.findall(r"--node-ip-address=(\$\(.*\))", load("onprem.yaml")["head_start_ray_commands"][-1])
    environment = {"PATH": os.environ["PATH"], "SSH_CONNECTION": "10.0.0.9 50022 10.0.0.1 22"}
    done = subprocess.run(
        ["bash", "-c", f"printf %s {asked}"], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "10.0.0.1"


# KubeRay: required and known fields as in the CRDs of ray.io/v1

CLUSTER_SPEC = {
    "authOptions",
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions",
    "headGroupSpec",
    "headServiceAnnotations",
    "managedBy",
    "networkPolicy",
    "rayVersion",
    "suspend",
    "tlsOptions",
    "upgradeStrategy",
    "workerGroupSpecs",
}
HEAD_GROUP = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKER_GROUP = {
    "groupName",
    "idleTimeoutSeconds",
    "labels",
    "maxReplicas",
    "minReplicas",
    "numOfHosts",
    "rayStartParams",
    "replicas",
    "resources",
    "scaleStrategy",
    "suspend",
    "template",
}
JOB_SPEC = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "clusterSelector",
    "deletionStrategy",
    "entrypoint",
    "entrypointNumCpus",
    "entrypointNumGpus",
    "entrypointResources",
    "jobId",
    "managedBy",
    "metadata",
    "rayClusterSpec",
    "runtimeEnvYAML",
    "shutdownAfterJobFinishes",
    "submissionMode",
    "submitterConfig",
    "submitterPodTemplate",
    "suspend",
    "ttlSecondsAfterFinished",
}


def ray_clusters() -> dict[str, Any]:
    """{file: spec of a RayCluster}."""
    return {
        "raycluster": load("kuberay/raycluster.yaml")["spec"],
        "rayjob": load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"],
    }


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_ray_cluster_has_the_fields_of_the_crd(name: str) -> None:
    spec = ray_clusters()[name]
    assert set(spec) <= CLUSTER_SPEC
    assert spec["rayVersion"] == PINNED
    assert spec["authOptions"] == {"mode": "token"}
    assert {"rayStartParams", "template"} <= set(spec["headGroupSpec"]) <= HEAD_GROUP
    for group in spec["workerGroupSpecs"]:
        assert {"groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"} <= set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_share_the_volume_and_workers_have_gpus(name: str) -> None:
    spec = ray_clusters()[name]
    claims = load_all("kuberay/mlflow.yaml")["PersistentVolumeClaim"]
    modes = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in claims}
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,), (volume,) = pod["containers"], pod["volumes"]
        assert container["image"] == IMAGE
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]
        assert modes[volume["persistentVolumeClaim"]["claimName"]] == ["ReadWriteMany"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert int(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) >= 1
        assert any(toleration["key"] == "nvidia.com/gpu" for toleration in pod["tolerations"])


def test_ray_manifests_are_of_the_official_api() -> None:
    for name, kind in (("raycluster", "RayCluster"), ("rayjob", "RayJob")):
        document = load(f"kuberay/{name}.yaml")
        assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])


def test_ray_job_runs_something_that_exists() -> None:
    spec = load("kuberay/rayjob.yaml")["spec"]
    assert set(spec) <= JOB_SPEC
    command, action, preset, *overrides = shlex.split(spec["entrypoint"])
    assert (command, action) == ("fedbench", "run")
    config = ExperimentConfig.load(preset, overrides)
    assert str(config.data.root).startswith("/shared/")
    assert str(config.output.directory).startswith("/shared/")  # else it would go with the pod
    service = load_all("kuberay/mlflow.yaml")["Service"][0]
    assert config.tracking.mlflow_uri == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_mlflow_answers_to_the_name_of_its_service_and_stays_inside() -> None:
    found = load_all("kuberay/mlflow.yaml")
    (service,), (deployment,) = found["Service"], found["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert (service["apiVersion"], deployment["apiVersion"]) == ("v1", "apps/v1")
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert f"{service['metadata']['name']}:5000" in arguments["allowed-hosts"].split(",")
    assert container["image"] == IMAGE
    (mount,) = container["volumeMounts"]
    assert arguments["backend-store-uri"].removeprefix("sqlite:///").startswith(mount["mountPath"])
    assert arguments["artifacts-destination"].startswith(mount["mountPath"])


def test_mlflow_server_has_the_options_that_are_used() -> None:
    from click.testing import CliRunner
    from mlflow.cli import cli

    shown = CliRunner().invoke(cli, ["server", "--help"]).output
    used = load_all("kuberay/mlflow.yaml")["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert all(argument.split("=")[0] in shown for argument in used)


# What users are told to run


def commands() -> list[str]:
    text = "\n".join((CLUSTER / name).read_text() for name in ("README.md", "slurm.sh", "local.py"))
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    shown = re.findall(
        r"(?:fedbench run|sbatch cluster/slurm.sh) (?!resume )([a-z0-9-]+(?: [a-z_.]+=[^\s\"`#]+)*)", joined
    )
    return sorted(set(shown))


@pytest.mark.parametrize("command", commands())
def test_commands_shown_are_valid(command: str) -> None:
    preset, *overrides = command.split()
    ExperimentConfig.load(preset, overrides)


def blocks() -> list[str]:
    """The indented blocks of the README that have a command over several lines."""
    found = re.findall(r"(?:^    .*\n)+", (CLUSTER / "README.md").read_text(), re.MULTILINE)
    return [
        block for block in found if re.search(r"^    (?:ray|mlflow|python|kubectl|sbatch|pip) ", block, re.MULTILINE)
    ]


def test_commands_over_several_lines_are_one_command_each() -> None:
    """A line that is indented further belongs to the one before: without a backslash there it is its own command."""
    lines = [line for block in blocks() for line in block.splitlines()]
    continued = [(first, second) for first, second in pairwise(lines) if second.startswith("     ")]
    assert continued
    assert [first for first, _ in continued if not first.endswith("\\")] == []


# What is uploaded with a job


def test_upload_from_the_checkout_is_small(tmp_path: Path) -> None:
    import zipfile

    from ray._private.runtime_env.packaging import create_package

    target = tmp_path / "package.zip"
    create_package(str(ROOT), target, include_gitignore=True, include_parent_dir=False)
    names = zipfile.ZipFile(target).namelist()
    assert {"pyproject.toml", "fedbench/cli/app.py"} <= set(names)
    assert not [name for name in names if name.startswith((".git/", ".venv", "tests/", "runs/", "mlruns/"))]
    assert target.stat().st_size < 5_000_000


def test_scripts_parse() -> None:
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)
