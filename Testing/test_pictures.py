"""Folders of 8-bit slices: `brainfusion slices` and `brainfusion metrics`, as a user runs them."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from BrainFusionLib.cli import DONE, WRONG_INPUT, main
from BrainFusionLib.errors import ImageContentError, ImageFileError
from BrainFusionLib.fusion.measuring import measure_files
from BrainFusionLib.fusion.method import RuleFuser
from BrainFusionLib.fusion.methods import METHODS, prepare
from BrainFusionLib.fusion.slice_folders import fuse_folders
from BrainFusionLib.intensity import picture_stacks
from BrainFusionLib.io import list_pictures, read_grey, write_grey
from BrainFusionLib.metrics import measure
from BrainFusionLib.settings import FusionSettings, Settings

RULE = Settings(fusion=FusionSettings("bone_over_mri"))


def ring(size, radius):
    """A skull of 4 pixels around grey brain, brain-windowed; an MRI with stripes and a dark skull."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(x, y)
    ct = np.where(np.abs(distance - radius) < 2, 255, np.where(distance < radius, 90, 0))
    mri = np.where(distance < radius - 2, 120 + 60 * np.sin(x / 3), np.where(np.abs(distance - radius - 4) < 1, 180, 8))
    return ct.astype(np.float32), mri.astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    for n, size in enumerate((48, 48, 61)):
        ct, mri = ring(size, size / 3 + n)
        for kind, picture in (("CT", ct), ("MRI", mri)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_grey(picture, tmp_path / kind / f"slice{n}.png")
    return tmp_path


def test_output_has_the_name_and_size_of_each_pair(folders, capsys):
    output = folders / "new" / "fused"
    code = main(["slices", str(folders / "CT"), str(folders / "MRI"), "-o", str(output), "--rule", "bone_over_mri"])
    assert code == DONE
    assert "3 slices fused" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["slice0.png", "slice1.png", "slice2.png"]
    for name in ("slice0", "slice2"):
        ct, mri = (read_grey(folders / kind / f"{name}.png") for kind in ("CT", "MRI"))
        expected = np.rint(prepare(RULE.fusion, "cpu").fuse(picture_stacks(ct[None], mri[None])).fused[0] * 255)
        with Image.open(output / f"{name}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), expected)


def test_the_network_is_the_default_and_passes_the_gates(folders):
    output = folders / "fused"
    assert main(["slices", str(folders / "CT"), str(folders / "MRI"), "-o", str(output), "--save-alpha"]) == DONE
    measured = measure_files(output, folders / "CT", folders / "MRI").mean
    assert measured["bone_error"] == 0
    assert measured["overshoot"] == 0
    fused, ct, mri = (read_grey(folders / kind / "slice2.png") for kind in ("fused", "CT", "MRI"))
    bone = np.pad(ct >= 180, 2)
    near = np.any([bone[y : y + 61, x : x + 61] for y in range(5) for x in range(5)], axis=0)
    np.testing.assert_array_equal(fused[~near], mri[~near])
    alpha = read_grey(output / "alpha" / "slice1.png")
    ct = read_grey(folders / "CT" / "slice1.png")
    assert (alpha[ct == 255] == 255).all()
    assert (alpha == 0).mean() > 0.5


def test_unpaired_pictures_are_reported(folders, capsys):
    (folders / "MRI" / "slice1.png").unlink()
    write_grey(np.zeros((48, 48), np.float32), folders / "MRI" / "extra.png")
    assert (
        main(["slices", str(folders / "CT"), str(folders / "MRI"), "-o", str(folders / "f"), "--rule", "average"]) == 0
    )
    assert "only one folder contains them: extra, slice1" in capsys.readouterr().out


def test_a_pair_of_two_sizes_is_refused_before_writing(folders, capsys):
    write_grey(np.zeros((40, 48), np.float32), folders / "MRI" / "slice2.png")
    output = folders / "fused"
    assert main(["slices", str(folders / "CT"), str(folders / "MRI"), "-o", str(output)]) == WRONG_INPUT
    told = capsys.readouterr().err
    assert "slice2.png 61x61" in told
    assert "slice2.png 48x40" in told
    assert not output.exists()


def test_inputs_are_never_written_over(folders):
    for output in (folders / "CT", folders / "MRI"):
        with pytest.raises(ImageFileError, match="one of the inputs"):
            fuse_folders(folders / "CT", folders / "MRI", output, RULE)
    (folders / "alpha").mkdir()
    write_grey(np.zeros((48, 48), np.float32), folders / "alpha" / "slice0.png")
    with pytest.raises(ImageFileError, match="one of the inputs"):
        fuse_folders(folders / "CT", folders / "alpha", folders, RULE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Image.fromarray(np.full((9, 9), 700, np.uint16)).save(p), "more than 8 bits"),
        (lambda p: Image.fromarray(np.arange(243, dtype=np.uint8).reshape(9, 9, 3)).save(p), "is coloured"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\nbut no more"), "cannot be read as a picture"),
        (lambda p: p.write_bytes(b""), "cannot be read as a picture"),
        (lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot be read as a picture"),
        (lambda p: Image.new("L", (9000, 9000)).save(p), "9000 x 9000 pixels, more than any slice"),
    ],
)
def test_only_8_bit_grey_pictures_are_accepted(tmp_path, make, message):
    path = tmp_path / "odd.png"
    make(path)
    with pytest.raises(ImageFileError, match=message) as refused:
        read_grey(path)
    assert "odd.png" in str(refused.value)


def test_grey_pictures_in_colour_modes_are_read(tmp_path):
    grey = np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)
    for n, mode in enumerate(("L", "RGB", "RGBA", "LA")):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{n}.png")
        np.testing.assert_array_equal(read_grey(tmp_path / f"{n}.png"), grey)


def test_folders_without_shared_pictures_are_refused(folders, tmp_path):
    with pytest.raises(ImageFileError, match="no such file or folder"):
        list_pictures(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="holds no pictures"):
        list_pictures(tmp_path / "empty")
    write_grey(np.zeros((4, 4), np.float32), tmp_path / "empty" / "other.png")
    with pytest.raises(ImageFileError, match=r"no picture of the same name.*slice0\.png.*other\.png"):
        fuse_folders(folders / "CT", tmp_path / "empty", tmp_path / "out", RULE)
    (folders / "CT" / "slice0.bmp").write_bytes(b"")
    with pytest.raises(ImageFileError, match="have one name"):
        list_pictures(folders / "CT")


def test_metrics_are_printed_and_written_for_folders(folders, capsys):
    fused = folders / "fused"
    fuse_folders(folders / "CT", folders / "MRI", fused, RULE)
    told = [str(fused), str(folders / "CT"), str(folders / "MRI")]
    files = ["--json", str(folders / "out" / "m.json"), "--csv", str(folders / "out" / "m.csv")]
    assert main(["metrics", *told, *files]) == DONE
    table = capsys.readouterr().out
    assert "mean of 3 slices" in table
    for name in ("Qabf", "VIF", "NMI", "Qy", "SSIM", "SCD", "EN", "SD", "SF", "AG", "bone_error", "overshoot"):
        assert f"  {name} " in table
    written = json.loads((folders / "out" / "m.json").read_text(encoding="utf-8"))
    images = [read_grey(folder / "slice2.png").astype(float) for folder in (fused, folders / "CT", folders / "MRI")]
    assert written["slices"]["slice2"]["Qabf"] == pytest.approx(measure(*images)["Qabf"])
    assert written["mean"]["VIF"] == pytest.approx(np.mean([row["VIF"] for row in written["slices"].values()]))
    with (folders / "out" / "m.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slice"] for row in rows] == ["slice0", "slice1", "slice2"]
    assert float(rows[2]["Qabf"]) == pytest.approx(written["slices"]["slice2"]["Qabf"])


def test_metrics_of_one_picture(folders, capsys):
    name = "slice0.png"
    assert main(["metrics", *(str(folders / kind / name) for kind in ("MRI", "CT", "MRI"))]) == DONE
    told = capsys.readouterr().out
    assert name in told
    assert "soft_tissue_error           0.0000" in told


def test_metrics_name_a_picture_that_is_too_small(folders):
    write_grey(np.zeros((9, 9), np.float32), folders / "tiny.png")
    with pytest.raises(ImageContentError, match=r"tiny\.png.*16x16"):
        measure_files(*[folders / "tiny.png"] * 3)


def test_metrics_of_volumes_need_one_grid(tmp_path):
    from BrainFusionLib.errors import GeometryError
    from BrainFusionLib.io import write_volume
    from BrainFusionLib.phantom import head_grid, make_phantom

    phantom, grid = make_phantom(1), head_grid(5.0)
    write_volume(phantom.ct(grid.with_spacing((5.0, 5.0, 6.0))), tmp_path / "ct.nrrd")
    write_volume(phantom.mri("T1", grid), tmp_path / "mri.nrrd")
    with pytest.raises(GeometryError, match="ct_in_mri"):
        measure_files(tmp_path / "mri.nrrd", tmp_path / "ct.nrrd", tmp_path / "mri.nrrd")
    write_volume(phantom.ct(grid), tmp_path / "ct.nrrd")
    measured = measure_files(tmp_path / "mri.nrrd", tmp_path / "ct.nrrd", tmp_path / "mri.nrrd").mean
    assert measured["soft_tissue_error"] == pytest.approx(0, abs=1e-4)
    assert measured["bone_error"] > 20


def watch(monkeypatch, note):
    """Call `note` with the stacks of each picture or batch that a rule fuses."""
    fuse = RuleFuser.fuse
    monkeypatch.setattr(RuleFuser, "fuse", lambda self, stacks, **named: note(stacks) or fuse(self, stacks, **named))


def test_threads_are_used_and_restored(folders, monkeypatch):
    seen, before = [], torch.get_num_threads()
    watch(monkeypatch, lambda stacks: seen.append(torch.get_num_threads()))
    words = ["slices", str(folders / "CT"), str(folders / "MRI"), "-o", str(folders / "f"), "--rule", "average"]
    assert main([*words, "--threads", "3"]) == DONE
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_pictures_of_one_size_are_fused_in_batches(folders, monkeypatch):
    shapes, fractions = [], []
    watch(monkeypatch, lambda stacks: shapes.append(stacks.ct_unit.shape))
    for most in (1, 8):
        settings = Settings(fusion=FusionSettings("average", batch_size=most))
        fuse_folders(
            folders / "CT", folders / "MRI", folders / f"f{most}", settings,
            progress=lambda _, fraction: fractions.append(fraction),
        )  # fmt: skip
    assert shapes == [(1, 48, 48), (1, 48, 48), (1, 61, 61), (2, 48, 48), (1, 61, 61)]
    assert fractions == [1 / 3, 2 / 3, 1, 2 / 3, 1]
    for name in ("slice0.png", "slice1.png", "slice2.png"):
        assert (folders / "f1" / name).read_bytes() == (folders / "f8" / name).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fuses_folders(folders, method):
    settings = Settings(fusion=FusionSettings(method))
    written = fuse_folders(folders / "CT", folders / "MRI", folders / "fused", settings, save_alpha=True)
    assert len(written.fused) == 3
    assert len(written.alpha) == (3 if METHODS[method].needs_weights else 0)
