"""Low-rank adapters in a network whose other parameters are frozen (`model.peft`).

E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685: a linear layer with
the frozen weight W computes (W + alpha / r * B A) x, where A is [r, inputs], drawn at random, and B is [outputs, r],
zero at first. The layers themselves are those of Hugging Face's peft.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedbench.components.optional_library import optional_library
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ModelError
from fedbench.models.adapter_keys import Peft


def adapt(owner: str, network: nn.Module, peft: Peft, head: Sequence[str], targets: Sequence[str] | None) -> None:
    """Freeze a network, in place, but for its head, and put adapters beside its linear layers.

    The first factors of the adapters are drawn from PyTorch's default generator.

    Args:
        owner: the model's name, for messages.
        network: freshly built.
        peft: what is adapted, and how.
        head: names of the modules that train in full where the configuration names none.
        targets: layers that are adapted where the configuration names none; None: these must be named.

    Raises:
        ModelError: a name that leads to no module, or to none that can be adapted.
        ConfigError: peft is not installed.
    """
    with optional_library("huggingface", "model.peft"):
        from peft import LoraConfig, inject_adapter_in_model

    lora = peft.lora
    modules = dict(network.named_modules())
    trained = (
        [path for name in lora.head for path in _named(owner, name, modules)] if lora.head is not None else list(head)
    )
    linear = [name for name, child in modules.items() if is_linear(child) and not _lies_in(name, trained)]
    if not linear and lora.head and any(is_linear(child) for child in modules.values()):
        raise ModelError(
            "model.peft.lora.head: holds every linear layer, and no adapter can stand beside one; name fewer"
        )
    if not linear:
        raise ModelError(f"model.peft.lora: model.name={owner} has no linear layer that an adapter could stand beside")
    wanted = lora.targets if lora.targets is not None else targets
    if wanted is None:
        leaves = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
        raise ModelError(f"model.peft.lora.targets: must be set with model.name={owner}; its linear layers: {leaves}")
    if lora.targets is None and lora.head is not None:  # what trains in full needs no adapter
        left = [target for target in wanted if _ending([target], linear) or not _ending([target], modules)]
        if not left:
            raise ModelError(
                "model.peft.lora.head: holds the layers that are adapted unless others are named "
                f"({', '.join(wanted)}); name others as head, or as targets"
            )
        wanted = left
    adapted = dict.fromkeys(name for target in wanted for name in _matching(owner, target, linear))
    if not adapted:
        raise ModelError("model.peft.lora.targets: names no layer; leave it out for those of the model's type")
    settings: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says how it lays out the weights of transformers' Conv1D
        inject_adapter_in_model(LoraConfig(target_modules=list(adapted), **settings), network)
    for name in trained:
        network.get_submodule(name).requires_grad_(True)


def is_linear(module: nn.Module) -> bool:
    """Whether adapters can stand beside a layer: `nn.Linear`, or the Conv1D of GPT-2, which is one transposed."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # a Linear by class only: it is never called
        return False
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def adapted_layer(path: str) -> str:
    """The path of the layer that a module belongs to: for a part of an adapter, the layer that it stands beside.

    >>> adapted_layer("bert.layer.0.query.lora_A.default"), adapted_layer("classifier")
    ('bert.layer.0.query', 'classifier')
    """
    return path.partition(".lora_")[0]


def _named(owner: str, name: str, modules: dict[str, nn.Module]) -> list[str]:
    """The paths of the modules that a name, or the end of a path, stands for."""
    paths = [path for path in modules if path == name or path.endswith(f".{name}")]
    if not paths:
        leaves = {leaf for path in modules if not (leaf := path.rpartition(".")[2]).isdigit() and leaf}
        raise ModelError(
            f"model.peft.lora.head={name}: model.name={owner} has no such module{did_you_mean(name, leaves)}"
        )
    return paths


def _matching(owner: str, target: str, linear: Sequence[str]) -> list[str]:
    """The linear layers that a name, or the end of a path, stands for."""
    paths = [path for path in linear if path == target or path.endswith(f".{target}")]
    if not paths:
        leaves = list(dict.fromkeys(path.rpartition(".")[2] for path in linear))
        raise ModelError(
            f"model.peft.lora.targets={target}: model.name={owner} has no linear layer of that name"
            f"{did_you_mean(target, leaves)}"
        )
    return paths


def _ending(names: Sequence[str], paths: Iterable[str]) -> list[str]:
    """The paths that are one of some names, or end with one."""
    return [path for path in paths if any(path == name or path.endswith(f".{name}") for name in names)]


def _lies_in(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)
