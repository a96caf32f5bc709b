"""Output grids: the MRI's, the CT's, both fields of view, isotropic; in the frame of the MRI or of the CT."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from BrainFusionLib import fuse, read_case, read_transform
from BrainFusionLib.case import Result, output
from BrainFusionLib.errors import GeometryError, Remedy, SettingsError
from BrainFusionLib.folder import write_case
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid, apply_affine, rotation_matrix
from BrainFusionLib.intensity import ct_to_unit
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.output_grid import least_voxels, output_grid
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.settings import FusionSettings, OutputSettings, RegistrationSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform

POSE = RigidTransform.from_axis_angle((1, 2, 3), 14, (12, -9, 20), (5, 6, 7))
OBLIQUE = rotation_matrix((2, 1, -1), 20)
CHOICES = [(reference, grid) for reference in ("mri", "ct") for grid in ("mri", "ct", "union", 3.5)]


def head_grid(size, spacing, direction, centre=(0.0, 0.0, 0.0)):
    axes = direction * np.array(spacing)
    return Grid(size, spacing, tuple(np.array(centre) - axes @ ((np.array(size) - 1) / 2)), direction)


# Oblique and left-handed; anisotropic, and shorter than the head, with its axes exchanged.
MRI_GRID = head_grid((44, 50, 40), (4.0, 4.5, 5.0), OBLIQUE * [1, 1, -1])
CT_GRID = head_grid(
    (30, 46, 52), (6.0, 4.2, 3.8), rotation_matrix((0, 1, 1), -10)[:, [2, 0, 1]], POSE.apply((0, 0, 50))
)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(2, ct_grid=CT_GRID, mri_grid=MRI_GRID, transform=POSE)


def fused(pair, reference="mri", grid=None, rule="network", transform=POSE, **registration):
    settings = Settings(
        registration=RegistrationSettings(**registration),
        fusion=FusionSettings(rule),
        output=OutputSettings(reference, grid),
    )
    return fuse(pair.ct, pair.mri, settings, transform=transform, check=False)


@pytest.fixture(scope="module", autouse=True)
def measured(pair) -> Iterator[dict[tuple[str, object], Result]]:
    """Two results with evidence of their own; all others have that of the first, which takes most of the time."""
    found = {choice: fused(pair, *choice) for choice in (("mri", "mri"), ("ct", "union"))}
    steps, known = sys.modules["BrainFusionLib.case.run"], []
    measure = steps.local_evidence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "local_evidence", lambda *given: (known or known.append(measure(*given)) or known)[0])
        yield found


@pytest.fixture(scope="module")
def results(pair, measured) -> dict[tuple[str, object], Result]:
    return {choice: measured.get(choice) or fused(pair, *choice) for choice in CHOICES}


# ---- grids ----------------------------------------------------------------------------------------------------------


def test_default_is_the_mris_grid_with_the_same_voxels_as_ever(pair, results) -> None:
    plain = fuse(pair.ct, pair.mri, transform=POSE, check=False)
    assert plain.fused == results["mri", "mri"].fused
    assert plain.alpha == results["mri", "mri"].alpha
    assert plain.fused.grid is pair.mri.grid
    assert plain.volumes.mri is None
    assert OutputSettings("ct", "ct") == OutputSettings("ct")


@pytest.mark.parametrize(("reference", "grid"), CHOICES)
def test_all_volumes_are_on_one_grid_in_the_frame_of_the_reference(results, reference, grid) -> None:
    result = results[reference, grid]
    of_all = [volume.grid for volume in (result.ct_in_mri, result.alpha, result.volumes.mri) if volume is not None]
    assert all(found is result.fused.grid for found in (*of_all, result.output.grid))
    own, other = (MRI_GRID, CT_GRID) if reference == "mri" else (CT_GRID, MRI_GRID)
    if grid == reference:
        assert result.fused.grid is own
    elif grid in ("mri", "ct"):
        assert result.fused.grid.size_ijk == other.size_ijk
        expected = (POSE.inverse() if reference == "mri" else POSE).apply(other.corners_lps_mm)
        assert np.abs(result.fused.grid.corners_lps_mm - expected).max() < 1e-9
    else:
        assert result.fused.grid.spacing_ijk_mm == (grid if grid != "union" else 3.8,) * 3
        assert np.allclose(result.fused.grid.direction, own.direction, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reference", ["mri", "ct"])
def test_the_union_holds_both_fields_of_view_and_no_more_than_a_voxel_beyond(reference) -> None:
    grid = output_grid(OutputSettings(reference, "union"), CT_GRID, MRI_GRID, POSE)
    to_grid = grid.ijk_from_lps @ np.eye(4)
    inside = []
    for name, volume in (("mri", MRI_GRID), ("ct", CT_GRID)):
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in volume.size_ijk])).reshape(3, -1).T
        points = apply_affine(volume.lps_from_ijk, corners)
        if name != reference:
            points = POSE.apply(points) if reference == "ct" else POSE.inverse().apply(points)
        inside.append(apply_affine(to_grid, points))
    ijk = np.concatenate(inside)
    assert (ijk.min(axis=0) >= -0.5 - 1e-6).all()
    assert (ijk.max(axis=0) <= np.array(grid.size_ijk) - 0.5 + 1e-6).all()
    assert (ijk.min(axis=0) < 0.5 + 1e-6).all()
    assert (ijk.max(axis=0) > np.array(grid.size_ijk) - 1.5 - 1e-6).all()


def test_isotropic_voxels_of_the_mris_own_spacing_are_the_mris_own() -> None:
    cube = head_grid((20, 24, 22), (4.0, 4.0, 4.0), OBLIQUE)
    assert output_grid(OutputSettings("mri", 4.0), CT_GRID, cube, POSE).same_as(cube)


def test_the_voxels_estimated_before_are_a_lower_bound_and_exact_but_for_the_union() -> None:
    for reference, grid in CHOICES:
        chosen = OutputSettings(reference, grid)
        made = prod(output_grid(chosen, CT_GRID, MRI_GRID, POSE).size_ijk)
        least = least_voxels(chosen, CT_GRID, MRI_GRID)
        assert least <= made
        assert grid in ("union", 3.5) or least == made


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["mri", "ct"])
def test_the_ct_keeps_every_bit_on_its_own_voxels(pair, results, reference) -> None:
    assert np.array_equal(results[reference, "ct"].ct_in_mri.array_kji, pair.ct.array_kji)


@pytest.mark.parametrize("reference", ["mri", "ct"])
def test_the_mri_keeps_every_bit_on_its_own_voxels(pair, results, reference) -> None:
    result = results[reference, "mri"]
    without_ct = result.alpha.array_kji == 0
    assert without_ct.mean() > 0.5
    assert np.array_equal(result.fused.array_kji[without_ct], pair.mri.array_kji[without_ct])


def test_voxels_that_both_grids_share_are_copied(pair) -> None:
    cube = head_grid((40, 44, 42), (4.0, 4.0, 4.0), OBLIQUE)
    coarse_ct = head_grid((32, 40, 40), (5.0, 5.0, 5.0), np.eye(3), POSE.apply((0, 0, 40)))
    made = make_pair(2, ct_grid=coarse_ct, mri_grid=cube, transform=POSE)
    result = fused(made, "mri", "union", "bone_over_mri")
    at = np.rint(apply_affine(result.fused.grid.ijk_from_lps, cube.origin_lps_mm)).astype(int)
    window = tuple(slice(first, first + n) for first, n in zip(at[::-1], cube.shape_kji, strict=True))
    assert result.fused.grid.size_ijk > cube.size_ijk
    assert np.array_equal(result.volumes.mri.array_kji[window], made.mri.array_kji)


@pytest.mark.parametrize(("reference", "grid"), CHOICES)
def test_fused_is_the_mixture_by_alpha_and_the_ct_alone_beyond_the_mris_view(pair, results, reference, grid) -> None:
    result = results[reference, grid]
    mri = pair.mri if result.volumes.mri is None else result.volumes.mri
    scale, alpha = result.intensity, result.alpha.array_kji
    span = scale.mri_high - scale.mri_low
    ct = scale.mri_low + span * ct_to_unit(result.ct_in_mri.array_kji)
    assert np.abs(result.fused.array_kji - (alpha * ct + (1 - alpha) * mri.array_kji)).max() < 1e-4 * span
    points = apply_affine(result.fused.grid.lps_from_ijk, np.indices(result.fused.grid.size_ijk).reshape(3, -1).T)
    if reference == "ct":
        points = POSE.inverse().apply(points)
    ijk = apply_affine(MRI_GRID.ijk_from_lps, points)
    beyond = ((ijk < -0.51) | (ijk > np.array(MRI_GRID.size_ijk) - 0.49)).any(axis=1)
    beyond = beyond.reshape(result.fused.grid.size_ijk).transpose(2, 1, 0)
    if grid == "mri":
        assert not beyond.any()
    else:
        assert np.isin(alpha[beyond], (0, 1)).all()
        head = beyond & (alpha == 1)
        assert np.allclose(result.fused.array_kji[head], ct[head], rtol=0, atol=1e-4 * span)


@pytest.mark.parametrize(("reference", "grid"), CHOICES)
def test_voxels_are_those_of_an_independent_resampler(pair, results, reference, grid) -> None:
    result = results[reference, grid]
    frame = result.fused.grid
    pull = sitk.AffineTransform(3)
    moving, made = (pair.ct, result.ct_in_mri) if reference == "mri" else (pair.mri, result.volumes.mri)
    matrix = (POSE if reference == "mri" else POSE.inverse()).moving_from_fixed_lps
    pull.SetMatrix(matrix[:3, :3].ravel())
    pull.SetTranslation(matrix[:3, 3])
    image = sitk.GetImageFromArray(moving.array_kji)
    image.SetSpacing(moving.grid.spacing_ijk_mm)
    image.SetOrigin(moving.grid.origin_lps_mm)
    image.SetDirection(moving.grid.direction.ravel())
    out = sitk.Resample(
        image, frame.size_ijk, pull, sitk.sitkLinear, frame.origin_lps_mm, frame.spacing_ijk_mm,
        frame.direction.ravel(), float("nan"),
    )  # fmt: skip
    other = sitk.GetArrayFromImage(out)
    there = np.isfinite(other)
    assert there.mean() > 0.1
    slack = 0.5 if reference == "mri" else 0.0  # whole Hounsfield units
    assert np.abs(made.array_kji - other)[there].max() <= slack + 1e-4 * np.abs(other[there]).max()


def test_verdict_and_evidence_are_those_of_the_mris_grid(results) -> None:
    plain = results["mri", "mri"]
    for result in (results["ct", "union"], results["mri", "ct"]):
        assert result.verdict == plain.verdict
        assert result.evidence == plain.evidence
        assert result.pose == plain.pose
        assert result.grid == MRI_GRID


def test_rules_without_weights_show_the_ct_alone_beyond_the_mris_view(pair) -> None:
    result = fused(pair, "mri", "ct", "bone_over_mri")
    assert result.fidelity.bone_error_hu < 0.1


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.1, 11, float("nan"), "best", True])
def test_a_grid_that_is_none_is_refused(value) -> None:
    with pytest.raises(SettingsError, match=r"grid|voxels"):
        OutputSettings(grid=value)


def test_a_grid_beyond_the_memory_is_refused_before_the_work(pair, monkeypatch) -> None:
    monkeypatch.setattr(output, "memory_bytes", lambda: 1 << 20)
    for grid in ("ct", "union", 1.0):
        with pytest.raises(GeometryError, match="half of it is used") as caught:
            fused(pair, grid=grid)
        assert caught.value.remedy is Remedy.COARSER_GRID
    assert fused(pair).fused.grid is MRI_GRID


def test_a_grid_of_too_many_voxels_is_refused_though_the_memory_is_not_known(pair, monkeypatch) -> None:
    monkeypatch.setattr(output, "memory_bytes", lambda: None)
    monkeypatch.setattr(output, "MOST_VOXELS", 1000)
    with pytest.raises(GeometryError, match="more than the 0 million that are fused"):
        fused(pair, grid="ct")


def test_a_grid_that_the_pose_would_shear_is_refused(pair) -> None:
    sheared = POSE.moving_from_fixed_lps @ np.diag([1.02, 0.99, 1, 1])
    with pytest.raises(GeometryError, match="shear the CT's voxels"):
        fused(pair, grid="ct", transform=AffineTransform(sheared))
    with pytest.raises(SettingsError, match="shear the MRI's voxels"):
        fused(pair, "ct", "mri", transform=None, model="affine")
    stretched = AffineTransform(POSE.moving_from_fixed_lps @ np.diag([1.02, 1.02, 1.02, 1]))
    result = fused(pair, grid="ct", rule="bone_over_mri", transform=stretched)
    assert np.allclose(np.array(result.fused.grid.spacing_ijk_mm) * 1.02, CT_GRID.spacing_ijk_mm)
    assert fused(pair, grid="union", rule="bone_over_mri", transform=AffineTransform(sheared)).volumes is not None


# ---- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "grid"), [("mri", "ct"), ("mri", "union"), ("ct", None), ("ct", "mri")])
def test_files_are_where_an_independent_reader_finds_them_and_come_back(pair, tmp_path, results, reference, grid):
    result = results[reference, grid or "ct"]
    files = write_case(result, pair.mri, tmp_path, save_alpha=True, identify=True)
    names = {"mri": ("mri", "ct_in_mri", "ct_to_mri"), "ct": ("mri_in_ct", "ct", "mri_to_ct")}[reference]
    assert [files[role].name.split(".")[0] for role in ("mri", "ct_in_mri", "transform")] == list(names)
    back = read_case(tmp_path)
    volumes = (back.fused, back.ct_in_mri, back.alpha, back.volumes.mri)
    assert all(volume.grid == result.output.grid for volume in volumes)
    assert np.array_equal(back.volumes.mri.array_kji, result.volumes.mri.array_kji)

    ct = nib.load(files["ct_in_mri"])
    ras_from_ijk = RAS_FROM_LPS @ result.fused.grid.lps_from_ijk
    assert np.abs(ct.affine - ras_from_ijk).max() < 1e-4
    if grid == "ct":  # its own voxels, where the pose puts them
        moved = POSE.inverse().moving_from_fixed_lps @ CT_GRID.lps_from_ijk
        assert np.abs(ct.affine - RAS_FROM_LPS @ moved).max() < 1e-4
    if grid is None:
        assert np.abs(ct.affine - RAS_FROM_LPS @ CT_GRID.lps_from_ijk).max() < 1e-4
    if grid in ("ct", None):
        assert np.array_equal(np.asarray(ct.dataobj, np.float32).transpose(2, 1, 0), pair.ct.array_kji)

    moved = sitk.ReadTransform(str(files["transform"]))
    point = (3.0, -20.0, 31.0)
    expected = POSE.apply(point) if reference == "mri" else POSE.inverse().apply(point)
    assert np.allclose(moved.TransformPoint(point), expected, rtol=0, atol=1e-9)
    document = json.loads(files["result"].read_text(encoding="utf-8"))
    assert document["files"]["transform"] == files["transform"].name
    words = "the CT onto the MRI" if reference == "mri" else "the MRI onto the CT"
    assert document["output"]["transform_moves"].startswith(words)
    assert document["pose"]["transform"]["moving_from_fixed_lps"] == POSE.moving_from_fixed_lps.tolist()


def test_pictures_and_report_are_those_of_the_mris_grid(pair, results) -> None:
    plain = results["mri", "mri"]
    for chosen in (("mri", "ct"), ("ct", "union")):
        shown = output.on_mri_grid(results[chosen], pair.mri)
        assert shown.fused.grid is pair.mri.grid
        both = np.abs(shown.ct_in_mri.array_kji - plain.ct_in_mri.array_kji)
        assert np.median(both[plain.ct_in_mri.array_kji > -900]) < 30
        assert results[chosen].output.grid.size_ijk[0] > 0
        assert "the pictures are those of the MRI's grid" in " ".join(shown.notes)


@pytest.mark.parametrize("form", ["ants", "lta", "fsl", "matrix"])
def test_transforms_of_other_programs_move_the_mri_with_the_ct_as_reference(pair, tmp_path, results, form) -> None:
    files = write_case(results["ct", "ct"], pair.mri, tmp_path, transform_format=form, ct_grid=CT_GRID)
    path = files[f"transform_{form}"]
    assert path.stem == "mri_to_ct"
    # Read with the two exchanged, it is the pose from CT points to MRI points.
    maps = "ct-to-mri" if form == "lta" else None
    between = Between(MRI_GRID, CT_GRID, maps=maps)
    found = read_transform(path, between=between)
    expected = POSE.inverse() if form != "matrix" else POSE
    assert np.abs(found.moving_from_fixed_lps - expected.moving_from_fixed_lps).max() < 1e-4


def test_the_panels_report_pictures_the_same_volumes_as_the_commands(pair, results, tmp_path, monkeypatch) -> None:
    import BrainFusionLib.report

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "BrainFusion")
    from BrainFusionSlicer.exporting import ExportInputs, export
    from BrainFusionSlicer.jobs import RawVolume, ReportOrder

    pictured = []
    monkeypatch.setattr(BrainFusionLib.report, "report_html", lambda result, *rest: pictured.append(result) or "page")
    result = results["mri", "ct"]
    raw = [
        RawVolume(v.array_kji, v.grid.lps_from_ijk, None, v.name) for v in (result.fused, result.ct_in_mri, pair.mri)
    ]
    order = ReportOrder(tmp_path / "report.html", replace(result.without_names(), volumes=None), (), None)
    export(order, ExportInputs(*raw), lambda stage, fraction: None)
    made, expected = (output.on_mri_grid(one, pair.mri) for one in (pictured[0], result))
    assert np.allclose(made.fused.array_kji, expected.fused.array_kji, rtol=0, atol=1e-3)
    assert np.abs(made.ct_in_mri.array_kji - expected.ct_in_mri.array_kji).max() <= 1
