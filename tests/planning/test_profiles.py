"""Profiles of devices: the shipped table, own ones, mixtures, and what is refused."""

import re
from pathlib import Path

import pytest

from fedbench.config.device_table import TABLE, shipped_table
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import digest
from fedbench.errors import ConfigError
from fedbench.planning.profiles import ProfileSection


def section(value: object) -> ProfileSection:
    profile = ExperimentConfig.load(None, {"delays": {"profile": value}}).delays.profile
    assert profile is not None
    return profile


@pytest.mark.parametrize("device", shipped_table()["devices"])
@pytest.mark.parametrize("link", shipped_table()["links"])
def test_each_shipped_device_goes_with_each_link_and_names_its_source(device: str, link: str) -> None:
    profile = section(f"{device}+{link}").profile(f"{device}+{link}")
    assert profile.device.source
    assert profile.link.source


def test_each_computed_figure_is_what_the_formula_beside_it_gives() -> None:
    """A line such as `joules_per_flop: 3.611e-10  # = 12.7 W / 35.169e9 FLOP/s`, to the four digits that it has."""
    lines = re.findall(r"^ +(\w+): (\S+)  # = (.+)$", TABLE.read_text(), re.MULTILINE)
    for name, figure, formula in lines:
        left, *rest = re.findall(r"[*/](?= \d)|[\d.]+(?:e[+-]?\d+)?(?= |$)", formula)
        value = float(left)
        for sign, factor in zip(rest[::2], rest[1::2], strict=True):
            value = value * float(factor) if sign == "*" else value / float(factor)
        assert float(figure) == pytest.approx(value, rel=5e-4), f"{name}: {figure} # = {formula}"
    energies = [key for kind in shipped_table().values() for part in kind.values() for key in part if "joules" in key]
    assert [name for name, _, _ in lines if "joules" in name] == energies


def test_a_configuration_holds_the_figures_of_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("devices: {tiny: {flops_per_second: 1e+6}}\nlinks: {}\n")
    config = ExperimentConfig.load(
        None, {"delays": {"profile": {"profiles": ["tiny+lte"], "file": str(tmp_path / "own.yaml")}}}
    )
    (tmp_path / "own.yaml").unlink()
    again = ExperimentConfig.from_mapping(config.to_mapping())
    assert again == config
    assert again.digest() == config.digest()
    assert again.delays.profile is not None
    assert again.delays.profile.file is None
    assert again.delays.profile.devices["tiny"].flops_per_second == 1e6
    other = ExperimentConfig.load(
        None, {"delays": {"profile": {"profiles": ["tiny+lte"], "devices": {"tiny": {"flops_per_second": 2e6}}}}}
    )
    assert other.digest() != config.digest()


def test_names_that_yaml_reads_as_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("devices: {5: {flops_per_second: 1e+6}}\n")
    file = str(tmp_path / "own.yaml")
    assert section({"profiles": ["5+lte"], "file": file}).devices["5"].flops_per_second == 1e6
    with pytest.raises(ConfigError, match="no such device; allowed: 5, mac-mini-m4"):
        section({"profiles": ["a+lte"], "file": file})


def test_own_figures_take_the_place_of_shipped_ones() -> None:
    own = section({"profiles": ["raspberry-pi-5+lte"], "devices": {"raspberry-pi-5": {"flops_per_second": 5.0}}})
    assert own.devices["raspberry-pi-5"].flops_per_second == 5.0


def test_without_a_profile_an_experiment_is_what_it_was() -> None:
    plain = ExperimentConfig.load("quickstart").to_mapping()
    new = ("profile", "availability", "uplink_groups", "deadline")
    earlier = plain | {"delays": {key: value for key, value in plain["delays"].items() if key not in new}}
    assert digest(plain, {}) == digest(earlier, {})


def test_a_mixture_has_its_shares_whatever_the_seed() -> None:
    mixture = section({"profiles": ["raspberry-pi-5+lte", "raspberry-pi-4+lte"], "shares": [0.3, 0.7]})
    for seed in range(3):
        names = [profile.name for profile in mixture.of_clients(10, seed)]
        assert names.count("raspberry-pi-5+lte") == 3
    assert mixture.of_clients(10, 0) == mixture.of_clients(10, 0)
    assert mixture.of_clients(10, 0) != mixture.of_clients(10, 1)


def test_each_client_may_have_its_own() -> None:
    names = ("raspberry-pi-5+lte", "raspberry-pi-4+broadband-wifi")
    assert tuple(profile.name for profile in section({"clients": list(names)}).of_clients(2, 0)) == names


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("raspbery-pi-5+lte", "no such device; did you mean 'raspberry-pi-5'"),
        ("raspberry-pi-5+5g", "no such link; allowed: broadband-wifi, lte"),
        ("raspberry-pi-5", r"must be DEVICE\+LINK, such as raspberry-pi-5\+lte"),
        ({"shares": [1]}, "profiles=null and clients=null: set one of the two"),
        ({"profiles": ["raspberry-pi-5+lte"], "shares": [1, 2]}, "one is needed for each of profiles"),
        ({"profiles": ["raspberry-pi-5+lte"], "shares": [0]}, "at least one must be above 0"),
        ({"profiles": ["a+lte"], "devices": {"a": {"flops_per_second": 0}}}, "devices.a.flops_per_second=0: must be"),
        ({"profiles": ["a+lte"], "devices": {"a": {"speed": 1}}}, "devices.a.speed: unknown key"),
        ({"profiles": ["a+lte"], "devices": ["a"]}, r"devices=\['a'\]: must be a mapping of names to figures"),
        ({"profiles": ["raspberry-pi-5+lte"], "colour": "red"}, "profile.colour: unknown key; allowed: clients, dev"),
        ({"profiles": ["raspberry-pi-5+lte"], "file": "nowhere.yaml"}, "file=nowhere.yaml: no such file"),
    ],
)
def test_wrong_profiles_are_refused_in_one_line(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        section(value)
    assert "\n" not in str(error.value)


def test_profiles_are_for_as_many_clients_as_there_are() -> None:
    with pytest.raises(ConfigError, match=r"has 1 profiles for data.clients=2"):
        section({"clients": ["raspberry-pi-5+lte"]}).of_clients(2, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["delays.deadline=3"], "delays.deadline=3.0 has no effect without delays.profile"),
        (["delays.availability=exponential"], "availability=exponential has no effect without delays.profile"),
        (["delays.profile=raspberry-pi-5+lte", "delays.bandwidth=9"], "bandwidth=9.0 has no effect with profile"),
        (["delays.profile=raspberry-pi-5+lte", "delays.clock=wall"], "profile=... has no effect with clock=wall"),
    ],
)
def test_keys_without_an_effect_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExperimentConfig.load(None, overrides)
