"""How much the brain of a CT tells of the MRI: ``python -m benchmarks.realism.dependence``.

``--pairs FOLDER`` holds real registered slices (FOLDER/CT and FOLDER/MRI, 8 bits, the CT through a brain window);
``--heads FOLDER`` holds label maps, of which cases of the physics mix are made. Both go through the same measure:
mutual information in nats a pixel between the CT's brain (0 to 80 HU) and the MRI, over the brain of a slice and in
tiles of 32 pixels of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import read_grey
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.volume import AIR_HU, axial_stack
from simulation.cases import Case
from simulation.physics.case import make_physics_case
from simulation.physics.draw import draw_site
from simulation.physics.kinds import draw_kind

Slice = npt.NDArray[np.float32]
# The brain window that the real slices are taken to have, HU for 0 and 255.
WINDOW_HU = (0.0, 80.0)
BINS, TILE, TILE_BINS = 16, 32, 6
# A slice with less brain, or a tile with a smaller share of it, is not measured.
LEAST_PIXELS, LEAST_SHARE = 4000, 0.7


def mutual_information(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], bins: int) -> float:
    """Return the mutual information of two samples in nats, in bins of equal counts.

    The bias of a finite sample is taken off (G. Miller, Information Theory in Psychology, 1955).
    """
    i, j = (np.searchsorted(np.quantile(v, np.linspace(0, 1, bins + 1)[1:-1]), v, side="right") for v in (a, b))
    joint = np.bincount(i * bins + j, minlength=bins * bins).reshape(bins, bins) / len(a)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    filled = joint > 0
    found = float((joint[filled] * np.log(joint[filled] / np.outer(rows, columns)[filled])).sum())
    more = np.count_nonzero(filled) - np.count_nonzero(rows) - np.count_nonzero(columns) + 1
    return found - more / (2 * len(a))


def brain_of(ct: Slice) -> npt.NDArray[np.bool_]:
    """Return the pixels inside the skull of a CT slice (8 bits, brain window) that are not at the window's ends."""
    bone = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray((ct >= 250).astype(np.uint8)), [3, 3])
    inside = sitk.BinaryFillhole(bone) - bone
    eroded = sitk.BinaryErode(sitk.BinaryMorphologicalOpening(inside, [4, 4]), [3, 3])
    found: npt.NDArray[np.bool_] = sitk.GetArrayFromImage(eroded).astype(bool) & (ct > 2) & (ct < 250)
    return found


def of_slice(ct: Slice, mri: Slice) -> tuple[float, float] | None:
    """Return the dependence over the brain of a slice and the mean of its tiles; ``None`` where there is too little."""
    brain = brain_of(ct)
    if np.count_nonzero(brain) < LEAST_PIXELS:
        return None
    tiles = []
    for row in range(0, ct.shape[0] - TILE + 1, TILE // 2):
        for column in range(0, ct.shape[1] - TILE + 1, TILE // 2):
            box = (slice(row, row + TILE), slice(column, column + TILE))
            inner = brain[box]
            if inner.mean() >= LEAST_SHARE:
                tiles.append(mutual_information(ct[box][inner], mri[box][inner], TILE_BINS))
    local = float(np.mean(tiles)) if tiles else float("nan")
    return mutual_information(ct[brain], mri[brain], BINS), local


def of_pairs(folder: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield patient and dependence of each real pair."""
    for file in sorted((folder / "CT").glob("*.png")):
        found = of_slice(read_grey(file), read_grey(folder / "MRI" / file.name))
        if found is not None:
            yield file.stem[:-3], found


def of_case(case: Case) -> list[tuple[float, float]]:
    """Return the dependence of a simulated case in its true pose, in axial slices 12 mm apart."""
    pulled = resample_onto(case.ct, case.mri.grid, case.transform, fill=AIR_HU)
    ct, _ = axial_stack(pulled.array_kji, case.mri.grid)
    mri, _ = axial_stack(case.mri.array_kji, case.mri.grid)
    low, high = WINDOW_HU
    upward = int(np.argmax(np.abs(case.mri.grid.direction[2])))
    step = max(1, round(12.0 / (case.mri.grid.extent_ijk_mm[upward] / len(ct))))
    found = []
    for number in range(len(ct) // 3, len(ct) - step, step):
        windowed = np.clip((ct[number] - low) / (high - low), 0, 1) * np.float32(255)
        measured = of_slice(windowed.astype(np.float32), mri[number])
        if measured is not None:
            found.append(measured)
    return found


def summary(name: str, values: Sequence[tuple[float, float]]) -> str:
    """Return a line of 10th percentile, median and 90th percentile."""
    if not values:
        return f"{name:24} nothing to measure"
    parts = []
    for words, column in (("slice", 0), ("tiles", 1)):
        low, middle, high = np.nanpercentile([value[column] for value in values], (10, 50, 90))
        parts.append(f"{words} {middle:.3f} ({low:.3f} to {high:.3f})")
    return f"{name:24} {len(values):4} slices  " + "  ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.realism.dependence", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="real slices: FOLDER/CT and FOLDER/MRI")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--cases", type=int, default=12, metavar="N", help="simulated cases (12)")
    arguments = parser.parse_args(argv)
    try:
        print("nats a pixel: median (10th to 90th percentile)")
        if arguments.pairs:
            by_patient: dict[str, list[tuple[float, float]]] = {}
            for patient, value in of_pairs(arguments.pairs):
                by_patient.setdefault(patient, []).append(value)
            for patient, values in by_patient.items():
                print(summary(f"real, patient {patient}", values))
            print(summary("real, all", [value for values in by_patient.values() for value in values]), flush=True)
        heads, simulated = heads_from(arguments.heads), []
        for seed in range(arguments.cases):
            case = make_physics_case(heads[seed % len(heads)](), draw_kind("mix", seed, draw_site(seed // 4)), seed)
            measured = of_case(case)
            simulated += measured
            contrast = case.strengths.mri_protocol.contrast
            print(summary(f"{seed} {contrast}", measured), ", ".join(case.strengths.effects) or "plain", flush=True)
        print(summary("simulated, all", simulated))
    except (BrainFusionError, OSError, ValueError) as error:
        print(f"dependence: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
