"""Inputs named by their roles: by field, not by searching for their names, whatever those are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib.case import Request, Source
from BrainFusionLib.case.names import VolumeNames, remover
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import Bone, Pose, Provenance, Result, Volumes
from BrainFusionLib.case.values import notes_of
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.one_case import fuse_case
from BrainFusionLib.cohort.reviewed import _without_place
from BrainFusionLib.errors import RecordError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import write_volume
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Volume

GRID = Grid((2, 2, 2))
POSE = Pose(RigidTransform.identity(), RigidTransform.identity(), "given", "not moved")
PROSE = "0.5 mm voxels of 2.5 mm (78 x 92 x 81) in the frame of the MRI's head: 1 was subtracted"
NAMES = [
    ("image.nii.gz", "image.nii.gz"), ("volume", "volume"), ("", ""), ("2", "1"), ("5", "0.5"), ("CT", "MR"),
    ("MRI", "CT"), ("head", "voxels"), ("M", "I"),
]  # fmt: skip


def _volume(name, *notes):
    return Volume(np.zeros((2, 2, 2), np.float32), GRID, None, name, notes)


def _result(ct, mri, *notes):
    request, inputs = Request(Source(ct), Source(mri)), Inputs(_volume(ct, PROSE), _volume(mri, PROSE))
    names = VolumeNames(ct, mri, "mri")
    volumes = Volumes(_volume(names.fused), _volume(names.ct_on_grid), _volume(names.alpha), _volume(names.mri_on_grid))
    return Result(
        request, POSE, Verdict("amber"), Evidence(), GRID, Provenance("today", {}, "cpu"),
        bone=Bone(300.0, 0.0, _volume(names.bone)), notes=(*notes_of(request, inputs, POSE), *notes), volumes=volumes,
    )  # fmt: skip


@pytest.mark.parametrize(("ct", "mri"), NAMES)
def test_inputs_of_any_names_are_told_apart_without_them(ct, mri):
    told = _result(ct, mri).without_names()
    assert (told.request.ct.name, told.request.mri.name) == ("CT", "MRI")
    assert told.notes == (f"CT: {PROSE}", f"MRI: {PROSE}")
    made = told.volumes
    assert (made.fused.name, made.ct_in_mri.name, made.mri.name) == ("MRI fused with CT", "CT in MRI", "MRI")
    assert (made.alpha.name, told.bone.labels.name) == ("weight of CT in MRI fused with CT", "bone of CT in MRI")


def test_a_note_says_which_input_it_is_about_also_with_names():
    assert _result("a.nii", "a.nii").notes == (f"CT: {PROSE}", f"MRI: {PROSE}")


def test_a_mask_of_the_ct_s_name_is_called_mask():
    result = _result("a.nii", "b.nii")
    told = replace(result, request=replace(result.request, mri_mask=Source("a.nii"))).without_names()
    assert [source.name for source in (told.request.ct, told.request.mri_mask)] == ["CT", "mask"]


def test_volumes_in_the_ct_s_frame_are_named_so():
    names = VolumeNames("CT", "MRI", "ct")
    assert (names.ct_on_grid, names.mri_on_grid) == ("CT", "MRI in CT")


@pytest.mark.parametrize(
    ("ct", "mri", "note", "expected"),
    [
        ("Smith.nii", "Smith.nii.gz", "beside Smith.nii.gz, Smith.nii was found", "beside MRI, CT was found"),
        ("Smith", "John Smith", "as Smith's and John Smith-2, Smith_T1, in Smithfield", None),
        ("19870231", "2", "19870231: 2 of 3, 1.19870231, 119870231", "CT: 2 of 3, 1.19870231, 119870231"),
        ("head", "2", "'head' and '2' are the head and 2 files", "'CT' and 'MRI' are the head and 2 files"),
        ("volume", "volume", "volume: no orientation of the volume", "CT or MRI: no orientation of the volume"),
    ],
)  # fmt: skip
def test_a_name_inside_a_sentence_is_removed_and_words_and_numbers_stay(ct, mri, note, expected):
    expected = expected or "as CT's and MRI-2, CT_T1, in Smithfield"
    assert _result(ct, mri, note).without_names().notes[-1] == expected


def test_what_replaces_a_name_is_not_searched_for_another():
    assert remover([("Miller", "Smith"), ("Smith", "MRI")])("Miller, Smith") == "Smith, MRI"


def test_a_cohort_s_errors_tell_two_files_of_one_name_apart(tmp_path):
    """The voxels of the CT are in Hounsfield units, with bone; the MRI is empty."""
    for place, step in (("a", 4.1), ("b", 0.0)):
        (tmp_path / place).mkdir()
        array = -1000 + step * np.arange(512, dtype=np.float32).reshape(8, 8, 8)
        write_volume(Volume(array, Grid((8, 8, 8), (20.0, 20.0, 20.0))), tmp_path / place / "image.nii.gz")
    entry = Entry(1, "1", tmp_path / "a" / "image.nii.gz", tmp_path / "b" / "image.nii.gz")
    assert fuse_case(entry, tmp_path / "out", Settings()).error.startswith("the MRI is empty")


@pytest.mark.parametrize("folder", ["7", ".", "cohort/7", "/home/smith/7"])
def test_an_unreadable_record_s_message_loses_its_folder_and_nothing_else(folder):
    record = Path(folder) / "result.json"
    assert (
        _without_place(RecordError(f"{record}: of version 7.7, not 17."), record)
        == "result.json: of version 7.7, not 17."
    )
