"""Make a data set of the original project's layout: ``python -m training.make_original_data --output FOLDER``.

Each head gets a folder with ``ct``, ``mri`` and ``fused`` as Analyze 7.5 pairs (``.img``/``.hdr``): CT of 206 slices,
MRI and fused of 220 slices, 256×256 pixels. As in real ones, the CT lies in a pose of its own, and the headers do not
say where. The original data is not available here; these heads (phantoms, or simulated ones from label maps) prove the
path that the real ones go.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from BrainFusionLib.errors import BrainFusionError, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import hu_from_unit, unit_pair
from BrainFusionLib.io import atomic_output
from BrainFusionLib.io.nifti_writing import nifti_header
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume, VoxelArray
from simulation.label_maps import read_detailed_head
from simulation.scans import SimulationConfig, draw_scan
from simulation.slices_torch import render
from training.config import RULES
from training.labels import rule_label

logger = logging.getLogger("training")

PIXELS, CT_SLICES, MRI_SLICES = 256, 206, 220
MRI_FULL_SCALE = 1000.0
# Registered scans without the 8-bit window, and no holder that would be cut when the CT is turned.
PLAIN = SimulationConfig(misregistration_mm=0.0, windowed=0.0, holder=0.0, slice_mm=1.0)


def make_head(head: str, folder: Path, rule: str, seed: int, shrink: int = 1) -> None:
    """Make one head.

    Parameters
    ----------
    head
        ``phantom-N``, or the path of a whole-head label map.
    folder
        Gets six files; is made.
    rule
        Makes the fused volume; one of `config.RULES`.
    seed
        Of the CT's pose (turned by 5 to 15 degrees, shifted by 5 to 20 mm) and of a simulated scan.
    shrink
        Divides the numbers of pixels and slices, for a quick trial.

    Raises
    ------
    SettingsError, ImageFileError, ImageContentError
        There is no such head, or the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    axis, along = rng.standard_normal((2, 3))
    shift = along / np.linalg.norm(along) * rng.uniform(5, 20)
    middle = head_grid(1.0).centre_lps_mm
    pose = RigidTransform.from_axis_angle(axis, float(rng.uniform(5, 15)), shift, centre_lps_mm=middle)
    mri_grid, ct_grid = (_grid(count, middle, shrink) for count in (MRI_SLICES, CT_SLICES))
    if head.startswith("phantom-"):
        if not head.removeprefix("phantom-").isdecimal():
            raise SettingsError(f"{head}: a phantom is named phantom-7, with a seed of 0 or more")
        phantom = make_phantom(int(head.removeprefix("phantom-")))
        ct, mri, together = phantom.ct(ct_grid, pose), phantom.mri("T1", mri_grid), phantom.ct(mri_grid)
    else:
        together, mri = _simulated(Path(head), mri_grid, seed)
        ct = resample_onto(together, ct_grid, pose.inverse())
    pair = unit_pair(together, mri)
    made = rule_label(rule, pair.ct_unit, pair.mri_unit, pair.bone_weight)
    fused = made * np.float32(pair.high - pair.low) + np.float32(pair.low)
    for name, volume in (("ct", ct), ("mri", mri), ("fused", mri.with_array(fused))):
        write_analyze(volume, folder / f"{name}.img")


def _grid(slices: int, middle: npt.NDArray[np.float64], shrink: int) -> Grid:
    """Return an axial grid of 1 mm times `shrink` around the middle of the head."""
    size = np.array([PIXELS, PIXELS, slices]) // shrink
    origin = middle - (size - 1) / 2 * shrink
    return Grid((int(size[0]), int(size[1]), int(size[2])), (float(shrink),) * 3, tuple(origin.tolist()))


def _simulated(path: Path, grid: Grid, seed: int) -> tuple[Volume, Volume]:
    model = read_detailed_head(path)
    scan, tissue = draw_scan(model, PLAIN, (seed,)), torch.from_numpy(model.tissue_kji)
    slices, rows, columns = grid.shape_kji
    heights = ((np.arange(slices) - (slices - 1) / 2) * grid.spacing_ijk_mm[2]).tolist()
    made = [render(model, tissue, scan, [height], (rows, columns), grid.spacing_ijk_mm[0]) for height in heights]
    ct, mri = (torch.cat([images[n] for images in made])[:, 0] for n in (0, 1))
    mri_values: VoxelArray = (mri * MRI_FULL_SCALE).numpy()
    return Volume(hu_from_unit(ct.numpy()), grid, "CT", path.name), Volume(mri_values, grid, "MR", path.name)


def write_analyze(volume: Volume, path: Path) -> None:
    """Write an axial LPS volume as a true Analyze 7.5 pair of int16 voxels: no origin, no axes, right to left.

    Raises
    ------
    ImageFileError
        The folder cannot be written to.
    """
    # Analyze runs from back to front; the second axis of an LPS volume runs the other way.
    voxels: VoxelArray = np.ascontiguousarray(np.rint(volume.array_kji[:, ::-1]))
    header = bytearray(nifti_header(volume.grid, np.dtype("<i2"), pair=True))
    header[76:80] = bytes(4)  # NIfTI's handedness
    header[148:348] = bytes(200)  # NIfTI's axes and magic
    with atomic_output(path.with_suffix(".hdr")) as header_file, atomic_output(path) as data_file:
        header_file.write_bytes(bytes(header))
        data_file.write_bytes(voxels.astype("<i2").tobytes())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.make_original_data", description="Make a data set of the original layout."
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument(
        "--heads", nargs="+", default=["phantom-1", "phantom-2", "phantom-3"], help="phantom-N, or label maps"
    )
    parser.add_argument("--rule", choices=RULES, default="wavelet", help="makes the fused volumes (wavelet)")
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help="N times fewer pixels and slices")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if not 1 <= arguments.shrink <= 16:
            raise SettingsError(f"--shrink must be 1 to 16; got {arguments.shrink}")
        for seed, head in enumerate(arguments.heads, start=1):
            folder = arguments.output / Path(head).name.partition(".")[0]
            logger.info("making %s", folder)
            make_head(head, folder, arguments.rule, seed, arguments.shrink)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
