"""How well the brain is found: ``python -m benchmarks.realism.brain_masks --heads FOLDER``.

Dice index of `intensity.brain.brain_mask` in the true pose, on simulated scans of the heads that judge (every second
one), without distortion, so that each voxel's tissue is known exactly: brain is what is brain in most of the voxel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.intensity.brain import brain_mask
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.io.tables import Cell, markdown_table
from BrainFusionLib.volume import BoolArray
from simulation.heads import Head
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.draw import draw_plain
from simulation.physics.effects import change_ct, change_mri
from simulation.physics.kinds import draw_kind
from simulation.physics.strengths import Strengths
from simulation.tissues import BRAIN, CONTRASTS, Coarse

FIRST_SEED, AIM = 8000, 0.95
TISSUES = (*BRAIN, Coarse.LESION)
# Parts of a slice whose tissue is looked up, if it is this thick.
PARTS, THICK_MM = 3, 2.0


def kinds(seed: int) -> dict[str, Strengths]:
    """Return what is measured, by name."""
    plain = {contrast: draw_plain(seed, contrast) for contrast in CONTRASTS}
    thick = {name: change_mri(draw_kind("T2 5+1 mm", seed), contrast=name) for name in ("T1", "T2", "FLAIR")}
    return {
        **plain,
        **{f"{name}, coil bias ×6": change_mri(plain[name], bias=6.0) for name in ("T1", "T2")},
        **{f"{name}, slices of 5 + 1 mm": strengths for name, strengths in thick.items()},
        "PD, CT of 3 mm": change_ct(plain["PD"], thickness_mm=3.0, increment_mm=3.0),
    }


def brain_of(case: PhysicsCase, head: Head) -> BoolArray:
    """Return which voxels of the MRI are mostly brain."""
    grid, truth = case.mri.grid, case.truth
    # Without distortion, both scans are rigid. A slice at a time, because the points of all take gigabytes.
    in_head = truth.pose.inverse() @ case.transform
    count = np.zeros(grid.shape_kji, np.uint8)
    across, thickest = int(np.argmax(grid.spacing_ijk_mm)), float(max(grid.spacing_ijk_mm))
    parts: int = PARTS if thickest > THICK_MM else 1
    j, i = np.indices(grid.shape_kji[1:])
    for number in range(grid.shape_kji[0]):
        for part in range(parts):
            ijk = np.stack([i.ravel(), j.ravel(), np.full(i.size, number)], axis=-1).astype(np.float64)
            ijk[:, across] += (part + 0.5) / parts - 0.5
            tissue = head.tissue_at(in_head.apply(apply_affine(grid.lps_from_ijk, ijk)))
            count[number] += np.isin(tissue, TISSUES).reshape(i.shape)
    mostly: BoolArray = count > parts // 2
    return mostly


def dice(a: BoolArray, b: BoolArray) -> float:
    """Return the Dice index of two masks."""
    both, sum_of_both = int(np.count_nonzero(a & b)), int(np.count_nonzero(a) + np.count_nonzero(b))
    return 2 * both / max(1, sum_of_both)


def measured(head: Head, strengths: Strengths, seed: int) -> tuple[float, float]:
    """Return the Dice index of the brain with the CT's help, and without it."""
    case = make_physics_case(head, replace(strengths, kind="brain mask"), seed)
    inside = inside_skull(case.ct)
    if inside is None:
        return 0.0, 0.0
    depth, hu = inside.depth_on(case.mri.grid, case.transform), inside.hu_on(case.mri.grid, case.transform)
    true, found = brain_of(case, head), [brain_mask(case.mri, depth, hu), brain_mask(case.mri, depth)]
    with_ct, without = (0.0 if mask is None else dice(mask.mask_kji, true) for mask in found)
    return with_ct, without


def table(folder: Path | None, most: int) -> str:
    """Measure all kinds on the heads that judge, or so many of them, and return a table."""
    heads = heads_from(folder)[1::2][:most]
    found: dict[str, list[tuple[float, float]]] = {}
    for number, read in enumerate(heads):
        head = read()
        for name, strengths in kinds(FIRST_SEED + number).items():
            found.setdefault(name, []).append(measured(head, strengths, FIRST_SEED + number))
    lines: list[list[Cell]] = []
    for name, values in found.items():
        with_ct, without = np.array(values).T
        lines.append([
            name, len(values), f"{np.median(with_ct):.3f}", f"{with_ct.min():.3f}", int((with_ct >= AIM).sum()),
            f"{np.median(without):.3f}",
        ])  # fmt: skip
    head_line = ("MRI", "heads", "Dice, median", "least", f"at least {AIM:g}", "without the CT, median")
    return markdown_table(head_line, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.realism.brain_masks", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--most", type=int, default=100, metavar="N", help="heads at most")
    arguments = parser.parse_args(argv)
    try:
        print(table(arguments.heads, arguments.most))
    except (BrainFusionError, OSError, ValueError) as error:
        print(f"brain_masks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
