"""The 20 superclasses ("coarse labels") of CIFAR-100 and their five classes each.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the data set's page.

The table was written from memory and the data themselves confirm little of it: check it before you rely on coarse
labels.
"""

import numpy as np

from fedbench.data.base import IntArray

SUPERCLASSES: dict[str, str] = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}

FINE_NAMES: tuple[str, ...] = tuple(sorted(" ".join(SUPERCLASSES.values()).split()))
"""The 100 classes in label order, which is alphabetical."""


def coarse_labels(fine: IntArray) -> IntArray:
    """The superclass of each row: int64 [N] in 0..19, from the classes int64 [N] in 0..99."""
    table = {name: index for index, names in enumerate(SUPERCLASSES.values()) for name in names.split()}
    return np.array([table[name] for name in FINE_NAMES], dtype=np.int64)[fine]
