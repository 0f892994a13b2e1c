"""Rules by which the rows of a training split are dealt out to clients."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.components.base import Component
from fedbench.data.apportion import apportion
from fedbench.data.base import IntArray
from fedbench.errors import ConfigError

Concentration = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Partition(Component):
    """A rule that gives every client its rows of the training split."""

    by_class: ClassVar[bool] = False
    """Whether the rule goes by the rows' classes, so that it makes no sense of data without any."""

    @abstractmethod
    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """Deal out the rows.

        Args:
            labels: int64 [N], the class of each row (`fedbench.data.strata`).
            clients: how many clients there are, at least 1.
            rng: the only source of chance: equal generators give equal partitions.
            samples_per_client: `data.samples_per_client`: this many rows each, instead of all rows; None: all.
            overlap: `data.overlap`: a row may go to several clients (never twice to one).
            owners: int64 [N], the natural client of each row, where the data set has any.

        Returns:
            One array per client of ascending row indices, int64, never empty.

        Raises:
            ConfigError: an option without effect under this rule, or more rows asked for than there are.
        """

    def remarks(self, parts: Sequence[IntArray], owners: IntArray | None) -> tuple[str, ...]:
        """What a user should know of a division, one line each.

        Args:
            parts: for each client its rows, as `split` gave them.
            owners: as for `split`.
        """
        return ()

    def _refuse_sampling(self, samples_per_client: int | None, overlap: bool) -> None:
        """Refuse `samples_per_client` and `overlap`, in rules that deal out every row exactly once.

        Raises:
            ConfigError: one of them is set.
        """
        if samples_per_client is not None:
            raise ConfigError(
                f"data.samples_per_client={samples_per_client}: has no effect with data.partition.name={self.name},"
                " which deals out every row; allowed with iid and dirichlet"
            )
        _refuse_overlap(overlap)


class Iid(Partition):
    """Rows drawn uniformly at random, the same distribution for every client.

    All rows, disjoint, in sizes that differ by at most one (McMahan et al., "Communication-Efficient Learning of Deep
    Networks from Decentralized Data", AISTATS 2017, section 3, IID). With `samples_per_client`: that many each,
    disjoint; with `overlap` too: drawn without replacement inside a client but independently between clients (Wang et
    al., "Why Go Full? Elevating Federated Learning Through Partial Network Updates", NeurIPS 2024).

    Example:
        >>> parts = Iid().split(np.zeros(10, np.int64), 3, np.random.default_rng(0),
        ...                     samples_per_client=None, overlap=False, owners=None)
        >>> [len(part) for part in parts]
        [4, 3, 3]
    """

    name: str = "iid"

    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """See `Partition.split`."""
        rows = len(labels)
        if samples_per_client is None:
            _refuse_overlap(overlap)
            _require(rows, clients, 1, "data.clients")
            return _ascending(np.array_split(rng.permutation(rows), clients))
        if overlap:
            _require_overlapping(rows, samples_per_client)
            return _ascending(rng.permutation(rows)[:samples_per_client] for _ in range(clients))
        _require(rows, clients, samples_per_client, "data.samples_per_client; or set data.overlap=true")
        drawn = rng.permutation(rows)[: clients * samples_per_client]
        return _ascending(drawn.reshape(clients, samples_per_client))


class Dirichlet(Partition):
    """Label skew: class proportions from a Dirichlet distribution; the smaller alpha, the fewer classes per client.

    Without `samples_per_client`: each class is cut over the clients in proportions p ~ Dir(alpha * 1_clients), and all
    is drawn again until every client has `min_size` rows, at most `attempts` times (Yurochkin et al., "Bayesian
    Nonparametric Federated Learning of Neural Networks", ICML 2019; Li et al., "Federated Learning on Non-IID Data
    Silos", ICDE 2022).

    With `samples_per_client` k and `overlap`: each client draws its own q ~ Dir(alpha * 1_classes) and k rows in these
    proportions (rounded by largest remainder), without replacement inside the client and independently of the other
    clients (proportions per client: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification", 2019; independent clients: Wang et al., NeurIPS 2024). Where a class has fewer rows than q
    asks for, the client gets all of them, and what is missing comes from the other classes in proportion to q.

    Attributes:
        alpha: Concentration of the Dirichlet distribution.
        capped: Whether a client that holds rows / clients rows gets none of the classes that follow, in label order:
            its share of them goes to the others in proportion, as in the published code of FedMR (Hu et al., KDD 2024).
            Only without samples_per_client.
        min_size: Rows that every client must have; only without samples_per_client.
        attempts: Draws until every client has them, before the partition is refused; only without samples_per_client.

    Example:
        >>> labels = np.repeat(np.arange(10), 100)
        >>> parts = Dirichlet(alpha=0.1).split(labels, 5, np.random.default_rng(0),
        ...                                    samples_per_client=None, overlap=False, owners=None)
        >>> sum(len(part) for part in parts)
        1000
    """

    by_class = True

    name: str = "dirichlet"
    alpha: Concentration
    capped: bool = False
    min_size: int = Field(default=1, ge=1)
    attempts: int = Field(default=100, ge=1)

    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """See `Partition.split`."""
        if samples_per_client is None:
            _refuse_overlap(overlap)
            return self._cut_classes(labels, clients, rng)
        if not overlap:
            raise ConfigError(
                f"data.samples_per_client={samples_per_client}: with data.partition.name={self.name} the clients draw"
                " independently of each other; set data.overlap=true, or leave samples_per_client out"
            )
        for field in ("capped", "min_size", "attempts"):
            if (value := getattr(self, field)) != type(self).model_fields[field].default:
                raise ConfigError(f"data.partition.{field}={value}: has no effect with data.samples_per_client")
        _require_overlapping(len(labels), samples_per_client)
        rows_of_class = _rows_by_class(labels)
        return _ascending(self._draw_client(rows_of_class, samples_per_client, rng) for _ in range(clients))

    def _cut_classes(self, labels: IntArray, clients: int, rng: np.random.Generator) -> list[IntArray]:
        _require(len(labels), clients, self.min_size, "data.partition.min_size")
        rows_of_class = _rows_by_class(labels)
        totals = np.array([len(rows) for rows in rows_of_class])
        for _ in range(self.attempts):
            proportions = rng.dirichlet(np.full(clients, self.alpha), size=len(totals))
            if self.capped:
                ends = _capped_cuts(proportions, totals)
            else:
                ends = (np.cumsum(proportions, axis=1) * totals[:, None]).astype(np.int64)
                ends[:, -1] = totals
            sizes = np.diff(ends, axis=1, prepend=0).sum(axis=0)
            if sizes.min() >= self.min_size:
                break
        else:
            raise ConfigError(
                f"data.partition.alpha={self.alpha}: none of {self.attempts} draws gave each of data.clients={clients}"
                f" at least min_size={self.min_size} of the {len(labels)} rows; raise alpha or attempts, or lower"
                " min_size or clients"
            )
        pieces: list[list[IntArray]] = [[] for _ in range(clients)]
        for rows, cuts in zip(rows_of_class, ends, strict=True):
            for client, piece in enumerate(np.split(rng.permutation(rows), cuts[:-1])):
                pieces[client].append(piece)
        return _ascending(np.concatenate(piece) for piece in pieces)

    def _draw_client(self, rows_of_class: Sequence[IntArray], samples: int, rng: np.random.Generator) -> IntArray:
        available = np.array([len(rows) for rows in rows_of_class])
        wanted = rng.dirichlet(np.full(len(available), self.alpha))
        counts = apportion(samples, wanted, available)
        drawn = [rng.permutation(rows)[:count] for rows, count in zip(rows_of_class, counts, strict=True)]
        return np.concatenate(drawn)


class Shards(Partition):
    """Label skew by shards: rows sorted by label, cut into equal shards, `shards_per_client` of them to each client.

    With the default of two most clients see two classes only (McMahan et al., AISTATS 2017, section 3, pathological
    non-IID). Shard sizes differ by at most one.

    Attributes:
        shards_per_client: Number of shards that each client gets.

    Example:
        >>> labels = np.repeat(np.arange(4), 5)
        >>> parts = Shards(shards_per_client=1).split(labels, 4, np.random.default_rng(0),
        ...                                           samples_per_client=None, overlap=False, owners=None)
        >>> [np.unique(labels[part]).tolist() for part in parts]
        [[2], [0], [1], [3]]
    """

    by_class = True

    name: str = "shards"
    shards_per_client: int = Field(default=2, ge=1)

    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """See `Partition.split`."""
        self._refuse_sampling(samples_per_client, overlap)
        _require(len(labels), clients, self.shards_per_client, "data.partition.shards_per_client")
        shards = np.array_split(np.argsort(labels, kind="stable"), clients * self.shards_per_client)
        dealt = rng.permutation(len(shards)).reshape(clients, self.shards_per_client)
        return _ascending(np.concatenate([shards[shard] for shard in client_shards]) for client_shards in dealt)


class Quantity(Partition):
    """Quantity skew: client sizes in proportions drawn from Dir(alpha), every client's rows drawn uniformly.

    All rows are dealt out, each once; the sizes are drawn again until every client has `min_size`, at most `attempts`
    times (Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section 4.3).

    Attributes:
        alpha: Concentration of the Dirichlet distribution.
        min_size: Rows that every client must have.
        attempts: Draws until every client has them, before the partition is refused.

    Example:
        >>> parts = Quantity(alpha=1.0).split(np.zeros(100, np.int64), 4, np.random.default_rng(0),
        ...                                   samples_per_client=None, overlap=False, owners=None)
        >>> sum(len(part) for part in parts)
        100
    """

    name: str = "quantity"
    alpha: Concentration
    min_size: int = Field(default=1, ge=1)
    attempts: int = Field(default=100, ge=1)

    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """See `Partition.split`."""
        self._refuse_sampling(samples_per_client, overlap)
        rows = len(labels)
        _require(rows, clients, self.min_size, "data.partition.min_size")
        for _ in range(self.attempts):
            ends = (np.cumsum(rng.dirichlet(np.full(clients, self.alpha))) * rows).astype(np.int64)
            ends[-1] = rows
            if np.diff(ends, prepend=0).min() >= self.min_size:
                return _ascending(np.split(rng.permutation(rows), ends[:-1]))
        raise ConfigError(
            f"data.partition.alpha={self.alpha}: none of {self.attempts} draws gave each of data.clients={clients} at"
            f" least min_size={self.min_size} of the {rows} rows; raise alpha or attempts, or lower min_size or clients"
        )


class Natural(Partition):
    """One client per natural owner of the rows, such as FEMNIST's writers.

    As in LEAF (Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018). Where fewer clients are asked for
    than there are owners, the owners are a uniform draw; clients stand in ascending order of their owner.

    Example:
        >>> owners = np.array([7, 5, 7, 5, 5])
        >>> parts = Natural().split(np.zeros(5, np.int64), 2, np.random.default_rng(0),
        ...                         samples_per_client=None, overlap=False, owners=owners)
        >>> [part.tolist() for part in parts]
        [[1, 3, 4], [0, 2]]
    """

    name: str = "natural"

    def split(
        self,
        labels: IntArray,
        clients: int,
        rng: np.random.Generator,
        *,
        samples_per_client: int | None,
        overlap: bool,
        owners: IntArray | None,
    ) -> list[IntArray]:
        """See `Partition.split`."""
        self._refuse_sampling(samples_per_client, overlap)
        if owners is None:
            raise ConfigError(
                f"data.partition.name={self.name}: the rows of this data set have no owners; name their column with"
                " data.dataset.owner where there is one, or choose iid or quantity, or with classes dirichlet or shards"
            )
        known = np.unique(owners)
        if clients > len(known):
            raise ConfigError(f"data.clients={clients}: the data set has {len(known)} natural owners; ask for no more")
        chosen = np.sort(rng.choice(known, clients, replace=False))
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], chosen, side="left")
        ends = np.searchsorted(owners[order], chosen, side="right")
        return _ascending(order[start:end] for start, end in zip(starts, ends, strict=True))

    def remarks(self, parts: Sequence[IntArray], owners: IntArray | None) -> tuple[str, ...]:
        """See `Partition.remarks`: owners that are no clients."""
        if owners is None or len(parts) == (natural := len(np.unique(owners))):
            return ()
        unused = len(owners) - sum(map(len, parts))
        return (
            f"data.clients={len(parts)}: of {natural} natural clients; the {unused} training rows of the others are "
            "left out",
        )


def class_counts(labels: IntArray, parts: Sequence[IntArray], classes: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of rows: for each client a tuple with the number of its rows of each class.

    Example:
        >>> class_counts(np.array([0, 1, 1]), [np.array([0, 1]), np.array([2])], 3)
        ((1, 1, 0), (0, 1, 0))
    """
    return tuple(tuple(np.bincount(labels[part], minlength=classes).tolist()) for part in parts)


def _capped_cuts(proportions: npt.NDArray[np.float64], totals: IntArray) -> IntArray:
    """The rows at which each class is cut among the clients, if a client that holds N / n rows gets no more.

    Args:
        proportions: [K, n], drawn for each of K classes over n clients.
        totals: [K], rows of each class; N is their sum.

    Returns:
        int64 [K, n], where each client's part of a class ends; all zero, so that nobody gets anything, where the
        proportions of a class are zero for every client that may have more.
    """
    ends = np.zeros(proportions.shape, np.int64)
    held = np.zeros(proportions.shape[1], np.int64)
    for label, p in enumerate(proportions):
        # p_j <- p_j * [held_j < N / n], then p / sum(p).
        p = p * (held < totals.sum() / len(held))
        if not p.sum() > 0:
            return np.zeros_like(ends)
        ends[label] = np.cumsum(p / p.sum()) * totals[label]
        # Rounding must not give a row to a client behind the last one with a share.
        ends[label, np.flatnonzero(p)[-1] :] = totals[label]
        held += np.diff(ends[label], prepend=0)
    return ends


def _rows_by_class(labels: IntArray) -> list[IntArray]:
    """For each class that occurs, in label order, its rows, ascending."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _ascending(parts: Iterable[IntArray]) -> list[IntArray]:
    return [np.sort(part).astype(np.int64, copy=False) for part in parts]


def _refuse_overlap(overlap: bool) -> None:
    if overlap:
        raise ConfigError("data.overlap=true: has no effect without data.samples_per_client")


def _require(rows: int, clients: int, each: int, lower: str) -> None:
    if clients * each > rows:
        needed = f"{clients} x {each} = {clients * each}"
        raise ConfigError(
            f"data.clients={clients}: needs {needed} distinct rows, the training split has {rows}; lower it or {lower}"
            if lower != "data.clients"
            else f"data.clients={clients}: the training split has only {rows} rows; lower it"
        )


def _require_overlapping(rows: int, samples_per_client: int) -> None:
    if samples_per_client > rows:
        raise ConfigError(
            f"data.samples_per_client={samples_per_client}: the training split has only {rows} rows; ask for no more"
        )
