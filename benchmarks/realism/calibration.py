"""Calibrates the expected error: ``python -m benchmarks.realism.calibration --heads LABEL_MAPS -o docs/realism``.

Scans heads with the physics mix (`simulation.physics`), registers them and keeps, a line a case, the features of the
evidence (`verdict.expected`) and the true error of the anatomy: ``calibration.csv``, which is resumed where it was
stopped. From every second head the coefficients are fitted (median, with a conformal factor for the bound); the
others judge. The table that the library includes (`BrainFusionLib/verdict/calibration.json`) is written anew;
``calibration.md`` shows how well it holds. ``--table-only`` makes the two from the lines that are there.
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

from BrainFusionLib import intensity
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.tables import Cell, format_csv, markdown_table, parse_csv
from BrainFusionLib.registration import register
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.verdict.expected import LEAST, TABLE, features
from BrainFusionLib.verdict.judge import judge, refusal
from BrainFusionLib.verdict.local import local_errors
from BrainFusionLib.verdict.skull import skull_fit
from BrainFusionLib.volume import Volume
from simulation.label_maps import read_head
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.draw import draw_mix, draw_site

logger = logging.getLogger("benchmarks")

FIRST_SEED, SITES = 5000, 31
# Poses that are further off than this are the verdict's business, not that of the expected error.
MOST_POSE_MM = 2.0
# Errors below this count as this: there the simulation's own voxels decide.
LEAST_MM = 0.02
PENALTY = 0.01
# More than 9 of 10: other simulators, scanners and patients differ from this one.
HELD = 0.94
COLUMNS = ("seed", "head", "site", "kind", "colour", "codes", "anatomy_median_mm", "anatomy_p95_mm", "pose_median_mm",
           *LEAST)  # fmt: skip


def measured(case: PhysicsCase) -> dict[str, Cell]:
    """Register a case; return its features, its true errors and the verdict."""
    found = register(case.ct, case.mri)
    grid = case.mri.grid
    ct = Volume(np.rint(resample_onto(case.ct, grid, found.transform, fill=-1000).array_kji), grid, "CT")
    local, skull = local_errors(ct, case.mri), skull_fit(ct, case.mri, intensity.ct_head_mask(ct))
    evidence = Evidence(pose=found.evidence, coverage=1.0, local=local, skull=skull)
    refused, verdict, known = refusal(Evidence(pose=found.evidence)), judge(evidence), features(evidence)
    assert known is not None
    errors = case.errors_mm(found.transform)
    return {
        "colour": verdict.colour if refused is None else "refused",
        "codes": ";".join(finding.code for finding in verdict.findings) if refused is None else refused.code,
        "anatomy_median_mm": float(np.median(errors)),
        "anatomy_p95_mm": float(np.percentile(errors, 95)),
        "pose_median_mm": float(np.median(case.pose_errors_mm(found.transform))),
        **dict(zip(LEAST, known, strict=True)),
    }


def collect(folder: Path, path: Path, cases: int) -> None:
    """Measure what is not in `path` yet, and append it line by line."""
    heads = sorted(folder.glob("*.nii*"))
    known = {row["seed"] for row in parse_csv(path.read_text(encoding="utf-8")).rows} if path.exists() else set()
    if not path.exists():
        write_text(format_csv([], COLUMNS), path)
    for number in range(cases):
        seed, head, site = FIRST_SEED + number, number % len(heads), number % SITES
        if str(seed) in known:
            continue
        case = make_physics_case(read_head(heads[head]), draw_mix(draw_site(site), seed), seed)
        row = {"seed": seed, "head": head, "site": site, "kind": case.kind, **measured(case)}
        with path.open("a", encoding="utf-8") as file:
            file.write(format_csv([row], COLUMNS, header=False))
        logger.info("%s", ", ".join(f"{name} {row[name]}" for name in ("seed", "kind", "colour", "anatomy_median_mm")))


def fitted(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the coefficients of the logarithm of the median error, (5,), intercept first."""
    from sklearn.linear_model import QuantileRegressor

    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    model = QuantileRegressor(quantile=0.5, alpha=PENALTY, solver="highs").fit((x - middle) / spread, y)
    slopes = model.coef_ / spread
    return np.array([model.intercept_ - slopes @ middle, *slopes])


def margin(x: FloatArray, y: FloatArray, heads: npt.NDArray[np.int_]) -> float:
    """Return by how much, at most, the logarithm of the error exceeds the estimate in `HELD` of heads left out."""
    missing: list[float] = []
    for head in np.unique(heads):
        out = heads == head
        missing += (y[out] - predicted(fitted(x[~out], y[~out]), x[out])).tolist()
    # With one case more than there are, as conformal prediction wants it.
    return float(np.sort(missing)[min(len(y) - 1, int(np.ceil(HELD * (len(y) + 1))) - 1)])


def predicted(coefficients: FloatArray, x: FloatArray) -> FloatArray:
    """Return the logarithms of the errors that coefficients give for features, (n, 4)."""
    values: FloatArray = coefficients[0] + x @ coefficients[1:]
    return values


def tables(path: Path, output: Path) -> None:
    """Fit on every second head, and write the table for the library and how well it holds on the others."""
    rows = [
        row
        for row in parse_csv(path.read_text(encoding="utf-8")).rows
        if row["colour"] != "refused" and float(row["pose_median_mm"]) <= MOST_POSE_MM
    ]
    x = np.array([[float(row[name]) for name in LEAST] for row in rows])
    true = np.array([float(row["anatomy_median_mm"]) for row in rows])
    y = np.log(np.maximum(true, LEAST_MM))
    ours = np.array([int(row["head"]) % 2 == 0 for row in rows])
    heads = np.array([int(row["head"]) for row in rows])
    median = fitted(x[ours], y[ours])
    factor = float(np.exp(margin(x[ours], y[ours], heads[ours])))
    table = {
        "made_by": "python -m benchmarks.realism.calibration",
        "cases": int(ours.sum()),
        "features": list(LEAST),
        "expected": median.tolist(),
        "factor": factor,
        "high": x[ours].max(axis=0).tolist(),
    }
    write_json(table, TABLE)
    is_plain = np.array([row["kind"] == "plain" for row in rows])
    expected = np.exp(predicted(median, x))
    most = factor * expected
    groups = {
        "calibrated on": ours,
        "other heads": ~ours,
        "other heads, plain": ~ours & is_plain,
        "other heads, physics": ~ours & ~is_plain,
    }
    lines: list[list[Cell]] = [
        [
            name,
            int(chosen.sum()),
            f"{np.median(true[chosen]):.2f}",
            f"{np.median(expected[chosen]):.2f}",
            f"{100 * np.mean(true[chosen] <= most[chosen]):.0f} %",
            f"{np.median(most[chosen] / np.maximum(true[chosen], 0.05)):.1f}",
        ]
        for name, chosen in groups.items()
        if chosen.any()
    ]
    columns = ["cases", "number", "true error mm, median", "expected mm, median", "bound held", "bound / true, median"]
    text = (
        "# Expected error and its bound on simulated heads with scanner physics\n\n"
        "Made by `python -m benchmarks.realism.calibration`. The error is the median over the brain of the distance of "
        "the\nanatomy; poses within 2 mm that were not refused.\n\n"
    )
    write_text(text + markdown_table(columns, lines) + "\n", output / "calibration.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism.calibration")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps of whole heads")
    parser.add_argument("--cases", type=int, default=200, help="of the mix (default: 200)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--table-only", action="store_true", help="measure nothing: tables from the lines that are there"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "calibration.csv"
    if not options.table_only:
        if options.heads is None:
            parser.error("name the folder of label maps with --heads, or add --table-only")
        collect(options.heads, path, options.cases)
    tables(path, options.output)
    print((options.output / "calibration.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
