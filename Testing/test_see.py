"""Bone and error at a point by the command: what is written, printed and refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from BrainFusionLib.case import read_record
from BrainFusionLib.cli.main import DONE, WRONG_INPUT, main
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.folder import read_case
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.io.point_files import read_points
from BrainFusionLib.phantom import make_pair

POINTS = "name,x,y,z\nentry,40,-30,90\ntarget,5,0,20\nfar,500,0,0\nskipped,,,\n"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Return a folder with a pair, points, and the result of ``fuse --bone --points``, with what it printed."""
    folder = tmp_path_factory.mktemp("see")
    pair = make_pair(3, spacing_mm=3.0)
    write_volume(pair.ct, folder / "ct.nii.gz")
    write_volume(pair.mri, folder / "mri.nii.gz")
    (folder / "points.csv").write_text(POINTS)
    code = main([
        "fuse", str(folder / "ct.nii.gz"), str(folder / "mri.nii.gz"), "-o", str(folder / "out"), "--bone",
        "--rule", "bone_over_mri", "--points", str(folder / "points.csv"), "--line", "entry", "target",
    ])  # fmt: skip
    assert code == DONE
    return folder


def test_bone_is_a_label_map_on_the_grid_of_the_mri(case):
    bone, mri = read_volume(case / "out" / "bone.nii.gz"), read_volume(case / "mri.nii.gz")
    ct = read_volume(case / "out" / "ct_in_mri.nii.gz")
    assert bone.grid.same_as(mri.grid, 1e-3)
    assert set(np.unique(bone.array_kji).tolist()) == {0.0, 1.0}
    assert ct.array_kji[bone.array_kji == 1].min() > 300


def test_result_tells_of_the_bone_and_reads_it_back(case):
    result = read_case(case / "out")
    assert result.bone.threshold_hu == 300
    count = np.count_nonzero(result.bone.labels.array_kji)
    assert result.bone.volume_ml == pytest.approx(count * np.prod(result.grid.spacing_ijk_mm) / 1000, abs=0.01)
    assert read_record(case / "out" / "result.json").bone.labels is None


def test_record_has_a_small_map_in_which_no_error_is_far_below_the_one_stated(case):
    result = read_record(case / "out" / "result.json")
    assert np.nanmin(result.error_map.expected_mm) >= 0.6 * result.verdict.expected_error_mm - 0.01
    assert len(result.error_map.values) < 20_000


def test_command_prints_errors_at_points_and_the_worst_along_a_line(case, capsys):
    assert main(["error", str(case / "out"), "--points", str(case / "points.csv"), "--line", "entry", "target"]) == DONE
    said = capsys.readouterr().out
    assert "target (L 5.0" in said
    assert "worst" in said
    assert "not known" in said.split("far (")[0].splitlines()[-1]


def test_command_takes_points_and_writes_the_colour_layer(case, capsys, tmp_path):
    layer = tmp_path / "error.nii.gz"
    assert main(["error", str(case / "out"), "--at", "-5", "0", "20", "--map", str(layer)]) == DONE
    assert "point 1 (R 5.0" in capsys.readouterr().out
    assert read_volume(layer).array_kji.max() > 0


def test_command_says_beside_the_numbers_that_the_result_was_rejected(case, capsys, tmp_path):
    out = shutil.copytree(case / "out", tmp_path / "out")
    assert main(["sign", str(out), "--reject", "--name", "A. Surgeon"]) == DONE
    for folder, is_rejected in ((out, True), (case / "out", False)):
        capsys.readouterr()
        assert main(["error", str(folder), "--at", "-5", "0", "20"]) == DONE
        assert ("The result was rejected" in capsys.readouterr().out) == is_rejected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--line", "a", "b"], "no points"),
        ([], "no points"),
        (["--points", "points.csv", "--line", "entry", "nowhere"], "nowhere"),
        (["--points", "missing.csv"], "missing.csv"),
    ],
)
def test_wrong_points_are_refused_and_named(case, options, words, capsys, monkeypatch):
    monkeypatch.chdir(case)
    assert main(["error", "out", *options]) == WRONG_INPUT
    assert words in capsys.readouterr().err


def test_no_error_is_printed_beside_a_red_verdict(case, capsys, tmp_path):
    document = json.loads((case / "out" / "result.json").read_text())
    document["verdict"] |= {"colour": "red", "expected_error_mm": None, "bound_mm": None}
    document["error_map"] = None
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert main(["error", str(tmp_path), "--at", "0", "0", "0"]) == WRONG_INPUT
    assert "red" in capsys.readouterr().err


def test_points_of_slicer_are_read_in_their_frame(tmp_path):
    points = {"label": "entry", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"}
    markup = {"type": "Line", "coordinateSystem": "RAS", "controlPoints": [points, {"label": "target"}]}
    (tmp_path / "line.mrk.json").write_text(json.dumps({"markups": [markup]}))
    found = read_points(tmp_path / "line.mrk.json")
    assert found.names == ("entry",)
    assert found.named("entry").tolist() == [-1, -2, 3]
    (tmp_path / "none.mrk.json").write_text(json.dumps({"markups": [markup | {"controlPoints": []}]}))
    with pytest.raises(ImageFileError, match="no point with a position"):
        read_points(tmp_path / "none.mrk.json")
    (tmp_path / "bad.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(ImageFileError, match="columns"):
        read_points(tmp_path / "bad.csv")
