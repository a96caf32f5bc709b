"""Transform files of other programs, against their definitions, ITK and nibabel's affines, in all orientations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import scipy.io
import SimpleITK as sitk

from BrainFusionLib import cli
from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy, SettingsError
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid, rotation_matrix
from BrainFusionLib.io import read_transform, write_transform
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.io.text_headers import exact
from BrainFusionLib.io.transforms import transform_files
from BrainFusionLib.transform import RigidTransform

TRUTH = RigidTransform.from_axis_angle((0.3, 0.5, 0.8), 17.0, (12.0, -23.0, 31.0))
M = TRUTH.moving_from_fixed_lps
RAS_MRI_FROM_CT = RAS_FROM_LPS @ np.linalg.inv(M) @ RAS_FROM_LPS
AXES = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
CT = Grid((30, 40, 20), (0.5, 0.6, 2.0), (-8.0, 5.0, 3.0), rotation_matrix((1, 1, 0), 20))
MRI = Grid((25, 26, 27), (1.0, 1.1, 1.2), (3.0, -20.0, 7.0))


def grids(axes):
    return (
        Grid(CT.size_ijk, CT.spacing_ijk_mm, CT.origin_lps_mm, CT.direction @ axes),
        Grid(MRI.size_ijk, MRI.spacing_ijk_mm, MRI.origin_lps_mm, axes[::-1]),
    )


def affine_transform():
    made = sitk.AffineTransform(3)
    made.SetMatrix(M[:3, :3].ravel())
    made.SetTranslation(M[:3, 3])
    return made


def assert_truth(transform, tolerance=1e-6):
    np.testing.assert_allclose(transform.moving_from_fixed_lps, M, atol=tolerance)


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.mat", "a.tfm", "a.txt"])
@pytest.mark.parametrize("several", [False, True])
def test_itks_files_are_read_as_by_itk(tmp_path, name, several):
    euler = sitk.Euler3DTransform((5, 6, 7), 0.1, -0.2, 0.3, (4, 5, -6))
    made = sitk.CompositeTransform([affine_transform(), euler]) if several else euler
    if several and name.endswith(".mat"):
        pytest.skip("ITK writes no composite there")
    sitk.WriteTransform(made, str(tmp_path / name))
    read = read_transform(tmp_path / name)
    for point in ((0, 0, 0), (70, -30, 20), (-5, 80, -60)):
        np.testing.assert_allclose(read.apply(point), made.TransformPoint(point), atol=1e-4)


def test_composite_in_a_matlab_file_of_which_itk_keeps_the_last_part_is_refused(tmp_path):
    parts = [sitk.TranslationTransform(3, (1, 2, 3)), sitk.TranslationTransform(3, (4, 5, 6))]
    sitk.WriteTransform(sitk.CompositeTransform(parts), tmp_path / "a.mat")
    with pytest.raises(ImageFileError, match="cannot hold a composite"):
        read_transform(tmp_path / "a.mat")


def test_mark_of_utf8_before_a_text_changes_nothing(tmp_path):
    sitk.WriteTransform(sitk.TranslationTransform(3, (1, 2, 3)), tmp_path / "a.tfm")
    (tmp_path / "a.tfm").write_bytes(b"\xef\xbb\xbf\r\n" + (tmp_path / "a.tfm").read_bytes())
    np.testing.assert_array_equal(read_transform(tmp_path / "a.tfm").translation_mm, (1, 2, 3))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("form", ["fsl", "lta"])
def test_written_transform_of_another_program_is_read_again_in_any_orientation(tmp_path, form, axes):
    ct, mri = grids(axes)
    path = tmp_path / ("a.lta" if form == "lta" else "a.mat")
    write_transform(TRUTH, path, form, ct=ct, mri=mri)
    assert_truth(read_transform(path, between=Between(ct, mri)))


@pytest.mark.parametrize("axes", AXES)
def test_fsls_matrix_maps_scaled_voxels_as_flirt_counts_them(tmp_path, axes):
    ct, mri = grids(axes)
    write_transform(TRUTH, tmp_path / "a.mat", "fsl", ct=ct, mri=mri)
    matrix = np.loadtxt(tmp_path / "a.mat")

    def in_fsl(grid, voxel):
        image = nib.Nifti1Image(np.zeros(grid.size_ijk, np.uint8), RAS_FROM_LPS @ grid.lps_from_ijk)
        i, j, k = voxel
        if np.linalg.det(image.affine[:3, :3]) > 0:  # neurological
            i = image.shape[0] - 1 - i
        return np.array([i, j, k]) * image.header.get_zooms(), nib.affines.apply_affine(image.affine, voxel)

    scaled, ras = in_fsl(ct, np.array([3.0, 7.0, 11.0]))
    wanted_ras = nib.affines.apply_affine(RAS_MRI_FROM_CT, ras)
    voxel = nib.affines.apply_affine(np.linalg.inv(RAS_FROM_LPS @ mri.lps_from_ijk), wanted_ras)
    np.testing.assert_allclose(nib.affines.apply_affine(matrix, scaled), in_fsl(mri, voxel)[0], atol=1e-4)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="one of itk, ants, lta, fsl, matrix; got 'xfm'"):
        write_transform(TRUTH, tmp_path / "a.xfm", "xfm")
    assert list(tmp_path.iterdir()) == []


def test_ants_reads_our_matrix_as_itk_does(tmp_path):
    write_transform(TRUTH, tmp_path / "a.mat", "ants")
    read = sitk.ReadTransform(str(tmp_path / "a.mat"))
    np.testing.assert_allclose(read.TransformPoint((1, 2, 3)), TRUTH.apply((1, 2, 3)), atol=1e-9)
    assert_truth(read_transform(tmp_path / "a.mat"))


def test_plain_matrix_of_ours_says_what_it_maps(tmp_path):
    write_transform(TRUTH, tmp_path / "a.txt", "matrix")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.txt"), RAS_MRI_FROM_CT)
    assert_truth(read_transform(tmp_path / "a.txt"))


@pytest.mark.parametrize("frame", ["lps", "ras"])
@pytest.mark.parametrize("maps", ["ct-to-mri", "mri-to-ct"])
def test_plain_matrix_needs_its_frame_and_direction(tmp_path, frame, maps):
    matrix = M if maps == "mri-to-ct" else np.linalg.inv(M)
    matrix = RAS_FROM_LPS @ matrix @ RAS_FROM_LPS if frame == "ras" else matrix
    (tmp_path / "a.txt").write_text("\n".join(exact(row, " ") for row in matrix))
    assert_truth(read_transform(tmp_path / "a.txt", between=Between(frame=frame, maps=maps)))
    for missing in (Between(), Between(frame=frame), Between(maps=maps)):
        with pytest.raises(ImageFileError, match="4x4 matrix alone does not say"):
            read_transform(tmp_path / "a.txt", between=missing)


@pytest.mark.parametrize("maps", ["ct-to-mri", "mri-to-ct"])
def test_mni_file_maps_ras_points_and_needs_its_direction(tmp_path, maps):
    matrix = RAS_MRI_FROM_CT if maps == "ct-to-mri" else np.linalg.inv(RAS_MRI_FROM_CT)
    rows = "\n".join(exact(row, " ") for row in matrix[:3])
    text = f"MNI Transform File\n% made by hand; a = b\n\nTransform_Type = Linear;\nLinear_Transform =\n{rows};\n"
    (tmp_path / "a.xfm").write_text(text)
    assert_truth(read_transform(tmp_path / "a.xfm", between=Between(maps=maps)))
    with pytest.raises(ImageFileError, match="does not say in which direction"):
        read_transform(tmp_path / "a.xfm")
    inverted = text.replace("Linear;", "Linear;\nInvert_Flag = True;")
    (tmp_path / "a.xfm").write_text(inverted)
    other = {"ct-to-mri": "mri-to-ct", "mri-to-ct": "ct-to-mri"}[maps]
    assert_truth(read_transform(tmp_path / "a.xfm", between=Between(maps=other)))


def test_mni_file_of_itk_needs_its_frame_as_its_numbers_are_lps(tmp_path):
    sitk.WriteTransform(affine_transform(), str(tmp_path / "a.xfm"))
    with pytest.raises(ImageFileError, match="does not say between which coordinates"):
        read_transform(tmp_path / "a.xfm", between=Between(maps="mri-to-ct"))
    assert_truth(read_transform(tmp_path / "a.xfm", between=Between(frame="lps", maps="mri-to-ct")))


def test_plain_matrix_of_a_known_frame_is_asked_for_its_direction_alone(tmp_path):
    np.savetxt(tmp_path / "a.txt", np.eye(4))
    with pytest.raises(ImageFileError, match="does not say in which direction it maps") as refused:
        read_transform(tmp_path / "a.txt", between=Between(frame="lps"))
    assert refused.value.remedy is Remedy.STATE_DIRECTION


def test_fsls_matrix_without_nifti_grids_is_refused(tmp_path):
    write_transform(TRUTH, tmp_path / "a.mat", "fsl", ct=CT, mri=MRI)
    for between in (Between(), Between(CT, MRI, in_nifti_order=False)):
        with pytest.raises(ImageFileError, match="NIfTI files that FLIRT was given"):
            read_transform(tmp_path / "a.mat", between=between)


@pytest.mark.parametrize("mri", ["mri", "mri.nrrd", "mri.mgz"])
@pytest.mark.parametrize("command", ["fuse", "register"])
def test_fsls_matrix_is_not_written_for_other_volumes_than_nifti(tmp_path, capsys, command, mri):
    words = [command, "ct.nii.gz", mri, "-o", str(tmp_path / "a.mat"), "--transform-format", "fsl"]
    assert cli.main(words) == 2
    assert "FSL's matrices count in the voxels of both images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "refused before any work"


@pytest.mark.parametrize("name", ["a.mat", "a.txt"])
def test_fsls_matrix_is_known_by_how_fsl_writes_it_and_not_by_its_name(tmp_path, name):
    write_transform(TRUTH, tmp_path / "fsl.mat", "fsl", ct=CT, mri=MRI)
    matrix = np.loadtxt(tmp_path / "fsl.mat")
    # FLIRT writes ten digits, and two spaces behind each number.
    (tmp_path / name).write_text("".join("".join(f"{x:.10f}  " for x in row) + "\n" for row in matrix))
    assert_truth(read_transform(tmp_path / name, between=Between(CT, MRI)))
    np.savetxt(tmp_path / name, matrix)
    for between in (Between(CT, MRI), Between(CT, MRI, maps="ct-to-mri")):
        with pytest.raises(ImageFileError, match="is not written as FSL writes its own") as caught:
            read_transform(tmp_path / name, between=between)
        assert "'fsl'" in str(caught.value)
    assert_truth(read_transform(tmp_path / name, between=Between(CT, MRI, frame="fsl")))


def lta(matrix, kind=1, volumes=""):
    rows = "\n".join(exact(row, " ") for row in matrix)
    return f"type      = {kind} # x\nnxforms   = 1\nmean      = 0 0 0\nsigma     = 1\n1 4 4\n{rows}\n{volumes}"


def test_lta_without_volumes_needs_its_direction(tmp_path):
    (tmp_path / "a.lta").write_text(lta(RAS_MRI_FROM_CT))
    with pytest.raises(ImageFileError, match="which of them is the CT"):
        read_transform(tmp_path / "a.lta", between=Between(CT, MRI))
    assert_truth(read_transform(tmp_path / "a.lta", between=Between(maps="ct-to-mri")))


@pytest.mark.parametrize("kind", ["", "nan", "1e9", "one"])
def test_lta_without_a_whole_number_for_its_type_is_damaged(tmp_path, kind):
    (tmp_path / "a.lta").write_text(lta(RAS_MRI_FROM_CT, kind))
    with pytest.raises(ImageFileError, match="'type' must be a whole number"):
        read_transform(tmp_path / "a.lta", between=Between(CT, MRI))


def test_lta_from_the_mri_to_the_ct_is_turned_round(tmp_path):
    write_transform(RigidTransform(np.linalg.inv(M)), tmp_path / "a.lta", "lta", ct=MRI, mri=CT)
    assert_truth(read_transform(tmp_path / "a.lta", between=Between(CT, MRI)))


def test_lta_of_nitransforms_names_its_volumes_the_other_way_round(tmp_path):
    write_transform(TRUTH, tmp_path / "a.lta", "lta", ct=CT, mri=MRI)
    text = (tmp_path / "a.lta").read_text().replace("src", "x").replace("dst", "src").replace("x volume", "dst volume")
    (tmp_path / "a.lta").write_text("# LTA file created by NiTransforms\n" + text)
    assert_truth(read_transform(tmp_path / "a.lta", between=Between(CT, MRI)))


def test_lta_between_voxels_is_read(tmp_path):
    write_transform(TRUTH, tmp_path / "a.lta", "lta", ct=CT, mri=MRI)
    voxels = np.linalg.inv(MRI.lps_from_ijk) @ np.linalg.inv(M) @ CT.lps_from_ijk
    info = (tmp_path / "a.lta").read_text().partition("src volume info")
    (tmp_path / "a.lta").write_text(lta(voxels, 0, info[1] + info[2]))
    assert_truth(read_transform(tmp_path / "a.lta", between=Between(CT, MRI)))


def elastix(kind, parameters, centre=(5, 6, 7), grid=None, initial="NoInitialTransform"):
    lines = [
        f'(Transform "{kind}")', f"(NumberOfParameters {len(parameters)})",
        f"(TransformParameters {exact(parameters, ' ')})", f"(CenterOfRotationPoint {exact(centre, ' ')})",
        f'(InitialTransformParametersFileName "{initial}")', '(HowToCombineTransforms "Compose")',
        "(FixedImageDimension 3)", "(MovingImageDimension 3)", '(UseDirectionCosines "true")', '(ComputeZYX "false")',
    ]  # fmt: skip
    if grid is not None:
        lines += [
            f"(Size {exact(grid.size_ijk, ' ')})", f"(Spacing {exact(grid.spacing_ijk_mm, ' ')})",
            f"(Origin {exact(grid.origin_lps_mm, ' ')})", f"(Direction {exact(grid.direction.T.ravel(), ' ')})",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def test_elastix_parameters_are_read_as_by_itk(tmp_path):
    first, second = (0.1, -0.2, 0.3, 4.0, 5.0, -6.0), (0.2, 0.1, -0.1, 1.0, 2.0, 3.0)
    (tmp_path / "t.0.txt").write_text(elastix("EulerTransform", second))
    (tmp_path / "t.1.txt").write_text(elastix("EulerTransform", first, initial="/elsewhere/t.0.txt"))
    made = sitk.CompositeTransform(
        [sitk.Euler3DTransform((5, 6, 7), *p[:3], p[3:]) for p in (first, second)]
    )  # applied last to first, as elastix applies its initial transform first
    read = read_transform(tmp_path / "t.1.txt")
    np.testing.assert_allclose(read.apply((10, 20, 30)), made.TransformPoint((10, 20, 30)), atol=1e-9)


def test_empty_lines_by_the_hundred_thousand_change_nothing(tmp_path):
    """Looking for the kind of a file once took time with the square of their number: minutes."""
    text = elastix("EulerTransform", [0.1, 0.2, 0.3, 4, 5, 6])
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("\n" * 100_000 + text)
    a, b = (read_transform(tmp_path / name) for name in ("a.txt", "b.txt"))
    np.testing.assert_array_equal(a.moving_from_fixed_lps, b.moving_from_fixed_lps)


def test_elastix_with_the_ct_as_fixed_image_is_turned_round(tmp_path):
    inverse = np.linalg.inv(M)
    parameters = [*inverse[:3, :3].ravel(), *inverse[:3, 3]]
    (tmp_path / "t.txt").write_text(elastix("AffineTransform", parameters, (0, 0, 0), CT))
    assert_truth(read_transform(tmp_path / "t.txt", between=Between(CT, MRI)))


def test_elastix_of_a_fixed_image_that_is_neither_needs_its_direction(tmp_path):
    size = (CT.size_ijk[0] - 2, *CT.size_ijk[1:])
    cropped = Grid(size, CT.spacing_ijk_mm, CT.origin_lps_mm, CT.direction)
    inverse = np.linalg.inv(M)
    for grid in (cropped, None):
        text = elastix("AffineTransform", [*inverse[:3, :3].ravel(), *inverse[:3, 3]], (0, 0, 0), grid)
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(ImageFileError, match="nothing says in which direction it maps"):
            read_transform(tmp_path / "t.txt", between=Between(CT, MRI))
        assert_truth(read_transform(tmp_path / "t.txt", between=Between(CT, MRI, maps="ct-to-mri")))


def test_grid_of_elastix_may_have_its_axes_in_another_order_than_ours(tmp_path):
    inverse = np.linalg.inv(M)
    last = CT.lps_from_ijk @ [0, CT.size_ijk[1] - 1, 0, 1]
    flipped = Grid(CT.size_ijk, CT.spacing_ijk_mm, tuple(last[:3]), CT.direction * [1, -1, 1])
    text = elastix("AffineTransform", [*inverse[:3, :3].ravel(), *inverse[:3, 3]], (0, 0, 0), flipped)
    (tmp_path / "t.txt").write_text(text)
    assert_truth(read_transform(tmp_path / "t.txt", between=Between(CT, MRI)))


def in_toml(text):
    """Elastix's own form of parameters in that of TOML, as `OutputTransformParameterFileFormat = "TOML"` gives it."""
    lines = []
    for line in text.splitlines():
        key, _, value = line.strip("()").partition(" ")
        words = value.split()
        lines.append(f"{key} = {value if len(words) == 1 else '[' + ', '.join(words) + ']'}")
    return "# made by elastix\n" + "\n".join(lines).replace('"true"', "true") + "\n"


def test_elastix_parameters_in_toml_are_read_as_those_in_its_own_form(tmp_path):
    inverse = np.linalg.inv(M)
    text = elastix("AffineTransform", [*inverse[:3, :3].ravel(), *inverse[:3, 3]], (0, 0, 0), CT)
    (tmp_path / "t.toml").write_text(in_toml(text))
    assert_truth(read_transform(tmp_path / "t.toml", between=Between(CT, MRI)))


def test_initial_transform_of_elastix_is_read_from_toml_too(tmp_path):
    first, second = (0.1, -0.2, 0.3, 4.0, 5.0, -6.0), (0.2, 0.1, -0.1, 1.0, 2.0, 3.0)
    for form, end in ((str, "txt"), (in_toml, "toml")):
        (tmp_path / f"t.0.{end}").write_text(form(elastix("EulerTransform", second)))
        (tmp_path / f"t.1.{end}").write_text(form(elastix("EulerTransform", first, initial=f"t.0.{end}")))
    own, toml = (read_transform(tmp_path / name).moving_from_fixed_lps for name in ("t.1.txt", "t.1.toml"))
    np.testing.assert_array_equal(own, toml)
    assert transform_files(tmp_path / "t.1.toml") == [tmp_path / "t.1.toml", tmp_path / "t.0.toml"]


def test_damaged_toml_of_elastix_is_refused(tmp_path):
    (tmp_path / "t.toml").write_text(in_toml(elastix("EulerTransform", [0.0] * 6)).replace("[", "[[[", 1))
    with pytest.raises(ImageFileError, match="these parameters of elastix are damaged"):
        read_transform(tmp_path / "t.toml")


AFNI = "# 3dAllineate matrices (DICOM-to-DICOM, row-by-row):\n"


@pytest.mark.parametrize("separator", [" ", "\n"])
def test_matrix_of_afni_is_in_lps_and_needs_its_direction(tmp_path, separator):
    rows = [exact(row, " ") for row in M[:3]]
    (tmp_path / "a.aff12.1D").write_text(AFNI + separator.join(rows) + "\n")
    assert_truth(read_transform(tmp_path / "a.aff12.1D", between=Between(maps="mri-to-ct")))
    with pytest.raises(ImageFileError, match="from its base to its source, and does not say which of them is the CT"):
        read_transform(tmp_path / "a.aff12.1D")


@pytest.mark.parametrize("role", ["ct", "mri"])
def test_matrix_of_afni_is_refused_for_oblique_volumes(tmp_path, role):
    (tmp_path / "a.1D").write_text(AFNI + exact(M[:3].ravel(), " ") + "\n")
    straight = Grid((4, 5, 6), direction=np.diag([-1.0, 1, -1]))
    oblique = Grid((4, 5, 6), direction=rotation_matrix((1, 2, 3), 0.05))
    between = Between(ct=straight, mri=straight, maps="mri-to-ct")
    assert_truth(read_transform(tmp_path / "a.1D", between=between))
    with pytest.raises(ImageFileError, match=rf"those of the {role.upper()} are turned by 0\.0\d+ degrees"):
        read_transform(tmp_path / "a.1D", between=replace(between, **{role: oblique}))
    said = replace(between, frame="lps", **{role: oblique})
    assert_truth(read_transform(tmp_path / "a.1D", between=said))


def test_several_matrices_of_afni_are_refused(tmp_path):
    row = exact(M[:3].ravel(), " ")
    (tmp_path / "a.1D").write_text(f"{AFNI}{row}\n{row}\n")
    with pytest.raises(ImageFileError, match="is not a transform file of a kind"):
        read_transform(tmp_path / "a.1D", between=Between(maps="mri-to-ct"))


def test_matrix_of_niftyreg_is_read_as_ras(tmp_path):
    in_ras = RAS_FROM_LPS @ M @ RAS_FROM_LPS
    (tmp_path / "aff.txt").write_text("\n".join(exact(row, " ") for row in in_ras) + "\n")
    assert_truth(read_transform(tmp_path / "aff.txt", between=Between(frame="ras", maps="mri-to-ct")))


def test_register_dat_of_freesurfer_is_refused_with_what_converts_it(tmp_path):
    rows = "\n".join(exact(row, " ") for row in np.eye(4))
    (tmp_path / "register.dat").write_text(f"bert\n1.0\n1.0\n0.15\n{rows}\nround\n")
    with pytest.raises(ImageFileError, match=r"register\.dat: is a register\.dat of FreeSurfer.*with lta_convert"):
        read_transform(tmp_path / "register.dat")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (elastix("BSplineTransform", [0.0] * 12), GeometryError, "BSpline"),
        (elastix("EulerTransform", [0.0] * 5), ImageFileError, "needs 6 Parameters"),
        (elastix("EulerTransform", [0.0] * 6, initial="gone.txt"), ImageFileError, "is missing beside it"),
        (
            elastix("EulerTransform", [0.0] * 6, initial="b.txt").replace('"Compose"', '"Add"'),
            ImageFileError,
            "cannot be composed",
        ),
        (elastix("EulerTransform", [0.0] * 6, initial="a.txt"), ImageFileError, "cannot be composed"),
        (lta(np.eye(4)[:3]), ImageFileError, "one 4x4 matrix"),
        (lta(np.eye(4), 14), ImageFileError, "type 14"),
        (lta(np.eye(4), 0), ImageFileError, "between voxels"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 2\n", ImageFileError, "not that of a transform"),
        ("MNI Transform File\n\nTransform_Type = Linear;\n", ImageFileError, "must be 12 numbers, but there are 0"),
        ("MNI Transform File\n\nTransform_Type = Grid_Transform;\n", GeometryError, "one linear transform is needed"),
        ("1 0 0\n0 1 0\n", ImageFileError, "is not a transform file of a kind"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, text, error, words):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(error, match=words):
        read_transform(tmp_path / "a.txt", between=Between(frame="lps", maps="ct-to-mri"))


def test_matrix_of_spm_and_itk_text_without_a_line_are_refused_as_what_they_are(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"M": np.eye(4)})
    with pytest.raises(ImageFileError, match=r"but not of ITK or ANTs: it holds 'M'"):
        read_transform(tmp_path / "a.mat")
    sitk.WriteTransform(affine_transform(), str(tmp_path / "a.tfm"))
    text = (tmp_path / "a.tfm").read_text()
    (tmp_path / "a.tfm").write_text(text[: text.index("FixedParameters")])
    with pytest.raises(ImageFileError, match="lacks a line of Parameters or FixedParameters"):
        read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("name", ["a.h5", "a.mat"])
def test_binary_transforms_cut_anywhere_are_refused(tmp_path, name):
    sitk.WriteTransform(affine_transform(), str(tmp_path / name))
    whole = (tmp_path / name).read_bytes()
    for end in (*range(1, min(len(whole), 400), 7), len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:end])
        try:
            assert_truth(read_transform(tmp_path / name))
        except (ImageFileError, GeometryError):
            continue
        assert name == "a.h5"  # nothing of it stands at its end


def test_binary_transform_of_fewer_numbers_is_refused(tmp_path):
    sitk.WriteTransform(affine_transform(), str(tmp_path / "a.mat"))
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[4:8] = np.int32(9).tobytes()
    del content[20 + 27 : 20 + 27 + 24]
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ImageFileError, match="needs 12 Parameters"):
        read_transform(tmp_path / "a.mat")
