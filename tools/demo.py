"""The main job on real images: get them, register and fuse them with the console command, say where the results are."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib import cli
from BrainFusionLib.io import read_transform, write_volume
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.transform import RigidTransform
from simulation.from_ct import simulate_mri
from tools.samples import (
    COLIN27_T1,
    HEAD_CT,
    SLICER_CT,
    SLICER_T1,
    SampleError,
    get_packaged_file,
    get_slicer_file,
    read_inv3,
)

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / ".cache" / "samples"
OUTPUT = ROOT / "demo-output"

# A registration is good to about a voxel; where the truth is known and the worst point is further off than this, the
# demo has failed, whatever else it printed.
LARGEST_ERROR_MM = 2.0


@dataclass(frozen=True, eq=False)
class Truth:
    """The right transform, and points of the head in MRI space, shape (n, 3), LPS mm, to measure errors at."""

    transform: RigidTransform
    points_lps_mm: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """Two images to fuse, and what to expect of it."""

    name: str
    title: str
    ct: Path
    mri: Path
    truth: Truth | None = None
    one_head: bool = True
    options: tuple[str, ...] = ()


def main() -> int:
    """Run all cases and return 0 if each of them went as it should."""
    began = time.monotonic()
    cases = find_cases()
    failed = [case.name for case in cases if not run_case(case)]
    print(f"\nAll done in {time.monotonic() - began:.0f} s. Results, one folder for each case:")
    for case in cases:
        ending = "   FAILED, see above" if case.name in failed else "" if case.one_head else "   refused: no results"
        print(f"  {OUTPUT / case.name}{ending}")
        if case.one_head:
            print(f"    report: {OUTPUT / case.name / 'report.html'}")
    return 1 if failed else 0


def find_cases() -> list[Case]:
    """Return what there is to run on: Slicer's pair, else the Debian packages' images, else the phantom.

    Images that an earlier run downloaded are used without asking the network for better ones.
    """
    print("Images:", flush=True)
    ways = [slicer_cases, package_cases]
    if not (SAMPLES / SLICER_CT.name).exists() and (SAMPLES / HEAD_CT.name).exists():
        ways.remove(slicer_cases)
    for way in ways:
        try:
            return way()
        except SampleError as error:
            print(f"  not available: {error}.", flush=True)
    return phantom_cases()


def slicer_cases() -> list[Case]:
    """Return one head's CT and T1, from Slicer's sample data; raises `SampleError` if they are not available."""
    ct, mri = (get_slicer_file(file, SAMPLES) for file in (SLICER_CT, SLICER_T1))
    print(f"  3D Slicer's CTMRBrain, in {SAMPLES}")
    return [Case("ctmrbrain", "3D Slicer's CTMRBrain: a real CT and a real T1 of one head", ct, mri)]


def package_cases() -> list[Case]:
    """Return a real CT with an MRI simulated from it, and with a real T1 of another person.

    Raises
    ------
    SampleError
        The CT is not available. (Without the T1 there is only the first case.)
    """
    ct = read_inv3(get_packaged_file(HEAD_CT, SAMPLES))
    pair = simulate_mri(ct)
    inputs = OUTPUT / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    ct_file, mri_file = inputs / "head_ct.nii.gz", inputs / "simulated_t1.nii.gz"
    write_volume(ct, ct_file)
    write_volume(pair.mri, mri_file)
    print(f"  a real head CT, and a T1 simulated from it, in {inputs}")
    cases = [
        Case(
            "simulated_mri",
            "a real CT with an MRI that was simulated from it, turned by 25 degrees and shifted by 35 mm",
            ct_file,
            mri_file,
            Truth(pair.transform, pair.head_points_lps_mm),
        )
    ]
    try:
        colin = get_packaged_file(COLIN27_T1, SAMPLES)
    except SampleError as error:
        print(f"  no real MRI: {error}.", flush=True)
        return cases
    print(f"  a real T1 of another person (Colin27): {colin}")
    title = "a real CT and a real T1 of ANOTHER person: no pose is right, so it must be refused"
    # Fast, because a standard registration looks harder where no pose stands out: half a minute for nothing.
    return [*cases, Case("two_people", title, ct_file, colin, one_head=False, options=("--preset", "fast"))]


def phantom_cases() -> list[Case]:
    """Return the project's own phantom head, for machines without access to images."""
    print("  No real image is available, so this runs on the project's own phantom, a drawn head.", flush=True)
    pair = make_pair(seed=1, rotation_deg=25, translation_mm=35)
    inputs = OUTPUT / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    ct_file, mri_file = inputs / "phantom_ct.nii.gz", inputs / "phantom_t1.nii.gz"
    write_volume(pair.ct, ct_file)
    write_volume(pair.mri, mri_file)
    truth = Truth(pair.transform, pair.target_points())
    return [Case("phantom", "the phantom: a drawn head, not a real one", ct_file, mri_file, truth)]


def run_case(case: Case) -> bool:
    """Register and fuse one case as a user would on the console; say how it went, and whether that is as it should."""
    folder = OUTPUT / case.name
    command = ["fuse", str(case.ct), str(case.mri), "-o", str(folder), *case.options]
    print(f"\n== {case.title}\n   brainfusion {' '.join(command)}", flush=True)
    code = cli.main(command)
    if not case.one_head:
        refused = code == cli.NOT_FOUND
        print(f"   {'Refused, which is right' if refused else 'Not refused, which is WRONG'}: these are two people.")
        return refused
    if code != cli.DONE:
        print(f"   brainfusion ended with exit code {code}.")
        return False
    if case.truth is not None:
        error = target_registration_errors_mm(
            read_transform(folder / "ct_to_mri.tfm"), case.truth.transform, case.truth.points_lps_mm
        )
        print(f"   True error at {len(error)} points of the head: mean {error.mean():.2f}, worst {error.max():.2f} mm")
        return bool(error.max() <= LARGEST_ERROR_MM)
    verdict = json.loads((folder / "result.json").read_text(encoding="utf-8"))["verdict"]["colour"]
    print(f"   The right pose is not known here; the verdict is {verdict}. Look at the report's pictures.")
    return True


if __name__ == "__main__":
    sys.exit(main())
