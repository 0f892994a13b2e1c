"""Models by import path and torchvision's by name."""

from typing import Any

import pytest
import torch
from torch import nn

from fedbench.components.catalogue import make_component
from fedbench.errors import ConfigError, ModelError
from fedbench.models.base import Model, Task
from fedbench.models.groups import build_module, derive_layer_groups
from fedbench.models.imported import ImportedModel

CIFAR = Task("image", (32, 32, 3), 10)
TEXTS = Task("text", (9,), 4, vocabulary_size=50, padding_index=0)
NOT_CALLABLE = 3


class Everything(nn.Module):
    """Records what it is given."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        input_shape: tuple[int, ...] = (),
        vocabulary_size: int = -5,
        padding_index: int = -5,
        depth: int = 2,
    ) -> None:
        super().__init__()
        self.given = (num_classes, in_channels, input_shape, vocabulary_size, padding_index, depth)


class Short(nn.Module):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.given = (classes, channels)


class Demanding(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth < 0:
            raise ValueError("depth is negative")


class Open(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.given = options


def factory(classes: int) -> nn.Module:
    return nn.Linear(2, classes)


def liar() -> int:
    return 3


def imported(attribute: str, **arguments: Any) -> Model:
    component = make_component("model", Model, {"name": f"{__name__}:{attribute}", **arguments})
    assert isinstance(component, ImportedModel)
    return component


def given(attribute: str, task: Task, **arguments: Any) -> Any:
    return imported(attribute, **arguments).build(task).given


def test_the_data_fill_what_is_not_given() -> None:
    assert given("Everything", CIFAR) == (10, 3, (32, 32, 3), -5, -5, 2)
    assert given("Everything", TEXTS) == (4, 1, (9,), 50, 0, 2)
    assert given("Short", CIFAR) == (10, 3)
    assert given("Everything", CIFAR, num_classes=7, depth=5) == (7, 3, (32, 32, 3), -5, -5, 5)
    assert given("Open", CIFAR, anything=1) == {"anything": 1}
    assert build_module(imported("factory"), CIFAR, seed=0).get_parameter("bias").shape == (10,)


def test_the_arguments_are_part_of_the_configuration() -> None:
    model = imported("Everything", depth=5)
    assert model.model_dump() == {"name": f"{__name__}:Everything", "depth": 5}
    assert make_component("model", Model, model.model_dump()) == model


@pytest.mark.parametrize(
    ("attribute", "arguments", "message"),
    [
        (
            "Everything",
            {"dept": 3},
            r"^model.dept: unknown key with model.name=\S+:Everything; did you mean 'depth'\?$",
        ),
        ("Demanding", {}, r"^model.depth: must be set with model.name=\S+:Demanding$"),
        ("NOT_CALLABLE", {}, r"NOT_CALLABLE: neither a torch.nn.Module class nor a function that returns one$"),
        ("Any", {}, r"Any: neither a torch.nn.Module class"),
        ("Everythin", {}, r"has no 'Everythin'; did you mean 'Everything'"),
    ],
)
def test_a_wrong_configuration_names_its_key(attribute: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(attribute, **arguments)


@pytest.mark.parametrize(
    ("attribute", "arguments", "message"),
    [
        ("Demanding", {"depth": -1}, r"cannot be built with depth=-1: depth is negative$"),
        ("liar", {}, r"gives int, not a torch.nn.Module$"),
        ("Short", {}, r"model.channels: must be set with model.name=\S+:Short for text data$"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(attribute: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        imported(attribute, **arguments).build(TEXTS)


def torchvision(name: str, **arguments: Any) -> Model:
    component = make_component("model", Model, {"name": f"torchvision:{name}", **arguments})
    assert isinstance(component, Model)
    return component


def test_torchvision_by_name() -> None:
    with torch.device("meta"):
        module = torchvision("mobilenet_v3_small", dropout=0.4).build(CIFAR)
        transformer = torchvision("vit_b_16").build(CIFAR)
    assert module.get_submodule("classifier.2").p == 0.4
    assert module.get_parameter("classifier.3.weight").shape[0] == 10
    assert transformer.image_size == 32


def test_torchvisions_auxiliary_classifiers_are_left_out_unless_asked_for() -> None:
    task = Task("image", (64, 64, 3), 10)
    for arguments, left_out in (({}, True), ({"aux_logits": True}, False)):
        with torch.device("meta"):
            module = torchvision("googlenet", init_weights=False, **arguments).build(task)
        assert (module.aux1 is None) == left_out
    message = r"forward returns GoogLeNetOutputs in training mode; a tensor \[N, classes\] is needed"
    with pytest.raises(ModelError, match=message):
        derive_layer_groups(module, task)


def test_a_torchvision_model_for_images_of_another_size_says_so() -> None:
    with pytest.raises(
        ModelError, match=r"maxvit_t: cannot be built with .*input_size=\(32, 32\): .* not divisible by"
    ):
        torchvision("maxvit_t").build(CIFAR)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet81", {}, r"^model.name=torchvision:resnet81: no such torchvision .*; did you mean 'resnet18'\?$"),
        ("fcn_resnet50", {}, r"no such torchvision classification model"),
        ("mobilenet_v3_small", {"dropuot": 0.1}, r"^model.dropuot: unknown key .*; did you mean 'dropout'\?$"),
        (
            "resnet18",
            {"weights": "DEFAULT"},
            r"^model.weights=DEFAULT: cannot be set with model.name=torchvision:resnet18$",
        ),
    ],
)
def test_a_wrong_torchvision_configuration_names_its_key(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        torchvision(name, **arguments)


def test_torchvision_needs_three_channels() -> None:
    with pytest.raises(ModelError, match=r"need images with 3 channels, these are images with 1 channel"):
        torchvision("resnet18").build(Task("image", (28, 28, 1), 10))
    with pytest.raises(ModelError, match=r"these are text$"):
        torchvision("resnet18").build(TEXTS)
