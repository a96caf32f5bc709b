"""Heads and tissues of the simulation: every label is known, every tissue has an appearance."""

import numpy as np
import pytest

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import Tissue, head_grid, make_phantom
from BrainFusionLib.volume import Volume
from simulation.heads import Head, body_part, detailed_phantom, phantom_head
from simulation.label_maps import read_detailed_head, read_head
from simulation.tissues import (
    APPEARANCE,
    BRAIN,
    COARSE_OF_LABEL,
    COARSE_OF_TISSUE,
    LABELS,
    TISSUE_OF_LABEL,
    Coarse,
    coarse_codes,
)


def test_labels_are_unique_and_known_twice():
    assert sum(len(labels) for labels, _, _ in LABELS) == len(TISSUE_OF_LABEL) == len(COARSE_OF_LABEL)


def test_every_tissue_has_one_appearance():
    assert {int(tissue) for tissue in APPEARANCE} == {*map(int, Tissue), *map(int, Coarse)}
    assert set(COARSE_OF_TISSUE) == set(Tissue)
    assert set(map(int, Tissue)) & set(map(int, Coarse)) == {0}


def test_both_readings_of_a_label_agree_on_bone_and_air():
    for _, tissue, coarse in LABELS:
        assert COARSE_OF_TISSUE[tissue] == coarse or coarse not in (Coarse.AIR, Coarse.CORTICAL, Coarse.CANCELLOUS)


def test_unknown_labels_are_grey_matter():
    assert coarse_codes(np.array([0, 999, 515]), COARSE_OF_LABEL).tolist() == [0, Coarse.GREY, Coarse.CORTICAL]


def test_points_lie_in_the_brain():
    head = phantom_head(0, 4.0)
    assert np.isin(head.tissue_at(head.points_lps_mm), BRAIN).all()
    labels = make_phantom(0, electrode=False).labels(head_grid(4.0))
    ijk = np.rint(apply_affine(labels.grid.ijk_from_lps, head.points_lps_mm)).astype(int)
    found = labels.array_kji[tuple(ijk.T[::-1])]
    assert np.isin(found, (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.DEEP_GREY)).all()


def test_detailed_phantom_has_no_lesions():
    head = detailed_phantom(1, 4.0)
    assert not np.isin(head.tissue_kji, (Tissue.TUMOUR, Tissue.OEDEMA, Tissue.METAL)).any()
    assert head.spacing_kji_mm == (4.0, 4.0, 4.0)


@pytest.mark.parametrize(("seed", "name"), [(0, "thigh"), (1, "trunk")])
def test_body_part_has_no_brain(seed, name):
    part = body_part(seed, 6.0)
    assert part.name == name
    assert len(part.points_lps_mm) == 0
    np.testing.assert_allclose(part.centre_lps_mm, part.grid.centre_lps_mm)


def test_coarse_head_keeps_its_place(tmp_path):
    labels = box_labels()
    labels[10:30, 10:30, 10:30] = 41
    grid = Grid((40, 40, 40), (1.5, 1.5, 1.5), (10.0, -20.0, 30.0))
    write_volume(Volume(labels, grid), tmp_path / "head_2.nii.gz")
    head = read_head(tmp_path / "head_2.nii.gz")
    assert isinstance(head, Head)
    assert head.name == "head_2"
    assert head.grid.size_ijk == (34, 34, 34)
    middle_of_skin = grid.lps_from_ijk @ [3.0, 20.0, 20.0, 1.0]
    assert head.tissue_at(middle_of_skin[None, :3]).tolist() == [Coarse.SKIN]


def test_empty_label_map_is_rejected(tmp_path):
    write_volume(Volume(np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8))), tmp_path / "none.nii.gz")
    with pytest.raises(ImageContentError, match="none: the label map is empty"):
        read_head(tmp_path / "none.nii.gz")


def box_labels(size=40):
    """A head of boxes: skin, soft tissue, bone 6 mm thick, CSF, grey and white matter, and air in the middle."""
    labels = np.zeros((size,) * 3, np.float32)
    for margin, label in ((3, 511), (4, 507), (8, 515), (14, 24), (15, 3), (17, 2), (19, 0)):
        labels[(slice(margin, size - margin),) * 3] = label
    return labels


def test_detailed_head_has_marrow_fat_and_inner_air(tmp_path):
    grid = Grid((40, 40, 40))
    write_volume(Volume(box_labels(), grid), tmp_path / "head_1.nii.gz")
    model = read_detailed_head(tmp_path / "head_1.nii.gz")
    assert isinstance(model, Head)
    assert model.name == "head_1"
    found = set(np.unique(model.tissue_kji).tolist())
    assert {Tissue.SKIN, Tissue.FAT, Tissue.BONE, Tissue.DIPLOE, Tissue.CSF, Tissue.GREY_MATTER} <= found
    middle = tuple(n // 2 for n in model.tissue_kji.shape)
    assert model.tissue_kji[middle] == Tissue.AIR
    assert model.tissue_kji[0, 0, 0] == Tissue.BACKGROUND


@pytest.mark.parametrize(
    ("change", "message"), [((515, 507), r"head\.nii\.gz: no bone"), ((24, 99), r"labels \[99\] are not known")]
)
def test_label_map_of_something_else_is_rejected(tmp_path, change, message):
    labels = box_labels()
    labels[labels == change[0]] = change[1]
    write_volume(Volume(labels, Grid((40, 40, 40))), tmp_path / "head.nii.gz")
    with pytest.raises(ImageContentError, match=message):
        read_detailed_head(tmp_path / "head.nii.gz")
