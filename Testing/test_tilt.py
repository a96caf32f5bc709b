"""A tilted gantry's sheared axes, straightened in one place for every door."""

import nibabel as nib
import numpy as np
import pytest

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import RAS_FROM_LPS, apply_affine, rotation_matrix
from BrainFusionLib.io import read_volume
from BrainFusionLib.tilt import placed, tilt_of

AXES = rotation_matrix((1, 2, 3), 25)


def tilted(tilt_deg=20.0, along=(0.0, 1.0), normal=1.0):
    """Affine of slices 3 mm apart that follow each other at an angle to their normal, LPS mm."""
    sideways = np.tan(np.radians(tilt_deg)) * np.asarray(along)
    matrix = np.eye(4)
    matrix[:3, :3] = AXES @ np.column_stack([[0.5, 0, 0], [0, 0.8, 0], [3 * sideways[0], 3 * sideways[1], 3 * normal]])
    matrix[:3, 3] = (-40, 30, 10)
    return matrix


def ramp(matrix, shape=(9, 12, 14)):
    """Voxels that hold a linear function of their place in the world."""
    ijk = np.moveaxis(np.indices(shape[::-1]), 0, -1).reshape(-1, 3)
    values = function(apply_affine(matrix, ijk)).reshape(shape[::-1]).transpose(2, 1, 0)
    return np.ascontiguousarray(values, np.float32)


def function(points):
    return points @ [2.0, -3.0, 5.0] + 1000


@pytest.mark.parametrize("along", [(0, 1), (1, 0), (0, -1), (0.6, -0.8)])
@pytest.mark.parametrize("normal", [1.0, -1.0])
def test_every_voxel_of_a_tilted_volume_stays_where_it_was(along, normal):
    matrix = tilted(20, along, normal)
    volume = placed(ramp(matrix), matrix, modality="CT", name="CT", notes=("first",))
    np.testing.assert_allclose(volume.grid.direction.T @ volume.grid.direction, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(volume.grid.spacing_ijk_mm, (0.5, 0.8, 3))
    # A linear function is interpolated without an error, except beside the border.
    expected = function(apply_affine(volume.grid.lps_from_ijk, np.moveaxis(np.indices(volume.grid.size_ijk), 0, -1)))
    held = np.abs(volume.array_kji - expected.transpose(2, 1, 0)) < 0.01
    assert held.sum() > 0.7 * 9 * 12 * 14
    assert volume.notes[0] == "first"
    assert "tilted by 20.0 degrees" in volume.notes[1]


def test_perpendicular_axes_are_used_as_they_are():
    matrix = tilted(0)
    voxels = ramp(matrix)
    volume = placed(voxels, matrix)
    assert volume.array_kji is voxels
    assert volume.notes == ()
    assert tilt_of(matrix) is None


@pytest.mark.parametrize("matrix", [tilted(45), np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])])
def test_any_other_shear_is_refused(matrix):
    with pytest.raises(GeometryError, match="perpendicular"):
        placed(ramp(matrix), matrix)


def write_nifti(path, matrix, voxels):
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), RAS_FROM_LPS @ matrix)
    image.set_qform(None, code=0)
    nib.save(image, path)


def write_nrrd(path, matrix, voxels):
    vectors = " ".join("({:.9f},{:.9f},{:.9f})".format(*matrix[:3, n]) for n in range(3))
    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, voxels.shape[::-1]))}\n"
        f"space directions: {vectors}\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        "space origin: ({:.9f},{:.9f},{:.9f})\n\n".format(*matrix[:3, 3])
    )
    path.write_bytes(header.encode() + voxels.astype("<f4").tobytes())


def write_metaimage(path, matrix, voxels):
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = (matrix[:3, :3] / spacing).T.ravel()
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {' '.join(f'{v:.9f}' for v in direction)}\n"
        f"Offset = {' '.join(f'{v:.9f}' for v in matrix[:3, 3])}\n"
        f"ElementSpacing = {' '.join(f'{v:.9f}' for v in spacing)}\n"
        f"DimSize = {' '.join(map(str, voxels.shape[::-1]))}\n"
        "ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + voxels.astype("<f4").tobytes())


def write_mgh(path, matrix, voxels):
    nib.save(nib.MGHImage(voxels.transpose(2, 1, 0).astype(np.float32), RAS_FROM_LPS @ matrix), path)


WRITERS = {"a.nii": write_nifti, "a.nrrd": write_nrrd, "a.mha": write_metaimage, "a.mgh": write_mgh}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_format_is_straightened_the_same_way(tmp_path, name):
    matrix = tilted(15)
    voxels = ramp(matrix)
    WRITERS[name](tmp_path / name, matrix, voxels)
    read, expected = read_volume(tmp_path / name), placed(voxels, matrix)
    assert read.grid.same_as(expected.grid, 1e-3)
    np.testing.assert_allclose(read.array_kji, expected.array_kji, atol=0.05)
    assert "tilted by 15.0 degrees" in " ".join(read.notes)


@pytest.mark.parametrize("pixel_mm", [1e-4, 1e-30])
def test_a_tilt_over_tiny_pixels_takes_no_memory(pixel_mm):
    matrix = tilted(20)
    matrix[:3, 1] *= pixel_mm
    with pytest.raises(GeometryError, match=r"shifted sideways by up to .* pixels"):
        placed(np.zeros((9, 12, 14), np.float32), matrix)
