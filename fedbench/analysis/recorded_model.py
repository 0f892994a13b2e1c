"""Recorded runs made concrete again: their network with the parameters that they left, its layer groups, their data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.checkpoints.files import MANIFEST, Checkpoint, Checkpoints
from fedbench.components.own_code import changed_parts
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import merged, parse_overrides
from fedbench.data.base import Split
from fedbench.engine.device_rows import host_tensors
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.base_records import base_entries
from fedbench.experiment.checkpointing import codec
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import Problem, build_problem
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.protocol.layout import ParameterLayout, Vector, model_digest
from fedbench.randomness import torch_seed
from fedbench.records.kept import KEPT, kept_number, load_model
from fedbench.records.reader import CHECKPOINTS, SUMMARY, recorded_checksums
from fedbench.records.recorded_run import RecordedRun, read_run
from fedbench.records.run_directory import MODEL
from fedbench.system.home import expanded
from fedbench.system.regular_files import read_regular
from fedbench.training.evaluation import recalibrate
from fedbench.training.prepared import Transform, transform_of


class RecordedExperiment:
    """A recorded run made concrete again: its configuration, data and network.

    Attributes:
        directory: the run directory.
        run: what it recorded.
        config: its configuration; `data.root` may be another one.
    """

    def __init__(self, directory: Path, overrides: Sequence[str] = ()) -> None:
        """Read the run's files.

        Args:
            directory: the run directory.
            overrides: "data.root=DIR", where the data are now.

        Raises:
            DataError: the run is damaged, or of another version.
            ConfigError: another override, or the run's own parts have changed since.
        """
        for text in overrides:
            if not text.startswith("data.root="):
                raise ConfigError(f"{text}: a recorded run is what it was; only data.root may change")
        self.directory = directory
        self.run: RecordedRun = read_run(directory)
        self.config = ExperimentConfig.from_mapping(merged(self.run.config, parse_overrides(overrides)))
        if changes := changed_parts(self.run.description.own_code, self.config.own_code()):
            raise ConfigError(
                f"{directory}: its code is no longer what the run was trained with ({'; '.join(changes)}); bring that "
                "back, or run it anew"
            )

    @property
    def name(self) -> str:
        """What the run is called: its name within a suite, else that of its directory."""
        return self.run.description.label or self.directory.absolute().name

    @cached_property
    def problem(self) -> Problem:
        """Network, layout, data and method of the run.

        Raises:
            DataError: the data are not those that the run was trained on.
            FedbenchError: as for a new run.
        """
        self.config.data.dataset.check(self.config.data.root)
        federation = load_federation(self.config)
        if federation.data.task != "classification":
            raise ConfigError(f"{self.directory}: its task is {federation.data.task}; allowed: runs of classification")
        recorded, present = self.run.description.dataset_digest, federation.data.fingerprint
        if recorded != present:
            raise DataError(
                f"{self.directory}: was trained on other data ({recorded[:12]}) than those that are there now "
                f"({present[:12]}); name theirs with data.root=DIR"
            )
        problem = build_problem(self.config, federation)
        was, base = self.run.summary.get("base_sha256"), base_entries(problem).get("base_sha256")
        if was is not None and was != base:
            raise DataError(
                f"{self.directory}: was trained over another frozen base ({was[:12]}) than {self.config.model.name} "
                f"has now ({str(base)[:12]}); bring that back"
            )
        return problem

    @property
    def layout(self) -> ParameterLayout:
        """The layer groups, and the place of each parameter."""
        return self.problem.layout

    def inputs(self, split: Split, rows: npt.NDArray[np.int64]) -> Tensor:
        """Rows of a split as the network takes them, without augmentation.

        Args:
            split: such as `problem.federation.data.test`.
            rows: int64 [B].

        Returns:
            float32 [B, C, H, W] of images and [B, ...] of arrays, normalised as in the run; int64 [B, L] of texts.
        """
        return self.transform(torch.from_numpy(np.ascontiguousarray(split.inputs[rows])))

    @cached_property
    def _as_taken(self) -> Transform:
        spec = self.problem.spec
        return transform_of(self.problem.federation.data.kind, spec.mean, spec.std)

    def transform(self, batch: Tensor, _draws: object = None) -> Tensor:
        """Stored inputs (as `fedbench.data.base.Split` has them) as the network takes them, without augmentation."""
        return self._as_taken(batch, None)

    def final_model(self) -> "RecordedModel":
        """The global model with which the run ended.

        Raises:
            DataError: there is none, or the file is not the one that the run wrote.
        """
        file = self.directory / MODEL
        expected = recorded_checksums(self.directory).get(MODEL)
        if expected is None:
            raise DataError(
                f"{self.directory}: the run is {self.run.status} and has left no {MODEL}; analyze a run that has "
                f"ended, or one of its {CHECKPOINTS}"
            )
        model = self.model_of(read_tensors(file, expected), "")
        if (recorded := self.run.model_sha256) and model_digest(model.vector, model.statistics) != recorded:
            raise DataError(f"{file}: is not the model that the run ended with (its digest is not in {SUMMARY})")
        return model

    def initial_model(self) -> "RecordedModel":
        """The global model before the first round."""
        return RecordedModel(self, "before the first round", self.problem.vector, self.problem.statistics)

    def kept_model(self, rounds: int) -> "RecordedModel":
        """A global model that the run has kept (`runtime.keep_models`).

        Args:
            rounds: the number of rounds after which it was the global one; 0: the initial model.

        Raises:
            DataError: the run has not kept it, or the file is damaged.
        """
        return self.model_of(
            load_model(self.directory, rounds), f"after round {rounds}" if rounds else "before the first round"
        )

    def checkpointed_model(self, path: Path) -> "RecordedModel":
        """The global model of one of the run's checkpoints.

        Args:
            path: its folder, `RUN/checkpoints/round-NNNNNNNN`.

        Raises:
            DataError: the checkpoint is torn, or not one of this run.
        """
        checkpoints = Checkpoints(path.parent, self.problem.digest, codec())
        checkpoint = checkpoints.load(path)
        vector, statistics = self._global_model(checkpoint)
        return RecordedModel(self, f"after round {checkpoint.next_round}", vector, statistics)

    def _global_model(self, checkpoint: Checkpoint) -> tuple[Vector, Vector]:
        """(parameters, running statistics) of the server in a checkpoint."""
        from fedbench.engine.arrivals.server import ArrivalServer
        from fedbench.engine.rounds.inline import make_server

        is_arrival = self.problem.arrivals is not None
        server = ArrivalServer(self.problem.arrival_server) if is_arrival else make_server(self.problem.server)
        try:
            server.restore(checkpoint.state["executor"]["server"])
            vector, statistics = server.model()
        except Exception as error:  # whatever a state of another shape makes its owners raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{checkpoint.directory}: its state is not one of this run: {reason}") from None
        return vector, statistics

    def model_of(self, tensors: Mapping[str, npt.NDArray[np.generic]], place: str) -> "RecordedModel":
        """A model of this run from its tensors.

        Args:
            tensors: {name as in `model.safetensors`: values}.
            place: where in the run it stands, such as "after round 5"; "": at its end.

        Raises:
            DataError: they are not those of the run's network.
        """
        layout = self.layout
        kept_as = {kept: name for name, kept in self.problem.saved_names.items()}
        vector, statistics = np.empty(layout.size, np.float32), np.empty(layout.statistics_size, np.float32)
        for slots, target in ((layout.slots, vector), (layout.statistics, statistics)):
            for slot in slots:
                values = tensors.get(kept_as.get(slot.name, slot.name))
                if values is None or tuple(values.shape) != slot.shape or values.dtype != np.float32:
                    shape = "missing" if values is None else f"{values.dtype} {list(values.shape)}"
                    raise DataError(
                        f"{self.directory}: tensor {slot.name!r} is {shape}, float32 {list(slot.shape)} is needed; "
                        "is it a model of this run?"
                    )
                slot.view(target)[...] = values
        return RecordedModel(self, place, vector, statistics)


@dataclass(frozen=True)
class RecordedModel:
    """Parameters and running statistics that a run has left, with all that is needed to compute with them.

    Attributes:
        experiment: the run.
        place: where in the run the model stands, such as "after round 5"; "": at its end.
        vector: float32 [layout.size], the parameters.
        statistics: float32 [layout.statistics_size], the running statistics and the other buffers that travel.
        called: what the run is called; "": as `RecordedExperiment.name`.
    """

    experiment: RecordedExperiment
    place: str
    vector: Vector
    statistics: Vector
    called: str = ""

    @property
    def label(self) -> str:
        """What the model is called where there are several."""
        return f"{self.called or self.experiment.name} {self.place}".rstrip()

    @property
    def layout(self) -> ParameterLayout:
        """The layer groups, and the place of each parameter."""
        return self.experiment.layout

    def build(self) -> FlatModel:
        """A new network with these values, in evaluation mode, on the CPU."""
        problem = self.experiment.problem
        seed = torch_seed(problem.config.seed, "model")
        module = build_module(problem.config.model, problem.spec.task, seed, problem.spec.base)
        flat = FlatModel(module, problem.layout)
        flat.vector.copy_(torch.from_numpy(np.array(self.vector)))
        flat.statistics.copy_(torch.from_numpy(np.array(self.statistics)))
        flat.module.eval()
        return flat

    def with_values(
        self, vector: Vector, statistics: Vector | None = None, place: str | None = None
    ) -> "RecordedModel":
        """The same network with other parameters.

        Args:
            vector: the parameters.
            statistics: None: those of this model.
            place: None: that of this model.
        """
        return replace(
            self,
            vector=vector,
            statistics=self.statistics if statistics is None else statistics,
            place=self.place if place is None else place,
        )

    def recalibrated(self) -> "RecordedModel":
        """The same parameters, with BatchNorm's running statistics computed anew over a seeded sample of training rows.

        Those of the run have no meaning for the global model where each client keeps its own (`local.batchnorm=local`).
        """
        if not self.layout.statistics_size:
            return self
        problem, flat = self.experiment.problem, self.build()
        inputs, _ = host_tensors(problem.federation.data.train)
        rows = np.concatenate(problem.federation.rows)
        recalibrate(flat, inputs, rows, self.experiment.transform, problem.config.seed)
        return replace(self, statistics=flat.statistics.numpy().copy())

    def scored(self) -> "RecordedModel":
        """The model as it can be scored: recalibrated where the clients keep their running statistics."""
        return self.recalibrated() if self.experiment.problem.spec.keeps_statistics else self


def open_model(path: Path, overrides: Sequence[str] = ()) -> RecordedModel:
    """The model that a path names.

    Args:
        path: a run directory, for the model with which the run ended; one of its checkpoints,
            `RUN/checkpoints/round-NNNNNNNN`; or a model that it has kept, `RUN/kept/model-NNNNN.safetensors`.
        overrides: as for `RecordedExperiment`.

    Raises:
        ConfigError: the path names neither.
        DataError: the run or the checkpoint is damaged, or of another version.
    """
    place = expanded(path)
    if not place.exists():
        raise ConfigError(f"{path}: is not there; name a run directory, or a folder of its {CHECKPOINTS}")
    if place.parent.name == KEPT and (number := kept_number(place.name)) is not None:
        return RecordedExperiment(place.parent.parent, overrides).kept_model(number)
    if (place / MANIFEST).exists() and place.parent.name == CHECKPOINTS:
        return RecordedExperiment(place.parent.parent, overrides).checkpointed_model(place)
    if not place.is_dir():
        raise ConfigError(f"{path}: is not a folder; name a run directory, or a folder of its {CHECKPOINTS}")
    return RecordedExperiment(place, overrides).final_model()


def open_models(arguments: Sequence[str]) -> list[RecordedModel]:
    """The models that a command line names.

    Args:
        arguments: paths as for `open_model`; and "data.root=DIR", for all of them.

    Raises:
        FedbenchError: as `open_model`; no path is among them, or one stands there twice.
    """
    overrides = [text for text in arguments if "=" in text and not expanded(text).exists()]
    paths = [Path(text) for text in arguments if text not in overrides]
    if not paths:
        raise ConfigError("name at least one run directory, such as runs/quickstart-0-8f4c76e5")
    places = [expanded(path).resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"{path}: is named twice; name each run once")
    return [open_model(path, overrides) for path in paths]


def read_tensors(file: Path, expected: str) -> dict[str, npt.NDArray[np.generic]]:
    """{name: values} of a safetensors file.

    Args:
        file: the file.
        expected: its SHA-256.

    Raises:
        DataError: it is missing, damaged, or another one.
    """
    from safetensors.numpy import load

    try:
        content = read_regular(file)
        if hashlib.sha256(content).hexdigest() != expected:
            raise DataError(f"{file}: is not as the run wrote it (its checksum differs); bring it back from a copy")
        tensors: dict[str, npt.NDArray[np.generic]] = load(content)
        return tensors
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; bring it back from a copy") from None
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{file}: cannot be read: {reason}") from None
