"""Networks from outside fedbench: any `torch.nn.Module` by import path, torchvision's models by name."""

import importlib
import inspect
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pydantic import (
    ConfigDict,
    SerializerFunctionWrapHandler,
    StrictInt,
    StrictStr,
    model_serializer,
    model_validator,
)
from torch import nn

from fedbench.components.catalogue import component_class
from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError, ModelError
from fedbench.models.adapter_keys import Peft
from fedbench.models.adapters import adapt, is_linear
from fedbench.models.base import Model, Task
from fedbench.models.outputs import with_output

TORCHVISION = "torchvision:"
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ImportedModel(Model):
    """A `torch.nn.Module` by import path ("package.module:Class"), or "torchvision:NAME", with random weights.

    Every further key is a keyword argument of the constructor, and is checked against its signature. Constructor
    parameters called `num_classes`, `classes` or `outputs`, `input_shape`, `in_channels` or `channels` (images),
    `vocabulary_size` and `padding_index` (text) are filled from the data unless they are given.

    Attributes:
        output: The part of what forward returns that is trained and scored, where it returns a dictionary, a tuple or a
            list: a key, the name of a field, or an index. null: forward returns a tensor. A constructor with a
            parameter of this name is given the value instead.
        peft: Adapters that train in place of the whole network: {lora: {r: 8, targets: [fc1]}}; the targets have to be
            named. The head that trains in full is the last linear layer, unless lora.head names others.

    Raises:
        ConfigError: nothing callable under the name, a key that the constructor does not have, or a missing one.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    output: StrictStr | StrictInt | None = None
    peft: Peft | None = None

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model whose output is not selected, or that has no adapters, is recorded without that key."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key not in ("output", "peft") or value is not None}

    @property
    def arguments(self) -> dict[str, Any]:
        """The configured keyword arguments."""
        taken = {} if self._selects else {"output": self.output}
        return {**(self.model_extra or {}), **taken}

    @property
    def _selects(self) -> bool:
        """Whether the key `output` says what of the output is taken, and is no argument of the constructor."""
        return self.output is None or "output" not in self.constructor.allowed

    @property
    def constructor(self) -> "Constructor":
        """The class or function that makes the module."""
        if self.name.startswith(TORCHVISION):
            return torchvision_constructor(self.name)
        return imported_constructor(self.name)

    @model_validator(mode="after")
    def check_arguments(self) -> "ImportedModel":
        """Check the keys against the constructor's signature."""
        constructor, given = self.constructor, self.arguments
        owner = f"with model.name={self.name}"
        for key, value in given.items():
            if key in constructor.reserved:
                raise ConfigError(f"model.{key}={value}: cannot be set {owner}")
            if key not in constructor.allowed and not constructor.takes_anything:
                raise ConfigError(f"model.{key}: unknown key {owner}{did_you_mean(key, constructor.allowed)}")
        missing = [key for key in constructor.required if key not in given and key not in FILLED]
        if missing:
            raise ConfigError(f"model.{missing[0]}: must be set {owner}")
        return self

    def build(self, task: Task) -> nn.Module:
        constructor = self.constructor
        filled = {key: value for key, value in constructor.filled(task).items() if key in constructor.allowed}
        arguments = {**filled, **self.arguments}
        missing = [key for key in constructor.required if key not in arguments]
        if missing:
            raise ModelError(f"model.{missing[0]}: must be set with model.name={self.name} for {task.kind} data")
        try:
            module = constructor.call(**arguments)
        except Exception as error:
            reason = (str(error).strip() or repr(error)).split("\n")[0]
            shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise ModelError(
                f"model.name={self.name}: cannot be built with {shown or 'no arguments'}: {reason}"
            ) from error
        if not isinstance(module, nn.Module):
            raise ModelError(f"model.name={self.name}: gives {type(module).__name__}, not a torch.nn.Module")
        if self.peft is not None:
            linear = [name for name, child in module.named_modules() if is_linear(child)]
            adapt(self.name, module, self.peft, linear[-1:], None)
            module.has_frozen_base = True  # type: ignore[assignment]
        return with_output(module, self.output if self._selects else None)


def from_task(task: Task) -> dict[str, Any]:
    """Constructor arguments that follow from the data."""
    known: dict[str, Any] = dict.fromkeys(("num_classes", "classes", "outputs"), task.classes)
    known["input_shape"] = task.input_shape
    if task.kind == "image":
        return {**known, "in_channels": task.input_shape[2], "channels": task.input_shape[2]}
    if task.kind == "array":
        return known
    return {**known, "vocabulary_size": task.vocabulary_size, "padding_index": task.padding_index}


FILLED = frozenset(from_task(Task("image", (1, 1, 1), 1))) | frozenset(from_task(Task("text", (1,), 1)))


class Constructor:
    """A callable that makes a module, and the keywords that it takes.

    Attributes:
        call: the callable.
        allowed: the keywords that it names.
        required: the keywords without a default.
        takes_anything: whether it has `**kwargs`, so that any keyword may have an effect.
        reserved: keywords that a configuration may not set.
    """

    def __init__(self, call: Callable[..., Any], signature: inspect.Signature) -> None:
        named = [parameter for parameter in signature.parameters.values() if parameter.kind in NAMED]
        self.call = call
        self.allowed = {parameter.name for parameter in named}
        self.required = [parameter.name for parameter in named if parameter.default is inspect.Parameter.empty]
        self.takes_anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
        self.reserved: frozenset[str] = frozenset()

    def filled(self, task: Task) -> dict[str, Any]:
        """Arguments that follow from the data, whether or not this constructor takes them."""
        return from_task(task)


class TorchvisionConstructor(Constructor):
    """A builder of torchvision, with the keywords of the class that it is annotated to return.

    Torchvision's builders pass `**kwargs` on, and some of the classes ignore keywords that they do not know: a mistyped
    key would have no effect.
    """

    def __init__(self, name: str, builder: Callable[..., Any]) -> None:
        built = typing.get_type_hints(builder)["return"]
        super().__init__(builder, inspect.signature(built))
        self.name = name
        self.reserved = frozenset({"weights", "progress"})
        self.allowed |= Constructor(builder, inspect.signature(builder)).allowed - self.reserved
        self.allowed.add("num_classes")
        self.required = []
        self.takes_anything = False

    def filled(self, task: Task) -> dict[str, Any]:
        if task.kind != "image" or task.input_shape[2] != 3:
            what = "text" if task.kind != "image" else f"images with {task.input_shape[2]} channel(s)"
            raise ModelError(
                f"model.name={self.name}: torchvision's models need images with 3 channels, these are {what}"
            )
        # Some transformers are made for one image size. GoogLeNet and Inception can leave out their auxiliary
        # classifiers, which make the output in training a tuple. No other model has these keywords.
        height, width, _ = task.input_shape
        return {
            "num_classes": task.classes,
            "image_size": height,
            "input_size": (height, width),
            "aux_logits": False,
        }


def torchvision_constructor(name: str) -> Constructor:
    """The builder behind "torchvision:NAME".

    Raises:
        ConfigError: torchvision is missing, or has no classification model of that name.
    """
    try:
        models: ModuleType = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ConfigError(
            f"model.name={name}: torchvision cannot be imported ({error}); pip install torchvision"
        ) from error
    known: list[str] = models.list_models(module=models)
    wanted = name.removeprefix(TORCHVISION)
    if wanted not in known:
        raise ConfigError(f"model.name={name}: no such torchvision classification model{did_you_mean(wanted, known)}")
    return TorchvisionConstructor(name, models.get_model_builder(wanted))


def imported_constructor(name: str) -> Constructor:
    """The class or function behind "package.module:Class".

    Raises:
        ConfigError: nothing is found there, or something that is neither a module class nor a function.
    """
    maker = component_class("model", name)
    is_module = isinstance(maker, type) and issubclass(maker, nn.Module)
    if not is_module and (isinstance(maker, type) or not callable(maker)):
        raise ConfigError(f"model.name={name}: neither a torch.nn.Module class nor a function that returns one")
    return Constructor(maker, inspect.signature(maker))
