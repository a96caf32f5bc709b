"""Reading NIfTI, Analyze, NRRD and MetaImage: geometry against nibabel and ITK, voxels, notes, and refusals."""

from __future__ import annotations

import gzip
import itertools
import os
import struct

import nibabel as nib
import numpy as np
import pytest
import scipy.io
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid, anatomical_axes, rotation_matrix
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.volume import Volume

SHAPE_IJK = (4, 5, 6)
VOXELS_IJK = np.random.default_rng(1).integers(-900, 1200, SHAPE_IJK).astype(np.int16)

ORIENTATIONS = [
    np.array([np.eye(3)[axis] * sign for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
OBLIQUES = [rotation_matrix((1, 2, 3), 33) @ ORIENTATIONS[0], rotation_matrix((-2, 1, 1), 131) @ ORIENTATIONS[13]]


def ras_affine(direction, spacing=(0.8, 1.1, 2.5), origin=(-31.5, 12.25, 7.125)):
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def save_nifti(path, affine_ras=None, voxels=VOXELS_IJK, **header):
    """Write with nibabel; `header` overrides single fields, `sform`/`qform` are codes."""
    image = nib.Nifti1Image(voxels, ras_affine(np.eye(3)) if affine_ras is None else affine_ras)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def patch(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(bytes(content))
    return path


def assert_read_as(volume, affine_ras, voxels_ijk=VOXELS_IJK, tolerance=1e-5):
    np.testing.assert_allclose(RAS_FROM_LPS @ volume.grid.lps_from_ijk, affine_ras, atol=tolerance)
    np.testing.assert_array_equal(volume.array_kji, np.asarray(voxels_ijk, dtype=np.float32).T)


# ---------------------------------------------------------------- geometry


def test_there_are_forty_eight_different_axis_orientations():
    assert len({anatomical_axes(o) for o in ORIENTATIONS}) == 48


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".hdr"])
def test_nifti_position_equals_nibabels(tmp_path, suffix):
    for number, direction in enumerate([*ORIENTATIONS, *OBLIQUES]):
        path = tmp_path / f"{number}{suffix}"
        image = (nib.Nifti1Pair if suffix in (".img", ".hdr") else nib.Nifti1Image)(VOXELS_IJK, ras_affine(direction))
        image.to_filename(path)
        assert_read_as(read_volume(path), nib.load(path).affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nhdr", ".mhd"])
def test_position_of_itks_files_equals_nibabels(tmp_path, suffix):
    detached = suffix in (".nhdr", ".mhd")  # the same header as above, so a few are enough
    for number, direction in enumerate([*ORIENTATIONS[:: 7 if detached else 1], *OBLIQUES]):
        source = save_nifti(tmp_path / f"{number}.nii", ras_affine(direction))
        path = tmp_path / f"{number}{suffix}"
        sitk.WriteImage(sitk.ReadImage(source), path, number % 2 == 1)
        assert_read_as(read_volume(path), nib.load(source).affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".img"])
def test_nibabel_and_itk_read_our_files_alike(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for direction in [*ORIENTATIONS, *OBLIQUES]:
        reference = ras_affine(direction)
        grid = Grid.from_lps_from_ijk(RAS_FROM_LPS @ reference, SHAPE_IJK)
        write_volume(Volume(VOXELS_IJK.T, grid), path)
        assert_read_as(read_volume(path), reference)
        if suffix not in (".nrrd", ".mha"):
            image = nib.load(path)
            np.testing.assert_allclose(image.affine, reference, atol=1e-5)
            np.testing.assert_allclose(image.get_qform(), reference, atol=1e-5)
            np.testing.assert_array_equal(np.asarray(image.dataobj), VOXELS_IJK)
        image = sitk.ReadImage(path)
        corner = image.TransformIndexToPhysicalPoint((3, 1, 5))
        np.testing.assert_allclose(corner, (RAS_FROM_LPS @ reference @ [3, 1, 5, 1])[:3], atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), VOXELS_IJK.T)


directions = st.builds(
    lambda axis, angle, base: rotation_matrix((axis[0], axis[1], axis[2] + 1e-3), angle) @ ORIENTATIONS[base],
    st.tuples(*[st.floats(0, 1)] * 3),
    st.floats(-180, 180),
    st.integers(0, 47),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    directions,
    st.tuples(*[st.floats(0.2, 6)] * 3),
    st.tuples(*[st.floats(-900, 900)] * 3),
    st.sampled_from(["quaternion", "matrix"]),
)
def test_rigid_nifti_headers_are_read_as_by_nibabel(tmp_path, direction, spacing, origin, form):
    affine_ras = ras_affine(direction, spacing, origin)
    image = nib.Nifti1Image(VOXELS_IJK, affine_ras)
    image.set_qform(affine_ras, code=1 if form == "quaternion" else 0)
    image.set_sform(affine_ras, code=0 if form == "quaternion" else 2)
    nib.save(image, tmp_path / "a.nii")
    reference = nib.load(tmp_path / "a.nii").affine
    # The header has b, c and d in float32; near half a turn a, which it leaves out, is known to 4e-4 only, which is up
    # to 1e-3 of a voxel's edge.
    assert_read_as(read_volume(tmp_path / "a.nii"), reference, tolerance=1e-3 * max(2, *spacing))
    assert np.sign(np.linalg.det(reference[:3, :3])) == np.sign(np.linalg.det(direction))


def test_a_left_handed_grid_stays_left_handed(tmp_path):
    volume = read_volume(save_nifti(tmp_path / "a.nii", ras_affine(np.diag([-1.0, 1, 1]))))
    assert np.linalg.det(volume.grid.direction) < 0
    assert anatomical_axes(volume.grid.direction) == "LAS"


def test_nifti_2_is_read(tmp_path):
    image = nib.Nifti2Image(VOXELS_IJK, ras_affine(OBLIQUES[0]))
    nib.save(image, tmp_path / "a.nii.gz")
    assert_read_as(read_volume(tmp_path / "a.nii.gz"), image.affine, tolerance=1e-10)


def test_a_big_endian_nifti_is_read(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(VOXELS_IJK, ras_affine(OBLIQUES[1]), header)
    nib.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    assert_read_as(read_volume(tmp_path / "a.nii"), image.affine)


def test_sform_wins_over_qform_with_a_note(tmp_path):
    image = nib.Nifti1Image(VOXELS_IJK, ras_affine(np.eye(3)))
    image.set_qform(ras_affine(np.eye(3), origin=(0, 0, 0)), code=1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert_read_as(volume, nib.load(tmp_path / "a.nii").affine)
    assert any("disagree by up to 34.5 mm" in note for note in volume.notes)


def test_agreeing_sform_and_qform_need_no_note(tmp_path):
    image = nib.Nifti1Image(VOXELS_IJK, ras_affine(OBLIQUES[0]))
    image.set_qform(ras_affine(OBLIQUES[0]), code=1)
    nib.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").notes == ()


def test_qform_replaces_a_sheared_sform(tmp_path):
    sheared = ras_affine(np.eye(3))
    sheared[0, 1] = 0.3
    image = nib.Nifti1Image(VOXELS_IJK, sheared)
    image.set_sform(sheared, code=4)
    image.set_qform(ras_affine(OBLIQUES[0]), code=1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert_read_as(volume, ras_affine(OBLIQUES[0]))
    assert any("template" in note for note in volume.notes)


@pytest.mark.parametrize("code", [3, 4, 5])
@pytest.mark.parametrize("qform_code", [1, 2, 4])
def test_qform_replaces_an_sform_that_scales_to_a_template(tmp_path, code, qform_code):
    plain = ras_affine(OBLIQUES[0])
    image = nib.Nifti1Image(VOXELS_IJK, plain)
    image.set_qform(plain, code=qform_code)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[254:256] = np.int16(code).tobytes()
    content[280:328] = (plain @ np.diag([1.07, 1, 1.1, 1]))[:3].astype("<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    volume = read_volume(tmp_path / "a.nii")
    assert_read_as(volume, plain)
    assert any("to fit a template" in note for note in volume.notes)


def test_sound_qform_replaces_an_sform_that_is_zero_or_not_of_numbers(tmp_path):
    plain = ras_affine(OBLIQUES[0])
    image = nib.Nifti1Image(VOXELS_IJK, plain)
    image.set_qform(plain, code=1)
    nib.save(image, tmp_path / "a.nii")
    for number in (0.0, np.nan):
        volume = read_volume(patch(tmp_path / "a.nii", 280, np.full(12, number, "<f4").tobytes()))
        assert_read_as(volume, plain)
        assert [note for note in volume.notes if "the qform was used" in note]
    with pytest.raises(GeometryError, match="the sform, its orientation, is zero"):
        read_volume(patch(tmp_path / "a.nii", 252, np.int16(0).tobytes()))


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e3), (3, 1e-3)])
def test_units_are_converted_unless_only_mm_fit_a_patient(tmp_path, unit, factor):
    head = np.diag([-40.0, 40, 40, 1])
    noted = read_volume(save_nifti(tmp_path / "a.nii", head, xyzt_units=unit))
    assert_read_as(noted, head)
    assert [note for note in noted.notes if "mm were assumed" in note]
    converted = read_volume(save_nifti(tmp_path / "b.nii", np.diag([*[40 / factor] * 3, 1]), xyzt_units=unit))
    assert_read_as(converted, np.diag([40.0, 40, 40, 1]))
    assert [note for note in converted.notes if "were converted to mm" in note]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_sform_that_only_places_the_head_is_used(tmp_path, code):
    image = nib.Nifti1Image(VOXELS_IJK, ras_affine(OBLIQUES[0]))
    image.set_qform(ras_affine(np.eye(3)), code=1)
    image.set_sform(ras_affine(OBLIQUES[0]), code=code)
    nib.save(image, tmp_path / "a.nii")
    assert_read_as(read_volume(tmp_path / "a.nii"), ras_affine(OBLIQUES[0]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32, np.int16])
def test_freesurfer_volume_is_read_as_in_nibabel(tmp_path, kind, packed):
    path = tmp_path / ("a.mgz" if packed else "a.mgh")
    voxels = (VOXELS_IJK % 200).astype(kind)
    image = nib.MGHImage(voxels, ras_affine(OBLIQUES[0]))
    nib.save(image, path)
    if not packed:
        with path.open("ab") as stream:
            stream.write(b"tags" * 3000)
    volume = read_volume(path)
    assert_read_as(volume, ras_affine(OBLIQUES[0]), voxels)
    assert volume.notes == ()


def test_freesurfer_volume_without_orientation_is_coronal(tmp_path):
    nib.save(nib.MGHImage(VOXELS_IJK.astype(np.int16), np.eye(4)), tmp_path / "a.mgh")
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[28:30] = b"\0\0"
    (tmp_path / "a.mgh").write_bytes(content)
    volume = read_volume(tmp_path / "a.mgh")
    assert anatomical_axes(volume.grid.direction) == "LIA"
    assert "no orientation" in volume.notes[0]
    assert not volume.is_oriented


def test_nifti_without_orientation_is_read_as_in_nibabel(tmp_path):
    image = nib.Nifti1Image(VOXELS_IJK, None)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert_read_as(volume, nib.load(tmp_path / "a.nii").affine)
    assert any("no orientation" in note and "right to left" in note for note in volume.notes)
    assert not volume.is_oriented
    assert any("no position" in note for note in volume.notes)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_metres_and_micrometres_become_mm_with_a_note(tmp_path, unit, factor):
    affine_ras = ras_affine(OBLIQUES[0])
    scaled = np.diag([factor, factor, factor, 1]) @ affine_ras
    image = nib.Nifti1Image(VOXELS_IJK, scaled)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert_read_as(volume, affine_ras, tolerance=1e-4)
    assert any("converted to mm" in note for note in volume.notes)


# ---------------------------------------------------------------- voxels


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr", ".nrrd", ".mha"])
def test_every_gray_voxel_type_becomes_float32(tmp_path, kind, suffix):
    voxels = np.arange(120).reshape(SHAPE_IJK).astype(kind)
    path = tmp_path / f"a{suffix}"
    if suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T.copy()), path)
    else:
        image = (nib.Nifti1Pair if suffix == ".hdr" else nib.Nifti1Image)(voxels, np.eye(4), dtype=voxels.dtype)
        nib.save(image, path)
    volume = read_volume(path)
    assert volume.array_kji.dtype == np.float32
    np.testing.assert_array_equal(volume.array_kji, voxels.T)


def test_nifti_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(VOXELS_IJK, np.eye(4))
    image.header.set_slope_inter(0.25, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(
        read_volume(tmp_path / "a.nii.gz").array_kji, nib.load(tmp_path / "a.nii.gz").get_fdata().T
    )
    assert read_volume(tmp_path / "a.nii.gz").array_kji.min() < -1024


def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path):
    for slope in (0.0, np.nan):
        path = patch(save_nifti(tmp_path / "a.nii"), 112, struct.pack("<2f", slope, 7.0))
        np.testing.assert_array_equal(read_volume(path).array_kji, VOXELS_IJK.T)


def test_what_is_not_a_number_is_outside_with_a_note(tmp_path):
    voxels = np.full(SHAPE_IJK, 5, np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0], voxels[2, 0, 0] = np.nan, np.inf, -7
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz", voxels=voxels))
    assert volume.array_kji[0, 0, :3].tolist() == [-7, np.inf, -7]
    assert "1 voxels are not numbers" in volume.notes[0]


def test_gzip_is_recognised_by_content(tmp_path):
    plain = save_nifti(tmp_path / "plain.nii")
    (tmp_path / "misnamed.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "misnamed.nii").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("misnamed.nii.gz", "misnamed.nii"):
        assert_read_as(read_volume(tmp_path / name), ras_affine(np.eye(3)))


def test_four_dimensional_file_with_one_time_point_is_read(tmp_path):
    save_nifti(tmp_path / "a.nii", voxels=VOXELS_IJK[..., None])
    assert_read_as(read_volume(tmp_path / "a.nii"), ras_affine(np.eye(3)))
    image = sitk.Image([4, 5, 6, 1], sitk.sitkInt16)
    image.SetSpacing((1, 2, 3, 4))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, tmp_path / name)
        assert read_volume(tmp_path / name).grid.spacing_ijk_mm == (1, 2, 3)


def test_the_name_and_the_modality_are_set(tmp_path):
    volume = read_volume(save_nifti(tmp_path / "head.NII.GZ"), modality="MR")
    assert (volume.name, volume.modality) == ("head.NII.GZ", "MR")


def test_a_path_may_be_text_and_hold_any_letters(tmp_path):
    path = save_nifti(tmp_path / "Schädel 頭.nii.gz")
    assert_read_as(read_volume(str(path)), ras_affine(np.eye(3)))


# ---------------------------------------------------------------- Analyze 7.5


def save_analyze(path, kind=nib.AnalyzeImage, endian="<", spacing=(2, 3, 4), origin=None, voxels=VOXELS_IJK):
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_zooms(spacing)
    if origin is not None:
        header["origin"][:3] = origin
    # An image without affine keeps the header's own origin, which nibabel would rewrite from an affine.
    kind(voxels, None, header).to_filename(path)
    return path


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("named", [".hdr", ".img"])
def test_analyze_is_read_as_in_nibabel(tmp_path, endian, named):
    path = save_analyze(tmp_path / "a.img", endian=endian)
    volume = read_volume(path.with_suffix(named))
    assert_read_as(volume, nib.AnalyzeImage.from_filename(path).affine)
    assert anatomical_axes(volume.grid.direction) == "LAS"
    assert any("hold no orientation" in note and "left and right" in note for note in volume.notes)
    assert not volume.is_oriented


@pytest.mark.parametrize("origin", [(2, 3, 4), (-1, 2, 3), (0, 0, 0), (100, 2, 3)])
def test_spm99s_origin_is_used_when_nibabel_uses_it(tmp_path, origin):
    path = save_analyze(tmp_path / "a.img", nib.Spm99AnalyzeImage, origin=origin)
    volume = read_volume(path)
    assert_read_as(volume, nib.Spm99AnalyzeImage.from_filename(path).affine)
    used = any("SPM keeps" in note for note in volume.notes)
    assert used == (origin in [(2, 3, 4), (-1, 2, 3)])


def test_spms_scale_factor_is_applied(tmp_path):
    path = save_analyze(tmp_path / "a.img", nib.Spm99AnalyzeImage)
    patch(path.with_suffix(".hdr"), 112, struct.pack("<f", 0.5))
    np.testing.assert_array_equal(read_volume(path).array_kji, VOXELS_IJK.T * np.float32(0.5))
    np.testing.assert_array_equal(nib.load(path).get_fdata(), VOXELS_IJK * 0.5)


def test_the_calibrated_range_is_applied(tmp_path):
    path = save_analyze(tmp_path / "a.img", nib.Spm99AnalyzeImage)
    header = path.with_suffix(".hdr")
    patch(header, 112, struct.pack("<f", 0))
    patch(header, 124, struct.pack("<2f", 0.75, 0.25))
    patch(header, 140, struct.pack("<2i", 110, 10))
    np.testing.assert_allclose(read_volume(path).array_kji.T, nib.load(path).get_fdata(), rtol=1e-6)


def test_the_orient_byte_is_ignored_but_not_in_silence(tmp_path):
    path = save_analyze(tmp_path / "a.img")
    patch(path.with_suffix(".hdr"), 252, b"\x01")
    volume = read_volume(path)
    assert_read_as(volume, nib.AnalyzeImage.from_filename(path).affine)
    assert any("'orient' byte (1)" in note and "swapped" in note for note in volume.notes)


def test_negative_spacing_becomes_positive_with_a_note(tmp_path):
    path = save_analyze(tmp_path / "a.img")
    patch(path.with_suffix(".hdr"), 80, struct.pack("<f", -2))
    volume = read_volume(path)
    assert volume.grid.spacing_ijk_mm == (2, 3, 4)
    assert any("negative" in note for note in volume.notes)


@pytest.mark.parametrize("level", ["4", "5", "5 compressed"])
@pytest.mark.parametrize("names", [("mat",), ("M",), ("M", "mat")])
def test_spms_matrix_beside_a_pair_is_read_as_in_nibabel(tmp_path, level, names):
    path = save_analyze(tmp_path / "a.img", nib.Spm99AnalyzeImage)
    turned = ras_affine(OBLIQUES[0]) @ np.array([[1, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, -1], [0, 0, 0, 1.0]])
    scipy.io.savemat(
        tmp_path / "a.mat", dict.fromkeys(names, turned), format=level[0], do_compression=level.endswith("compressed")
    )
    volume = read_volume(path)
    assert_read_as(volume, nib.Spm99AnalyzeImage.from_filename(path).affine)
    assert "SPM" in volume.notes[0]


def test_other_mat_file_beside_a_pair_is_mentioned(tmp_path):
    path = save_analyze(tmp_path / "a.img")
    (tmp_path / "a.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    assert any("not read" in note for note in read_volume(path).notes)


@pytest.mark.parametrize("level", ["4", "5"])
def test_damaged_matrix_of_spm_is_refused(tmp_path, level):
    path = save_analyze(tmp_path / "a.img")
    scipy.io.savemat(tmp_path / "a.mat", {"mat": np.eye(4)}, format=level)
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:-9])
    with pytest.raises(ImageFileError, match=r"a\.mat: .*damaged"):
        read_volume(path)


def test_a_gzipped_pair_and_upper_case_names_are_found(tmp_path):
    path = save_analyze(tmp_path / "a.img")
    for suffix in (".hdr", ".img"):
        (tmp_path / f"B{suffix}.gz").write_bytes(gzip.compress(path.with_suffix(suffix).read_bytes()))
        (tmp_path / f"C{suffix.upper()}").write_bytes(path.with_suffix(suffix).read_bytes())
    for name in ("B.img.gz", "B.hdr.gz", "C.IMG", "C.HDR"):
        assert_read_as(read_volume(tmp_path / name), nib.AnalyzeImage.from_filename(path).affine)


# ---------------------------------------------------------------- refusals

BAD_SPACING = "spacing must be above zero"


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])
    return path


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"gone\.nii: there is no such file.*Check the name"):
        read_volume(tmp_path / "gone.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".mha", ".dcm"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(ImageFileError, match=rf"a{suffix}: is empty.*[Cc]opy"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".hdr"])
def test_a_text_file_under_an_images_name_is_refused(tmp_path, suffix, capfd):
    (tmp_path / f"a{suffix}").write_text("patient notes\n" * 60)
    (tmp_path / "a.img").touch()
    with pytest.raises(ImageFileError, match=rf"a{suffix}: is not .*Copy"):
        read_volume(tmp_path / f"a{suffix}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(128) + b"DICM", "It is DICOM: end its name in .dcm"),
        (b"PK\3\4", "It is a zip"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_other_file_under_an_images_name_is_said_to_be_what_it_is(tmp_path, suffix, content, words):
    (tmp_path / f"a{suffix}").write_bytes(content.ljust(700, b"\0"))
    with pytest.raises(ImageFileError, match=words):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(("slope", "intercept"), [(np.inf, 0), (-np.inf, 0), (2, np.nan), (2, np.inf)])
def test_scale_that_is_not_a_number_is_refused(tmp_path, slope, intercept):
    path = patch(save_nifti(tmp_path / "a.nii"), 112, struct.pack("<2f", slope, intercept))
    with pytest.raises(ImageFileError, match="it scales the values by"):
        read_volume(path)


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "a.docx").write_text("hello")
    with pytest.raises(ImageFileError, match=r"a\.docx: files of this kind \('\.docx'\) are not read\. Give NIfTI"):
        read_volume(tmp_path / "a.docx")


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.tar.gz", "Unpack it first"), ("a.PAR", "dcm2niix"), ("a.png", "export the DICOM"), ("a.mrb", "Save")],
)
def test_files_that_people_have_instead_are_refused_with_what_helps(tmp_path, name, words):
    (tmp_path / name).write_text("hello")
    with pytest.raises(ImageFileError, match=rf"are not read\. .*{words}.* Give NIfTI"):
        read_volume(tmp_path / name)


def test_voxels_beside_a_header_are_refused_with_the_name_of_the_header(tmp_path):
    for name in ("a.raw.gz", "a.nhdr"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(ImageFileError, match=r"are not read\. It holds the voxels of 'a\.nhdr': give that file"):
        read_volume(tmp_path / "a.raw.gz")


def test_a_series_can_be_chosen_in_dicom_only(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.nii: a series can be chosen in a DICOM folder only"):
        read_volume(save_nifti(tmp_path / "a.nii"), series=1)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_an_unreadable_file_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii")
    path.chmod(0)
    was_root = os.geteuid() == 0
    if was_root:  # root may read everything, so be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(ImageFileError, match=r"a\.nii: cannot be read for lack of permission"):
            read_volume(path)
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize(("present", "missing"), [(".hdr", ".img"), (".img", ".hdr")])
def test_half_a_pair_is_refused(tmp_path, present, missing):
    path = save_analyze(tmp_path / "a.img")
    path.with_suffix(missing).unlink()
    with pytest.raises(ImageFileError, match=rf"a{missing} is missing.*put both there"):
        read_volume(path.with_suffix(present))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_zero_spacing_is_refused(tmp_path, axis, value):
    nifti = patch(save_nifti(tmp_path / "a.nii"), 80 + 4 * axis, struct.pack("<f", value))
    with pytest.raises(GeometryError, match=rf"a\.nii: .*{BAD_SPACING}.*Correct the header"):
        read_volume(nifti)
    analyze = save_analyze(tmp_path / "b.img")
    patch(analyze.with_suffix(".hdr"), 80 + 4 * axis, struct.pack("<f", value))
    with pytest.raises(GeometryError, match=rf"b\.hdr: .*{BAD_SPACING}"):
        read_volume(analyze)


def edited(tmp_path, name, old, new, image=None):
    """Write with ITK, then change the header's text."""
    path = tmp_path / name
    sitk.WriteImage(image or sitk.Image([4, 5, 6], sitk.sitkInt16), path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("a.mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1", BAD_SPACING),
        ("a.nrrd", b"(1,0,0)", b"(0,0,0)", BAD_SPACING),
        ("a.nrrd", b"space directions: (1,0,0) (0,1,0) (0,0,1)", b"spacings: 1 0 1", BAD_SPACING),
        ("a.mha", b"TransformMatrix = 1 0 0", b"TransformMatrix = 1 .2 0", "perpendicular"),
        ("a.nrrd", b"(1,0,0)", b"(1,0.2,0)", "perpendicular"),
        ("a.nrrd", b"space origin", b'space units: "m" "m" "m"\nspace origin', "must be in mm"),
        ("a.mha", b"NDims = 3", b"NDims = 3\nDistanceUnits = cm", "must be in mm"),
        ("a.nrrd", b"(1,0,0)", b"none", "no direction in space"),
    ],
)
def test_headers_that_itk_repairs_or_passes_are_refused(tmp_path, name, old, new, words):
    with pytest.raises(GeometryError, match=f"{name}: .*{words}"):
        read_volume(edited(tmp_path, name, old, new))


def test_a_sheared_sform_is_refused(tmp_path):
    affine_ras = ras_affine(np.eye(3))
    affine_ras[0, 1] = 0.2
    with pytest.raises(GeometryError, match=r"a\.nii: .*perpendicular.*sheared"):
        read_volume(save_nifti(tmp_path / "a.nii", affine_ras))


def test_missing_spacing_and_axes_in_text_headers_are_noted(tmp_path):
    for name, old, new in (
        ("a.mha", b"ElementSpacing = 1 1 1\n", b""),
        ("a.nrrd", b"space directions: (1,0,0) (0,1,0) (0,0,1)\n", b""),
    ):
        assert any("1 mm was assumed" in note for note in read_volume(edited(tmp_path, name, old, new)).notes)
    path = edited(tmp_path, "b.mha", b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"")
    assert any("assumed that i runs to the left" in note for note in read_volume(path).notes)
    path.write_bytes(
        path.read_bytes()
        .replace(b"AnatomicalOrientation = RAI\n", b"")
        .replace(b"DimSize", b"AnatomicalOrientation = ASL\nDimSize")
    )
    with pytest.raises(GeometryError, match="the axes run as 'ASL', but gives no TransformMatrix"):
        read_volume(path)
    for name, old, new, words in (
        ("a.mha", b"Offset = 0 0 0\n", b"", "no position"),
        ("a.nrrd", b"space directions: (1,0,0) (0,1,0) (0,0,1)\n", b"spacings: 1 1 1\n", "no position"),
        ("a.nrrd", b"space directions: (1,0,0) (0,1,0) (0,0,1)\n", b"axis mins: 1 2 3\n", "axis mins"),
    ):
        assert any(words in note for note in read_volume(edited(tmp_path, name, old, new)).notes), words


def test_scale_of_values_in_a_metaimage_header_is_applied_with_a_note(tmp_path):
    plain = read_volume(edited(tmp_path, "a.mha", b"", b""))
    scale = b"ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -1024\nDimSize"
    volume = read_volume(edited(tmp_path, "a.mha", b"DimSize", scale))
    np.testing.assert_array_equal(volume.array_kji, plain.array_kji * 2 - 1024)
    assert [note for note in volume.notes if "they were scaled" in note]
    with pytest.raises(ImageFileError, match=r"makes all values equal \(ElementToIntensityFunctionSlope is 0\)"):
        read_volume(edited(tmp_path, "b.mha", b"DimSize", scale.replace(b"= 2", b"= 0")))


@pytest.mark.parametrize("unit", [b"MM", b"?", b"Millimeter", b"mm "])
def test_millimetres_in_a_metaimage_header_are_known_in_every_spelling(tmp_path, unit):
    plain = read_volume(edited(tmp_path, "a.mha", b"", b""))
    assert (
        read_volume(edited(tmp_path, "a.mha", b"DimSize", b"DistanceUnits = " + unit + b"\nDimSize")).grid == plain.grid
    )


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("size", [(4, 5), (4, 5, 1)])
def test_a_2d_image_is_refused(tmp_path, suffix, size):
    sitk.WriteImage(sitk.Image(size, sitk.sitkInt16), tmp_path / f"a{suffix}")
    with pytest.raises(ImageFileError, match=rf"a{suffix}: a 3D volume is needed.*2D.*Give the whole series"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_4d_image_is_refused(tmp_path, suffix):
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkInt16), tmp_path / f"a{suffix}")
    with pytest.raises(ImageFileError, match=rf"a{suffix}: .*is 4D.*4 x 5 x 6 x 2.*Save one of them"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [sitk.sitkVectorUInt8, sitk.sitkVectorFloat32, sitk.sitkComplexFloat32])
def test_colours_vectors_and_complex_numbers_are_refused(tmp_path, suffix, kind):
    sitk.WriteImage(sitk.Image([4, 5, 6], kind), tmp_path / f"a{suffix}")
    with pytest.raises(ImageFileError, match=rf"a{suffix}: (one number per voxel is needed|.*several .*channels)"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".img"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("missing", [3, 100])
def test_a_file_cut_short_is_refused(tmp_path, suffix, compressed, missing, capfd):
    path = tmp_path / f"a{suffix}"
    voxels = np.random.default_rng(2).normal(size=(6, 5, 4)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), path, compressed)
    with pytest.raises(ImageFileError, match=r"a\.\w+(\.gz)?: .*(cut short|damaged|cannot be read).*Copy"):
        read_volume(cut(path, missing))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_damaged_byte_in_compressed_voxels_is_noticed(tmp_path, suffix, capfd):
    path = tmp_path / f"a{suffix}"
    voxels = np.random.default_rng(2).integers(0, 50, (12, 12, 12)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), path, True)
    patch(path, path.stat().st_size // 2, bytes([path.read_bytes()[path.stat().st_size // 2] ^ 0xFF]))
    with pytest.raises(ImageFileError, match=rf"a{suffix}: .*(damaged|cannot be read).*Copy"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


def test_a_huge_size_in_the_header_takes_no_memory(tmp_path):
    path = save_nifti(tmp_path / "a.nii")
    for size, words in (
        ((9000, 9000, 9000), "promises 729000000000 voxels"),
        ((500, 500, 500), "promises 250000352 bytes"),
    ):
        patch(path, 42, struct.pack("<3h", *size))
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        for name in ("a.nii", "a.nii.gz"):
            with pytest.raises(ImageFileError, match=words):
                read_volume(tmp_path / name)


def test_a_damaged_text_header_is_refused(tmp_path):
    for name, old, new, words in (
        ("a.mha", b"DimSize = 4 5 6", b"DimSize = 4 x 6", "must be numbers"),
        ("a.mha", b"DimSize", b"OtherSize", "lacks the entry DimSize"),
        ("a.mha", b"Offset = 0 0 0", b"Offset = 0 0", "has 2 numbers"),
        ("a.mha", b"DimSize = 4 5 6", b"DimSize = 4 0 6", "damaged"),
        ("a.nrrd", b"(1,0,0)", b"(1,oh,0)", "header is damaged"),
        ("a.mha", b"= LOCAL", b"= gone.raw", "gone.raw.*is missing.*Put both"),
        ("a.mha", b"BinaryData = True", b"BinaryData = False", "not read. Save it as one"),
    ):
        with pytest.raises(ImageFileError, match=f"{name}: .*{words}"):
            read_volume(edited(tmp_path, name, old, new))


def test_a_wrong_number_of_axes_is_refused(tmp_path):
    path = patch(save_nifti(tmp_path / "a.nii"), 40, struct.pack("<h", 99))
    with pytest.raises(ImageFileError, match=r"a\.nii: its header is damaged.*99 axes"):
        read_volume(path)


@pytest.mark.parametrize("msb", [False, True])
def test_detached_metaimage_is_read(tmp_path, msb):
    voxels = VOXELS_IJK.T.astype(">i2" if msb else "<i2")
    (tmp_path / "a.raw").write_bytes(b"own header" + voxels.tobytes())
    header = f"NDims = 3\nDimSize = 4 5 6\nElementByteOrderMSB = {msb}\nElementSpacing = 1 2 3\nHeaderSize = %d\n"
    for skip in (10, -1):
        (tmp_path / "a.mhd").write_text(header % skip + "ElementType = MET_SHORT\nElementDataFile = a.raw\n")
        np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array_kji, VOXELS_IJK.T)


def test_reading_leaves_itks_warning_switch_as_it_was(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkInt16), tmp_path / "a.nrrd")
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    read_volume(tmp_path / "a.nrrd")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before
