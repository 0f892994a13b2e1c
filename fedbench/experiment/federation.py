"""The data of an experiment, divided over its clients. NumPy alone, so that it is ready while PyTorch still loads."""

import math
from dataclasses import dataclass

import numpy as np

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.sections import DataSection
from fedbench.data.augmentation import Normalization
from fedbench.data.base import FederatedData, IntArray
from fedbench.data.client_holdout import hold_out_of_clients, remarks_on_clients
from fedbench.data.contract import check_data, check_rows, remarks_on
from fedbench.data.holdout import refuse_overlapping_rows, with_validation
from fedbench.data.partition import class_counts
from fedbench.data.retask import with_task
from fedbench.data.strata import Strata, strata_of
from fedbench.errors import ConfigError
from fedbench.models.base import Task
from fedbench.randomness import generator, global_generators_seeded, torch_seed

WORTH_A_LINE = 0.01
"""Share of test rows that are training rows, too, above which a run says so; published data sets have a few."""


@dataclass(frozen=True)
class Federation:
    """Who holds what.

    Attributes:
        data: the decoded data set.
        rows: for each client, the rows of the training split that it trains on, int64.
        counts: how many training rows each client has of each class: one row per client, one column per class.
        strata: the classes that rows are counted and divided by.
        test_rows: for each client, the rows of the training split that are held out for scoring it, int64; (): none.
            Where one client holds the rows of all: those of each client before.
        pooled_sizes: where one client holds the rows of all: the number of samples of each client before; else ().
        partition_remarks: what a user should know of the division, one line each.
    """

    data: FederatedData
    rows: tuple[IntArray, ...]
    counts: tuple[tuple[int, ...], ...]
    strata: Strata
    pooled_sizes: tuple[int, ...] = ()
    test_rows: tuple[IntArray, ...] = ()
    partition_remarks: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of training samples of each client."""
        return tuple(len(part) for part in self.rows)

    @property
    def pooled_bytes(self) -> int | None:
        """Bytes of the rows that the clients have sent to the one that holds them all; None where they keep them."""
        if not self.pooled_sizes:
            return None
        arrays = (self.data.train.inputs, self.data.train.labels)
        return sum(self.pooled_sizes) * sum(math.prod(array.shape[1:]) * array.itemsize for array in arrays)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the data, one line each."""
        on_data = remarks_on(self.data, WORTH_A_LINE)
        return (*on_data, *self.partition_remarks, *remarks_on_clients(self.test_rows))

    @property
    def task(self) -> Task:
        """The kind of problem that a model for this data solves."""
        data = self.data
        return Task(
            data.kind,
            data.input_shape,
            data.outputs,
            data.vocabulary_size,
            data.padding_index,
            data.task,
            data.tokenizer,
        )


def load_federation(config: ExperimentConfig) -> Federation:
    """Load the data set and divide it.

    Raises:
        DataError: missing or damaged data.
        ConfigError: a division that is not possible, or an option without effect on this data.
    """
    return divide(config, load_data(config))


def load_data(config: ExperimentConfig) -> FederatedData:
    """Load the data set, with its validation split.

    Raises:
        DataError: missing or damaged data.
        ConfigError: an option without effect on this data.
    """
    section = config.data
    if not type(section.dataset).__module__.startswith("fedbench."):
        # Such a data set may draw from PyTorch's global generator, which can be seeded once it is there.
        import torch  # noqa: F401
    with global_generators_seeded(torch_seed(config.seed, "data")):
        dataset = section.dataset.for_task(config.task)
        data = dataset.load(section.root, test_fraction=section.test_fraction, seed=config.seed)
    checked = with_task(check_data(section.dataset, data), config.task)
    return with_validation(checked, section.validation_fraction, config.seed)


def outline_federation(config: ExperimentConfig) -> Federation | None:
    """Divide contentless data of the published size and shape; None where the data set publishes neither.

    Raises:
        ConfigError: as `load_federation`.
    """
    outline = config.data.dataset.outline()
    if outline is None:
        return None
    data = with_task(check_data(config.data.dataset, outline, "outline"), config.task)
    return divide(config, with_validation(data, config.data.validation_fraction, config.seed))


def scaling(
    section: DataSection, data: FederatedData
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """The mean and the standard deviation per channel by which images are normalised; None and None: they are not.

    Raises:
        ConfigError: `data.normalize` without effect on this data, or of another number of channels.
    """
    wanted = section.normalize
    if isinstance(wanted, Normalization):
        if data.kind != "image":
            allowed = "; allowed: true or false" if data.kind == "array" else ""
            raise ConfigError(
                f"data.normalize={{...}}: is for images, and the rows of {data.name} are {data.kind}s{allowed};"
                " leave it out"
            )
        try:
            return wanted.of_channels(data.input_shape[-1])
        except ValueError as error:
            raise ConfigError(f"data.normalize.{error}") from None
    if data.mean is None or data.std is None:
        if wanted:
            raise ConfigError(f"data.normalize=true: {data.name} has no published mean and deviation; leave it out")
        return None, None
    return (None, None) if wanted is False else (data.mean, data.std)


def divide(config: ExperimentConfig, data: FederatedData) -> Federation:
    """Divide a data set over the clients, and bring the rows together again where the method does.

    Raises:
        ConfigError: a division that is not possible, or an option without effect on this data.
    """
    section = config.data
    if data.kind != "image" and section.augment.active:
        raise ConfigError(f"data.augment: changes images, and the rows of {data.name} are {data.kind}s; leave it out")
    if data.task == "segmentation" and section.augment.active:
        raise ConfigError(
            f"data.augment: changes images and not the masks that are the labels of {data.name}; leave it out"
        )
    if data.kind == "image" and section.augment.crop > (side := max(data.input_shape[:2])):
        raise ConfigError(
            f"data.augment.crop={section.augment.crop}: more than the {side} pixels of an image's side, so that "
            "nothing of an image may be left; lower it"
        )
    mean, _ = scaling(section, data)
    if mean is None and section.augment.crop_border == "mean":
        raise ConfigError(
            "data.augment.crop_border=mean: has no effect on images that are not normalised; leave it out"
        )
    strata = strata_of(data)
    if section.partition.by_class and not strata.known:
        raise ConfigError(
            f"data.partition.name={section.partition.name}: divides rows by class, and data for task={data.task} have "
            f"no classes; allowed: iid, quantity{'' if data.train.owners is None else ', natural'}"
        )
    classes = strata.of(data.train.labels)
    with global_generators_seeded(torch_seed(config.seed, "partition")):
        rows = section.partition.split(
            classes,
            section.clients,
            generator(config.seed, "partition"),
            samples_per_client=section.samples_per_client,
            overlap=section.overlap,
            owners=data.train.owners,
        )
    parts = check_rows(section.partition, rows, len(data.train), section.clients, section.overlap)
    remarks = section.partition.remarks(parts, data.train.owners)
    test_parts: tuple[IntArray, ...] = ()
    if (fraction := section.client_test_fraction) > 0:
        refuse_overlapping_rows(data, "data.client_test_fraction", fraction)
        parts, test_parts = hold_out_of_clients(parts, classes, fraction, config.seed, overlap=section.overlap)
        data = data.scaled_without(np.concatenate(test_parts))
    sizes: tuple[int, ...] = ()
    if config.method.pools_rows:
        sizes, parts = tuple(map(len, parts)), (np.unique(np.concatenate(parts)),)
    counts = class_counts(classes, parts, len(strata.names))
    return Federation(data, parts, counts, strata, sizes, test_parts, remarks)
