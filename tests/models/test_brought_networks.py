"""Networks of many kinds train as in a plain PyTorch loop, bit for bit, or are refused in one line."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.algorithms.base import Objective
from fedbench.algorithms.moon import Moon
from fedbench.components.catalogue import make_component
from fedbench.errors import ConfigError, ModelError
from fedbench.models.base import Model, Task
from fedbench.models.features import check_features
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.shared_tensors import saved_names
from fedbench.randomness import generator
from fedbench.training.local import LocalTraining, train_client
from fedbench.training.minibatches import minibatches
from fedbench.training.optimizers import SGD

ROWS, CLASSES = 22, 12
TEXTS = Task("text", (5,), CLASSES, vocabulary_size=CLASSES, padding_index=0)
IMAGES = Task("image", (6, 4, 2), CLASSES)


class Recurrent(nn.Module):
    """Embedding, a recurrent layer of PyTorch's, a linear layer on the last step."""

    def __init__(self, vocabulary_size: int, classes: int, cell: str = "LSTM", **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, 6)
        self.recurrent = getattr(nn, cell)(6, 8, batch_first=True, **options)
        width = (options.get("proj_size") or 8) * (2 if options.get("bidirectional") else 1)
        self.last = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        self.recurrent.flatten_parameters()
        states, _ = self.recurrent(self.embedding(tokens))
        logits: Tensor = self.last(states[:, -1])
        return logits


class Steps(nn.Module):
    """A recurrent cell that is called for each token."""

    def __init__(self, vocabulary_size: int, classes: int) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(vocabulary_size, 6), nn.GRUCell(6, 8)
        self.last = nn.Linear(8, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        state = torch.zeros(len(tokens), 8)
        for vectors in self.embedding(tokens).unbind(1):
            state = self.cell(vectors, state)
        logits: Tensor = self.last(state)
        return logits


class Convolutional(nn.Module):
    """A convolution over one, two or three dimensions, and one of groups, a normalisation, a linear layer."""

    def __init__(self, channels: int, classes: int, dimensions: int) -> None:
        super().__init__()
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.dimensions = dimensions
        self.first = kind(channels if dimensions < 3 else 1, 4, 3 if dimensions < 3 else 2)
        self.norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions](4)
        self.second = kind(4, 6, 1, groups=2)
        self.last = nn.Linear(6, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = {1: images.flatten(2), 2: images, 3: images.unsqueeze(1)}[self.dimensions]
        maps = self.second(torch.relu(self.norm(self.first(maps))))
        logits: Tensor = self.last(maps.flatten(2).mean(2))
        return logits


class Tied(nn.Module):
    """The vectors of the tokens are the weights of the output layer, too."""

    def __init__(self, vocabulary_size: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, 6)
        self.hidden = nn.Linear(6, 6)
        self.last = nn.Linear(6, classes, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.relu(self.hidden(self.embedding(tokens).mean(1))))
        return logits


class Outputs(NamedTuple):
    hidden: Tensor
    logits: Tensor


class Several(Tied):
    """Returns more than its logits."""

    def __init__(self, vocabulary_size: int, classes: int, form: str = "mapping", loss: object = None) -> None:
        super().__init__(vocabulary_size, classes)
        self.form, self.constant = form, loss

    def forward(self, tokens: Tensor) -> Any:
        hidden = torch.relu(self.hidden(self.embedding(tokens).mean(1)))
        logits = self.last(hidden)
        if self.form == "evaluation" and not self.training:
            return logits
        if self.form == "named":
            return Outputs(hidden, logits)
        if self.form == "tuple":
            return hidden, logits
        return {"loss": self.constant, "logits": logits, "hidden": hidden}


class Complex(nn.Module):
    """Has a parameter of another type than float32."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, dtype: str, frozen: bool = False) -> None:
        super().__init__()
        self.last = nn.Linear(int(np.prod(input_shape)), classes)
        kind = getattr(torch, dtype)
        self.factor = nn.Parameter(torch.ones(3).to(kind), requires_grad=not frozen and kind != torch.int64)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(images.flatten(1))
        return logits * self.factor.real.sum().float()


class Replacing(Tied):
    """Gives a parameter other memory in each pass."""

    def __init__(self, vocabulary_size: int, classes: int, how: str) -> None:
        super().__init__(vocabulary_size, classes)
        self.how = how

    def forward(self, tokens: Tensor) -> Tensor:
        if self.how == "data":
            self.hidden.weight.data = self.hidden.weight.data.clamp(-0.5, 0.5)
        else:
            self.hidden.weight = nn.Parameter(self.hidden.weight.detach().clone())
        return super().forward(tokens)


def imported(attribute: str, **arguments: Any) -> Model:
    model = make_component("model", Model, {"name": f"{__name__}:{attribute}", **arguments})
    assert isinstance(model, Model)
    return model


def rows(task: Task) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(5)
    if task.kind == "text":
        inputs = torch.from_numpy(rng.integers(0, CLASSES, (ROWS, *task.input_shape), dtype=np.int32))
    else:
        inputs = torch.from_numpy(rng.integers(0, 256, (ROWS, *task.input_shape), dtype=np.uint8))
    return inputs, torch.from_numpy(rng.integers(0, CLASSES, ROWS))


def transform(task: Task) -> Callable[..., Tensor]:
    if task.kind == "text":
        return lambda batch, _: batch.long()
    return lambda batch, _: batch.permute(0, 3, 1, 2).float() / 255


def flat(model: Model, task: Task) -> FlatModel:
    module = build_module(model, task, seed=1)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, task)))


def train(model: FlatModel, task: Task, groups: tuple[int, ...] | None = None) -> float:
    settings = LocalTraining(SGD(lr=0.3, momentum=0.5), Objective(), 8, epochs=2, steps=None, bf16=False, seed=3)
    return train_client(
        model, *rows(task), np.arange(ROWS), transform(task), settings, anchor=model.vector.clone(),
        groups=model.layout.all_groups if groups is None else groups, round_index=0, client=0, lr_factor=1.0,
    ).loss  # fmt: skip


def plain_loop(module: nn.Module, task: Task, trained: set[str] | None = None) -> nn.Module:
    """The same as a few lines of PyTorch, on a module that knows nothing of flat vectors."""
    inputs, labels = rows(task)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained is None or name in trained)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.3, momentum=0.5, fused=True)
    smallest = 2 if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()) else 1
    module.train()
    for chosen in minibatches(generator(3, "minibatches", 0, 0), ROWS, 8, epochs=2, steps=None, smallest=smallest):
        optimizer.zero_grad()
        output = module(transform(task)(inputs[chosen], None))
        cross_entropy(output, labels[chosen]).backward()
        optimizer.step()
    return module


KINDS = {
    "lstm": (imported("Recurrent"), TEXTS),
    "lstm-2-both-ways": (imported("Recurrent", num_layers=2, bidirectional=True), TEXTS),
    "lstm-projection": (imported("Recurrent", proj_size=4), TEXTS),
    "gru": (imported("Recurrent", cell="GRU", num_layers=2), TEXTS),
    "rnn": (imported("Recurrent", cell="RNN", bias=False), TEXTS),
    "cell": (imported("Steps"), TEXTS),
    "conv1d": (imported("Convolutional", dimensions=1), IMAGES),
    "conv2d": (imported("Convolutional", dimensions=2), IMAGES),
    "conv3d": (imported("Convolutional", dimensions=3), IMAGES),
    "tied": (imported("Tied"), TEXTS),
    "mapping": (imported("Several", output="logits"), TEXTS),
    "mapping-by-index": (imported("Several", output=1), TEXTS),
    "named": (imported("Several", form="named", output="logits"), TEXTS),
    "tuple": (imported("Several", form="tuple", output=-1), TEXTS),
    "tensor-in-evaluation": (imported("Several", form="evaluation", output="logits"), TEXTS),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("partial", [False, True], ids=["full", "partial"])
@pytest.mark.parametrize(("model", "task"), KINDS.values(), ids=KINDS)
def test_a_client_trains_as_in_a_plain_loop(model: Model, task: Task, partial: bool) -> None:
    trained, plain = flat(model, task), build_module(model, task, seed=1)
    groups = (trained.layout.groups - 2,) if partial else trained.layout.all_groups
    names = {slot.name for slot in trained.layout.slots if slot.group in groups}
    start = trained.vector.clone()
    train(trained, task, groups)
    plain_loop(plain, task, names)
    state = plain.state_dict()
    for slot in trained.layout.slots:
        assert torch.equal(trained.module.get_parameter(slot.name), state[slot.name]), slot.name
    for slot in trained.layout.statistics:
        assert torch.equal(trained.module.get_buffer(slot.name), state[slot.name]), slot.name
    assert not torch.equal(trained.vector, start)
    inputs = transform(task)(rows(task)[0], None)
    assert torch.equal(trained.module.eval()(inputs), plain.eval()(inputs))


def test_a_tied_weight_has_one_place_and_is_saved_under_both_names() -> None:
    model = flat(imported("Tied"), TEXTS)
    assert model.layout.size == CLASSES * 6 + 6 * 6 + 6
    assert saved_names(model.module)["last.weight"] == saved_names(model.module)["embedding.weight"]


def test_a_copy_of_the_network_takes_the_same_part_of_its_output() -> None:
    module = build_module(imported("Several", output="logits"), TEXTS, seed=1)
    tokens = transform(TEXTS)(rows(TEXTS)[0], None)
    assert torch.equal(copy.deepcopy(module)(tokens), module(tokens))


def test_moon_compares_features_of_a_network_with_several_outputs() -> None:
    chosen, whole = flat(imported("Several", output="logits"), TEXTS), flat(imported("Tied"), TEXTS)
    losses = []
    for model in (chosen, whole):
        settings = LocalTraining(SGD(lr=0.3), Moon().objective(), 8, epochs=1, steps=None, bf16=False, seed=3)
        state = {"previous": torch.linspace(-1, 1, model.layout.size)}
        result = train_client(
            model, *rows(TEXTS), np.arange(ROWS), transform(TEXTS), settings, anchor=model.vector.clone(),
            groups=model.layout.all_groups, round_index=0, client=0, lr_factor=1.0, state=state,
        )  # fmt: skip
        losses.append(result.loss)
    assert losses[0] == losses[1]
    assert torch.equal(chosen.vector, whole.vector)


def test_the_part_of_the_output_is_recorded_only_where_it_is_chosen() -> None:
    assert imported("Several", output=0).model_dump() == {"name": f"{__name__}:Several", "output": 0}
    assert imported("Tied").model_dump() == {"name": f"{__name__}:Tied"}
    assert make_component("model", Model, KINDS["named"][0].model_dump()) == KINDS["named"][0]


class EachToken(Tied):
    """Its classifier sees the features of each token."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.relu(self.hidden(self.embedding(tokens))))
        return logits.mean(1)


def test_features_of_each_token_are_refused_where_those_of_a_sample_are_compared() -> None:
    check_features(build_module(imported("Tied"), TEXTS, seed=0), TEXTS, "moon")
    with pytest.raises(ModelError, match=r"moon: compares one vector .* 'last' has shape \[2, 5, 6\] for 2 samples"):
        check_features(build_module(imported("EachToken"), TEXTS, seed=0), TEXTS, "moon")
    continued = replace(TEXTS, target="next_token")
    with pytest.raises(ModelError, match=r"moon: compares one .* task=next_token scores every token of a row; choose"):
        check_features(build_module(imported("Tied"), TEXTS, seed=0), continued, "moon")


class Wide(nn.Module):
    """Its constructor has a parameter called output."""

    def __init__(self, classes: int, output: str = "none") -> None:
        super().__init__()
        self.last = nn.Linear(3, classes)
        self.given = output


def test_a_constructor_with_a_parameter_called_output_is_given_it() -> None:
    assert imported("Wide", output="much").build(TEXTS).given == "much"
    assert imported("Wide").build(TEXTS).given == "none"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            imported("Several"),
            r"returns dict in training mode; .* set model.output to the part to train on \(loss, logits, hidden\)$",
        ),
        (imported("Several", form="named"), r"set model.output to the part to train on \(hidden, logits\)$"),
        (imported("Several", form="tuple"), r"returns tuple in training mode; .* train on \(0, 1\)$"),
        (imported("Several", output="logit"), r"^model.output=logit: Several returns dict with loss, logits, hidden; "),
        (imported("Several", output=3), r"^model.output=3: Several returns dict with .*; there is no such part$"),
        (imported("Several", output="loss"), r"^model.output=loss: .*; this part is no tensor but NoneType$"),
        (imported("Several", form="tuple", output=2), r"Several returns tuple of 2, from 0; there is no such part$"),
        (imported("Several", output="hidden"), r"returns shape \[2, 6\] for 2 samples, \[2, 12\] is needed$"),
        (imported("Tied", output=0), r"^model.output=0: Tied returns one tensor, of which no part is to be taken; "),
    ],
)
def test_an_output_that_cannot_be_trained_is_refused_in_one_line(model: Model, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        derive_layer_groups(build_module(model, TEXTS, seed=0), TEXTS)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("dtype", ["complex64", "int64", "float64", "bfloat16"])
def test_parameters_of_another_type_are_refused_in_one_line(dtype: str) -> None:
    with pytest.raises(ModelError, match=rf"Complex: parameter 'factor' is torch.{dtype}, float32 is needed$"):
        build_module(imported("Complex", dtype=dtype), IMAGES, seed=0)


def test_a_truth_value_is_no_part_of_an_output() -> None:
    with pytest.raises(ConfigError, match=r"model\.output"):
        imported("Several", output=True)


@pytest.mark.parametrize("how", ["data", "parameter"])
def test_a_network_that_replaces_a_parameter_as_it_trains_is_refused(how: str) -> None:
    model = flat(imported("Replacing", how=how), TEXTS)
    with pytest.raises(ModelError, match=r"^Replacing: its forward pass replaces parameter 'hidden.weight', whose"):
        train(model, TEXTS)
