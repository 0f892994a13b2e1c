"""Models and messages that are kept for later analysis: what the server sees, whatever computes it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_runs import BreakAfter, Broken, load
from numpy.testing import assert_array_equal
from safetensors.numpy import load as load_tensors
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.cli.terminal import print_cost, results
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import run
from fedbench.experiment.setup import build_problem
from fedbench.models.groups import build_module
from fedbench.records.kept import kept_messages, kept_models, load_message, load_model
from fedbench.records.reader import recorded_checksums
from fedbench.tracking.run_content import recorded_files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")]

KEEP = ("runtime.keep_models=[1,3-4]", "runtime.keep_messages=[0,2]")


def kept_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "kept").iterdir())}


def test_rounds_and_clients_are_numbers_and_ranges() -> None:
    runtime = load("rounds=30", "runtime.keep_models=[7,1,3-5,4]", "runtime.keep_messages=2").runtime
    assert runtime.keep_models == (1, 3, 4, 5, 7)
    assert runtime.keep_messages == (2,)
    again = ExperimentConfig.from_mapping(load("rounds=30", "runtime.keep_models=[1-3]").to_mapping())
    assert again.runtime.keep_models == (1, 2, 3)


PARTIAL = ("schedule=sequential", "schedule.warmup_rounds=1")


@pytest.mark.parametrize("method", [PARTIAL, ("algorithm=scaffold",), ("update.compression=topk",)])
def test_keeping_changes_no_result_and_keeps_what_it_says(method: tuple[str, ...]) -> None:
    plain, kept = run(load(*method)), run(load(*method, *KEEP))
    assert kept.summary["model_sha256"] == plain.summary["model_sha256"]
    assert kept.summary["uplink_bytes"] == plain.summary["uplink_bytes"]
    assert kept_models(kept.directory) == (0, 1, 2, 3, 4)
    assert kept_messages(kept.directory) == ((1, 0), (1, 2), (3, 0), (3, 2), (4, 0), (4, 2))
    assert not (plain.directory / "kept").exists()
    sums = recorded_checksums(kept.directory)
    assert all(f"kept/{name}" in sums for name in kept_bytes(kept.directory))
    assert not [path for path in recorded_files(kept.directory) if "kept" in path.parts], "not sent to MLflow"


def test_the_mean_of_all_kept_messages_is_the_step_of_the_global_model() -> None:
    result = run(load("rounds=2", "runtime.keep_models=[2]", "runtime.keep_messages=[0-5]"))
    before, after = (load_model(result.directory, rounds) for rounds in (1, 2))
    messages = [load_message(result.directory, 2, client) for client in range(6)]
    for name, values in after.items():
        if name.endswith("num_batches_tracked"):
            continue
        mean = sum(said["samples"] * tensors[name].astype(float) for tensors, said in messages) / 120
        np.testing.assert_allclose(before[name] + mean, values, rtol=0, atol=1e-6)
    for name, values in result.state_dict().items():
        assert_array_equal(values.numpy(), after[name])


def test_a_kept_message_is_the_change_that_pytorchs_own_loop_makes_clipped() -> None:
    """One step on all rows of a client: w - lr grad, written down without fedbench's training."""
    settings = ("rounds=1", "local.batch_size=20", "local.optimizer=sgd", "local.optimizer.lr=0.1")
    keep = ("runtime.keep_models=[1]", "runtime.keep_messages=[3]")
    plain, clipped = run(load(*settings, *keep)), run(load(*settings, *keep, "update.clip_norm=0.01"))
    configuration = load(*settings)
    federation = load_federation(configuration)
    problem = build_problem(configuration, federation)
    rows = federation.rows[3]
    module = build_module(configuration.model, federation.task, 0)
    module.load_state_dict({name: torch.from_numpy(t) for name, t in load_model(plain.directory, 0).items()})
    module.train()
    images = torch.from_numpy(federation.data.train.inputs[rows]).permute(0, 3, 1, 2).float() / 255
    if problem.spec.mean is not None:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (problem.spec.mean, problem.spec.std))
        images = (images - mean) / std
    labels = torch.from_numpy(federation.data.train.labels[rows]).long()
    torch.nn.functional.cross_entropy(module(images), labels).backward()
    expected = {name: -0.1 * parameter.grad.numpy() for name, parameter in module.named_parameters()}
    message, said = load_message(plain.directory, 1, 3)
    assert said == {"round": 1, "client": 3, "samples": 20, "steps": 1}
    assert message.keys() == expected.keys() | {slot.name for slot in problem.layout.statistics}
    for name, change in expected.items():
        np.testing.assert_allclose(message[name], change, rtol=0, atol=2e-7)
    norm = np.sqrt(sum(float((change**2).sum()) for change in expected.values()))
    message, _ = load_message(clipped.directory, 1, 3)
    for name, change in expected.items():
        np.testing.assert_allclose(message[name], change * (0.01 / norm), rtol=0, atol=2e-7)


def test_only_the_groups_that_travel_are_in_a_message_and_further_channels_beside_them() -> None:
    partial = run(load("schedule=sequential", "schedule.warmup_rounds=1", "rounds=2", "runtime.keep_models=[2]",
                       "runtime.keep_messages=[1]"))  # fmt: skip
    layout = build_problem(load(), load_federation(load())).layout
    sent = {slot.name for slot in (*layout.slots, *layout.statistics) if slot.group == 0 or slot in layout.statistics}
    assert set(load_message(partial.directory, 2, 1)[0]) == sent
    scaffold = run(load("algorithm=scaffold", "rounds=1", "runtime.keep_models=[1]", "runtime.keep_messages=[1]"))
    names = set(load_message(scaffold.directory, 1, 1)[0])
    parameters = {slot.name for slot in layout.slots}
    assert names == sent | parameters | {f"{channel}/{name}" for name in parameters for channel in ("control",)}


def test_a_broken_run_goes_on_to_the_same_kept_files() -> None:
    whole = run(load(*KEEP, "output.directory=whole"))
    with pytest.raises(Broken):
        run(load(*KEEP, "output.directory=broken"), [BreakAfter(3)])
    resumed = resume("broken")
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert kept_bytes(resumed.directory) == kept_bytes(whole.directory)
    assert recorded_checksums(resumed.directory).keys() == recorded_checksums(whole.directory).keys()


def test_a_kept_file_that_was_changed_meanwhile_is_set_aside_and_never_vouched_for() -> None:
    with pytest.raises(Broken):
        run(load(*KEEP, "output.directory=broken"), [BreakAfter(3)])
    model, message = (
        Path("broken/kept/model-00001.safetensors"),
        Path("broken/kept/message-00001-client-00000.safetensors"),
    )
    model.write_bytes(b"something else")
    message.unlink()
    resumed = resume("broken")
    assert Path("broken/set-aside-1/kept", model.name).read_bytes() == b"something else"
    assert 1 not in kept_models(resumed.directory)
    assert (1, 0) not in kept_messages(resumed.directory)
    assert sum(name in warning for warning in resumed.warnings for name in (model.name, message.name)) == 2


def test_what_was_changed_afterwards_or_was_not_kept_is_refused_in_one_line() -> None:
    result = run(load("rounds=2", "runtime.keep_models=[1]", "runtime.keep_messages=[1]"))
    file = result.directory / "kept" / "model-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"model-00001\.safetensors: is not as the run wrote it"):
        load_model(result.directory, 1)
    with pytest.raises(DataError, match=r"after 2 rounds; kept: models after 0, 1 rounds; .*keep_models=\[2\]"):
        load_model(result.directory, 2)
    with pytest.raises(DataError, match=r"client 4 sent in round 1; kept: client 1 in round 1; .*keep_messages=\[4\]"):
        load_message(result.directory, 1, 4)


REFUSED = {
    ("runtime.keep_messages=[1]",): "has no effect without keep_models",
    ("runtime.keep_models=[9]",): "the run has no round 9, it has 5",
    ("runtime.keep_models=[0]",): "keep_models",
    ("runtime.keep_models=[4-2]",): "is not a range",
    ("runtime.keep_models=[1]", "runtime.keep_messages=[6]"): "there is no client 6; 0 to 5",
    (*KEEP[1:], "runtime.keep_models=[1]", "participation.clients_per_round=1"): "takes part in none",
    ("runtime.keep_models=[1]", "runtime.keep_messages=[1]", "algorithm=fedmr"): "a model of its own",
}  # fmt: skip


@pytest.mark.parametrize("overrides", REFUSED, ids=lambda overrides: " ".join(overrides))
def test_what_cannot_be_kept_is_refused_in_one_line(overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        run(load(*overrides))
    assert REFUSED[overrides] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_asynchronous_run_keeps_models_and_refuses_messages() -> None:
    inline = ("runtime.executor=inline",)
    plain = run(asynchronous(*inline))
    kept = run(asynchronous(*inline, "runtime.keep_models=[2-3]"))
    assert kept.summary["model_sha256"] == plain.summary["model_sha256"]
    assert kept_models(kept.directory) == (1, 2, 3)
    final = kept.state_dict()
    assert all(torch.equal(torch.from_numpy(t), final[n]) for n, t in load_model(kept.directory, 3).items())
    with pytest.raises(ConfigError, match="an asynchronous run has no rounds"):
        asynchronous(*inline, "runtime.keep_models=[1]", "runtime.keep_messages=[1]")


def test_the_bytes_are_foreseen() -> None:
    keep = ("runtime.keep_models=[1-5]", "runtime.keep_messages=[0,1]")
    configuration = load(*PARTIAL, "participation.clients_per_round=4", *keep)
    foreseen = estimate(configuration)
    result = run(configuration)
    files = kept_bytes(result.directory)
    assert foreseen.kept.nbytes == sum(t.nbytes for content in files.values() for t in load_tensors(content).values())
    assert (foreseen.kept.models, foreseen.kept.messages) == (6, len(files) - 6)
    described = json.loads((result.directory / "description.json").read_text())
    assert described["kept_bytes"] == foreseen.kept.nbytes
    with results.capture() as shown:
        print_cost(foreseen)
    assert "kept for later analysis: 6 global models and" in shown.get()


def test_any_number_of_actors_keeps_the_same_bytes(warm_pools: WarmPools) -> None:
    """Actors that answer with one sum for several clients, or with one for their node, send the messages beside it."""
    keep = (
        "runtime.keep_models=[2,4]",
        "runtime.keep_messages=[0,3]",
        "update.clip_norm=1",
        "update.compression=int8",
    )
    inline = run(config("runtime.executor=inline", *keep))
    assert kept_messages(inline.directory) == ((2, 0), (2, 3), (4, 0), (4, 3))
    for actors, combine in ((1, "actor"), (2, "node"), (3, "actor")):
        ray = [f"runtime.actors={actors}", "runtime.cpus_per_client=0.1", f"runtime.combine={combine}"]
        result = warm_pools.run(config(*ray, *keep))
        assert result.summary["model_sha256"] == inline.summary["model_sha256"]
        assert kept_bytes(result.directory) == kept_bytes(inline.directory)
