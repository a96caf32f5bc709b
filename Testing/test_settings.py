import importlib.metadata
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from BrainFusionLib import device
from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import MissingDependencyError, SettingsError
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, SearchPass, Settings


def test_presets_increase_the_effort():
    fast, standard, thorough = (RegistrationSettings.preset(name) for name in ("fast", "standard", "thorough"))
    assert fast.samples < standard.samples < thorough.samples
    assert fast.passes[-1].rotations < standard.passes[-1].rotations
    assert standard.passes[0].rotations < thorough.passes[0].rotations
    assert standard == RegistrationSettings()


def test_a_preset_keeps_the_seed():
    assert {RegistrationSettings.preset(name, seed=7).seed for name in ("fast", "standard", "thorough")} == {7}


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'best'.*fast, standard, thorough"):
        RegistrationSettings.preset("best")


@pytest.mark.parametrize(("field", "least"), [("samples", 2000), ("seed", 0)])
def test_registration_setting_below_its_minimum_is_rejected(field, least):
    assert getattr(RegistrationSettings(**{field: least}), field) == least
    for bad in (least - 1, least + 0.5, str(least), None, True):
        with pytest.raises(SettingsError, match=f"{field} must be a whole number of at least {least}; got"):
            RegistrationSettings(**{field: bad})


def test_empty_search_is_refused_by_name():
    with pytest.raises(SettingsError, match="rotations must be a whole number of at least 1; got 0"):
        SearchPass(rotations=0, candidates=4)
    with pytest.raises(SettingsError, match="candidates must be a whole number of at least 4; got 3"):
        SearchPass(rotations=1, candidates=3)
    with pytest.raises(SettingsError, match="passes is empty"):
        RegistrationSettings(passes=())


def test_the_model_is_rigid_by_default():
    assert RegistrationSettings().model == "rigid"
    assert {RegistrationSettings.preset(name, model="affine").model for name in ("fast", "standard", "thorough")} == {
        "affine"
    }
    assert Settings(RegistrationSettings(model="similarity")).registration.model == "similarity"
    for bad in ("deformable", "Rigid", None):
        with pytest.raises(SettingsError, match=f"no model {bad!r}; choose one of rigid, similarity, affine"):
            RegistrationSettings(model=bad)


def test_the_pose_is_that_of_the_skull_by_default():
    assert RegistrationSettings().align == "skull"
    assert RegistrationSettings.preset("fast", align="brain").align == "brain"
    with pytest.raises(SettingsError, match="cannot align to 'skin'; choose one of skull, brain"):
        RegistrationSettings(align="skin")
    with pytest.raises(SettingsError, match="the brain is aligned rigidly, but the model is affine"):
        RegistrationSettings(align="brain", model="affine")


def test_no_batch_and_no_thread_are_refused():
    with pytest.raises(SettingsError, match="batch_size"):
        FusionSettings(batch_size=0)
    with pytest.raises(SettingsError, match="threads"):
        Settings(threads=0)


def test_the_network_and_its_own_weights_are_the_default():
    assert FusionSettings().rule == "network"
    assert FusionSettings(weights=Path("w.bin")) == FusionSettings(weights="w.bin")


def test_an_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'gpu'.*auto, cpu, cuda, mps"):
        Settings(device="gpu")


def test_settings_are_frozen_and_checked_on_replacement():
    with pytest.raises(SettingsError, match="samples"):
        replace(RegistrationSettings(), samples=0)
    with pytest.raises(FrozenInstanceError):
        Settings().threads = 4


def test_more_threads_than_any_machine_has_are_refused():
    with pytest.raises(SettingsError, match="at most 1024"):
        Settings(threads=100_000)


def test_where_the_weights_lie_stays_private():
    settings = Settings(fusion=FusionSettings("network", Path("home") / "me" / "w.npz", weights_sha256="ab"))
    assert settings.without_paths() == Settings(fusion=FusionSettings("network", "w.npz", weights_sha256="ab"))
    assert Settings().without_paths() == Settings()


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with so many CUDA devices, and with or without Apple's."""

    def pretend(gpus, apple=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return pretend


@pytest.mark.parametrize(("gpus", "apple", "picked"), [(0, False, "cpu"), (1, False, "cuda"), (0, True, "cpu")])
def test_auto_is_the_graphics_card_if_there_is_one(machine, gpus, apple, picked):
    machine(gpus, apple)
    assert pick_device() == picked
    assert pick_device("cpu") == "cpu"


def test_apples_card_is_used_where_it_is_named(machine):
    machine(0, apple=True)
    assert pick_device("mps") == "mps"


@pytest.mark.parametrize(("version", "driver", "asked"), [("2.9.0+cpu", True, False), ("2.9.0", False, False),
                                                          ("2.9.0", True, True)])  # fmt: skip
def test_auto_loads_torch_only_where_there_may_be_a_card(monkeypatch, version, driver, asked):
    seen = []
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(device.Path, "exists", lambda path: driver)
    monkeypatch.setattr(device, "_cards", lambda: seen.append(True) or 1)
    assert pick_device() == ("cuda" if asked else "cpu")
    assert seen == [True] * asked


def test_gpu_is_picked_by_its_number(machine):
    machine(2)
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(SettingsError, match=r"'cuda:2'.*cpu, cuda, cuda:0, cuda:1"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_missing_gpu_is_rejected_with_the_alternatives(machine, name):
    machine(0)
    with pytest.raises(SettingsError, match=f"'{name}' was requested.*only cpu here.*Choose auto or cpu"):
        pick_device(name)


def test_a_device_of_no_known_name_is_refused(machine):
    machine(1)
    with pytest.raises(SettingsError, match="must be auto, cpu, cuda or mps; got 'GPU'"):
        pick_device("GPU")


def test_without_torch_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert (pick_device("cpu"), pick_device("auto")) == ("cpu", "cpu")
    with pytest.raises(MissingDependencyError, match=r"'cuda' needs torch.*not installed.*pip install torch .*Slicer"):
        pick_device("cuda")


def test_a_torch_that_does_not_load_counts_as_absent(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(device, "_may_have_card", lambda: True)
    assert pick_device("auto") == "cpu"
    with pytest.raises(MissingDependencyError, match=r"does not load \(libcudart.*pip uninstall torch, then"):
        pick_device("cuda")
