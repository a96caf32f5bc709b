"""The table of fusion methods: what every row keeps to, and that one row is all that a new method needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib.cli import main
from BrainFusionLib.errors import Cancelled, GeometryError, MissingDependencyError, Remedy, SettingsError, WeightsError
from BrainFusionLib.fusion.method import MIXTURE, Package, rule
from BrainFusionLib.fusion.methods import METHODS, method_of, pinned, prepare
from BrainFusionLib.fusion.weights import SHIPPED, find_weights, load_weights
from BrainFusionLib.intensity import Stacks
from BrainFusionLib.io import read_grey, write_grey
from BrainFusionLib.settings import FusionSettings

EVERY_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def stacks(shape=(2, 20, 24)):
    ct, mri, bone = np.random.default_rng(0).random((3, *shape), dtype=np.float32)
    return Stacks(ct, mri, bone)


@EVERY_METHOD
def test_every_method_is_described_and_fuses(method):
    assert METHODS[method.name] is method
    assert method.label[0].isupper()
    assert 10 < len(method.description) < 80
    assert "\n" not in method.description
    fuser = prepare(FusionSettings(method.name), "cpu")
    assert fuser.meaning == method.meaning
    assert len(fuser.meaning) > 20
    assert not fuser.meaning.endswith(".")
    assert (fuser.weights is not None) == method.needs_weights
    made = fuser.fuse(stacks())
    assert made.fused.shape == (2, 20, 24)
    assert made.fused.dtype == np.float32
    assert np.array_equal(fuser.fuse(stacks()).fused, made.fused)
    with pytest.raises(Cancelled):
        fuser.fuse(stacks(), cancel=lambda: True)


def test_the_network_comes_first_and_is_the_default():
    assert next(iter(METHODS)) == FusionSettings().rule == "network"


def test_only_weight_maps_are_explained_as_weight_maps():
    for name in SHIPPED:
        fuser = prepare(FusionSettings(weights=name), "cpu")
        made = fuser.fuse(stacks())
        assert (made.alpha is not None) == ("alpha times the CT" in fuser.meaning)
        assert fuser.weights.name == f"{name}.npz"
        assert fuser.weights.sha256 == load_weights(find_weights(name)).manifest.sha256


def test_the_network_is_built_once_for_all_stacks(monkeypatch):
    from BrainFusionLib.fusion import rim

    built = []
    build = rim.RimNetwork
    monkeypatch.setattr(rim, "RimNetwork", lambda arrays: built.append(1) or build(arrays))
    fuser = prepare(FusionSettings(), "cpu")
    for _ in range(3):
        fuser.fuse(stacks())
    assert built == [1]


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'best'.*network, bone_over_mri"):
        prepare(FusionSettings("best"), "cpu")


def test_weights_for_a_method_without_weights_are_refused():
    for refuse in (method_of, pinned, lambda settings: prepare(settings, "cpu")):
        with pytest.raises(SettingsError, match="'average' uses none") as refused:
            refuse(FusionSettings("average", "fusion_net"))
        assert refused.value.remedy is Remedy.OMIT_WEIGHTS_OR_USE_NETWORK


def test_pinned_settings_name_the_weights_by_their_content():
    assert pinned(FusionSettings("average")).weights_sha256 is None
    settings = pinned(FusionSettings())
    assert settings.weights_sha256 == load_weights(find_weights()).manifest.sha256
    assert pinned(settings) == settings
    assert prepare(settings, "cpu").weights.sha256 == settings.weights_sha256


def test_replaced_weights_are_rejected_after_pinning():
    settings = replace(pinned(FusionSettings()), weights="fusion_net")
    for use in (pinned, lambda settings: prepare(settings, "cpu")):
        with pytest.raises(WeightsError, match=r"fusion_net\.npz.*the weights asked for have.*replaced"):
            use(settings)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", rule("toy", "Toy", "needs a toy", np.maximum, package=Package("Toys", "toys")))
    with pytest.raises(MissingDependencyError, match=r"'toy' needs the package Toys.*pip install Toys"):
        prepare(FusionSettings("toy"), "cpu")


@pytest.mark.parametrize("field", ["mri_unit", "bone_weight", "head"])
def test_stacks_of_different_shapes_are_refused(field):
    good = stacks()
    with pytest.raises(GeometryError, match=r"one shape.*\(2, 20, 24\).*\(2, 19, 24\).*Resample"):
        replace(good, **{field: np.zeros((2, 19, 24), np.float32)})
    with pytest.raises(GeometryError, match=r"\(slices, rows, columns\)"):
        Stacks(good.ct_unit[0], good.mri_unit[0], good.bone_weight[0])


# A toy method: in a scratch branch this is one new file, and its name one row of METHODS.
TOY = rule("lighter_half", "Lighter half", "half of the brighter image", lambda ct, mri, bone: np.maximum(ct, mri) / 2)


def test_new_method_needs_only_a_row_of_the_table(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setitem(METHODS, TOY.name, TOY)
    with pytest.raises(SystemExit):
        main(["slices", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "lighter_half" in told
    assert "half of the brighter image" in told
    for kind, level in (("CT", 40), ("MRI", 100)):
        (tmp_path / kind).mkdir()
        write_grey(np.full((20, 20), level, np.float32), tmp_path / kind / "1.png")
    words = [str(tmp_path / "CT"), str(tmp_path / "MRI"), "-o", str(tmp_path / "fused"), "--rule", "lighter_half"]
    assert main(["slices", *words]) == 0
    assert (read_grey(tmp_path / "fused" / "1.png") == 50).all()
    assert prepare(FusionSettings(TOY.name), "cpu").meaning == MIXTURE

    from benchmarks.fusion.run import methods_of_ours

    assert "lighter_half (rule)" in methods_of_ours()


def test_the_table_loads_neither_torch_nor_simpleitk():
    import subprocess
    import sys

    code = (
        "import sys, BrainFusionLib.fusion.methods as m; m.METHODS['network'].label; "
        "print([n for n in ('torch', 'SimpleITK', 'scipy') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
