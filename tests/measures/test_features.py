"""The features of a layer group are what its last module puts out."""

import torch
from torch import Tensor, nn

from fedbench.measures.features import feature_modules, recorded_features
from fedbench.models.base import Task
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.resnet import ResNet8
from fedbench.models.transformer import TextTransformer

TASK = Task("image", (8, 8, 3), 4)


def test_a_normalisation_belongs_to_the_features_of_the_convolution_before_it() -> None:
    module = build_module(ResNet8(), TASK, 0)
    layout = parameter_layout(module, derive_layer_groups(module, TASK))
    images = torch.randn(5, 3, 8, 8)
    chosen = feature_modules(module, layout, lambda: module(images))
    assert sorted(chosen) == list(layout.all_groups)
    assert sum(isinstance(module.get_submodule(name), nn.BatchNorm2d) for name in chosen.values()) == 9
    assert isinstance(module.get_submodule(chosen[9]), nn.Linear)
    with recorded_features(module, chosen) as features:
        outputs = module(images)
    assert torch.equal(features[9], outputs)
    assert all(len(features[group]) == 5 for group in layout.all_groups)


def test_nothing_stays_in_the_network() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    layout = parameter_layout(module, derive_layer_groups(module, Task("image", (2, 2, 3), 4)))
    with recorded_features(module, feature_modules(module, layout, lambda: module(torch.ones(1, 12)))):
        pass
    assert not any(child._forward_hooks for child in module.modules())


class Attending(nn.Module):
    """Attention, whose output projection is never called as a module, and which returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.last = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1).unsqueeze(1)
        return self.last(self.attention(rows, rows, rows)[0].flatten(1))


def test_a_module_that_is_never_called_is_represented_by_the_one_around_it() -> None:
    task = Task("image", (2, 2, 3), 4)
    module = Attending()
    layout = parameter_layout(module, derive_layer_groups(module, task))
    chosen = feature_modules(module, layout, lambda: module(torch.ones(2, 3, 2, 2)))
    assert chosen == {0: "attention", 1: "last"}
    with recorded_features(module, chosen) as features:
        module(torch.ones(3, 3, 2, 2))
    assert [tuple(features[group].shape) for group in (0, 1)] == [(3, 12), (3, 4)]


def test_a_transformer_has_features_for_every_group() -> None:
    task = Task("text", (16,), 4, vocabulary_size=50, padding_index=0)
    module = build_module(TextTransformer(), task, 0)
    layout = parameter_layout(module, derive_layer_groups(module, task))
    tokens = torch.randint(1, 50, (3, 16))
    chosen = feature_modules(module, layout, lambda: module(tokens))
    assert sorted(chosen) == list(layout.all_groups)
