"""Fuse simulated heads of 16 bits and measure what is kept of both sources.

``python -m benchmarks.fidelity -o FOLDER [--heads LABEL_MAPS]`` writes ``table.md`` and ``figures.json``. Without label
maps of whole heads it takes the project's phantoms.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from BrainFusionLib import __version__
from BrainFusionLib.case import Result, fuse
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.intensity import CT_KNOTS_UNIT, bone_weight, ct_to_unit, hu_from_unit
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.tables import Cell, markdown_table
from BrainFusionLib.metrics import centroid_shift, contrast_kept, flicker, measure
from BrainFusionLib.settings import FusionSettings, Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import BoolArray, VoxelArray, axial_stack
from simulation.aligned import (
    CONTRASTS,
    DIAMETERS_MM,
    PLACES,
    Pair,
    make_pair,
    shifted,
    stored_as,
    with_lesion,
    with_metal,
)
from simulation.heads import Head, phantom_head
from simulation.label_maps import read_head

logger = logging.getLogger("benchmarks")

RULES = (FusionSettings.rule, "bone_over_mri", "bone_and_rim", "maximum", "laplacian", "wavelet")
JUDGED = ("Qabf", "VIF", "NMI", "Qy")
# Every n-th slice is measured by `metrics.measure`, at a fifth of a second each.
EVERY = 8
RESIDUAL_MM = 1.0
AIMS: dict[str, tuple[float, bool]] = {  # value, and whether it is a least one
    "HU error where the weight is 1": (1.0, False),
    "lesion contrast kept, deep in the brain, least": (0.98, True),
    "lesion contrast kept, just off the bone rim, least": (0.98, True),
    "shift of the metal's centroid, voxels, greatest": (0.1, False),
    "fall of a measure at 1 mm misregistration, greatest": (0.03, False),
    "difference between acquisitions, unit scale": (1e-5, False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", nargs="+", type=Path, metavar="FILE", help="label maps with SynthSeg's classes")
    parser.add_argument("--phantoms", nargs="+", type=int, default=[], metavar="SEED")
    parser.add_argument("--spacing", type=float, default=1.0, metavar="MM", help="of the phantoms (1)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        heads = [read_head(path) for path in arguments.heads or []]
        seeds = arguments.phantoms or ([] if heads else [1, 2])
        heads += [phantom_head(seed, arguments.spacing) for seed in seeds]
        figures = {head.name: measure_head(head) for head in heads}
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(figures, arguments.output / "figures.json")
        write_text(table(figures), arguments.output / "table.md")
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    logger.info("%s", (arguments.output / "table.md").read_text(encoding="utf-8"))
    return 0


def measure_head(head: Head) -> dict[str, Any]:
    """Return every figure of a head: those of `AIMS`, and the flicker of every rule."""
    logger.info("%s", head.name)
    pair = make_pair(head, seed=1)
    plain = fused(pair)
    figures: dict[str, Any] = {"HU error where the weight is 1": hu_error(plain)}
    for place in PLACES:
        kept = [lesion_kept(pair, d, sign * c, place) for d in DIAMETERS_MM for c in CONTRASTS for sign in (1, -1)]
        figures[f"lesion contrast kept, {place}, least"] = min(kept)
        figures[f"lesion contrast kept, {place}, median"] = float(np.median(kept))
    figures["shift of the metal's centroid, voxels, greatest"] = max(metal_shift(pair, seed) for seed in range(3))
    falls = {rule: misregistration_falls(pair, rule) for rule in RULES[:3]}
    figures["fall of a measure at 1 mm misregistration, greatest"] = max(falls[FusionSettings.rule].values())
    figures["falls at 1 mm misregistration"] = falls
    figures["difference between acquisitions, unit scale"] = acquisitions_differ(pair, plain)
    figures["flicker"] = {
        rule: flicker_of(pair, plain if rule == FusionSettings.rule else fused(pair, rule)) for rule in RULES
    }
    return figures


def fused(pair: Pair, rule: str = FusionSettings.rule, transform: RigidTransform | None = None) -> Result:
    """Fuse a pair as it lies, or under a transform."""
    settings = Settings(fusion=FusionSettings(rule=rule), device="cpu")
    return fuse(pair.ct, pair.mri, settings, transform=transform or RigidTransform(np.eye(4)), check=False)


def unit_of(result: Result) -> VoxelArray:
    """Return the fused volume on the unit scale, by the intensity map of the result."""
    return on_unit_scale(result.fused.array_kji, result)


def on_unit_scale(values: VoxelArray, result: Result) -> VoxelArray:
    """Return values in the scale of a result's MRI on the unit scale."""
    low, high = mri_range(result)
    unit: VoxelArray = (values - np.float32(low)) / np.float32(high - low)
    return unit


def mri_range(result: Result) -> tuple[float, float]:
    """Return the values of the MRI that are 0 and 1 on the unit scale."""
    assert result.intensity is not None, "something was fused"
    return result.intensity.mri_low, result.intensity.mri_high


def hu_error(result: Result) -> float:
    """Return the greatest error of the HU read back where the weight of the CT is 1."""
    assert result.alpha is not None, "the default rule gives a weight map"
    whole = result.alpha.array_kji == 1
    return float(np.abs(hu_from_unit(unit_of(result))[whole] - result.ct_in_mri.array_kji[whole]).max())


def lesion_kept(pair: Pair, diameter_mm: float, contrast: float, place: str) -> float:
    """Return the share of a lesion's contrast that is kept; where it lies depends on its size and contrast."""
    seed = int(1000 * abs(contrast) + diameter_mm + (contrast < 0) * 7)
    drawn, lesion = with_lesion(pair, diameter_mm, contrast, place, seed)
    # What the noise of so few voxels makes of a faint contrast is in both images, and falls out.
    return contrast_kept(fused(drawn).fused.array_kji, drawn.mri.array_kji, lesion.inside, lesion.around)


def metal_shift(pair: Pair, seed: int) -> float:
    """Return how far the centroid of a ball of metal moved, voxels."""
    drawn = with_metal(pair, seed)
    result = fused(drawn)
    hu = hu_from_unit(unit_of(result))
    # Only that ball: dense bone of the skull is nearly as bright.
    ball = np.abs(drawn.ct.array_kji - pair.ct.array_kji) > 100
    metal = np.where(ball, drawn.ct.array_kji, -1000)
    return centroid_shift(np.where(ball, hu, -1000), metal, float(metal.max()) / 2)


def misregistration_falls(pair: Pair, rule: str) -> dict[str, float]:
    """Return by what share each measure of a rule falls when the CT lies 1 mm off; a rise is negative."""
    aligned = measures_of(pair, fused(pair, rule))
    off = measures_of(pair, fused(pair, rule, shifted(RESIDUAL_MM, seed=3)))
    return {name: 1 - off[name] / aligned[name] for name in JUDGED}


def measures_of(pair: Pair, result: Result) -> dict[str, float]:
    """Return the means of the measures over axial slices; the sources are the CT as it lay and the MRI."""
    mri = on_unit_scale(pair.mri.array_kji, result)
    arrays = (unit_of(result), ct_to_unit(result.ct_in_mri.array_kji), mri)
    stacks = [axial_stack(array, pair.mri.grid)[0][::EVERY] * (255 / CT_KNOTS_UNIT[-2]) for array in arrays]
    rows = [measure(*slices) for slices in zip(*stacks, strict=True) if slices[2].max() > 100]
    return {name: float(np.mean([row[name] for row in rows])) for name in JUDGED}


def acquisitions_differ(pair: Pair, plain: Result) -> float:
    """Return the greatest difference, unit scale, when the same MRI is stored sagittally and coronally."""
    low, high = mri_range(plain)
    greatest = 0.0
    for order in ((2, 0, 1), (1, 0, 2)):
        stored = fused(Pair(pair.ct, stored_as(pair.mri, order), pair.brain))
        back = stored.fused.array_kji.transpose(np.argsort(order))
        greatest = max(greatest, float(np.abs(back - plain.fused.array_kji).max()))
    return float(greatest / (high - low))


def flicker_of(pair: Pair, result: Result) -> float:
    """Return the flicker at the bone rim, grey levels of 255."""
    mri = on_unit_scale(pair.mri.array_kji, result)
    weight = bone_weight(result.ct_in_mri.array_kji)
    where, _ = axial_stack(_spread(weight >= 0.5, 3), pair.mri.grid)
    arrays = (unit_of(result), ct_to_unit(result.ct_in_mri.array_kji), mri)
    f, c, m = (axial_stack(array, pair.mri.grid)[0] for array in arrays)
    return float(flicker(f, c, m, where) * 255 / CT_KNOTS_UNIT[-2])


def _spread(mask: BoolArray, reach: int) -> BoolArray:
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), [reach] * 3)
    found: BoolArray = sitk.GetArrayFromImage(grown) > 0
    return found


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the figures as Markdown; what misses its aim is marked."""
    names = list(figures)
    lines = [
        "# Fusion of whole heads: what is kept",
        "",
        "Simulated heads of 16 bits at 1 mm, CT and MRI on the same voxels; default weights. Made by "
        f"`python -m benchmarks.fidelity --heads ... -o docs/fidelity` (BrainFusion {__version__}, CPU). Lesions: "
        f"{', '.join(f'{d:g}' for d in DIAMETERS_MM)} mm, {', '.join(f'{100 * c:g}' for c in CONTRASTS)} % brighter "
        "and darker than the brain, in the MRI only.",
        "",
    ]
    rows: list[list[Cell]] = []
    for name, (aim, least) in AIMS.items():
        cells = [_cell(figures[head][name], aim, least) for head in names]
        rows.append([name, f"{'≥' if least else '≤'} {aim:g}", *cells])
    for place in PLACES:
        cells = [f"{figures[head][f'lesion contrast kept, {place}, median']:.3f}" for head in names]
        rows.append([f"lesion contrast kept, {place}, median", "–", *cells])
    for rule in RULES[:3]:
        for name in JUDGED:
            cells = [f"{100 * figures[head]['falls at 1 mm misregistration'][rule][name]:.1f} %" for head in names]
            rows.append([f"fall of {name} at 1 mm: {rule}", "3 %", *cells])
    for rule in RULES:
        cells = [f"{figures[head]['flicker'][rule]:.2f}" for head in names]
        rows.append([f"flicker at the bone rim, levels of 255: {rule}", "–", *cells])
    lines.append(markdown_table(["figure", "aim", *names], rows))
    return "\n".join(lines) + "\n"


def _cell(value: float, aim: float, least: bool) -> str:
    reached: Callable[[float], bool] = (lambda v: v >= aim) if least else (lambda v: v <= aim)
    return f"{value:.3g}" if reached(value) else f"**{value:.3g}** (missed)"
