"""Layer groups from a network's structure, its parameter layout, and seeded construction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ModelError
from fedbench.models.adapters import adapted_layer
from fedbench.models.base import LayerGroup, Model, Task
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.kept_state import check_module, persistent_buffers, travels
from fedbench.models.outputs import MOST_NAMED, parts_of
from fedbench.models.probe import example_inputs, probe
from fedbench.models.shared_tensors import check_memory_is_not_shared
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import global_generators_seeded
from fedbench.tasks.kinds import TaskName

# _NormBase covers BatchNorm, SyncBatchNorm and InstanceNorm of every dimension.
OUTPUTS: dict[TaskName, str] = {
    "classification": "[N, classes]",
    "multilabel": "[N, labels]",
    "regression": "[N, targets]",
    "next_token": "[N, tokens, vocabulary]",
    "segmentation": "[N, classes, height, width]",
}
"""For each task the output of a network for N rows, for messages."""

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def build_module(
    model: Model, task: Task, seed: int, base: FrozenBase | None = None, device: torch.device | None = None
) -> nn.Module:
    """A module whose initial values are a function of `seed` alone; no global random state is changed.

    Args:
        model, task: what is built.
        seed: decides what the model draws.
        base: of the module as another process has built it; what trains is then zero.
        device: where the parameters of `base` are; all else is on the CPU.

    Raises:
        ModelError: the model cannot serve the task, is no module, or one that `check_module` or
            `check_memory_is_not_shared` refuses.
    """
    if base is not None:
        return base.module(device)
    with global_generators_seeded(seed):
        module: object = model.build(task)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"model.name={model.name}: build returned {type(module).__name__}, a torch.nn.Module is needed"
        )
    check_module(model.name, module)
    check_memory_is_not_shared(f"model.name={model.name}", module)
    return module


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of those that are not frozen (`requires_grad=False`), tied ones once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def derive_layer_groups(module: nn.Module, task: Task) -> list[LayerGroup]:
    """The layer groups of a network, shallow to deep; every trainable parameter is in exactly one of them.

    Frozen parameters (`requires_grad=False`) are in none.

    A module may declare them in `layer_groups() -> list[LayerGroup]`. Otherwise a forward pass in training mode is
    watched, and the modules that have parameters are taken in the order of their first calls:

    - a module opens a group;
    - a normalisation joins the group before it;
    - the two factors of a low-rank adapter are one group, which has the name of the layer that they stand beside;
    - a module that is never called itself (the output projection inside `nn.MultiheadAttention`) joins the nearest
      module around it that is called; so do the parametrizations of a layer's weights.

    Inside a group the parameters keep the order of `Module.named_parameters()`; tied parameters appear once, in the
    group that uses them first.

    Raises:
        ModelError: a parameter that takes no part in the output, an output of another shape than the task's, declared
            groups that miss or repeat a parameter, or a network without trainable parameters.
    """
    if not any(True for _ in module.parameters()):
        raise ModelError(f"{type(module).__name__}: has no parameters")
    if not trainable_parameters(module):
        raise ModelError(f"{type(module).__name__}: all of its parameters are frozen (requires_grad=False)")
    declared = getattr(module, "layer_groups", None)
    if callable(declared):
        groups = declared_groups(module, declared())
        probe(module, lambda copy, device: training_output(copy, task, device))
        return groups
    calls = probe(module, lambda copy, device: call_order(copy, task, device))
    return group_by_calls(module, calls)


def declared_groups(module: nn.Module, declared: object) -> list[LayerGroup]:
    """The groups that a module's own `layer_groups()` returned, checked, without frozen parameters.

    Raises:
        ModelError: no list of `LayerGroup`, or groups that miss or repeat a parameter.
    """
    owner = f"{type(module).__name__}.layer_groups()"
    if not isinstance(declared, list | tuple):
        raise ModelError(f"{owner}: returned {type(declared).__name__}, a list of fedbench.LayerGroup is needed")
    for group in declared:
        if not isinstance(group, LayerGroup):
            raise ModelError(f"{owner}: has a {type(group).__name__} in its list, only fedbench.LayerGroup is allowed")
    groups = [LayerGroup(group.name, tuple(group.parameters)) for group in declared]
    check_groups(module, groups)
    trainable = trainable_parameters(module)
    thawed = [LayerGroup(group.name, tuple(filter(trainable.__contains__, group.parameters))) for group in groups]
    return [group for group in thawed if group.parameters]


def check_groups(module: nn.Module, groups: Sequence[LayerGroup]) -> None:
    """Check that the groups have distinct names, hold every trainable parameter once, and none twice.

    Raises:
        ModelError: they do not.
    """
    owner = f"{type(module).__name__}.layer_groups()"
    parameters = dict(module.named_parameters())
    seen: dict[str, str] = {}
    names: set[str] = set()
    for group in groups:
        if group.name in names:
            raise ModelError(f"{owner}: two groups are called {group.name!r}")
        names.add(group.name)
        if not group.parameters:
            raise ModelError(f"{owner}: group {group.name!r} is empty")
        for name in group.parameters:
            if name not in parameters:
                raise ModelError(f"{owner}: no parameter is called {name!r}{did_you_mean(name, parameters)}")
            if name in seen:
                raise ModelError(f"{owner}: {name!r} is in group {seen[name]!r} and in group {group.name!r}")
            seen[name] = group.name
    missing = [name for name in trainable_parameters(module) if name not in seen]
    if missing:
        raise ModelError(f"{owner}: in no group: {', '.join(missing)}")


def training_output(module: nn.Module, task: Task, device: torch.device) -> Tensor:
    """The output of one forward pass over a small batch of the task's shape, float32 [N, *task.output_shape].

    Raises:
        ModelError: the output is no tensor, or one of another shape or type.
    """
    batch_size = 2
    output = module(example_inputs(task, batch_size, device))
    owner = f"{type(module).__name__}: forward"
    if not isinstance(output, Tensor):
        parts = [str(part) for part in parts_of(output)]
        remedy = f"; set model.output to the part to train on ({', '.join(parts[:MOST_NAMED])})" if parts else ""
        needed = f"a tensor {OUTPUTS[task.target]} is needed{remedy}"
        raise ModelError(f"{owner} returns {type(output).__name__} in training mode; {needed}")
    if tuple(output.shape) != (batch_size, *task.output_shape):
        of_task = "" if task.target == "classification" else f" for task={task.target}, {OUTPUTS[task.target]}"
        raise ModelError(
            f"{owner} returns shape {list(output.shape)} for {batch_size} samples,"
            f" {[batch_size, *task.output_shape]} is needed{of_task}"
        )
    if not output.is_floating_point():
        raise ModelError(f"{owner} returns {output.dtype}, float32 logits are needed")
    return output


def call_order(module: nn.Module, task: Task, device: torch.device) -> list[str]:
    """The names of the modules that one forward pass calls, in the order of their first calls.

    Raises:
        ModelError: an output of another shape than the task's, or parameters that it does not depend on.
    """
    order: list[str] = []
    for name, child in module.named_modules():
        if "parametrizations" in name.split("."):
            continue  # It belongs to the layer whose weight it computes.

        def record(_module: nn.Module, _args: object, name: str = name) -> None:
            order.append(name)

        child.register_forward_pre_hook(record)
    output = training_output(module, task, device)
    kind = type(module).__name__
    names, parameters = zip(*trainable_parameters(module).items(), strict=True)
    if not output.requires_grad:
        raise ModelError(f"{kind}: its output depends on no parameter")
    gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    if unused:
        raise ModelError(f"{kind}: parameters that take no part in the output: {', '.join(unused)}")
    return list(dict.fromkeys(order))


def group_by_calls(module: nn.Module, calls: Sequence[str]) -> list[LayerGroup]:
    """Layer groups from the order in which modules are first called; see `derive_layer_groups`."""
    called = set(calls)
    parameters_of: dict[str, list[tuple[str, Tensor]]] = {}
    for name, child in module.named_modules():
        caller = name
        while caller not in called:
            caller = caller.rpartition(".")[0]
        prefix = f"{name}." if name else ""
        direct = [(prefix + leaf, parameter) for leaf, parameter in child.named_parameters(recurse=False)]
        parameters_of.setdefault(caller, []).extend(direct)

    canonical = {id(parameter): name for name, parameter in trainable_parameters(module).items()}
    position = {name: index for index, name in enumerate(canonical.values())}
    groups: list[tuple[str, list[str]]] = []
    seen: set[int] = set()
    for caller in calls:
        ungrouped: list[str] = []
        for _, parameter in parameters_of.get(caller, []):
            if id(parameter) in canonical and id(parameter) not in seen:
                seen.add(id(parameter))
                ungrouped.append(canonical[id(parameter)])
        if not ungrouped:
            continue
        name = adapted_layer(caller) or ungrouped[0]
        if groups and (isinstance(module.get_submodule(caller), NORMALISATIONS) or groups[-1][0] == name):
            groups[-1][1].extend(ungrouped)
        else:
            groups.append((name, ungrouped))
    return [LayerGroup(name, tuple(sorted(members, key=position.__getitem__))) for name, members in groups]


def parameter_layout(module: nn.Module, groups: Sequence[LayerGroup]) -> ParameterLayout:
    """The place of each trainable parameter and of each buffer that travels in the flat vectors.

    Which buffers travel is told in `fedbench.models.kept_state`; they are the statistics, in the order of their layers'
    groups. A layer without weights belongs to the group of the weights that are registered before it.
    """
    parameters = trainable_parameters(module)
    sent = {name: buffer for name, buffer in persistent_buffers(module) if travels(buffer)}
    group_of = {name: index for index, group in enumerate(groups) for name in group.parameters}
    statistics: list[tuple[str, int, tuple[int, ...]]] = []
    nearest = 0
    for name, child in module.named_modules():
        prefix = f"{name}." if name else ""
        direct = [prefix + leaf for leaf, _ in child.named_parameters(recurse=False)]
        nearest = next((group_of[leaf] for leaf in direct if leaf in group_of), nearest)
        for leaf in child._buffers:
            if prefix + leaf in sent:
                statistics.append((prefix + leaf, nearest, tuple(sent[prefix + leaf].shape)))
    return ParameterLayout.build(
        [(group.name, {name: tuple(parameters[name].shape) for name in group.parameters}) for group in groups],
        sorted(statistics, key=lambda statistic: statistic[1]),
    )


def feature_layer(module: nn.Module) -> str:
    """The name of the final classifier, the layer whose input is the pooled penultimate features, float32 [N, F].

    It is the module's attribute `feature_layer` if there is one, else the last `nn.Linear` that is registered.

    Raises:
        ModelError: the attribute names no submodule, or there is no linear layer.
    """
    modules = dict(module.named_modules())
    kind = type(module).__name__
    named = getattr(module, "feature_layer", None)
    if named is not None:
        if named not in modules:
            raise ModelError(f"{kind}.feature_layer={named}: no such submodule{did_you_mean(str(named), modules)}")
        return str(named)
    # The output projection inside nn.MultiheadAttention is a Linear by class only: it is never called.
    linear: list[str] = [
        name
        for name, child in modules.items()
        if isinstance(child, nn.Linear) and not isinstance(child, NonDynamicallyQuantizableLinear)
    ]
    if not linear:
        raise ModelError(f"{kind}: has no linear classifier; name the last layer in an attribute 'feature_layer'")
    return linear[-1]
