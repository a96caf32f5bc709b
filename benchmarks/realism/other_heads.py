"""Label maps of another source, in SynthSeg's numbers: ``python -m benchmarks.realism.other_heads DATA OUT``.

Heads that no limit and no calibration has seen, and that were segmented otherwise: the New York head and the two of
brain2mesh, with grey and white matter, CSF, bone, soft tissue and air only; and one of them mirrored and stretched, a
fourth. What the maps do not tell is derived: skin is soft tissue within 2.2 mm of the outside, ventricles are CSF far
from bone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.volume import Volume

Labels = npt.NDArray[np.int16]

# Grey matter, white matter, CSF, bone, soft tissue: in these maps, and in FreeSurfer's and charm's numbers.
LABELS = {1: 3, 2: 2, 3: 24, 4: 515, 5: 508}
SKIN, VENTRICLE = 511, 4
SKIN_MM, FAR_FROM_BONE_MM, LEAST_VENTRICLE = 2.2, 18, 300
# The New York head's neck, in voxels of 1 mm, is left out; its voxels are half as large.
NECK, HALVED = 70, slice(None, None, 2)
STRETCHED = (1.02, 1.04, 0.94)
# All three maps have these axes.
RAS = np.diag([-1.0, -1.0, 1.0])


def relabelled(tissue_kji: Labels, outside: int) -> Labels:
    """Return a map of 1 mm in SynthSeg's numbers, with a margin of air."""
    tissue = np.pad(tissue_kji, 12, constant_values=outside)
    labels = np.zeros(tissue.shape, np.int16)
    for old, new in LABELS.items():
        labels[tissue == old] = new
    head = ndimage.binary_fill_holes(ndimage.binary_closing(labels > 0, iterations=2))
    labels[(tissue == 5) & (ndimage.distance_transform_edt(head) <= SKIN_MM)] = SKIN
    deep = (tissue == 3) & (ndimage.distance_transform_edt(tissue != 4) > FAR_FROM_BONE_MM)
    pieces, _ = ndimage.label(ndimage.binary_opening(deep))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    labels[np.isin(pieces, np.flatnonzero(sizes > LEAST_VENTRICLE))] = VENTRICLE
    return labels


def heads(data: Path) -> dict[str, Labels]:
    """Return the four maps by name, voxels of 1 mm."""
    found = {}
    for name in ("ANTS19-5", "ANTS40-44"):
        found[name] = relabelled(_read(data / "brain2mesh" / f"{name}_argmax_labels.nii.gz"), outside=6)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(data / "nyhead" / "nyhead_T1orT2_SPM_masks.nii.zip") as packed:
            packed.extract("nyhead_T1orT2_SPM_masks.nii", folder)
        fine = _read(Path(folder) / "nyhead_T1orT2_SPM_masks.nii")
    found["nyhead"] = relabelled(fine[HALVED, HALVED, HALVED][NECK:], outside=0)
    found["warped"] = ndimage.zoom(found["ANTS19-5"][:, :, ::-1], STRETCHED, order=0)
    return found


def _read(path: Path) -> Labels:
    return read_volume(path).array_kji.astype(np.int16)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.realism.other_heads", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with brain2mesh/ and nyhead/")
    parser.add_argument("output", type=Path, metavar="OUT")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, labels in heads(arguments.data).items():
        k, j, i = labels.shape
        grid = Grid((i, j, k), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), RAS)
        write_volume(Volume(labels.astype(np.float32), grid, None, name), arguments.output / f"{name}.nii.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
