from dataclasses import astuple

import numpy as np
import pytest

from BrainFusionLib.metrics import fidelity, target_registration_errors_mm
from BrainFusionLib.metrics.fidelity import Compared, whole_fidelity
from BrainFusionLib.transform import RigidTransform

TRUE = RigidTransform.from_axis_angle((1, 2, 3), 40, (10, 20, 30))


def test_translation_error_is_its_length():
    off = np.eye(4)
    off[:3, 3] = (2, -3, 6)
    errors = target_registration_errors_mm(RigidTransform(off) @ TRUE, TRUE, [[0, 0, 0], [50, -60, 70]])
    np.testing.assert_allclose(errors, [7, 7], atol=1e-9)


def test_rotation_error_is_a_chord():
    turned = TRUE @ RigidTransform.from_axis_angle((0, 0, 1), 2)
    errors = target_registration_errors_mm(turned, TRUE, [[0, 0, 80], [30, 40, 0], [0, 100, -9]])
    np.testing.assert_allclose(errors, 2 * np.sin(np.radians(1)) * np.array([0, 50, 100]), atol=1e-9)


def test_no_error_is_made_by_the_truth():
    np.testing.assert_array_equal(target_registration_errors_mm(TRUE, TRUE, np.ones((5, 3))), np.zeros(5))


# Four voxels: bone, brain, brain, air; CT brightest in bone.
CT = np.array([1.2, 0.3, 0.3, 0.0], np.float32)
MRI = np.array([0.1, 0.8, 0.6, 0.0], np.float32)
BONE = np.array([True, False, False, False])
TISSUE = np.array([False, True, True, False])


def _fidelity(fused, bone=BONE, tissue=TISSUE, fused_hu=(710.0,), ct_hu=(700.0,)):
    fused_hu, ct_hu = np.array(fused_hu, np.float32), np.array(ct_hu, np.float32)
    return fidelity(
        np.array(fused, np.float32),
        CT,
        MRI,
        bone=bone,
        soft_tissue=tissue,
        fused_hu_in_bone=fused_hu,
        ct_hu_in_bone=ct_hu,
    )


def test_copy_of_the_sources_has_perfect_fidelity():
    found = _fidelity([1.2, 0.8, 0.6, 0.0], fused_hu=[700.0])
    assert (found.bone_error_hu, found.soft_tissue_error, found.overshoot) == (0, 0, 0)


def test_fidelity_by_hand():
    # 0.1 above both, 0.1 inside (and 0.1 from the MRI), 0.1 below both, 0.2 below both.
    found = _fidelity([1.3, 0.7, 0.2, -0.2], fused_hu=[690.0, 730.0], ct_hu=[700.0, 700.0])
    assert found.bone_error_hu == pytest.approx((10 + 30) / 2)
    assert found.soft_tissue_error == pytest.approx((0.1 + 0.4) / 2, abs=1e-6)
    assert found.overshoot == pytest.approx((0.1 + 0 + 0.1 + 0.2) / 4, abs=5e-6)


def test_fidelity_of_a_volume_is_that_of_its_parts():
    values = np.random.default_rng(0).random((3, 60)).astype(np.float32)
    bone, tissue = values[1] > 0.7, values[1] < 0.5

    def part(some):
        fused, ct, mri = values[:, some]
        b, t = bone[some], tissue[some]
        found = fidelity(fused, ct, mri, bone=b, soft_tissue=t, fused_hu_in_bone=fused[b], ct_hu_in_bone=ct[b])
        return found, Compared(int(b.sum()), int(t.sum()), fused.size)

    no_bone = part(np.flatnonzero(~bone)[:5])
    rest = part(np.setdiff1d(np.arange(60), np.flatnonzero(~bone)[:5]))
    assert no_bone[0].bone_error_hu is None
    assert astuple(whole_fidelity([no_bone, rest])) == pytest.approx(astuple(part(slice(None))[0]))
    assert whole_fidelity([no_bone]).bone_error_hu is None


def test_errors_of_opposite_sign_do_not_cancel():
    found = _fidelity([1.2, 0.9, 0.5, 0.0], fused_hu=[650.0, 750.0], ct_hu=[700.0, 700.0])
    assert found.bone_error_hu == pytest.approx(50)
    assert found.soft_tissue_error == pytest.approx(0.1, abs=1e-6)


def test_rounding_is_not_overshoot():
    ct, mri, weight = np.random.default_rng(0).random((3, 10_000), dtype=np.float32)
    mri[::3] = ct[::3]
    nowhere, nothing = np.zeros(10_000, bool), np.zeros(0, np.float32)
    found = fidelity(
        weight * ct + (1 - weight) * mri,
        ct,
        mri,
        bone=nowhere,
        soft_tissue=nowhere,
        fused_hu_in_bone=nothing,
        ct_hu_in_bone=nothing,
    )
    assert found.overshoot == 0


def test_what_is_not_in_view_is_not_measured():
    nothing = np.zeros(4, bool)
    found = _fidelity(MRI, bone=nothing, tissue=nothing, fused_hu=[], ct_hu=[])
    assert found.bone_error_hu is None
    assert found.soft_tissue_error is None
    assert found.overshoot == 0
