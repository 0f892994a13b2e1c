"""Gradient leakage: what of a client's images can be had back from what it sends (FedPart, arXiv 2410.11559, Table 9).

FedPart's authors attack the gradient of one image, with its label known, the network in evaluation mode and images in
[0, 1], of which only some layer groups are visible. Clients really send the change of several epochs, and over a cycle
the server sees every group: so the real messages are attacked as well, one and all of them together.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedbench.analysis.finished_items import FinishedItems
from fedbench.analysis.gradient_attack import Attack, AttackSettings, Matching, Reconstruction, Seen, reconstruct
from fedbench.analysis.image_quality import matched, mean_psnr, psnr, ssim
from fedbench.analysis.leakage_cases import ENDS, Case, Cases, Victim
from fedbench.analysis.leakage_shown import Attacked, leakage_picture, leakage_tables, metrics_of, rows_of
from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.engine.device import full_float32
from fedbench.errors import ConfigError
from fedbench.protocol.layout import model_digest
from fedbench.randomness import torch_seed
from fedbench.records.reader import recorded_checksums

Source = Literal["gradient", "cycle", "message", "messages"]

DEFAULT_MATCHING: dict[Attack, Matching] = {"dlg": "lbfgs", "cosine": "adam"}
DEFAULT_ITERATIONS: dict[Matching, int] = {"lbfgs": 300, "adam": 3000}


ABOUT: dict[Source, str] = {
    "gradient": "gradient: of the loss of one image, the network in evaluation mode, images in [0, 1], as FedPart's "
    "authors attack it. N of all: as many parameters drawn from the whole.",
    "cycle": "gradients of the cycle: those of one image at the models of all kept rounds with partial updates (of all "
    "kept rounds where there are none), of each the groups that travelled in it.",
    "message": "message: what the client really sent after its local epochs, as the server read it; all of its images "
    "are looked for at once.",
    "messages": "messages of the cycle: those of all kept rounds with partial updates (of all kept rounds where there "
    "are none) together.",
}
"""What is attacked, in sentences."""


class Leakage(AnalysisSettings):
    """The images that an attacker gets back from what a client sends.

    Attributes:
        round: The round, counted from 1, at whose start the gradient is attacked, and whose message. none: the model
            that is named, and the first message that was kept.
        groups: Layer groups that are seen alone: names with commas between them, ends (the first and the last), each,
            or all for none but the whole.
        sources: What is attacked. gradient: of one image at a time. cycle: its gradients at all kept rounds together,
            of each the groups that travelled. message: the real one of a round. messages: all that were kept.
        images: Images that are attacked one by one.
        client: The client whose images and messages are attacked. none: the first whose messages were kept, or else 0.
        attack: cosine: the angle. dlg: least squares, which finds less where the network has ReLUs.
        matching: What minimises it. none: lbfgs for dlg, adam for cosine.
        iterations: Of the minimisation, at most. none: 300 of L-BFGS, 3,000 of Adam.
        total_variation: Weight of the images' total variation.
        labels: Whether the attacker is given the labels.
        batches: Whether the attacker of messages is given which images were in a minibatch together.
        steps: Local steps of a message that the attack simulates, at most.
        seed: Of everything that is drawn.
        device: auto: a GPU where there is one.
    """

    kind: ClassVar[str] = "leakage"

    round: int | None = Field(None, ge=1)
    groups: str = ENDS
    sources: tuple[Source, ...] = Field(("gradient", "cycle", "message", "messages"), min_length=1)
    images: int = Field(8, ge=1, le=1000)
    client: int | None = Field(None, ge=0)
    attack: Attack = "cosine"
    matching: Matching | None = None
    iterations: int | None = Field(None, ge=1)
    total_variation: float = Field(0.0, ge=0)
    labels: Literal["given", "unknown"] = "given"
    batches: Literal["given", "unknown"] = "given"
    steps: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if self.batches == "unknown" and not self._attacks_messages:
            raise ValueError("batches=unknown: has no effect without message or messages among the sources")
        return self

    @property
    def _attacks_messages(self) -> bool:
        return bool({"message", "messages"} & set(self.sources))

    @property
    def search(self) -> AttackSettings:
        """How images are looked for."""
        matching = self.matching or DEFAULT_MATCHING[self.attack]
        return AttackSettings(
            self.attack, matching, self.iterations or DEFAULT_ITERATIONS[matching], self.total_variation
        )

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Attack what clients of each model's run sent; goes on where a killed analysis with the same settings was."""
        device = self._device()
        with full_float32(device):
            return self._attacked(models, device, progress)

    def _attacked(self, models: Sequence[RecordedModel], device: torch.device, progress: Progress) -> Analysis:
        benches = [self._cases(model, device) for model in models]
        cases = [self._chosen(bench) for bench in benches]
        total = sum(len(case.victims) for of_model in cases for case in of_model)
        if not total:
            raise ConfigError(f"nothing to attack: {' '.join(remark for bench in benches for remark in bench.remarks)}")
        attacked: list[Attacked] = []
        stores = []
        done = 0
        for model, bench, of_model in zip(models, benches, cases, strict=True):
            store = FinishedItems(model.experiment.directory, self.kind, self._identity(model, bench, of_model))
            stores.append(store)
            index = 0
            for case in of_model:
                for number, victim in enumerate(case.victims):
                    progress(done, total, f"{model.label}: {case.source}, {case.visible}")
                    numbers, pictures = self._item(store, index, victim, number)
                    attacked.append(Attacked(model.label, case, number, numbers, pictures))
                    done, index = done + 1, index + 1
        progress(total, total, "writing")
        analysis = self._analysis(models, benches, attacked)
        for store in stores:
            store.remove()
        return analysis

    def _device(self) -> torch.device:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda: there is no GPU that PyTorch can use; use cpu or auto")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")

    def _cases(self, model: RecordedModel, device: torch.device) -> Cases:
        return Cases(
            model,
            round_number=self.round,
            client=self.client,
            groups=self.groups,
            images=self.images,
            guesses_batches=self.batches == "unknown",
            most_steps=self.steps,
            seed=self.seed,
            device=device,
        )

    def _chosen(self, cases: Cases) -> list[Case]:
        makers: dict[Source, Callable[[], list[Case]]] = {
            "gradient": cases.of_gradient,
            "cycle": cases.of_gradients,
            "message": cases.of_message,
            "messages": cases.of_messages,
        }
        return [case for source, make in makers.items() if source in self.sources for case in make()]

    def _identity(self, model: RecordedModel, bench: Cases, cases: Sequence[Case]) -> dict[str, Any]:
        return {
            "settings": self.model_dump(mode="json"),
            "run": model.experiment.run.digest,
            "model": model_digest(bench.model.vector, bench.model.statistics),
            "files": recorded_checksums(model.experiment.directory),
            "cases": [(case.source, case.visible, len(case.victims)) for case in cases],
            "torch": torch.__version__,
        }

    def _item(
        self, store: FinishedItems, index: int, make: Callable[[], Victim], number: int
    ) -> tuple[dict[str, list[float]], dict[str, Any]]:
        """(numbers, pictures) of one attack, which is carried out unless it was before."""
        if (finished := store.get(index)) is not None:
            return finished[1], finished[0]
        began = time.perf_counter()
        victim = make()
        originals = victim.originals
        result = self._attack(victim, number)
        numbers: dict[str, list[float]] = {"distance": [result.distance]}
        pictures = {"original": originals}
        for name, images in (("final", result.final), ("best", result.best)):
            pictures[name] = matched(images, originals)
            numbers[f"psnr_{name}"] = psnr(pictures[name], originals).tolist()
            numbers[f"ssim_{name}"] = ssim(pictures[name], originals).tolist()
        numbers["seconds"] = [time.perf_counter() - began]
        arrays = {name: images.cpu().numpy() for name, images in pictures.items()}
        store.put(index, arrays, numbers)
        return numbers, arrays

    def _attack(self, victim: Victim, number: int) -> Reconstruction:
        """Look for one victim's images; the first guess is the same for the same image, whatever is seen of it."""
        originals, labels = victim.originals, victim.labels
        generator = torch.Generator().manual_seed(torch_seed(self.seed, "first guess", number))
        start = [torch.rand(originals.shape, generator=generator).to(originals.device)]
        score = partial(mean_psnr, originals=originals)
        if self.labels == "given":
            return reconstruct(partial(_labels_given, victim, labels), victim.sent, start, self.search, score)
        # As in DLG: scores of the labels, whose softmax takes the place of the label.
        start.append(torch.zeros(len(labels), victim.classes, device=originals.device))
        return reconstruct(partial(_labels_unknown, victim), victim.sent, start, self.search, score)

    def _analysis(
        self, models: Sequence[RecordedModel], benches: Sequence[Cases], attacked: Sequence[Attacked]
    ) -> Analysis:
        floors = [self._floors(model.label, bench) for model, bench in zip(models, benches, strict=True)]
        everything = [*attacked, *(floor for of_model in floors for floor in of_model)]
        labels = tuple(model.label for model in models)
        pictures = tuple(
            Picture(
                f"reconstructions-{number}" if len(labels) > 1 else "reconstructions",
                f"Originals and reconstructions: {label}",
                "Each row is what the attack arrives at from what is named on the left: above the original, below the "
                "final reconstruction and its PSNR.",
                leakage_picture(_of(everything, label)),
            )
            for number, label in enumerate(labels)
        )
        return Analysis(
            kind=self.kind,
            title="Images that an attacker gets back",
            intro=tuple(self._intro(models, benches)),
            models=labels,
            settings=self.model_dump(mode="json"),
            data={"leakage": rows_of(everything)},
            tables=tuple(table for label in labels for table in leakage_tables(label, _of(everything, label))),
            pictures=pictures,
            metrics=metrics_of(everything),
        )

    def _floors(self, label: str, bench: Cases) -> list[Attacked]:
        """Noise and the mean image as answers to every image: what an attacker has who has seen nothing."""
        originals, _ = bench.attacked()
        generator = torch.Generator().manual_seed(torch_seed(self.seed, "noise"))
        noise = torch.rand(originals.shape, generator=generator).to(originals.device)
        floors = []
        for name, images in (("noise", noise), ("mean image", bench.mean_image().expand_as(originals).contiguous())):
            case = Case("nothing", name, 0, (), f"nothing/{name}")
            quality = {"psnr": psnr(images, originals).tolist(), "ssim": ssim(images, originals).tolist()}
            for number in range(len(originals)):
                values = {f"{what}_{end}": [quality[what][number]] for what in quality for end in ("final", "best")}
                shown = {"original": originals, "final": images, "best": images}
                arrays = {key: tensor[number : number + 1].cpu().numpy() for key, tensor in shown.items()}
                floors.append(Attacked(label, case, number, values | {"distance": [], "seconds": [0.0]}, arrays))
        return floors

    def _intro(self, models: Sequence[RecordedModel], benches: Sequence[Cases]) -> list[str]:
        search = self.search
        by = "L-BFGS" if search.matching == "lbfgs" else "Adam"
        lines = [
            f"Attack: {self.attack} matched by {by}, at most {search.iterations:,} iterations, from uniform noise; "
            f"total variation {search.total_variation:g}; labels {self.labels}.",
            *(ABOUT[source] for source in ABOUT if source in self.sources),
            *([f"Which images were in a minibatch together is {self.batches}."] if self._attacks_messages else []),
            "PSNR and SSIM are of images clamped to [0, 1]. final: what the attacker has at the end. best: the best on "
            "the way, which nobody can choose without the originals. The interval is of the mean over the images.",
        ]
        for model, bench in zip(models, benches, strict=True):
            where = model.label if self.round is None else f"{model.label}, before round {self.round}"
            lines.append(f"{where}: images of client {bench.client}. {' '.join(bench.remarks)}".rstrip())
        return lines


def _of(attacked: Sequence[Attacked], model: str) -> list[Attacked]:
    return [attack for attack in attacked if attack.model == model]


def _labels_given(victim: Victim, labels: Tensor, images: Tensor) -> Seen:
    return victim.observe(images, labels)


def _labels_unknown(victim: Victim, images: Tensor, scores: Tensor) -> Seen:
    return victim.observe(images, scores.softmax(dim=1))
