"""The built-in parts by name, and how a name or an import path becomes a checked component.

A part's module is imported when the part is first used.
"""

import re
from functools import partial
from typing import Any

from pydantic import BeforeValidator

from fedbench.components.base import Component
from fedbench.components.model_folder import PREFIX
from fedbench.components.named_code import hint_of_shadowed_file, import_module
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError

BUILTIN: dict[str, dict[str, str]] = {
    "dataset": {
        "digits": "fedbench.data.digits:Digits",
        "cifar10": "fedbench.data.images:Cifar10",
        "cifar100": "fedbench.data.images:Cifar100",
        "mnist": "fedbench.data.images:Mnist",
        "fashion-mnist": "fedbench.data.images:FashionMnist",
        "tiny-imagenet": "fedbench.data.images:TinyImageNet",
        "femnist": "fedbench.data.images:Femnist",
        "ag-news": "fedbench.data.text:AgNews",
        "shakespeare": "fedbench.data.shakespeare:Shakespeare",
        "leaf": "fedbench.data.leaf_dataset:LeafDataset",
        "breast-cancer": "fedbench.data.sklearn_tables:BreastCancer",
        "diabetes": "fedbench.data.sklearn_tables:Diabetes",
        "california-housing": "fedbench.data.sklearn_tables:CaliforniaHousing",
        "co2": "fedbench.data.statsmodels_series:Co2",
        "macrodata": "fedbench.data.statsmodels_series:Macrodata",
        "images": "fedbench.data.parquet_images:ParquetImages",
        "parquet": "fedbench.data.parquet_dataset:ParquetDataset",
        "csv": "fedbench.data.csv_dataset:CsvDataset",
        "hf:OWNER/NAME": "fedbench.data.hub_dataset:HubDataset",
    },
    "partition": {
        "iid": "fedbench.data.partition:Iid",
        "dirichlet": "fedbench.data.partition:Dirichlet",
        "shards": "fedbench.data.partition:Shards",
        "quantity": "fedbench.data.partition:Quantity",
        "natural": "fedbench.data.partition:Natural",
    },
    "model": {
        "cnn": "fedbench.models.cnn:Cnn",
        "cnn-bn": "fedbench.models.cnn:CnnBatchNorm",
        "resnet8": "fedbench.models.resnet:ResNet8",
        "resnet18": "fedbench.models.resnet:ResNet18",
        "resnet20": "fedbench.models.resnet20:ResNet20",
        "resnet20-preact": "fedbench.models.resnet20:ResNet20Preact",
        "vgg16": "fedbench.models.vgg:Vgg16",
        "text-transformer": "fedbench.models.transformer:TextTransformer",
        "lstm": "fedbench.models.lstm:Lstm",
        "mlp": "fedbench.models.mlp:Mlp",
        "conv1d": "fedbench.models.conv1d:Conv1d",
        "unet": "fedbench.models.unet:UNet",
    },
    "schedule": {
        "full": "fedbench.planning.schedules:Full",
        "sequential": "fedbench.planning.schedules:Sequential",
        "reverse": "fedbench.planning.schedules:Reverse",
        "random": "fedbench.planning.schedules:Random",
        "width": "fedbench.planning.schedules:Width",
        "importance": "fedbench.planning.schedules:Importance",
        "discrepancy": "fedbench.planning.schedules:Discrepancy",
        "per-client": "fedbench.planning.schedules:PerClient",
        "selective": "fedbench.planning.selective:Selective",
    },
    "exchange": {
        "trained": "fedbench.planning.exchange:Trained",
        "full": "fedbench.planning.exchange:Everything",
        "rotate": "fedbench.planning.exchange:Rotating",
        "strided": "fedbench.planning.exchange:Strided",
        "intervals": "fedbench.planning.exchange:Intervals",
        "adaptive-intervals": "fedbench.planning.exchange:AdaptiveIntervals",
    },
    "algorithm": {
        "fedavg": "fedbench.algorithms.fedavg:FedAvg",
        "centralised": "fedbench.algorithms.centralised:Centralised",
        "local": "fedbench.algorithms.local:Local",
        "fedmr": "fedbench.algorithms.fedmr:FedMR",
        "fedcross": "fedbench.algorithms.fedcross:FedCross",
        "fedmut": "fedbench.algorithms.fedmut:FedMut",
        "fedprox": "fedbench.algorithms.fedprox:FedProx",
        "moon": "fedbench.algorithms.moon:Moon",
        "scaffold": "fedbench.algorithms.scaffold:Scaffold",
        "feddyn": "fedbench.algorithms.feddyn:FedDyn",
        "fednova": "fedbench.algorithms.fednova:FedNova",
        "fedavgm": "fedbench.algorithms.fedopt:FedAvgM",
        "fedadagrad": "fedbench.algorithms.fedopt:FedAdagrad",
        "fedadam": "fedbench.algorithms.fedopt:FedAdam",
        "fedyogi": "fedbench.algorithms.fedopt:FedYogi",
        "fedbcgd": "fedbench.algorithms.fedbcgd:FedBCGD",
        "fedbcgd-plus": "fedbench.algorithms.fedbcgd:FedBCGDPlus",
        "streaming-diloco": "fedbench.algorithms.diloco:StreamingDiLoCo",
        "fedlama": "fedbench.algorithms.fedlama:FedLAMA",
        "fedexp": "fedbench.algorithms.fedexp:FedExP",
        "median": "fedbench.algorithms.robust:Median",
        "trimmed-mean": "fedbench.algorithms.robust:TrimmedMean",
        "krum": "fedbench.algorithms.krum:Krum",
        "multi-krum": "fedbench.algorithms.krum:MultiKrum",
        "geometric-median": "fedbench.algorithms.geometric_median:GeometricMedian",
        "asgd": "fedbench.algorithms.asgd:Asgd",
        "asgdm": "fedbench.algorithms.asgd:NaiveAsgdm",
        "shifted-momentum": "fedbench.algorithms.shifted_momentum:ShiftedMomentum",
        "smega2": "fedbench.algorithms.smega2:Smega2",
        "dana-zero": "fedbench.algorithms.dana:DanaZero",
        "ormo": "fedbench.algorithms.ormo:OrMo",
        "ormo-vanilla": "fedbench.algorithms.ormo:OrMoVanilla",
        "ormo-da": "fedbench.algorithms.ormo:OrMoDA",
        "ormo-da-free": "fedbench.algorithms.ormo:OrMoDAFree",
        "ordered-adam": "fedbench.algorithms.ordered_adam:OrderedAdam",
        "fedasync": "fedbench.algorithms.fedasync:FedAsync",
        "fedbuff": "fedbench.algorithms.fedbuff:FedBuff",
        "fadas": "fedbench.algorithms.fadas:Fadas",
        "ca2fl": "fedbench.algorithms.ca2fl:Ca2fl",
        "ssgdm": "fedbench.algorithms.ssgd:SyncSgdm",
        "ssgd-nesterov": "fedbench.algorithms.ssgd:SyncNesterov",
    },
    "optimizer": {
        "sgd": "fedbench.training.optimizers:SGD",
        "adam": "fedbench.training.optimizers:Adam",
        "adamw": "fedbench.training.optimizers:AdamW",
    },
    "lr_schedule": {
        "constant": "fedbench.training.optimizers:Constant",
        "cosine": "fedbench.training.optimizers:Cosine",
        "step": "fedbench.training.optimizers:Step",
    },
    "sampler": {
        "uniform": "fedbench.planning.samplers:Uniform",
        "weighted": "fedbench.planning.samplers:Weighted",
        "oort": "fedbench.planning.samplers:Oort",
    },
    "attack": {
        "sign-flip": "fedbench.protocol.attacks:SignFlip",
        "scaled": "fedbench.protocol.attacks:Scaled",
        "noise": "fedbench.protocol.attacks:Noise",
        "label-flip": "fedbench.protocol.attacks:LabelFlip",
    },
    "delay": {
        "constant": "fedbench.planning.delays:Constant",
        "gamma": "fedbench.planning.delays:Gamma",
        "lognormal": "fedbench.planning.delays:LogNormal",
        "pareto": "fedbench.planning.delays:Pareto",
    },
    "availability": {
        "exponential": "fedbench.planning.availability:Exponential",
        "day-night": "fedbench.planning.availability:DayNight",
        "trace": "fedbench.planning.availability:Trace",
    },
    "compression": {
        "none": "fedbench.protocol.compression:Uncompressed",
        "fp16": "fedbench.protocol.compression:Half",
        "int8": "fedbench.protocol.compression:Int8",
        "topk": "fedbench.protocol.compression:TopK",
    },
}

BUILTIN["server"] = BUILTIN["algorithm"]
"""`server` may name any algorithm; `fedbench.algorithms.crossed` checks which algorithm and server go together."""

CONFIG_KEYS = {
    "dataset": "data.dataset",
    "partition": "data.partition",
    "model": "model",
    "schedule": "schedule",
    "exchange": "exchange",
    "algorithm": "algorithm",
    "server": "server",
    "optimizer": "local.optimizer",
    "lr_schedule": "local.lr_schedule",
    "compression": "update.compression",
    "sampler": "participation.sampler",
    "attack": "participation.byzantine",
    "delay": "delays.distribution",
    "availability": "delays.availability",
}

DEFAULTS = {
    "dataset": "digits",
    "partition": "iid",
    "model": "cnn-bn",
    "schedule": "full",
    "exchange": "trained",
    "algorithm": "fedavg",
    "server": "fedavg",
    "optimizer": "sgd",
    "lr_schedule": "constant",
    "compression": "none",
    "sampler": "uniform",
    "attack": "sign-flip",
    "delay": "gamma",
    "availability": "exponential",
}
"""The name that is taken where a configuration gives parameters without a name, or nothing at all."""

IMPORTED_MODEL = "fedbench.models.imported:ImportedModel"
HUGGING_FACE_MODEL = "fedbench.models.huggingface:HuggingFaceModel"
BROUGHT_MODELS = ("hf:PATH", "torchvision:NAME")
"""What the names of models look like that other libraries bring, beside import paths (package.module:Class)."""

HUB_DATASET = "hf:OWNER/NAME"
"""The name in the catalogue that stands for every data set whose name begins with hf:."""


def built_in_name(kind: str, name: str) -> str:
    """The built-in name that is meant, whatever its case, hyphens, underscores and dots; else the name as it is.

    >>> [built_in_name("dataset", name) for name in ("fashion_mnist", "CIFAR-10", "my.data:Plants")]
    ['fashion-mnist', 'cifar10', 'my.data:Plants']
    """
    if name in BUILTIN[kind] or ":" in name:
        return name
    return {_letters(known): known for known in BUILTIN[kind]}.get(_letters(name), name)


def _letters(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())


def component_class(kind: str, name: str) -> Any:
    """The class behind a built-in name (see `built_in_name`) or an import path ("package.module:Class").

    Raises:
        ConfigError: the name is unknown (a near miss is suggested), or nothing is found under the import path.
    """
    key = CONFIG_KEYS[kind]
    if kind == "model" and name.startswith("torchvision:"):
        return component_class(kind, IMPORTED_MODEL)
    if kind == "model" and name.startswith(PREFIX):
        return component_class(kind, HUGGING_FACE_MODEL)
    if kind == "dataset" and name.startswith("hf:"):
        name = HUB_DATASET
    target = BUILTIN[kind].get(built_in_name(kind, name))
    if target is None and ":" not in name:
        own = f"; data of your own: {key}=parquet, csv or images, {key}.folder={name}" if kind == "dataset" else ""
        raise ConfigError(
            f"{key}={name}: no such {kind}{did_you_mean(name, BUILTIN[kind])} (or 'package.module:Class'{own})"
        )
    module_name, _, attribute = (target or name).partition(":")
    if module_name == "__main__":
        raise ConfigError(
            f"{key}={name}: a script is called __main__ only while it runs, so that the recorded config.yaml could not "
            f"be run again; move {attribute} to the top of a module, and write 'module:{attribute}'"
        )
    try:
        module = import_module(module_name, target or name)
    except (ImportError, ValueError, TypeError) as error:  # the latter two for names that no module can have
        raise ConfigError(f"{key}={name}: cannot import {module_name!r} ({error})") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [word for word in vars(module) if not word.startswith("_")]
        raise ConfigError(
            f"{key}={name}: {module_name!r} has no {attribute!r}{did_you_mean(attribute, public)}"
            f"{hint_of_shadowed_file(module)}"
        ) from None


def checked(kind: str, base: type[Component]) -> BeforeValidator:
    """The check of a section's field that holds a part: `make_component` makes it of what is configured."""
    return BeforeValidator(partial(make_component, kind, base))


def make_component(kind: str, base: type[Component], value: object) -> Component:
    """Turn a configured value into a component.

    Args:
        kind: a key of `BUILTIN`.
        base: the class that the component must derive from.
        value: a component, a name, or a mapping of parameters; without `name` these are the default's.

    Raises:
        ConfigError: unknown name, unknown or impossible parameter, a class of another kind or with missing methods, or
            a component whose name does not lead back to its class.
    """
    if isinstance(value, base):
        check_name_leads_back(kind, value)
        return value
    key = CONFIG_KEYS[kind]
    parameters = {"name": value} if isinstance(value, str) else value
    if isinstance(parameters, dict):
        parameters = {"name": DEFAULTS[kind]} | parameters
    if not isinstance(parameters, dict) or not isinstance(parameters["name"], str):
        raise ConfigError(
            f"{key}={value}: expected a name or a mapping with 'name'; allowed: {', '.join(BUILTIN[kind])}"
        )
    parameters["name"] = built_in_name(kind, parameters["name"])
    part = adapt(kind, component_class(kind, parameters["name"]))
    if not (isinstance(part, type) and issubclass(part, base)):
        raise ConfigError(
            f"{key}={parameters['name']}: is no {base.__name__}; derive the class from fedbench.{base.__name__}"
        )
    if missing := missing_methods(part):
        raise ConfigError(f"{key}={parameters['name']}: the class lacks {', '.join(missing)}; write what is missing")
    return part.create(key, parameters)


def adapt(kind: str, part: Any) -> Any:
    """The component class for what a name led to: for a plain `torch.nn.Module` or a function, `ImportedModel`."""
    if kind != "model" or (isinstance(part, type) and issubclass(part, Component)):
        return part
    return component_class(kind, IMPORTED_MODEL)


def missing_methods(part: type) -> list[str]:
    """The abstract methods and properties that a class does not implement, in the order of their definition."""
    names = [name for owner in reversed(part.__mro__) for name in vars(owner)]
    return [name for name in dict.fromkeys(names) if name in getattr(part, "__abstractmethods__", ())]


def check_name_leads_back(kind: str, part: Component) -> None:
    """Check that a component made in Python can be made again from a recorded configuration.

    Raises:
        ConfigError: its name is neither a built-in name nor an import path, or leads to another class.
    """
    owner = type(part)
    try:
        named = adapt(kind, component_class(kind, part.name))
    except ConfigError:
        named = None
    in_a_script = owner.__module__ == "__main__"
    # A script's class is another object when the script is imported as a module.
    if named is owner or (in_a_script and getattr(named, "__qualname__", None) == owner.__qualname__):
        return
    path = f"{owner.__module__}:{owner.__qualname__}"
    remedy = f"set it to {path!r}"
    if in_a_script or "<locals>" in path:
        remedy = f"move the class to the top of a module, and set the name to 'module:{owner.__name__}'"
    raise ConfigError(
        f"{CONFIG_KEYS[kind]}.name={part.name}: does not lead back to the class {owner.__name__}; {remedy}, so that the"
        " recorded config.yaml can be run again"
    )
