"""The configuration of an experiment: sections with defaults, checked whole before anything starts.

Merged as built-in defaults < preset or file < dotted overrides (OmegaConf), then checked (pydantic, unknown keys
forbidden). Each exchangeable part brings its own parameters (see `fedbench.components.base`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.crossed import Crossed, asynchronous_part
from fedbench.components.base import Component, Section, explain
from fedbench.components.catalogue import DEFAULTS, make_component
from fedbench.config.identity import digest
from fedbench.config.merge import overlaid, read_source
from fedbench.config.runtime import RuntimeSection
from fedbench.data.augmentation import Augmentation
from fedbench.data.base import Dataset
from fedbench.data.partition import Partition
from fedbench.errors import ConfigError
from fedbench.models.base import Model
from fedbench.planning.delays import DelaysSection
from fedbench.planning.schedules import Schedule
from fedbench.protocol.compression import Compression
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.optimizers import LearningRate, Optimizer

TRACKING_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "file", "databricks")
"""What MLflow takes as a tracking URI."""


def _component(kind: str, base: type[Component]) -> Any:
    return BeforeValidator(partial(make_component, kind, base))


AnyDataset = Annotated[SerializeAsAny[Dataset], _component("dataset", Dataset)]
AnyPartition = Annotated[SerializeAsAny[Partition], _component("partition", Partition)]
AnyModel = Annotated[SerializeAsAny[Model], _component("model", Model)]
AnySchedule = Annotated[SerializeAsAny[Schedule], _component("schedule", Schedule)]
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], _component("algorithm", Algorithm)]
AnyServer = Annotated[SerializeAsAny[Algorithm], _component("server", Algorithm)]
AnyCompression = Annotated[SerializeAsAny[Compression], _component("compression", Compression)]
AnyOptimizer = Annotated[SerializeAsAny[Optimizer], _component("optimizer", Optimizer)]
AnyLearningRate = Annotated[SerializeAsAny[LearningRate], _component("lr_schedule", LearningRate)]


def _whole_or_auto(value: object) -> object:
    if value != "auto" and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise ValueError("must be a whole number of at least 1, or auto (the length of the schedule)")
    return value


class DataSection(Section):
    """What the clients hold.

    Attributes:
        dataset: a name or an import path.
        root: folder that holds the data sets.
        clients: size of the population.
        partition: how the training rows are divided.
        samples_per_client: rows of each client, where the partition does not fix them.
        overlap: clients draw independently of each other, so that they may share rows.
        augment: random transformations of training images.
        normalize: subtract the data set's mean and divide by its standard deviation; false: images in [0, 1] as
            they are; None: where a mean and deviation are published.
        test_fraction: rows held out, for data without a test split of its own.
    """

    dataset: AnyDataset = Field(default=DEFAULTS["dataset"], validate_default=True)
    root: Path | None = None
    clients: int = Field(default=10, ge=1)
    partition: AnyPartition = Field(default=DEFAULTS["partition"], validate_default=True)
    samples_per_client: int | None = Field(default=None, ge=1)
    overlap: bool = False
    augment: Augmentation = Augmentation()
    normalize: bool | None = None
    test_fraction: float | None = Field(default=None, gt=0, lt=1)


class LocalSection(Section):
    """What a client does in a round it takes part in.

    Attributes:
        epochs: passes over the client's data; or
        steps: minibatches, whatever the client's size.
        batch_size: samples a step.
        optimizer: made anew every round, over the active parameters only.
        lr_schedule: factor on the learning rate, by round.
        batchnorm: running statistics averaged with the parameters (aggregate) or kept by each client (local);
            None: aggregate where the model has any.
        precision: float32, or bf16 autocast of the forward pass.
    """

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    optimizer: AnyOptimizer = Field(default=DEFAULTS["optimizer"], validate_default=True)
    lr_schedule: AnyLearningRate = Field(default=DEFAULTS["lr_schedule"], validate_default=True)
    batchnorm: Literal["aggregate", "local"] | None = None
    precision: Literal["float32", "bf16"] = "float32"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}: set one of the two, the other to null")
        return self

    @property
    def round_epochs(self) -> int | None:
        """Passes over the client's data in a round: 1 where nothing is set; None where `steps` counts instead."""
        return 1 if self.epochs is None and self.steps is None else self.epochs


class ParticipationSection(Section):
    """Who takes part in a round: `clients_per_round`, or a `fraction` of the population; neither: everyone.

    Attributes:
        round_deadline: seconds of real time that a participant may train; whoever takes longer is dropped from the
            round, which `clients.parquet` records. None: no deadline.
        replay: the `clients.parquet` of a run with a deadline, whose drops are followed again instead of the clock.
    """

    clients_per_round: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    sampler: Literal["uniform"] = "uniform"
    round_deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    replay: Path | None = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.clients_per_round is not None and self.fraction is not None:
            raise ValueError(
                f"clients_per_round={self.clients_per_round} and fraction={self.fraction}: set one of the two"
            )
        if self.replay is not None and self.round_deadline is None:
            raise ValueError(f"replay={self.replay}: only with round_deadline are participants dropped; leave it out")
        return self

    def size(self, clients: int) -> int:
        """Number of participants out of a population of `clients`."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return self.clients_per_round or clients


class EvaluationSection(Section):
    """How the global model is scored on the test split.

    Attributes:
        every: rounds between evaluations; the last round is always evaluated.
        batch_size: samples a forward pass.
        batchnorm: running statistics used: the aggregated ones, client 0's own, or recalibrated on training data;
            None: aggregate, or client0 where clients keep theirs.
        per_client: also score the global model on each participant's own training rows.
    """

    every: int = Field(default=1, ge=1)
    batch_size: int = Field(default=500, ge=1)
    batchnorm: Literal["aggregate", "client0", "recalibrate"] | None = None
    per_client: bool = False


def _known_scheme(uri: str | None) -> str | None:
    scheme, separator, _ = (uri or "").partition("://")
    if separator and scheme.split("+")[0] not in TRACKING_SCHEMES:
        raise ValueError(f"no tracking store is known by {scheme}://; allowed: {', '.join(TRACKING_SCHEMES)}")
    return uri


class TrackingSection(Section):
    """MLflow.

    Attributes:
        enabled: record to MLflow at all; the run directory is written in any case.
        mlflow_uri: tracking store or server; None: MLflow's own default.
        experiment: name of the MLflow experiment.
        tags: added to the run.
    """

    enabled: bool = True
    mlflow_uri: Annotated[str | None, AfterValidator(_known_scheme)] = None
    experiment: str = Field(default="fedbench", min_length=1, pattern="^[^/]+$")
    tags: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if not self.enabled:
            for key in ("mlflow_uri", "experiment", "tags"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}={getattr(self, key)} has no effect with enabled=false; leave it out")
        return self


class OutputSection(Section):
    """Where files go. `directory` None: runs/NAME-SEED-SHORTID."""

    directory: Path | None = None


class UpdateSection(Section):
    """What is done to a client's update before it is sent, in this order.

    Attributes:
        clip_norm: largest L2 norm of an update of the parameters; None: not clipped.
        noise_multiplier: Gaussian noise for differential privacy: the sum over a round's participants gets noise of
            standard deviation noise_multiplier * clip_norm, an equal share from each; None: none.
        delta: of the (epsilon, delta) that is reported with noise.
        compression: of what is sent up.
    """

    clip_norm: float | None = Field(default=None, gt=0)
    noise_multiplier: float | None = Field(default=None, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    compression: AnyCompression = Field(default=DEFAULTS["compression"], validate_default=True)

    @model_validator(mode="after")
    def _noise_needs_a_bound(self) -> Self:
        if self.noise_multiplier is not None and self.clip_norm is None:
            raise ValueError(f"noise_multiplier={self.noise_multiplier}: needs clip_norm, the sensitivity of the sum")
        if self.noise_multiplier is None and self.delta != type(self).model_fields["delta"].default:
            raise ValueError(f"delta={self.delta} has no effect without noise_multiplier; leave it out")
        return self

    def pipeline(self, cohort: int) -> UpdatePipeline:
        """The same, ready to use, for rounds of `cohort` participants."""
        std = 0.0
        if self.noise_multiplier is not None and self.clip_norm is not None:
            # The server divides the sum of `cohort` updates by their number; each adds its share of the variance.
            std = self.noise_multiplier * self.clip_norm / math.sqrt(cohort)
        return UpdatePipeline(self.clip_norm, std, self.compression)


class ExperimentConfig(Section):
    """One experiment, complete and checked.

    >>> config = ExperimentConfig.load("quickstart", ["rounds=3", "seed=7"])
    >>> config.rounds, config.seed, config.schedule.name
    (3, 7, 'sequential')
    """

    name: str = Field(default="experiment", pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(default=0, ge=0, lt=2**63)
    rounds: Annotated[int | Literal["auto"], BeforeValidator(_whole_or_auto)] = "auto"
    data: DataSection = DataSection()
    model: AnyModel = Field(default=DEFAULTS["model"], validate_default=True)
    local: LocalSection = LocalSection()
    algorithm: AnyAlgorithm = Field(default=DEFAULTS["algorithm"], validate_default=True)
    server: AnyServer | None = None
    schedule: AnySchedule = Field(default=DEFAULTS["schedule"], validate_default=True)
    update: UpdateSection = UpdateSection()
    participation: ParticipationSection = ParticipationSection()
    delays: DelaysSection = DelaysSection()
    evaluation: EvaluationSection = EvaluationSection()
    runtime: RuntimeSection = RuntimeSection()
    tracking: TrackingSection = TrackingSection()
    output: OutputSection = OutputSection()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        asked, there = self.participation.clients_per_round, self.data.clients
        if asked is not None and asked > there:
            raise ValueError(f"participation.clients_per_round={asked}: more than data.clients={there}")
        actors, cohort = self.runtime.actors, self.participation.size(there)
        if actors is not None and actors > cohort:
            raise ValueError(f"runtime.actors={actors}: more than the {cohort} clients of a round; the rest would idle")
        if self.evaluation.batchnorm == "aggregate" and self.local.batchnorm == "local":
            raise ValueError(
                "evaluation.batchnorm=aggregate: local.batchnorm=local keeps the statistics with the clients; "
                "use client0 or recalibrate"
            )
        if self.evaluation.batchnorm == "client0" and self.local.batchnorm != "local":
            raise ValueError(
                "evaluation.batchnorm=client0: only with local.batchnorm=local do clients keep statistics of their own"
            )
        return self

    def slots(self) -> int:
        """Clients that work at the same time: the participants of a round, or of an asynchronous run."""
        if self.asynchronous:
            return self.delays.concurrency or self.data.clients
        return self.participation.size(self.data.clients)

    @property
    def method(self) -> Algorithm:
        """The algorithm, with the server rule that replaces its own, if any.

        Raises:
            ConfigError: the two make no sense together.
        """
        return Crossed.of(self.algorithm, self.server)

    @property
    def asynchronous(self) -> AsyncAlgorithm | None:
        """The method whose state machine applies single updates as they arrive; None where there are rounds."""
        return asynchronous_part(self.method)

    @classmethod
    def load(cls, source: str | Path | None = None, overrides: Sequence[str] = ()) -> "ExperimentConfig":
        """Merge a preset or a YAML file with dotted overrides, and check the result.

        Args:
            source: a preset's name, or the path of a YAML file; None: the built-in defaults.
            overrides: "section.key=value" texts; values are YAML.

        Raises:
            ConfigError: one line with the key, the value and what is allowed.
        """
        base = read_source(source) if source is not None else {}
        if source is not None:
            base.setdefault("name", Path(str(source)).stem)
        return cls.from_mapping(overlaid(base, overrides))

    @classmethod
    def from_mapping(cls, values: Mapping[Any, Any]) -> "ExperimentConfig":
        """Check nested plain values.

        Raises:
            ConfigError: one line with the key, the value and what is allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(explain(error, "", _keys_beside(cls, error))) from None

    def to_mapping(self) -> dict[str, Any]:
        """Nested plain values, complete: `from_mapping` of it gives this configuration again."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The same as YAML text, in the order of the sections."""
        text: str = yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)
        return text

    def digest(self) -> str:
        """Hex digest over everything that can change the result: not names, places, tracking or executors."""
        return digest(self.to_mapping())


def _keys_beside(root: type[BaseModel], error: ValidationError) -> list[str]:
    """The keys that the section of the first offending key does have."""
    fields = root.model_fields
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    for part in first["loc"][:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        fields = annotation.model_fields
    return list(fields)
