"""How images are scaled, and the recipes of the presets that follow a paper."""

import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation, outline_federation, scaling


def scaled(*overrides: str, preset: str = "fedavg-cifar10") -> object:
    config = ExperimentConfig.load(preset, overrides)
    federation = outline_federation(config) or load_federation(config)
    return scaling(config.data, federation.data)


def test_normalisation_is_published_or_given_or_off() -> None:
    assert scaled("data.normalize=true") == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert scaled("data.normalize=false") == (None, None)
    assert scaled("data.normalize={mean: 0.5, std: 0.25}") == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert scaled("data.normalize={mean: [0.1, 0.2, 0.3], std: 1}") == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert scaled("data.normalize={mean: 0.5, std: 0.5}", preset="fedavg-digits") == ((0.5,), (0.5,))
    assert scaled(preset="fedavg-digits") == (None, None)


@pytest.mark.parametrize(
    ("preset", "override", "message"),
    [
        (
            "fedavg-cifar10",
            "data.normalize={mean: [0.5], std: 0.5}",
            r"data\.normalize\.mean=\[0\.5\]: has 1 values",
        ),
        ("fedavg-digits", "data.normalize=true", r"data\.normalize=true: digits has no published mean"),
        (
            "fedavg-digits",
            "data.augment={crop: 1, crop_border: mean}",
            r"crop_border=mean: has no effect on images that",
        ),
        ("fedavg-digits", "data.normalize={mean: 127, std: 64}", r"data\.normalize"),
        ("fedavg-digits", "data.normalize={mean: 0.5, std: 0}", r"data\.normalize"),
    ],
)
def test_a_scaling_without_effect_or_of_another_shape_is_refused(preset: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scaled(override, preset=preset)


def test_presets_have_the_data_recipes_of_their_papers() -> None:
    """Data as the published code of FedPart (Wang et al., NeurIPS 2024) and FedMR (Hu et al., 2024) prepares them."""
    tiny, cifar100, cifar10, news = (
        ExperimentConfig.load(f"fedpart-{name}") for name in ("tiny-imagenet", "cifar100", "cifar10", "agnews")
    )
    assert tiny.data.augment.model_dump() == {"flip": True, "rotate": 15.0, "crop": 0, "crop_border": "black"}
    assert cifar100.data.augment.model_dump() == {"flip": True, "rotate": 15.0, "crop": 4, "crop_border": "mean"}
    assert (cifar10.data.augment.active, cifar10.data.normalize) == (False, False)
    words = news.data.dataset.model_dump()
    assert (words["max_tokens"], words["min_frequency"]) == (512, 5)
    model = news.model.model_dump()
    assert (model["readout"], model["mask_padding"], model["feedforward"]) == ("last", False, 2)
    for method in ("fedmr", "fedprox", "moon", "scaffold"):
        config = ExperimentConfig.load(f"{method}-cifar10")
        assert config.data.partition.model_dump() == {
            "name": "dirichlet", "alpha": 0.5, "capped": True, "min_size": 10, "attempts": 100
        }  # fmt: skip
        assert scaling(config.data, outline_federation(config).data) == ((0.5,) * 3, (0.5,) * 3)
