"""The phantom: a head like no file's, whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import Grid, apply_affine, rotation_matrix
from BrainFusionLib.intensity import check_pair, ct_head_mask
from BrainFusionLib.phantom import Phantom, PhantomPair, Tissue, head_grid, make_pair, make_phantom
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, CONTRASTS
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

TURNED = RigidTransform.from_axis_angle((1.0, 2.0, -0.5), 40.0, (12.3, -7.7, 21.1))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(0)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(3, spacing_mm=4.0, rotation_deg=50, translation_mm=30)


def box(size: tuple[int, int, int], spacing: tuple[float, float, float], centre: tuple[float, float, float]) -> Grid:
    """Return a grid of a few voxels about a place in the head."""
    origin = [c - (n - 1) / 2 * s for n, s, c in zip(size, spacing, centre, strict=True)]
    return Grid(size, spacing, (origin[0], origin[1], origin[2]))


def voxel_means(volume: Volume, labels: np.ndarray, *tissues: Tissue) -> list[float]:
    return [float(volume.array_kji[labels == tissue].mean()) for tissue in tissues]


def voxel_centres(grid: Grid) -> np.ndarray:
    k, j, i = np.indices(grid.shape_kji)
    return apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=-1))


def test_seed_decides_every_byte():
    grid = head_grid(4.0)
    first, second = make_phantom(5), make_phantom(5)
    assert first.ct(grid).array_kji.tobytes() == second.ct(grid).array_kji.tobytes()
    assert first.mri("T2", grid).array_kji.tobytes() == second.mri("T2", grid).array_kji.tobytes()


def test_another_seed_gives_another_head():
    grid = head_grid(4.0)
    first, second = make_phantom(1).labels(grid).array_kji, make_phantom(2).labels(grid).array_kji
    head = (first > 0) | (second > 0)
    assert (first != second)[head].mean() > 0.25


def test_noise_seed_changes_the_noise_only(phantom: Phantom):
    grid = head_grid(4.0)
    difference = phantom.ct(grid, seed=0).array_kji - phantom.ct(grid, seed=1).array_kji
    assert difference.std() == pytest.approx(8 * np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_every_head_has_every_tissue(seed: int):
    found = np.unique(make_phantom(seed).labels(head_grid(2.0)).array_kji)
    assert {Tissue(int(label)) for label in found} == set(Tissue)


@pytest.mark.parametrize("seed", range(4))
def test_default_grid_holds_the_head(seed: int):
    labels = make_phantom(seed).labels(head_grid(4.0)).array_kji
    for face in (labels[-1], labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        assert not face.any()
    assert labels[0].any()  # the neck goes on below


def test_lesions_and_electrode_can_be_omitted():
    found = make_phantom(0, lesions=False, electrode=False).labels(head_grid(2.0)).array_kji
    gone = {Tissue.TUMOUR, Tissue.TUMOUR_RIM, Tissue.OEDEMA, Tissue.BLOOD, Tissue.METAL}
    assert not gone & {Tissue(int(label)) for label in np.unique(found)}


def test_ct_values_are_those_of_the_tissues(phantom: Phantom):
    grid = head_grid()
    slab = Grid((36, *grid.size_ijk[1:]), (1.0, 1.0, 1.0), (4.0, *grid.origin_lps_mm[1:]))
    labels = phantom.labels(slab).array_kji
    ct = phantom.ct(slab, noise_hu=0).array_kji
    # An edge is 1.2 mm wide: voxels whose neighbours within 2 are all alike are pure.
    pure = np.zeros(labels.shape, dtype=bool)
    core = labels[2:-2, 2:-2, 2:-2]
    pure[2:-2, 2:-2, 2:-2] = np.all(
        [
            np.roll(labels, shift, axis)[2:-2, 2:-2, 2:-2] == core
            for axis in range(3)
            for shift in (-2, -1, 1, 2)
        ],
        axis=0,
    )  # fmt: skip
    for tissue, low, high in (
        (Tissue.BACKGROUND, -1000, -1000),
        (Tissue.FAT, -95, -85),
        (Tissue.MUSCLE, 50, 60),
        (Tissue.AIR, -1000, -990),
        (Tissue.EYE, 10, 14),
        (Tissue.CSF, 5, 16),
        (Tissue.VENTRICLE, 5, 12),
        (Tissue.GREY_MATTER, 34, 40),
        (Tissue.WHITE_MATTER, 26, 32),
        (Tissue.DIPLOE, 480, 920),
    ):
        values = ct[pure & (labels == tissue)]
        assert values.size > 20, tissue.name
        # The corners of the neighbourhood are not checked, so a few voxels may still touch an edge.
        assert low <= np.percentile(values, 5), tissue.name
        assert np.percentile(values, 95) <= high, tissue.name
    tables = np.isin(labels, (Tissue.OUTER_TABLE, Tissue.INNER_TABLE))
    assert 1100 < np.median(ct[tables]) < 1900


def test_electrode_reaches_from_skull_to_deep_brain(phantom: Phantom):
    rod = phantom.shape.electrode
    assert rod is not None
    tip, end = np.array(rod.start[:3]), np.array(rod.end[:3])
    assert 1.3 <= 2 * rod.start[3] <= 2.0
    assert np.linalg.norm(tip) < 20
    assert np.linalg.norm(end - tip) > 50
    bare = make_phantom(0, electrode=False)
    assert Tissue(int(bare.tissue_at(end))) in (Tissue.OUTER_TABLE, Tissue.DIPLOE, Tissue.INNER_TABLE)
    assert set(phantom.tissue_at(tip + np.linspace(0.02, 0.98, 50)[:, None] * (end - tip))) == {Tissue.METAL}
    middle = (tip + end) / 2
    around = box((9, 9, 9), (0.5, 0.5, 0.5), (middle[0], middle[1], middle[2]))
    assert phantom.ct(around, noise_hu=0).array_kji.max() > 2700
    assert phantom.mri("T1", around, noise=0).array_kji.min() < 20


def test_thin_rod_keeps_its_amount_of_metal(phantom: Phantom):
    rod = phantom.shape.electrode
    assert rod is not None
    x, y, z = (np.array(rod.start[:3]) + np.array(rod.end[:3])) / 2
    bare = make_phantom(0, electrode=False)
    amounts = []
    for spacing in (0.4, 3.0):
        n = round(24 / spacing)
        grid = box((n, n, n), (spacing,) * 3, (x, y, z))
        added = phantom.ct(grid, noise_hu=0).array_kji - bare.ct(grid, noise_hu=0).array_kji
        amounts.append(float(added.sum()) * spacing**3)
    assert amounts[1] == pytest.approx(amounts[0], rel=0.1)


def test_t1_has_white_above_grey_above_csf(phantom: Phantom):
    grid = head_grid(3.0)
    labels = phantom.labels(grid).array_kji
    t1 = phantom.mri("T1", grid, bias=0)
    fat, white, grey, csf, air = voxel_means(
        t1, labels, Tissue.FAT, Tissue.WHITE_MATTER, Tissue.GREY_MATTER, Tissue.VENTRICLE, Tissue.BACKGROUND
    )
    assert fat > white > grey > csf > air
    rim, core = voxel_means(t1, labels, Tissue.TUMOUR_RIM, Tissue.TUMOUR)
    assert rim > core


def test_t2_has_csf_above_grey_above_white(phantom: Phantom):
    grid = head_grid(3.0)
    labels = phantom.labels(grid).array_kji
    csf, grey, white, bone = voxel_means(
        phantom.mri("T2", grid, bias=0),
        labels,
        Tissue.VENTRICLE,
        Tissue.GREY_MATTER,
        Tissue.WHITE_MATTER,
        Tissue.OUTER_TABLE,
    )
    assert csf > grey > white > bone


def test_flair_shows_oedema_bright_and_csf_dark(phantom: Phantom):
    grid = head_grid(3.0)
    labels = phantom.labels(grid).array_kji
    oedema, grey, csf = voxel_means(
        phantom.mri("FLAIR", grid), labels, Tissue.OEDEMA, Tissue.GREY_MATTER, Tissue.VENTRICLE
    )
    assert oedema > grey > csf


def test_mri_noise_is_rician_and_bias_bounded(phantom: Phantom):
    grid = head_grid(4.0)
    air = phantom.labels(grid).array_kji == Tissue.BACKGROUND
    air[:, 2:-2] &= air[:, :-4] & air[:, 4:]
    noise = phantom.mri("T1", grid, noise=0.02).array_kji[air]
    assert noise.min() >= 0
    assert np.median(noise) == pytest.approx(20 * np.sqrt(2 * np.log(2)), rel=0.05)  # Rayleigh
    clean = phantom.mri("T1", grid, noise=0, bias=0).array_kji
    gain = phantom.mri("T1", grid, noise=0, bias=0.3).array_kji[clean > 100] / clean[clean > 100]
    assert gain.min() >= 0.7 - 1e-4
    assert gain.max() <= 1.3 + 1e-4
    assert gain.max() - gain.min() > 0.2


def test_pose_carries_every_point_exactly(phantom: Phantom):
    # The very same voxels, carried along: the image must not change, but for float32 rounding at edges.
    grid = box((40, 40, 40), (2.0, 2.0, 2.0), (5.0, -40.0, -20.0))
    carried = grid.moved(TURNED.moving_from_fixed_lps)
    still = phantom.ct(grid, noise_hu=0).array_kji
    moved = phantom.ct(carried, TURNED, noise_hu=0).array_kji
    assert np.abs(moved - still).max() < 1.0
    assert (phantom.labels(carried, TURNED).array_kji != phantom.labels(grid).array_kji).mean() < 1e-3


def test_landmarks_match_the_pose(phantom: Phantom):
    # Haemorrhage and the left eye are compact: their centroids are good to a small part of a voxel.
    for tissue, centre in ((Tissue.BLOOD, phantom.shape.haemorrhage), (Tissue.EYE, None)):
        middle = np.array(centre.centre) if centre is not None else np.array([32.0, -72.0, -44.0])
        grid = box((56, 56, 56), (0.7, 0.7, 0.7), (middle[0], middle[1], middle[2]))
        there = TURNED.apply(middle)
        posed_grid = box((56, 56, 56), (0.7, 0.7, 0.7), (there[0], there[1], there[2]))
        fixed = voxel_centres(grid)[phantom.labels(grid).array_kji == tissue]
        moving = voxel_centres(posed_grid)[phantom.labels(posed_grid, TURNED).array_kji == tissue]
        assert len(fixed) > 1500
        assert np.linalg.norm(TURNED.apply(fixed.mean(axis=0)) - moving.mean(axis=0)) < 0.05


def test_labels_agree_only_at_the_truth(pair: PhantomPair):
    fine = head_grid(1.0, pair.transform)
    k = fine.size_ijk[2] // 2
    slab = Grid(
        (*fine.size_ijk[:2], 40), fine.spacing_ijk_mm, (*fine.origin_lps_mm[:2], fine.origin_lps_mm[2] + k - 20)
    )
    labels = pair.phantom.labels(slab, pair.transform).array_kji
    targets = pair.target_points(8000)
    truth = pair.phantom.tissue_at(targets)

    def agreement(transform: RigidTransform) -> float:
        ijk = np.rint(apply_affine(slab.ijk_from_lps, transform.apply(targets))).astype(int)
        inside = ((ijk >= 0) & (ijk < slab.size_ijk)).all(axis=1)
        assert inside.sum() > 1000
        i, j, k = ijk[inside].T
        return float((labels[k, j, i] == truth[inside]).mean())

    best = agreement(pair.transform)
    assert best > 0.82  # half a voxel of rounding
    for step in np.vstack([np.eye(3), -np.eye(3)]):
        off = RigidTransform.from_axis_angle((0, 0, 1), 0, step) @ pair.transform
        assert agreement(off) < best - 0.04


def test_pair_matches_its_transform(pair: PhantomPair):
    points = pair.target_points(500)
    assert np.isin(pair.phantom.tissue_at(points), BRAIN_TISSUES).all()
    ijk = np.rint(apply_affine(pair.ct.grid.ijk_from_lps, pair.transform.apply(points))).astype(int)
    hu = pair.ct.array_kji[ijk[:, 2], ijk[:, 1], ijk[:, 0]]
    assert np.median(hu) == pytest.approx(32, abs=8)
    assert pair.transform.angle_deg == pytest.approx(50)
    assert np.linalg.norm(pair.transform.translation_mm) == pytest.approx(30)
    assert pair.labels.grid is pair.mri.grid
    assert (pair.ct.modality, pair.mri.modality) == ("CT", "MR")
    check_pair(pair.ct, pair.mri)


def test_pair_takes_given_transform_and_grids():
    small = Grid((20, 24, 12), (8.0, 8.0, 12.0), (-80.0, -100.0, -70.0))
    pair = make_pair(1, transform=TURNED, mri_grid=small, ct_grid=head_grid(8.0), contrast="T2")
    assert pair.transform is TURNED
    assert pair.mri.grid is small
    assert pair.ct.grid.spacing_ijk_mm == (8.0, 8.0, 8.0)


def test_grid_of_a_turned_head_surrounds_it():
    far = RigidTransform.from_axis_angle((1, 1, 0), 75, (300.0, -200.0, 50.0))
    labels = make_phantom(2).labels(head_grid(5.0, far), far).array_kji
    upright = make_phantom(2).labels(head_grid(5.0)).array_kji
    for tissue in BRAIN_TISSUES[:2]:
        assert (labels == tissue).sum() == pytest.approx((upright == tissue).sum(), rel=0.03)


def test_image_does_not_depend_on_the_axes(phantom: Phantom):
    grid = box((30, 36, 24), (3.0, 3.0, 3.0), (0.0, -30.0, -20.0))
    straight = phantom.ct(grid, noise_hu=0).array_kji
    flipped = Grid.from_lps_from_ijk(
        grid.lps_from_ijk @ np.array([[-1, 0, 0, 29], [0, 1, 0, 0], [0, 0, -1, 23], [0, 0, 0, 1]]), grid.size_ijk
    )
    assert np.abs(phantom.ct(flipped, noise_hu=0).array_kji[::-1, :, ::-1] - straight).max() < 0.5
    # i' = k, j' = i, k' = j
    permuted = Grid.from_lps_from_ijk(grid.lps_from_ijk[:, [2, 0, 1, 3]], (24, 30, 36))
    assert np.abs(phantom.ct(permuted, noise_hu=0).array_kji.transpose(2, 0, 1) - straight).max() < 0.5


def test_oblique_grid_shows_the_same_tissue(phantom: Phantom):
    oblique = Grid((40, 40, 30), (2.0, 2.5, 3.0), (-40.0, -60.0, -50.0), rotation_matrix((1, 1, 1), 25))
    labels = phantom.labels(oblique).array_kji
    assert (labels != phantom.tissue_at(voxel_centres(oblique))).mean() < 1e-3
    assert len(np.unique(labels)) > 10


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_thick_slice_is_the_mean_of_thin_ones(phantom: Phantom, modality: str):
    def draw(grid: Grid) -> np.ndarray:
        volume = phantom.ct(grid, noise_hu=0) if modality == "CT" else phantom.mri("T2", grid, noise=0, bias=0)
        return volume.array_kji

    thick = draw(box((80, 100, 4), (1.0, 1.0, 6.0), (0.0, 0.0, 10.0)))
    thin = draw(box((80, 100, 24), (1.0, 1.0, 1.0), (0.0, 0.0, 10.0)))
    mean = thin.reshape(4, 6, 100, 80).mean(axis=1)
    assert np.corrcoef(thick.ravel(), mean.ravel())[0, 1] > 0.98
    assert abs(float((thick - mean).mean())) < 0.02 * float(mean.std())
    middle = thin[3::6]
    assert np.abs(thick - mean).mean() < 0.5 * np.abs(middle - mean).mean()  # it averages, and does not pick one


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_head_differs_from_the_head(axis: int):
    # The best of many shifts, because a mirror pose may be shifted too.
    grid = head_grid(4.0)
    labels = make_phantom(0).labels(grid).array_kji
    head = labels > 0
    mirrored = np.flip(labels, axis)
    best = 0.0
    for shift in range(-6, 7):
        best = max(best, float((np.roll(mirrored, shift, axis) == labels)[head].mean()))
    assert best < 0.7


def test_head_mask_omits_the_head_holder(phantom: Phantom):
    grid = head_grid(4.0)
    bare, held = phantom.ct(grid, noise_hu=0).array_kji, phantom.ct(grid, noise_hu=0, table=True)
    outside = phantom.labels(grid).array_kji == Tissue.BACKGROUND
    changed = np.abs(held.array_kji - bare) > 50
    assert changed.sum() > 1000
    assert changed[outside].sum() > 0.9 * changed.sum()
    shell = held.array_kji > 0
    mask = ct_head_mask(held)
    assert (mask & shell & outside).sum() < 0.4 * (shell & outside).sum()


def test_unknown_contrast_lists_the_known_ones(phantom: Phantom):
    with pytest.raises(SettingsError, match="must be one of T1, T2, FLAIR, PD; got 'T3'"):
        phantom.mri("T3")
    for contrast in CONTRASTS:
        assert phantom.mri(contrast, head_grid(12.0)).array_kji.max() > 100


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_phantom(-1), "seed of a phantom must be a whole number"),
        (lambda: make_phantom(1.5), "seed of a phantom must be a whole number"),  # type: ignore[arg-type]
        (lambda: make_phantom(0).ct(noise_hu=-1), "noise_hu must be a finite number of at least 0; got -1"),
        (lambda: make_phantom(0).mri(noise=float("nan")), "noise must be a finite number"),
        (lambda: make_phantom(0).mri(bias=1.0), "bias must be from 0 to below 1"),
        (lambda: make_phantom(0).target_points(0), "number of target points must be at least 1"),
        (lambda: make_pair(0, rotation_deg=float("inf")), "must be finite numbers"),
        (lambda: make_pair(0, spacing_mm=0.0), "spacing of a grid must be positive"),
    ],
)
def test_bad_argument_is_rejected(call, words):
    with pytest.raises(SettingsError, match=words):
        call()
