"""The main job from arrays to arrays."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from BrainFusionLib import fuse, intensity, registration
from BrainFusionLib import register as registration_only
from BrainFusionLib.case import Result
from BrainFusionLib.errors import (
    Cancelled,
    GeometryError,
    ImageContentError,
    RegistrationError,
    Remedy,
    SettingsError,
    WeightsError,
)
from BrainFusionLib.evidence import BrainShift, Distortion, PoseEvidence
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.fusion.network import FusionNet, arrays_of
from BrainFusionLib.fusion.weights import UNIT_SCALE, Manifest, save_weights
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.registration import Registration
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import FusionSettings, Model, RegistrationSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.verdict.expected import bound_mm, expected_error_mm
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(2, spacing_mm=3.0)


@pytest.fixture(scope="module")
def result(pair: PhantomPair) -> Result:
    return fuse(pair.ct, pair.mri, transform=pair.transform)


def fused_with(pair: PhantomPair, rule: str) -> Volume:
    return fuse(pair.ct, pair.mri, Settings(fusion=FusionSettings(rule)), transform=pair.transform, check=False).fused


def test_the_result_lies_on_the_mris_grid(pair: PhantomPair, result: Result) -> None:
    assert result.fused.grid.same_as(pair.mri.grid)
    assert result.ct_in_mri.grid.same_as(pair.mri.grid)


def test_the_same_is_measured_on_an_mri_whose_values_begin_far_below_0(pair: PhantomPair, result: Result) -> None:
    low = pair.mri.with_array(pair.mri.array_kji * np.float32(32) - np.float32(30_000))
    found = fuse(pair.ct, low, transform=pair.transform, check=False).evidence
    assert found.local.fit.median_mm == pytest.approx(result.evidence.local.fit.median_mm, abs=0.05)
    assert found.local.fit.share == pytest.approx(result.evidence.local.fit.share, abs=0.02)
    assert found.distortion.p95_mm == pytest.approx(result.evidence.distortion.p95_mm, abs=0.1)


def test_arguments_of_another_kind_are_refused_by_name(pair: PhantomPair) -> None:
    with pytest.raises(SettingsError, match=r"ct must be a Volume; got 'ct.nii': read_volume\(path\) reads one"):
        fuse("ct.nii", "mri.nii")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="mri_mask must be a Volume or None"):
        fuse(pair.ct, pair.mri, mri_mask="mask.nii")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="transform must be a RigidTransform, an AffineTransform or None"):
        fuse(pair.ct, pair.mri, transform=np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="settings must be a Settings or None; got a RegistrationSettings"):
        fuse(pair.ct, pair.mri, RegistrationSettings())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="settings must be a RegistrationSettings or None; got a Settings"):
        registration_only(pair.ct, pair.mri, Settings())  # type: ignore[arg-type]


def test_soft_tissue_equals_the_mri_exactly(pair: PhantomPair, result: Result) -> None:
    bone = intensity.bone_weight(result.ct_in_mri.array_kji) * intensity.ct_head_mask(result.ct_in_mri) >= 0.5
    padded, (_, rows, columns) = np.pad(bone, ((0, 0), (2, 2), (2, 2))), bone.shape
    near = [padded[:, y : y + rows, x : x + columns] for y in range(5) for x in range(5)]
    away_from_bone = ~np.any(near, axis=0)
    assert away_from_bone.mean() > 0.5
    assert np.array_equal(result.fused.array_kji[away_from_bone], pair.mri.array_kji[away_from_bone])


def test_bone_gives_its_hounsfield_units_back_within_one(result: Result) -> None:
    bone = (result.ct_in_mri.array_kji >= intensity.BONE_HU) & intensity.ct_head_mask(result.ct_in_mri)
    assert bone.sum() > 1000
    knots = result.intensity
    hu = np.interp(result.fused.array_kji[bone], knots.ct_knots_fused, knots.ct_knots_hu)
    assert np.abs(hu - result.ct_in_mri.array_kji[bone]).max() < 1.0


def test_bone_is_above_the_mri_range_and_within_the_window(result: Result) -> None:
    bone = (result.ct_in_mri.array_kji >= intensity.BONE_HU) & (result.ct_in_mri.array_kji < 2000)
    bone &= intensity.ct_head_mask(result.ct_in_mri)
    assert result.fused.array_kji[bone].min() >= result.intensity.mri_high * 0.999
    assert result.fused.array_kji[bone].max() <= result.intensity.window[1]


def test_the_ct_is_resampled_at_the_true_pose(pair: PhantomPair, result: Result) -> None:
    labels = pair.labels.array_kji
    skull = intensity.bone_weight(result.ct_in_mri.array_kji) == 1
    from BrainFusionLib.phantom.tissues import Tissue

    tables = np.isin(labels, [Tissue.OUTER_TABLE, Tissue.INNER_TABLE])
    assert skull[tables].mean() > 0.7
    assert skull[labels == Tissue.WHITE_MATTER].mean() < 0.01


def test_the_numbers_are_those_of_the_result(result: Result) -> None:
    assert result.fidelity.bone_error_hu < 0.1
    assert result.fidelity.soft_tissue_error < 0.06  # all of it within two of these coarse voxels from bone
    assert result.fidelity.overshoot == 0


def test_given_transform_is_used_unchanged_and_checked(pair: PhantomPair, result: Result) -> None:
    assert np.array_equal(result.transform.moving_from_fixed_lps, pair.transform.moving_from_fixed_lps)
    assert result.pose.origin == "given"
    assert 0 < result.evidence.given.apart_mm < 1
    assert result.verdict.colour == "green"
    assert result.verdict.expected_error_mm < 1


@pytest.mark.parametrize("shift_mm", [4.0, 15.0])
def test_misaligned_given_transform_is_red_without_a_number(pair: PhantomPair, shift_mm: float) -> None:
    off = RigidTransform.from_axis_angle((0, 0, 1), 0, (shift_mm, 0, 0)) @ pair.transform
    verdict = fuse(pair.ct, pair.mri, Settings(fusion=FusionSettings("bone_over_mri")), transform=off).verdict
    assert verdict.colour == "red"
    assert f"the pose given is {shift_mm:.0f}" in " ".join(verdict.reasons).replace(".", " ")
    assert (verdict.expected_error_mm, verdict.bound_mm) == (None, None)


@pytest.mark.parametrize("side", ["ct", "mri"])
@pytest.mark.parametrize(("axis", "angle_deg", "level"), [
    ((0, 0, 1), 180, "green"), ((0, 1, 0), 180, "green"), ((1, 0, 0), 90, "green"), ((1, 1, 0), 40, None)
])  # fmt: skip
def test_headers_that_disagree_on_the_sides_are_told(
    pair: PhantomPair, side: str, axis: tuple[int, int, int], angle_deg: float, level: str | None
) -> None:
    turned, pose = RigidTransform.from_axis_angle(axis, angle_deg).moving_from_fixed_lps, pair.transform
    ct, mri, matrix = pair.ct, pair.mri, pose.moving_from_fixed_lps
    if side == "ct":
        ct, matrix = replace(ct, grid=ct.grid.moved(turned)), turned @ matrix
    else:
        mri, matrix = replace(mri, grid=mri.grid.moved(turned)), matrix @ np.linalg.inv(turned)
    fusion = Settings(fusion=FusionSettings("bone_over_mri"))
    findings = fuse(ct, mri, fusion, transform=RigidTransform(matrix), check=False).verdict.findings
    assert {f.code: f.level for f in findings}.get("headers_disagree") == level


def test_a_start_beside_a_transform_is_refused(pair: PhantomPair) -> None:
    with pytest.raises(SettingsError, match="a start and a transform were given"):
        fuse(pair.ct, pair.mri, start=pair.transform, transform=pair.transform)


def test_unchecked_given_transform_is_amber(pair: PhantomPair) -> None:
    settings = Settings(fusion=FusionSettings("bone_over_mri"))
    result = fuse(pair.ct, pair.mri, settings, transform=pair.transform, check=False)
    assert result.verdict.colour == "amber"
    assert "not checked" in result.verdict.reasons[0]
    assert result.evidence.given is None


def test_given_transform_for_an_unrelated_ct_is_red(pair: PhantomPair) -> None:
    noise = np.random.default_rng(0).normal(0, 8, pair.ct.array_kji.shape)
    blob = np.where(pair.ct.array_kji[::-1] > -300, 40, -1000) + noise
    blob[::9] += np.where(blob[::9] > -300, 600, 0)  # some bone, without which it would be no CT
    verdict = fuse(pair.ct.with_array(blob), pair.mri, transform=pair.transform).verdict
    assert verdict.colour == "red"
    assert "a registration" in " ".join(verdict.reasons)


@pytest.mark.parametrize("rule", [name for name in METHODS if name != "network"])
def test_every_rule_runs_and_differs_from_the_default(pair: PhantomPair, result: Result, rule: str) -> None:
    fused = fused_with(pair, rule)
    assert np.isfinite(fused.array_kji).all()
    assert not np.array_equal(fused.array_kji, result.fused.array_kji)


def test_storage_order_does_not_change_the_result(pair: PhantomPair) -> None:
    mri = pair.mri
    # The same voxels in the same places, stored as coronal slices with the first and last axis reversed:
    # new (i, j, k) holds old (ni - 1 - i, k, nk - 1 - j).
    ni, nj, nk = mri.grid.size_ijk
    old_from_new = np.array([[-1, 0, 0, ni - 1], [0, 0, 1, 0], [0, -1, 0, nk - 1], [0, 0, 0, 1]])
    grid = Grid.from_lps_from_ijk(mri.grid.lps_from_ijk @ old_from_new, (ni, nk, nj))
    stored = Volume(mri.array_kji.transpose(1, 0, 2)[:, ::-1, ::-1], grid, "MR")
    settings = Settings(fusion=FusionSettings("laplacian"))
    one = fuse(pair.ct, mri, settings, transform=pair.transform, check=False).fused.array_kji
    other = fuse(pair.ct, stored, settings, transform=pair.transform, check=False).fused.array_kji
    back = other[:, ::-1, ::-1].transpose(1, 0, 2)
    assert np.abs(back - one).max() < 1e-4 * np.ptp(one)


def test_the_number_of_slices_fused_at_once_makes_no_difference(
    pair: PhantomPair, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("BrainFusionLib.case.fusing.SLICES_AT_ONCE", 7)
    given = fuse(pair.ct, pair.mri, transform=result.transform, check=False)
    assert np.array_equal(given.fused.array_kji, result.fused.array_kji)
    assert given.fidelity is not None
    assert result.fidelity is not None
    assert given.fidelity.soft_tissue_error == pytest.approx(result.fidelity.soft_tissue_error)


def test_sha256_of_named_weights_is_recorded(pair: PhantomPair, tmp_path: Path) -> None:
    network = FusionNet(width=2)
    manifest = Manifest(
        architecture={"name": "fusion_net", "width": 2}, licence="none: random numbers", training_data="none",
        input_normalisation=UNIT_SCALE,
    )  # fmt: skip
    saved = save_weights(tmp_path / "w.npz", arrays_of(network), manifest)
    settings = Settings(fusion=FusionSettings("network", tmp_path / "w.npz", batch_size=5))
    result = fuse(pair.ct, pair.mri, settings, transform=pair.transform, check=False)
    assert result.request.settings.fusion.weights_sha256 == saved.manifest.sha256
    # One slice by hand, in the orientation that the network is promised.
    k = 30
    low, high = intensity.mri_scale(pair.mri.array_kji)
    head = intensity.ct_head_mask(result.ct_in_mri)[k]
    ct, mri = result.ct_in_mri.array_kji[k], pair.mri.array_kji[k]
    both = np.stack([intensity.ct_to_unit(ct), (mri - low) / (high - low), intensity.bone_weight(ct) * head])
    rows, columns = both.shape[1:]
    padded = np.pad(both, ((0, 0), (0, -rows % 16), (0, -columns % 16)), mode="edge").astype(np.float32)
    with torch.inference_mode():
        by_hand = network(torch.from_numpy(padded)[None])[0, 0, :rows, :columns].numpy()
    expected = np.where(head, low + (high - low) * by_hand, pair.mri.array_kji[k])
    assert head.any()
    assert np.allclose(result.fused.array_kji[k], expected, atol=1e-3 * (high - low))


def test_missing_weights_and_unknown_rules_fail_early(pair: PhantomPair, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        fuse(pair.ct, pair.mri, Settings(fusion=FusionSettings("network", tmp_path / "nowhere.npz")))
    with pytest.raises(WeightsError, match="fusion_net_alpha"):
        fuse(pair.ct, pair.mri, Settings(fusion=FusionSettings("network", "the_best")))
    with pytest.raises(SettingsError, match="alchemy"):
        fuse(pair.ct, pair.mri, Settings(fusion=FusionSettings("alchemy")))


def test_heads_without_overlap_are_refused_with_their_pose(pair: PhantomPair) -> None:
    away = RigidTransform.from_axis_angle((0, 0, 1), 0, (5000, 0, 0))
    with pytest.raises(RegistrationError, match="covers only 0 % of the head") as caught:
        fuse(pair.ct, pair.mri, transform=away)
    assert caught.value.best_transform is away
    assert caught.value.remedy is Remedy.REGISTER


def stretched(pair: PhantomPair, *scales: float) -> AffineTransform:
    """The true transform, with the MRI's axes scaled about the middle of its head."""
    centre = pair.mri.grid.centre_lps_mm
    about = np.diag([*scales, 1.0])
    about[:3, 3] = centre - about[:3, :3] @ centre
    return AffineTransform(pair.transform.moving_from_fixed_lps @ about)


def resampled(pair: PhantomPair, transform: AffineTransform | RigidTransform) -> np.ndarray:
    return np.rint(resample_onto(pair.ct, pair.mri.grid, transform, fill=-1000).array_kji)


def test_given_affine_transform_is_used_with_a_note(pair: PhantomPair) -> None:
    given = stretched(pair, 1.0, 1.0, 0.95)
    result = fuse(pair.ct, pair.mri, transform=given)
    assert result.transform is given
    assert np.array_equal(result.ct_in_mri.array_kji, resampled(pair, given))
    assert result.notes[-1].startswith("the transform given is not rigid but affine")
    # 5 % of 70 mm, of a pose that is right but for its stretch.
    assert result.evidence.given is not None
    assert result.evidence.given.stretch_mm == pytest.approx(3.5, abs=0.1)
    assert result.evidence.given.typical_mm == pytest.approx(3.5 / 3**0.5, abs=0.4)
    assert "given_stretches" in {finding.code for finding in result.verdict.findings}
    assert "+5.26 % feet-head" in result.pose.movement
    assert np.allclose(result.pose.rigid.moving_from_fixed_lps, pair.transform.moving_from_fixed_lps, atol=1e-9)


@pytest.fixture
def registers(pair: PhantomPair, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replace the registration by one that knows the answer, and note what it is asked."""
    asked: dict[str, object] = {}

    def known(ct: Volume, mri: Volume, settings: RegistrationSettings, **options: object) -> Registration:
        asked.update(options, model=settings.model)
        scales = {"rigid": None, "similarity": (0.98, 0.98, 0.98), "affine": (1.0, 0.97, 1.0)}[settings.model]
        evidence = PoseEvidence(
            similarity_nmi=1.2, margin_nats=0.2, agreement_mm=0.1, perturbed_margin_nmi=0.01, overlap=0.95,
            thinnest_mm=180.0, thickest_voxel_mm=3.0, mirrored_margin_nats=0.3, sampling_error_mm=0.05, lever=1.0,
        )  # fmt: skip
        affine = None if scales is None else stretched(pair, *scales)
        evidence = replace(evidence, **asked.get("evidence", {}))  # type: ignore[arg-type]
        return Registration(pair.transform, affine, evidence, False, {}, {}, "cpu")

    monkeypatch.setattr(registration, "register", known)
    return asked


@pytest.mark.parametrize("model", ["rigid", "similarity", "affine"])
def test_ct_is_resampled_with_the_requested_model(
    pair: PhantomPair, registers: dict[str, object], model: Model
) -> None:
    result = fuse(pair.ct, pair.mri, Settings(RegistrationSettings(model=model)))
    assert registers["model"] == model
    assert result.transform.kind == model
    assert result.pose.rigid is pair.transform
    assert np.array_equal(result.ct_in_mri.array_kji, resampled(pair, result.transform))
    assert any(f"is not rigid but {model}" in note for note in result.notes) == (model != "rigid")
    if result.verdict.colour == "red":
        assert (result.verdict.expected_error_mm, result.verdict.bound_mm) == (None, None)
    else:
        assert result.verdict.expected_error_mm == expected_error_mm(result.evidence)
        assert result.verdict.bound_mm == bound_mm(result.evidence)


@pytest.mark.parametrize(("nats", "scatter_mm", "is_kept"), [(0.4, 0.4, True), (0.1, 0.4, False), (0.4, 0.9, False)])
def test_a_pose_that_looks_like_another_heads_is_kept_where_the_images_show_one_head(
    pair: PhantomPair,
    registers: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    nats: float,
    scatter_mm: float,
    is_kept: bool,
) -> None:
    registers["evidence"] = {"agreement_mm": 0.5, "sampling_error_mm": 0.2, "mirrored_margin_nats": 0.1}
    brain, skull = BrainShift(True, information_nats=nats), Distortion(0.2, 0.4, 1.0, 0.3, 0.3, 0.6, scatter_mm)
    case_run = sys.modules["BrainFusionLib.case.run"]  # its name in the package is that of its function
    measured = case_run.local_evidence
    monkeypatch.setattr(
        case_run, "local_evidence", lambda *a: replace(measured(*a), brain_shift=brain, distortion=skull)
    )
    if is_kept:
        registration_only(pair.ct, pair.mri)
    else:
        with pytest.raises(
            RegistrationError,
            match=r"two refinements end 0.5 mm apart.*\): they may be of different people, .* distorted, ",
        ):
            registration_only(pair.ct, pair.mri)


def test_mask_reaches_the_registration_and_its_name_the_result(pair: PhantomPair, registers: dict[str, object]) -> None:
    mask = pair.mri.with_array(pair.mri.array_kji > 100, name="brain.nrrd")
    result = fuse(pair.ct, pair.mri, mri_mask=mask)
    assert registers["mri_mask"] is mask
    assert result.request.mri_mask.name == "brain.nrrd"
    assert fuse(pair.ct, pair.mri).request.mri_mask is None
    assert registers["mri_mask"] is None


def test_unusable_mask_fails_early(pair: PhantomPair, registers: dict[str, object]) -> None:
    empty = pair.mri.with_array(np.zeros_like(pair.mri.array_kji), name="brain.nrrd")
    with pytest.raises(ImageContentError, match=r"brain.nrrd.*is empty"):
        fuse(pair.ct, pair.mri, mri_mask=empty)
    with pytest.raises(GeometryError, match="is not on the grid of the MRI"):
        fuse(pair.ct, pair.mri, mri_mask=pair.ct)
    with pytest.raises(SettingsError, match=r"brain.nrrd is only used for registration"):
        fuse(pair.ct, pair.mri, mri_mask=empty, transform=pair.transform)
    assert registers == {}


def test_the_callers_threads_are_given_back(pair: PhantomPair) -> None:
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    fuse(pair.ct, pair.mri, Settings(threads=3), transform=pair.transform, check=False)
    assert (torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()) == before


@pytest.mark.parametrize(("ct_has", "mri_has", "level"), [
    (True, True, None), (False, True, None), (True, False, None), (False, False, "amber")
])  # fmt: skip
def test_two_files_without_an_orientation_are_amber(
    pair: PhantomPair, tmp_path: Path, ct_has: bool, mri_has: bool, level: str | None
) -> None:
    read = []
    for volume, has_one in ((pair.ct, ct_has), (pair.mri, mri_has)):
        path = tmp_path / f"{len(read)}.nii"
        write_volume(volume, path)
        if not has_one:
            header = bytearray(path.read_bytes())
            header[252:256] = bytes(4)  # qform_code and sform_code
            path.write_bytes(header)
        read.append(replace(read_volume(path), modality=volume.modality))
    fusion = Settings(fusion=FusionSettings("bone_over_mri"))
    verdict = fuse(*read, fusion, transform=pair.transform, check=False).verdict
    assert {f.code: f.level for f in verdict.findings}.get("sides_assumed") == level


@pytest.mark.parametrize(("low_hu", "high_hu"), [(-160, 240), (-500, 2000)])
def test_a_windowed_ct_in_the_place_of_the_mri_is_not_green(pair: PhantomPair, low_hu: int, high_hu: int) -> None:
    ct = pair.phantom.ct(pair.mri.grid, seed=1)
    grey = np.rint(np.clip((ct.array_kji - low_hu) / (high_hu - low_hu), 0, 1) * 255).astype(np.float32)
    result = registration_only(pair.ct, replace(ct, array_kji=grey, modality=None), start=pair.transform)
    assert "bright_skull" in {finding.code for finding in result.verdict.findings}
    assert result.verdict.colour != "green"


def test_swapped_volumes_are_refused(pair: PhantomPair) -> None:
    with pytest.raises(ImageContentError, match="swapped"):
        fuse(pair.mri, pair.ct)


def test_cancel_is_heard_at_every_stage(pair: PhantomPair) -> None:
    for stage in ("resampling", "fusion"):
        seen: list[str] = []

        def progress(name: str, fraction: float, seen: list[str] = seen) -> None:
            seen.append(name)

        with pytest.raises(Cancelled):
            fuse(
                pair.ct, pair.mri, transform=pair.transform, progress=progress,
                cancel=lambda seen=seen, stage=stage: stage in seen,
            )  # fmt: skip
        assert seen[-1] == stage
