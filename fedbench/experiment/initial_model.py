"""The model of an experiment before its first round: laid out for the data, with what its steps cost."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.limits import check_memory
from fedbench.models.base import Task
from fedbench.models.causality import check_causal
from fedbench.models.checkpointed import checkpoint_blocks
from fedbench.models.flat import FlatModel
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.kept_state import constant_tensors
from fedbench.models.lowered import LOWERED, check_lowered, check_strides
from fedbench.models.outline import is_outlined, outline_module
from fedbench.models.shared_tensors import saved_names
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.randomness import torch_seed


@dataclass(frozen=True)
class InitialModel:
    """A network with its initial values.

    Attributes:
        module: the network, whose parameters lie in a flat vector.
        layout: of the model's parameters.
        vector, statistics: float32, its initial values.
        retention: as `FlatModel.retention`.
        constants: {name: values} of what else a saved model holds.
        saved_names: {name in a saved model: name in the layout or in the constants}.
        base: what of it is frozen; None where nothing is.
        flops: of its training steps.
        macs: multiply-accumulates of one sample's forward pass, as the papers count them.
        smallest_batch: the fewest rows on which it can train.
    """

    module: nn.Module
    layout: ParameterLayout
    vector: Vector
    statistics: Vector
    retention: Vector
    constants: dict[str, npt.NDArray[np.generic]]
    saved_names: dict[str, str]
    base: FrozenBase | None
    flops: StepFlops
    macs: int
    smallest_batch: int


def initial_model(config: ExperimentConfig, task: Task, *, foresees: bool = False) -> InitialModel:
    """Build the network that a configuration names, and derive its layer groups.

    Args:
        config: the experiment.
        task: what is learned, from which data.
        foresees: whether the costs alone are asked for. The values of a large network are then all zero, and take no
            memory.

    Raises:
        ModelError: the network cannot serve the task.
        ConfigError: the network has nothing to which an option applies, or does not fit into memory.
    """
    local = config.local
    check_memory(config.model, task)
    module = (outline_module if foresees else build_module)(config.model, task, torch_seed(config.seed, "model"))
    outlined = is_outlined(module)
    groups = derive_layer_groups(module, task)
    if not outlined:
        check_causal(module, task, config.model.name)
    if local.precision == LOWERED:
        check_lowered(module, task)
    if local.precision in ("bf16", LOWERED) and config.runtime.device != "cuda":
        check_strides(module, task, local.precision)
    layout = parameter_layout(module, groups)
    constants, names, base = {} if outlined else constant_tensors(module), saved_names(module), FrozenBase.of(module)
    if local.checkpoint_activations:
        checkpoint_blocks(module)
    flops, macs = StepFlops(module, groups, task), forward_macs(module, task)
    model = FlatModel(module, layout, torch.device("meta") if outlined else None)
    vector, statistics, retention = (
        np.broadcast_to(np.float32(0), tuple(values.shape)) if outlined else values.numpy()
        for values in (model.vector, model.statistics, model.retention())
    )
    _check_statistics(config, layout)
    return InitialModel(
        module, layout, vector, statistics, retention, constants, names, base, flops, macs, model.smallest_batch
    )


def _check_statistics(config: ExperimentConfig, layout: ParameterLayout) -> None:
    if layout.statistics_size:
        return
    for key, value in (
        ("local.batchnorm", config.local.batchnorm),
        ("evaluation.batchnorm", config.evaluation.batchnorm),
    ):
        if value is not None:
            raise ConfigError(
                f"{key}={value}: has no effect, model.name={config.model.name} has no running statistics; leave it out"
            )
