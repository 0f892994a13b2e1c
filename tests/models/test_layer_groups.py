"""Groups from structure, the layout, seeded construction."""

import pytest
import torch
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.base import LayerGroup, Model, Task
from fedbench.models.groups import build_module, derive_layer_groups, feature_layer, parameter_layout
from fedbench.models.imported import ImportedModel
from fedbench.models.resnet import ResNet8

TASK = Task("image", (2, 2, 3), 4)
LARGE = Task("image", (64, 64, 3), 10)


def named(module: nn.Module, task: Task = TASK) -> dict[str, tuple[str, ...]]:
    return {group.name: group.parameters for group in derive_layer_groups(module, task)}


class Backwards(nn.Module):
    """Registered in another order than called, with a normalisation first and one after each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)
        self.middle_norm = nn.LayerNorm(5)
        self.middle = nn.Linear(12, 5)
        self.first_norm = nn.BatchNorm1d(12)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.last(self.middle_norm(self.middle(self.first_norm(images.flatten(1)))))
        return out


def test_forward_order_with_each_normalisation_in_the_group_before_it() -> None:
    groups = named(Backwards())
    assert list(groups) == ["first_norm", "middle", "last"]
    assert groups["middle"] == ("middle_norm.weight", "middle_norm.bias", "middle.weight", "middle.bias")


class ReadsValues(Backwards):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if float(images.sum()) == 0 else images


def test_a_network_that_reads_values_is_watched_on_the_cpu() -> None:
    assert named(ReadsValues()) == named(Backwards())


class Auxiliary(Backwards):
    """Gives a tensor in training only."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if self.training else (logits, images)  # type: ignore[return-value]


def test_a_network_is_watched_in_training_mode_whatever_its_own() -> None:
    assert named(Auxiliary().eval()) == named(Backwards())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decode = nn.Linear(12, 12)
        self.encode = nn.Linear(12, 12)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.decode(self.encode(images.flatten(1))))
        return out


def test_tied_parameters_appear_once_where_they_are_used_first() -> None:
    groups = named(Tied())
    assert groups == {
        "encode": ("decode.weight", "encode.bias"),
        "decode": ("decode.bias",),
        "head": ("head.weight", "head.bias"),
    }


class Functional(nn.Module):
    """Owns a parameter itself, and uses a block's linear layer without calling it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(12, 12)

        def forward(self, values: Tensor) -> Tensor:
            return nn.functional.linear(values, self.inner.weight, self.inner.bias)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(12))
        self.block = self.Block()
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(images.flatten(1) * self.scale))
        return out


def test_uncalled_layers_join_the_called_module_around_them_and_the_root_comes_first() -> None:
    assert named(Functional()) == {
        "scale": ("scale",),
        "block": ("block.inner.weight", "block.inner.bias"),
        "head": ("head.weight", "head.bias"),
    }


class Unused(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Pair(Tied):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images), images  # type: ignore[return-value]


class Wide(Tied):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).repeat(1, 2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Unused(), r"Unused: parameters that take no part in the output: spare.weight, spare.bias$"),
        (Pair(), r"Pair: forward returns tuple in training mode; a tensor \[N, classes\] is needed"),
        (Wide(), r"Wide: forward returns shape \[2, 8\] for 2 samples, \[2, 4\] is needed"),
        (nn.Flatten(), r"Flatten: has no parameters"),
        (nn.Linear(12, 4), r"Linear: a training step on a batch of the data's shape fails: .*shape"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_an_unusable_network_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        derive_layer_groups(module, TASK)


class Own(Backwards):
    def __init__(self, *groups: tuple[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.own = groups

    def layer_groups(self) -> list[LayerGroup]:
        return [LayerGroup(*group) for group in self.own]


HEAD = ("head", ("last.weight", "last.bias"))
BODY = (
    "body",
    ("middle.weight", "middle.bias", "middle_norm.weight", "middle_norm.bias", "first_norm.weight", "first_norm.bias"),
)


def test_a_modules_own_groups_are_kept_as_they_are() -> None:
    assert named(Own(HEAD, BODY)) == dict([HEAD, BODY])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([BODY], r"Own.layer_groups\(\): in no group: last.weight, last.bias$"),
        ([HEAD, BODY, ("again", ("last.bias",))], r"'last.bias' is in group 'head' and in group 'again'"),
        ([BODY, ("head", ("last.wieght", "last.bias"))], r"no parameter is called 'last.wieght'; did you mean 'last.w"),
        ([HEAD, BODY, ("none", ())], r"group 'none' is empty"),
        ([HEAD, ("head", BODY[1])], r"two groups are called 'head'"),
    ],
    ids=["missing", "twice", "unknown", "empty", "name"],
)
def test_a_modules_own_groups_are_checked(groups: list[tuple[str, tuple[str, ...]]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        derive_layer_groups(Own(*groups), TASK)


@pytest.mark.parametrize(("name", "groups"), [("resnet18", 21), ("mobilenet_v3_small", 54), ("vit_b_16", 40)])
def test_torchvision_networks_have_every_parameter_exactly_once(name: str, groups: int) -> None:
    with torch.device("meta"):
        module = ImportedModel(name=f"torchvision:{name}").build(LARGE)
    derived = derive_layer_groups(module, LARGE)
    placed = [parameter for group in derived for parameter in group.parameters]
    assert sorted(placed) == sorted(parameter for parameter, _ in module.named_parameters())
    assert len(placed) == len(set(placed))
    assert len(derived) == groups
    convolutions = [
        g for g in derived if isinstance(module.get_submodule(g.name.removesuffix("class_token")), nn.Conv2d)
    ]
    for group in convolutions if name != "vit_b_16" else []:
        assert len(group.parameters) in (2, 3), group


def test_torchs_attention_takes_its_output_projection_with_it() -> None:
    with torch.device("meta"):
        module = ImportedModel(name="torchvision:vit_b_16").build(LARGE)
    layer = "encoder.layers.encoder_layer_0"
    assert named(module, LARGE)[f"{layer}.self_attention"] == (
        f"{layer}.self_attention.in_proj_weight",
        f"{layer}.self_attention.in_proj_bias",
        f"{layer}.self_attention.out_proj.weight",
        f"{layer}.self_attention.out_proj.bias",
        f"{layer}.ln_2.weight",
        f"{layer}.ln_2.bias",
    )
    assert feature_layer(module) == "heads.head"


@pytest.mark.parametrize("kind", [Backwards, ReadsValues])
def test_deriving_leaves_no_trace(kind: type[nn.Module]) -> None:
    module = kind().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    derive_layer_groups(module, TASK)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(not child._forward_pre_hooks for child in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Norms(nn.Module):
    """A normalisation with weights, one without, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 6)
        self.last = nn.Linear(6, 4)
        self.plain = nn.BatchNorm1d(4, affine=False)
        self.batch = nn.BatchNorm1d(6)
        self.untracked = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.plain(self.last(self.untracked(self.batch(self.first(images.flatten(1))))))
        return out


def test_layout_of_parameters_and_statistics() -> None:
    module = Norms()
    layout = parameter_layout(module, derive_layer_groups(module, TASK))
    assert [(slot.name, slot.group, slot.offset, slot.shape) for slot in layout.slots] == [
        ("first.weight", 0, 0, (6, 12)),
        ("first.bias", 0, 72, (6,)),
        ("batch.weight", 0, 78, (6,)),
        ("batch.bias", 0, 84, (6,)),
        ("untracked.weight", 0, 90, (6,)),
        ("untracked.bias", 0, 96, (6,)),
        ("last.weight", 1, 102, (4, 6)),
        ("last.bias", 1, 126, (4,)),
    ]
    assert [(slot.name, slot.group, slot.offset, slot.shape) for slot in layout.statistics] == [
        ("batch.running_mean", 0, 0, (6,)),
        ("batch.running_var", 0, 6, (6,)),
        ("plain.running_mean", 1, 12, (4,)),
        ("plain.running_var", 1, 16, (4,)),
    ]


def test_resnet8_statistics_follow_the_groups() -> None:
    task = Task("image", (32, 32, 3), 10)
    module = build_module(ResNet8(), task, seed=0)
    layout = parameter_layout(module, derive_layer_groups(module, task))
    assert layout.statistics_size == 2 * (64 + 64 + 64 + 128 + 128 + 128 + 256 + 256 + 256)
    assert [slot.group for slot in layout.statistics] == [group for group in range(9) for _ in range(2)]


def test_construction_is_a_function_of_the_seed_alone() -> None:
    task = Task("image", (32, 32, 3), 10)
    state = torch.random.get_rng_state()
    first = build_module(ResNet8(width=4), task, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again = build_module(ResNet8(width=4), task, seed=3)
    other = build_module(ResNet8(width=4), task, seed=4)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    assert not torch.equal(first.get_parameter("conv1.weight"), other.get_parameter("conv1.weight"))


class HalfModel(Model):
    name: str = "half"

    def build(self, task: Task) -> nn.Module:
        return nn.Linear(2, 2, dtype=torch.float16)


def test_parameters_of_another_type_are_refused() -> None:
    with pytest.raises(ModelError, match=r"model.name=half: parameter 'weight' is torch.float16, float32 is needed"):
        build_module(HalfModel(), TASK, seed=0)


def test_feature_layer_by_attribute_and_by_registration() -> None:
    module = Backwards()
    assert feature_layer(module) == "middle"
    module.feature_layer = "last"  # type: ignore[assignment]
    assert feature_layer(module) == "last"
    module.feature_layer = "lost"  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"Backwards.feature_layer=lost: no such submodule; did you mean 'last'"):
        feature_layer(module)
    decorated = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    assert feature_layer(decorated) == "0"
    with pytest.raises(ModelError, match="Conv2d: has no linear classifier"):
        feature_layer(nn.Conv2d(3, 4, 2))
