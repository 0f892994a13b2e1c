"""What an attack may look for in a recorded run: gradients, real messages, all messages together, and who sees what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.analysis.gradient_attack import Seen
from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.visible_update import DifferentiableRule, GradientView, MessageView, Scaling, Visible
from fedbench.components.suggestions import did_you_mean
from fedbench.data.base import Split
from fedbench.errors import ConfigError
from fedbench.models.flat import FlatModel
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PARAMETERS
from fedbench.randomness import generator
from fedbench.records.kept import kept_messages, kept_models, load_message, load_model
from fedbench.training.minibatches import minibatches

GRADIENT, AS_SENT, GRADIENTS = "gradient", "gradient as sent", "gradients of the cycle"
MESSAGE, MESSAGES = "message", "messages of the cycle"

FULL = "all"
"""The name of what is seen where every parameter is."""

ENDS, EACH = "ends", "each"
"""In place of names of layer groups: the first and the last one, or each of them alone."""


@dataclass(frozen=True)
class Victim:
    """The images behind one thing that was sent.

    Attributes:
        originals: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        observe: what would be seen of images and labels.
        sent: what was seen.
        classes: number of classes.
    """

    originals: Tensor
    labels: Tensor
    observe: Callable[[Tensor, Tensor], Seen]
    sent: Seen
    classes: int


@dataclass(frozen=True)
class Case:
    """One way to see a client, over all images that are attacked in this way.

    Attributes:
        source: what is seen: one of the constants of this module.
        visible: which of its parameters.
        parameters: their number, over all messages.
        victims: makes what is attacked, one after the other.
        key: what it is called among the figures of an analysis, the same for networks with other layer groups.
    """

    source: str
    visible: str
    parameters: int
    victims: tuple[Callable[[], Victim], ...]
    key: str


def chosen_groups(text: str, layout: ParameterLayout) -> dict[str, int]:
    """The layer groups that `--groups` names, {key: group} for each that is seen alone; `all` adds nothing to FULL.

    Args:
        text: names with commas between them, `ends`, `each` or `all`.
        layout: of the network.

    Raises:
        ConfigError: there is no such group; a near miss is suggested.
    """
    names, last = layout.group_names, layout.groups - 1
    if text == FULL:
        return {}
    if text == ENDS:
        return {"first": 0, "last": last} if last else {"first": 0}
    if text == EACH:
        return dict(zip(names, layout.all_groups, strict=True))
    wanted = [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"--groups {text}: there is no layer group {unknown[0]!r}{did_you_mean(unknown[0], names)} "
            f"(it has {', '.join(names)}; or all, each, ends)"
        )
    return {name: names.index(name) for name in wanted}


def visible_sets(groups: Mapping[str, int], layout: ParameterLayout, seed: int) -> list[Visible]:
    """Everything, then each of the groups, and beside it as many parameters drawn from all."""
    sets = [Visible(FULL, layout.all_groups, key=FULL)]
    for key, group in groups.items():
        name, count = layout.group_names[group], layout.group_size(group)
        places = generator(seed, "visible parameters", count).choice(layout.size, count, replace=False)
        drawn = torch.from_numpy(np.sort(places))
        sets.append(Visible(name if key in ("", name) else f"{name} ({key})", (group,), key=key))
        sets.append(Visible(f"{count:,} of all, as many as {name}", layout.all_groups, drawn, f"as many as {key}"))
    return sets


class Cases:
    """The cases of one recorded model."""

    def __init__(
        self,
        model: RecordedModel,
        *,
        round_number: int | None,
        client: int | None,
        groups: str,
        images: int,
        guesses_batches: bool,
        most_steps: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Args:
        model: whose gradients are attacked where no round is named.
        round_number: the round, counted from 1, whose start is attacked, and whose message.
        client: whose images and messages are attacked; None: the first with a message, or else client 0.
        groups: as for `chosen_groups`.
        images: that are attacked one by one.
        guesses_batches: whether the attack does not know which images were together in a minibatch.
        most_steps: local steps that the attack simulates, at most.
        seed: of everything that is drawn.
        device: on which it computes.

        Raises:
            ConfigError: the run is not one of images, or has no such client or group.
            DataError: the model of the round has not been kept, or is damaged.
        """
        experiment = model.experiment
        problem = experiment.problem
        if problem.federation.data.kind != "image":
            raise ConfigError(
                f"{model.label}: {problem.federation.data.name} is {problem.federation.data.kind} data; images alone "
                "can be reconstructed"
            )
        self._experiment, self._problem, self._device, self._seed = experiment, problem, device, seed
        self._messages = kept_messages(experiment.directory)
        self.client = client if client is not None else next((sender for _, sender in self._messages), 0)
        if self.client >= len(problem.federation.rows):
            raise ConfigError(
                f"--client {client}: {model.label} has no such client; 0 to {len(problem.federation.rows) - 1}"
            )
        self.round_number = round_number
        self.model = model if round_number is None else self._before(round_number)
        self._sets = visible_sets(chosen_groups(groups, problem.layout), problem.layout, seed)
        rows = problem.federation.rows[self.client]
        self._rows = generator(seed, "attacked images", self.client).permutation(rows)[:images]
        self._guesses_batches, self._most_steps = guesses_batches, most_steps
        self.remarks: list[str] = []

    def _before(self, round_number: int) -> RecordedModel:
        """The global model that a round, counted from 1, started from."""
        tensors = load_model(self._experiment.directory, round_number - 1)
        return self._experiment.model_of(tensors, f"before round {round_number}")

    def _flat(self, model: RecordedModel) -> FlatModel:
        values = model.build()
        flat = FlatModel(values.module, model.layout, self._device)
        flat.module.eval()
        return flat

    @property
    def scaling(self) -> Scaling:
        """Normalises images in [0, 1] as the run does."""
        mean, std = self._problem.spec.mean, self._problem.spec.std
        if mean is None or std is None:
            return lambda images: images
        centre, width = (torch.tensor(values, device=self._device).reshape(1, -1, 1, 1) for values in (mean, std))
        return lambda images: (images - centre) / width

    def _images(self, rows: npt.NDArray[np.int64], split: Split | None = None) -> tuple[Tensor, Tensor]:
        """(images float32 [n, C, H, W] in [0, 1], labels int64 [n]) of rows of a split; None: the training split."""
        split = self._problem.federation.data.train if split is None else split
        images = torch.from_numpy(np.ascontiguousarray(split.inputs[rows])).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(np.ascontiguousarray(split.labels[rows])).long()
        return images.contiguous().to(self._device), labels.to(self._device)

    def attacked(self) -> tuple[Tensor, Tensor]:
        """The images that are attacked one by one, and their labels."""
        return self._images(self._rows)

    def mean_image(self) -> Tensor:
        """float32 [1, C, H, W], the mean of the test split, which an attacker may know images like."""
        test = self._problem.federation.data.test
        mean = test.inputs.mean(axis=0, dtype=np.float64).transpose(2, 0, 1) / 255
        return torch.from_numpy(mean).float()[None].to(self._device)

    def of_gradient(self) -> list[Case]:
        """The gradient of one image at a time, at the global model, the network in evaluation mode."""
        flat = self._flat(self.model.scored())
        cases = [self._gradient_case(GRADIENT, flat, visible) for visible in self._sets]
        if not self._problem.spec.update.changes_nothing:
            cases += [self._gradient_case(AS_SENT, flat, visible) for visible in self._sets if visible.subset is None]
        return cases

    def _gradient_case(self, source: str, flat: FlatModel, visible: Visible) -> Case:
        view = GradientView(flat, visible, self.scaling)

        def victim(index: int) -> Victim:
            images, labels = self._images(self._rows[index : index + 1])
            sent = view(images, labels).detach()
            if source == AS_SENT:
                sent = self._as_sent(sent, visible, index)
            return Victim(images, labels, lambda *guess: [view(*guess)], [sent], self._problem.spec.task.classes)

        victims = tuple(partial(victim, index) for index in range(len(self._rows)))
        return Case(source, visible.name, visible.count(flat.layout), victims, f"{source}/{visible.key}")

    def _as_sent(self, gradient: Tensor, visible: Visible, index: int) -> Tensor:
        """A gradient as the server would read it: as one step of SGD, clipped, with noise, and compressed."""
        spec, layout = self._problem.spec, self._problem.layout
        rate, table = np.float32(spec.optimizer.lr), spec.table
        vector, start = np.zeros(layout.size, np.float32), 0
        values = gradient.cpu().numpy()
        for slot in (slot for slot in layout.slots if slot.group in visible.groups):
            slot.view(vector)[...] = values[start : start + slot.size].reshape(slot.shape)
            start += slot.size
        parts = [number for number, part in enumerate(table.parts) if part.channel == PARAMETERS]
        parts = [number for number in parts if table.parts[number].group in visible.groups]
        update = table.gather({PARAMETERS: -rate * vector}, parts)
        reference = np.zeros_like(update)
        rng = generator(self._seed, "attacked update", index)
        read = spec.update.apply(table, parts, update, reference, ClientState(), rng)
        table.scatter(read, {PARAMETERS: vector}, parts)
        seen = np.concatenate([slot.view(vector).ravel() for slot in layout.slots if slot.group in visible.groups])
        return torch.from_numpy(seen / -rate).to(self._device)

    def of_gradients(self) -> list[Case]:
        """The gradient of one image at the models of all kept rounds, of each the layer groups that travelled in it."""
        models = kept_models(self._experiment.directory)
        rounds = self._cycle(number for number in self._problem.config.runtime.keep_models if number - 1 in models)
        if len(rounds) < 2:
            self.remarks.append(
                "The gradients of a whole cycle are left out: the run has not kept the models of several rounds "
                "(runtime.keep_models)."
            )
            return []
        layout = self._problem.layout
        views = []
        for number in rounds:
            visible = Visible(f"round {number}", self._travelled(number))
            views.append((GradientView(self._flat(self._before(number).scored()), visible, self.scaling), visible))

        def victim(index: int) -> Victim:
            images, labels = self._images(self._rows[index : index + 1])
            sent = [view(images, labels).detach() for view, _ in views]
            classes = self._problem.spec.task.classes
            return Victim(images, labels, lambda *guess: [view(*guess) for view, _ in views], sent, classes)

        victims = tuple(partial(victim, index) for index in range(len(self._rows)))
        count = sum(visible.count(layout) for _, visible in views)
        return [Case(GRADIENTS, _spoken(rounds), count, victims, GRADIENTS)]

    def _cycle(self, rounds: Iterable[int]) -> list[int]:
        """The rounds, counted from 1, that were partial updates; all of `rounds` where none was."""
        kept, everything = list(rounds), self._problem.layout.all_groups
        return [number for number in kept if self._travelled(number) != everything] or kept

    def _travelled(self, round_number: int) -> tuple[int, ...]:
        """The layer groups that were trained in a round, counted from 1."""
        counts = self._experiment.run.rounds["group_clients"].to_pylist()[round_number - 1]
        if counts is None:
            return self._problem.layout.all_groups
        return tuple(group for group, count in enumerate(counts) if count)

    def of_message(self) -> list[Case]:
        """The real message of one round, and parts of it where it is a full update."""
        rounds = [number for number, sender in self._messages if sender == self.client]
        if self.round_number is not None:
            rounds = [number for number in rounds if number == self.round_number]
        if not rounds:
            self.remarks.append(
                f"Messages are left out: the run has kept none of client {self.client}"
                f"{'' if self.round_number is None else f' in round {self.round_number}'} (runtime.keep_messages)."
            )
            return []
        DifferentiableRule(self._problem.spec.optimizer, 1.0)  # refuses what cannot be simulated
        steps = self._problem.server.local.steps_of(len(self._problem.federation.rows[self.client]))
        if steps > self._most_steps:
            self.remarks.append(
                f"The client takes {steps} local steps; the attack simulates {self._most_steps} of them, each "
                f"{steps / self._most_steps:.3g} times as long."
            )
        trained = self._travelled(rounds[0])
        whole = trained == self._problem.layout.all_groups
        names = " + ".join(self._problem.layout.group_names[group] for group in trained)
        as_trained = Visible(names, trained, key="own")
        cases = []
        for visible in self._sets if whole else [as_trained]:
            name = f"{visible.name}, round {rounds[0]}"
            count = visible.count(self._problem.layout)
            victims = (partial(self._message_victim, (rounds[0],), visible),)
            cases.append(Case(MESSAGE, name, count, victims, f"{MESSAGE}/{visible.key}"))
        return cases

    def of_messages(self) -> list[Case]:
        """All real messages of the client that were kept, together."""
        rounds = self._cycle(number for number, sender in self._messages if sender == self.client)
        if len(rounds) < 2:
            return []
        count = sum(self._problem.layout.count(self._travelled(number)) for number in rounds)
        return [Case(MESSAGES, _spoken(rounds), count, (partial(self._message_victim, rounds, None),), MESSAGES)]

    def _message_victim(self, rounds: Sequence[int], visible: Visible | None) -> Victim:
        images, labels = self._images(self._problem.federation.rows[self.client])
        views, sent = [], []
        for number in rounds:
            seen = visible or Visible("", self._travelled(number))
            tensors, _ = load_message(self._experiment.directory, number, self.client)
            names = seen.names(self._problem.layout)
            sent.append(seen.of([torch.from_numpy(tensors[name].copy()).to(self._device) for name in names]))
            views.append(self._message_view(number, seen, len(images)))
        classes = self._problem.spec.task.classes
        return Victim(images, labels, lambda *guess: [view(*guess) for view in views], sent, classes)

    def _message_view(self, round_number: int, visible: Visible, samples: int) -> MessageView:
        spec, config, index = self._problem.spec, self._problem.config, round_number - 1
        flat = self._flat(self._before(round_number))
        seed, purpose = (self._seed, "guessed minibatches") if self._guesses_batches else (spec.seed, "minibatches")
        batches = [
            torch.from_numpy(batch.copy())
            for batch in minibatches(
                generator(seed, purpose, index, self.client),
                samples,
                spec.batch_size,
                epochs=spec.epochs,
                steps=spec.steps,
                smallest=flat.smallest_batch,
            )
        ]
        rate = spec.optimizer.lr * config.local.lr_schedule.factor(index, self._problem.rounds)
        if (steps := len(batches)) > self._most_steps:
            # As many steps as are simulated go as far as the real ones: each is longer by their ratio.
            batches = [batches[number * steps // self._most_steps] for number in range(self._most_steps)]
            rate *= steps / self._most_steps
        return MessageView(flat, self._travelled(round_number), visible, self.scaling, spec.optimizer, rate, batches)


def _spoken(rounds: Sequence[int]) -> str:
    """Rounds in words: "rounds 6 to 25", or each of them where they do not follow each other."""
    if list(rounds) == list(range(rounds[0], rounds[-1] + 1)):
        return f"rounds {rounds[0]} to {rounds[-1]}"
    return f"rounds {', '.join(map(str, islice(rounds, 8)))}{' and others' if len(rounds) > 8 else ''}"
