"""The image data sets: the folders in which each is looked for, and the format that it must have."""

from typing import ClassVar, Literal

from fedbench.data.base import FederatedData, Split
from fedbench.data.cifar100_superclasses import FINE_NAMES, SUPERCLASSES, coarse_labels
from fedbench.data.decode import ImageKind
from fedbench.data.image_dataset import ImageDataset, derived_fingerprint
from fedbench.errors import DataError


class Cifar10(ImageDataset):
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32, 10 classes (Krizhevsky 2009)."""

    name: str = "cifar10"
    folders: ClassVar[tuple[str, ...]] = ("cifar10", "cifar-10")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(32, 32))
    published_rows: ClassVar[tuple[int, int] | None] = (50_000, 10_000)
    torchvision_name: ClassVar[str | None] = "CIFAR10"
    known_classes: ClassVar[tuple[str, ...] | None] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    # Over all pixels of the training split; widely quoted in these four digits.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    )


class Cifar100(ImageDataset):
    """CIFAR-100: 50,000 + 10,000 colour images of 32x32, 100 classes in 20 superclasses (Krizhevsky 2009).

    Attributes:
        labels: Whether to classify into the 100 classes (fine) or into their 20 superclasses (coarse).
    """

    name: str = "cifar100"
    labels: Literal["fine", "coarse"] = "fine"

    folders: ClassVar[tuple[str, ...]] = ("cifar100", "cifar-100")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(32, 32))
    published_rows: ClassVar[tuple[int, int] | None] = (50_000, 10_000)
    label_columns: ClassVar[tuple[str, ...]] = ("fine_label", "label")
    torchvision_name: ClassVar[str | None] = "CIFAR100"
    known_classes: ClassVar[tuple[str, ...] | None] = FINE_NAMES
    # Wang et al., "Why Go Full?", NeurIPS 2024.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.507, 0.487, 0.441),
        (0.267, 0.256, 0.276),
    )

    def _assemble(
        self,
        train: Split,
        test: Split,
        names: tuple[str, ...],
        source: str,
        digest: str,
        validation: Split | None = None,
    ) -> FederatedData:
        if self.labels == "coarse":
            if names != FINE_NAMES:
                raise DataError(
                    f"{self.name}, {source}: the classes are not named as published, so that their superclasses are not"
                    " known; get the data set again, or leave data.dataset.labels=coarse out"
                )
            train, test = _coarse(train), _coarse(test)
            validation = None if validation is None else _coarse(validation)
            names, source, digest = (
                tuple(SUPERCLASSES),
                f"{source}, superclasses",
                derived_fingerprint(digest, "coarse"),
            )
        return super()._assemble(train, test, names, source, digest, validation)


def _coarse(split: Split) -> Split:
    """The split with each label's superclass in its place."""
    return Split(split.inputs, coarse_labels(split.labels), split.owners)


class Mnist(ImageDataset):
    """MNIST: 60,000 + 10,000 grey images of 28x28, handwritten digits (LeCun et al. 1998)."""

    name: str = "mnist"
    folders: ClassVar[tuple[str, ...]] = ("mnist",)
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    published_rows: ClassVar[tuple[int, int] | None] = (60_000, 10_000)
    torchvision_name: ClassVar[str | None] = "MNIST"
    known_classes: ClassVar[tuple[str, ...] | None] = tuple("0123456789")
    # The figures of PyTorch's own MNIST example.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = ((0.1307,), (0.3081,))


class FashionMnist(ImageDataset):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28, 10 kinds of clothing (Xiao et al. 2017)."""

    name: str = "fashion-mnist"
    folders: ClassVar[tuple[str, ...]] = ("fashion-mnist", "fashion_mnist")
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    published_rows: ClassVar[tuple[int, int] | None] = (60_000, 10_000)
    torchvision_name: ClassVar[str | None] = "FashionMNIST"
    known_classes: ClassVar[tuple[str, ...] | None] = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    # Over all pixels of the training split; widely quoted in these four digits.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = ((0.2860,), (0.3530,))


class TinyImageNet(ImageDataset):
    """Tiny-ImageNet: 100,000 + 10,000 colour images of 64x64, 200 classes; validation is the test split."""

    name: str = "tiny-imagenet"
    folders: ClassVar[tuple[str, ...]] = ("tiny-imagenet", "tiny_imagenet")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(64, 64), grey_as_rgb=True)
    published_rows: ClassVar[tuple[int, int] | None] = (100_000, 10_000)
    published_classes: ClassVar[int] = 200
    test_splits: ClassVar[tuple[str, ...]] = ("validation", "test")
    tree_folders: ClassVar[tuple[str, ...]] = ("tiny-imagenet-200",)
    # Wang et al., "Why Go Full?", NeurIPS 2024.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.507, 0.487, 0.441),
        (0.267, 0.256, 0.276),
    )


class Femnist(ImageDataset):
    """FEMNIST: grey 28x28 images of 62 characters, by writer (Caldas et al., "LEAF", 2018).

    Published without a test split: `data.test_fraction` of each writer's rows is held out, drawn by the seed.
    """

    name: str = "femnist"
    folders: ClassVar[tuple[str, ...]] = ("femnist",)
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    label_columns: ClassVar[tuple[str, ...]] = ("character", "label")
    owner_column: ClassVar[str | None] = "writer_id"
    known_classes: ClassVar[tuple[str, ...] | None] = tuple(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    )
