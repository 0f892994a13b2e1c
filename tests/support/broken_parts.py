"""Parts of a user's own that break the contract of their base class, each in one way: "broken_parts:Name"."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbench import (
    ActiveGroups,
    Algorithm,
    ArrivalRule,
    AsyncAlgorithm,
    Dataset,
    FederatedData,
    Feedback,
    LayerGroup,
    Model,
    Optimizer,
    Partition,
    Schedule,
    ServerRule,
    Split,
    Task,
)


class WithoutLength(Schedule):
    name: str = "broken_parts:WithoutLength"

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return ActiveGroups((0,), partial=True)


class Ends(Schedule):
    """Sound, with two rounds."""

    name: str = "broken_parts:Ends"

    def length(self, groups: int) -> Any:
        return 2

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        return ActiveGroups((0,), partial=True)


class LongText(Ends):
    def length(self, groups: int) -> Any:
        return "long"


class Foreign(Ends):
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        return ActiveGroups((0, groups), partial=True)


class Empty(Ends):
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        return ActiveGroups((0,) if round_index == 0 else (), partial=True)


class Descending(Ends):
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        return ActiveGroups((1, 0), partial=True)


class PlainTuple(Ends):
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        return (0,)


class Follows(Ends):
    """Sound until the first full round has been; then it names a layer group that does not exist."""

    follows_training = True

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        if feedback.norms is None:
            return ActiveGroups(tuple(range(groups)), partial=False)
        return ActiveGroups((groups,), partial=True)


class FollowsStandstill(Follows):
    """The same, but only where a full round has changed next to nothing."""

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> Any:
        if feedback.norms is None or max(feedback.norms) > 1e-6:
            return ActiveGroups(tuple(range(groups)), partial=False)
        return super().active(round_index, groups, seed, feedback)


class OtherGroups(Ends):
    def client_groups(self, client: int, round_index: int, groups: int, active: ActiveGroups) -> tuple[int, ...]:
        return (1,) if client == 2 else active.groups


class Network(nn.Module):
    """Sound: one linear layer."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(int(np.prod(input_shape)), classes)

    def forward(self, images: Tensor) -> Any:
        return self.classifier(images.flatten(1))


class GivesPair(Network):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images), images


class DeclaredGivesPair(GivesPair):
    """The same with layer groups of its own."""

    def layer_groups(self) -> Any:
        return [LayerGroup("all", ("classifier.weight", "classifier.bias"))]


class DeclaredTooWide(DeclaredGivesPair):
    def forward(self, images: Tensor) -> Any:
        return torch.cat([Network.forward(self, images)] * 2, dim=1)


class GroupsByName(Network):
    def layer_groups(self) -> Any:
        return ["classifier"]


class GroupsByMapping(Network):
    def layer_groups(self) -> Any:
        return {"all": ("classifier.weight", "classifier.bias")}


class BuildsNothing(Model):
    name: str = "broken_parts:BuildsNothing"

    def build(self, task: Task) -> Any:
        return None


class Images(Dataset):
    """Sound: 60 random images of four classes."""

    name: str = "broken_parts:Images"

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> Any:
        return FederatedData(
            name=self.name,
            kind="image",
            train=self.split(40),
            test=self.split(20),
            class_names=("a", "b", "c", "d"),
            mean=None,
            std=None,
            vocabulary_size=0,
            padding_index=-1,
            source="noise",
            fingerprint="0",
        )

    def split(self, rows: int) -> Any:
        images = np.random.default_rng(0).integers(0, 256, (rows, 8, 8, 1), dtype=np.uint8)
        return Split(images, np.arange(rows) % 4)


class TwoArrays(Images):
    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> Any:
        return self.split(40), self.split(20)


class FloatImages(Images):
    def split(self, rows: int) -> Any:
        sound = super().split(rows)
        return Split(sound.inputs / np.float32(255), sound.labels)


class FlatImages(Images):
    def split(self, rows: int) -> Any:
        sound = super().split(rows)
        return Split(sound.inputs[..., 0], sound.labels)


class FifthLabel(Images):
    def split(self, rows: int) -> Any:
        sound = super().split(rows)
        return Split(sound.inputs, sound.labels + 1)


class ShortLabels(Images):
    def split(self, rows: int) -> Any:
        sound = super().split(rows)
        return Split(sound.inputs, sound.labels[:-1])


class Tensors(Images):
    def split(self, rows: int) -> Any:
        sound = super().split(rows)
        return Split(torch.from_numpy(sound.inputs), sound.labels)  # type: ignore[arg-type]


class Slices(Partition):
    """Sound: consecutive rows."""

    name: str = "broken_parts:Slices"

    def split(
        self,
        labels: Any,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: Any,
    ) -> Any:
        return self.parts(np.array_split(np.arange(len(labels)), clients))

    def parts(self, sound: list[Any]) -> Any:
        return sound


class OneShort(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return sound[:-1]


class Shared(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return [np.arange(3), *sound[1:-1], np.arange(2, 9)]


class OutOfRange(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return [*sound[:-1], sound[-1] + 1]


class OneEmpty(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return [*sound[:-1], sound[-1][:0]]


class Masks(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return [part > 3 for part in sound]


class Twice(Slices):
    def parts(self, sound: list[Any]) -> Any:
        return [np.repeat(part, 2) for part in sound]


class MakesFunction(Optimizer):
    name: str = "broken_parts:MakesFunction"
    lr: float = 0.1

    @property
    def slots(self) -> int:
        return 0

    def make(self, parameters: list[nn.Parameter], factor: float) -> Any:
        return lambda: None


class WithoutSlots(Optimizer):
    name: str = "broken_parts:WithoutSlots"
    lr: float = 0.1

    def make(self, parameters: list[nn.Parameter], factor: float) -> Any:
        return torch.optim.SGD(parameters, lr=self.lr)


class Half(ServerRule):
    def combine(self, previous: Any, update: Any, context: Any) -> Any:
        return previous[: len(previous) // 2]


class HalfRule(Algorithm):
    name: str = "broken_parts:HalfRule"

    def rule(self) -> Any:
        return Half()


class Divides(ServerRule):
    def combine(self, previous: Any, update: Any, context: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return previous + update / np.linalg.norm(update)


class DividesRule(Algorithm):
    name: str = "broken_parts:DividesRule"

    def rule(self) -> Any:
        return Divides()


class Single(ServerRule):
    def needs(self, round_index: int) -> Any:
        return "updates"

    def combine_each(self, previous: Any, updates: Any, weights: Any, context: Any) -> Any:
        return previous + updates


class IdlePoolRule(Algorithm):
    name: str = "broken_parts:IdlePoolRule"

    def rule(self) -> Any:
        return IdlePool()


class IdlePool(ServerRule):
    own_models = True

    def recombine(self, pool: Any, context: Any) -> None:
        pool.vectors["parameters"][:] = 0


class NeedsAsAttribute(Algorithm):
    name: str = "broken_parts:NeedsAsAttribute"

    def rule(self) -> Any:
        return WithAttribute()


class WithAttribute(ServerRule):
    needs: Any = "round"


class NegativeWeight(Algorithm):
    name: str = "broken_parts:NegativeWeight"

    def weight(self, samples: int) -> float:
        return -1.0


class NeedsOfInstanceRule(Algorithm):
    """Sound: a rule that is given what it needs when it is made."""

    name: str = "broken_parts:NeedsOfInstanceRule"

    def rule(self) -> Any:
        return NeedsOfInstance("round")


class NeedsOfInstance(ServerRule):
    """Half of the mean update, and only if it is called as a rule of the whole round."""

    def __init__(self, what: Any) -> None:
        self.needs = lambda round_index: what  # type: ignore[method-assign]

    def combine_round(self, previous: Any, updates: Any, context: Any) -> Any:
        return previous + updates.mean() / 2


class NeverCalledRule(Algorithm):
    name: str = "broken_parts:NeverCalledRule"

    def rule(self) -> Any:
        return NeverCalled()


class NeverCalled(ServerRule):
    def combine_round(self, previous: Any, updates: Any, context: Any) -> Any:
        return previous


class SingleRule(Algorithm):
    name: str = "broken_parts:SingleRule"

    def rule(self) -> Any:
        return Single()


class Pairs(ServerRule):
    def needs(self, round_index: int) -> Any:
        return "round"

    def combine_round(self, previous: Any, updates: Any, context: Any) -> Any:
        return previous, updates.mean()


class PairsRule(Algorithm):
    name: str = "broken_parts:PairsRule"

    def rule(self) -> Any:
        return Pairs()


class Greedy(ServerRule):
    def needs(self, round_index: int) -> Any:
        return "everything"


class GreedyRule(Algorithm):
    name: str = "broken_parts:GreedyRule"

    def rule(self) -> Any:
        return Greedy()


class ClassAsRule(Algorithm):
    name: str = "broken_parts:ClassAsRule"

    def rule(self) -> Any:
        return ServerRule


class NoObjective(Algorithm):
    name: str = "broken_parts:NoObjective"

    def objective(self) -> Any:
        return None


class NoApply(ArrivalRule):
    pass


class MachineWithoutApply(AsyncAlgorithm):
    name: str = "broken_parts:MachineWithoutApply"

    def machine(self, parameters: Any, workers: int) -> Any:
        return NoApply(parameters, workers)  # type: ignore[abstract]


class WithoutMachine(AsyncAlgorithm):
    name: str = "broken_parts:WithoutMachine"


class Stacks(ArrivalRule):
    def apply(self, update: Any, index: int, worker: int, lr: float) -> None:
        self.parameters = np.stack([self.parameters, update])


class StackingMachine(AsyncAlgorithm):
    name: str = "broken_parts:StackingMachine"

    def machine(self, parameters: Any, workers: int) -> Any:
        return Stacks(parameters, workers)


class NothingForWorkers(Stacks):
    def pull(self, worker: int) -> Any:
        return self.parameters


class MachineWithoutIndex(AsyncAlgorithm):
    name: str = "broken_parts:MachineWithoutIndex"

    def machine(self, parameters: Any, workers: int) -> Any:
        return NothingForWorkers(parameters, workers)


class Unnamed(Algorithm):
    """Sound, under a name that is no import path."""

    name: str = "mine"
