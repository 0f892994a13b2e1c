"""A part that breaks the contract of its base class: one line that names it and the method, and nothing recorded."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_parts import NeedsOfInstance, NeedsOfInstanceRule, Unnamed
from command_line import Finished

from fedbench import ConfigError, ExperimentConfig, ServerRule
from fedbench.algorithms.fedprox import FedProx
from fedbench.experiment.contracts import check_method
from fedbench.protocol.layout import ParameterLayout

SMALL = ("run", "fedavg-digits", "runtime.executor=inline", "data.clients=4", "rounds=2")
ASYNC = ("run", "ormo-digits", "runtime.executor=inline", "data.clients=4", "rounds=2")

BROKEN = {
    "schedule=WithoutLength": "the class lacks length",
    "schedule=LongText": "length(4) returned 'long'; a whole number of at least 1 is needed",
    "schedule=Foreign": "active(0, 4, ...) returned layer group 4; allowed: 0, 1, 2, 3",
    "schedule=Empty": "active(1, 4, ...) returned no layer groups; at least one must be active",
    "schedule=Descending": "active(0, 4, ...) returned groups=(1, 0); they must be ascending, each once",
    "schedule=PlainTuple": "active(0, 4, ...) returned tuple, a fedbench.ActiveGroups is needed",
    "schedule=Follows": "active(1, 4, ...) returned layer group 4; allowed: 0, 1, 2, 3",
    "schedule=OtherGroups": "client_groups(2, 0, 4, ...) returned layer group 1; allowed: 0",
    "model=GivesPair": "GivesPair: forward returns tuple in training mode; a tensor [N, classes] is needed",
    "model=DeclaredGivesPair": "DeclaredGivesPair: forward returns tuple in training mode",
    "model=DeclaredTooWide": "DeclaredTooWide: forward returns shape [2, 20] for 2 samples, [2, 10] is needed",
    "model=GroupsByName": "GroupsByName.layer_groups(): has a str in its list, only fedbench.LayerGroup is allowed",
    "model=GroupsByMapping": "GroupsByMapping.layer_groups(): returned dict, a list of fedbench.LayerGroup is needed",
    "model=BuildsNothing": "build returned NoneType, a torch.nn.Module is needed",
    "data.dataset=TwoArrays": "load returned tuple, a fedbench.FederatedData is needed",
    "data.dataset=FloatImages": "load returned a train split whose inputs are float32 [40, 8, 8, 1]; uint8 [N, H",
    "data.dataset=FlatImages": "load returned a train split whose inputs are uint8 [40, 8, 8]; uint8 [N, H, W, C]",
    "data.dataset=FifthLabel": "load returned a train split with the label 4; 0..3 is allowed",
    "data.dataset=ShortLabels": "load returned a train split whose labels are int64 [39]; int64 [40] is needed",
    "data.dataset=Tensors": "load returned a train split whose inputs are of type Tensor, a NumPy array is needed",
    "data.partition=OneShort": "split returned 3 arrays for data.clients=4; one per client is needed",
    "data.partition=Shared": "split gave row 2 to 2 clients; without data.overlap=true a row goes to one client",
    "data.partition=OutOfRange": "split gave client 3 row 1438; the training split has rows 0..1437",
    "data.partition=OneEmpty": "split gave client 3 no rows; each client needs at least one",
    "data.partition=Masks": "split gave client 0 bool; a one-dimensional int64 array is needed",
    "data.partition=Twice": "split gave client 0 rows that are not ascending, or one of them twice",
    "local.optimizer=MakesFunction": "make returned function, a torch.optim.Optimizer is needed",
    "local.optimizer=WithoutSlots": "the class lacks slots",
    "algorithm=HalfRule": "Half.combine gave shape [88]; a finite float array of shape [176] is needed",
    "algorithm=DividesRule": "Divides.combine gave values that are not finite for an update of zeros",
    "algorithm=SingleRule": "Single.combine_each gave shape [4, 176]; a finite float array of shape [176] is needed",
    "algorithm=IdlePoolRule": "IdlePool.recombine is never called; needs must return",
    "algorithm=NeedsAsAttribute": "WithAttribute.needs is 'round'; it must be a method",
    "algorithm=NegativeWeight": "weight(1) returned -1.0; a finite number above 0 is needed",
    "algorithm=NeverCalledRule": "NeverCalled.combine_round is never called; needs must return",
    "algorithm=PairsRule": "Pairs.combine_round gave tuple; a finite float array of shape [176] is needed",
    "algorithm=GreedyRule": "Greedy.needs returned 'everything'; allowed: mean, updates, round",
    "algorithm=ClassAsRule": "rule returned type, a fedbench.ServerRule is needed",
    "algorithm=NoObjective": "objective returned NoneType, a fedbench.Objective is needed",
    "algorithm=MachineWithoutApply": "machine: Can't instantiate abstract class NoApply",
    "algorithm=WithoutMachine": "the class lacks machine",
    "algorithm=StackingMachine": "Stacks.apply gave shape [2, 3]; a finite float array of shape [3] is needed",
    "algorithm=MachineWithoutIndex": "NothingForWorkers.pull returned array(",
}


def overridden(text: str) -> str:
    """The override with the import path in place of the class's name."""
    return text.replace("=", "=broken_parts:", 1)


@pytest.mark.parametrize("part", BROKEN)
def test_a_broken_part_is_refused_in_one_line_before_anything_is_recorded(
    part: str, call: Callable[..., Finished], run_folder: Path
) -> None:
    command = ASYNC if "Machine" in part else SMALL
    finished = call(*command, overridden(part))
    assert (finished.status, finished.stdout) == (2, "")
    key, _, name = part.partition("=")
    expected = re.escape(BROKEN[part])
    assert re.fullmatch(rf"error: .*{expected}.*\n", finished.stderr), finished.stderr
    named = f"{key}=broken_parts:{name}:", f"{key}.name=broken_parts:{name}:", f"error: {name}"
    assert any(text in finished.stderr for text in named), finished.stderr
    assert list(run_folder.iterdir()) == []


def test_a_model_that_does_not_fit_is_refused_before_ray_is_started(call: Callable[..., Finished]) -> None:
    finished = call("run", "fedavg-digits", "data.clients=4", "rounds=2", overridden("model=GivesPair"))
    assert re.fullmatch(r"error: GivesPair: forward returns tuple in training mode; .*\n", finished.stderr)


def test_what_a_schedule_answers_within_a_run_is_checked_there(call: Callable[..., Finished], run_folder: Path) -> None:
    still = ("tracking.enabled=false", "local.optimizer.name=sgd", "local.optimizer.lr=1e-12")
    finished = call(*SMALL, overridden("schedule=FollowsStandstill"), *still)
    assert finished.status == 1
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "FollowsStandstill: active(1, 4, ...) returned layer group 4; allowed: 0, 1, 2, 3" in lines[0]
    assert "Traceback" not in finished.stderr


def test_needs_may_be_given_to_a_rule_when_it_is_made() -> None:
    method = NeedsOfInstanceRule()
    assert not method.sums()
    assert not NeedsOfInstance("mean").takes_means()
    assert ServerRule().takes_means()
    layout = ParameterLayout.build([("a", {"a.weight": (2, 3)})])
    check_method(method, layout, cohort_size=3, population=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["schedule=Ends", "algorithm=NeedsOfInstanceRule", "data.dataset=Images", "data.partition=Slices", "model=Network"],
)
def test_the_sound_part_that_they_are_derived_from_runs(
    part: str, call: Callable[..., Finished], run_folder: Path
) -> None:
    finished = call(*SMALL, "tracking.enabled=false", overridden(part))
    assert finished.status == 0, finished.stderr


def test_shared_rows_are_allowed_where_they_are_asked_for(call: Callable[..., Finished], run_folder: Path) -> None:
    overrides = (overridden("data.partition=Shared"), "data.overlap=true", "data.samples_per_client=3")
    finished = call(*SMALL, "tracking.enabled=false", *overrides)
    assert finished.status == 0, finished.stderr


def test_a_component_made_in_python_must_have_a_name_that_leads_back_to_it() -> None:
    remedy = "set it to 'broken_parts:Unnamed', so that the recorded config.yaml can be run again"
    for name in ("mine", "fedavg", "broken_parts:HalfRule", "nowhere:Unnamed"):
        expected = f"algorithm.name={name}: does not lead back to the class Unnamed; {remedy}"
        with pytest.raises(ConfigError, match=re.escape(expected)):
            ExperimentConfig(algorithm=Unnamed(name=name))
    config = ExperimentConfig(algorithm=Unnamed(name="broken_parts:Unnamed"))
    assert ExperimentConfig.from_mapping(config.to_mapping()) == config
    assert ExperimentConfig(algorithm=FedProx(mu=0.5)).algorithm == FedProx(mu=0.5)


def test_a_class_inside_a_function_is_to_be_moved_to_a_module() -> None:
    class Inside(Unnamed):
        pass

    with pytest.raises(
        ConfigError, match=r"move the class to the top of a module, and set the name to 'module:Inside'"
    ):
        ExperimentConfig(algorithm=Inside())
