"""Make a cohort to try: ``python -m tools.make_cohort FOLDER``: 24 rows of phantom pairs, two of them broken."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from BrainFusionLib.io import write_text, write_volume
from BrainFusionLib.phantom import make_pair

CASES = 24


def make_cohort(folder: Path, cases: int = CASES, spacing_mm: float = 4.0) -> Path:
    """Write pairs and ``manifest.csv`` into a folder; in the last two rows a file is missing, and an MRI is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["case,ct,mri"]
    for number in range(cases - 2):
        pair = make_pair(seed=number, spacing_mm=spacing_mm, rotation_deg=5.0 + number, translation_mm=10.0)
        names = [f"ct{number:02d}.nii.gz", f"mri{number:02d}.nii.gz"]
        for name, volume in zip(names, (pair.ct, pair.mri), strict=True):
            write_volume(volume, folder / name)
        rows.append(f"head{number:02d},{names[0]},{names[1]}")
        if number == 0:
            write_volume(pair.mri.with_array(pair.mri.array_kji * 0), folder / "empty.nii.gz")
    rows += ["missing,ct00.nii.gz,not_there.nii.gz", "empty,ct00.nii.gz,empty.nii.gz"]
    write_text("\n".join(rows) + "\n", folder / "manifest.csv")
    return folder / "manifest.csv"


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_cohort", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--cases", type=int, default=CASES, metavar="N")
    options = parser.parse_args()
    print(make_cohort(options.folder, options.cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
