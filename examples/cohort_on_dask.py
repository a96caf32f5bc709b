"""A cohort on Dask: all cases of a manifest, on a cluster of this machine's own processes.

``python examples/cohort_on_dask.py manifest.csv results``; without arguments it makes two phantoms. On many machines,
give the address of their scheduler in the place of `LocalCluster`. Needs ``pip install 'brainfusion[cohort]'``.
"""

import sys
import tempfile
from pathlib import Path

from BrainFusionLib import Settings, write_volume
from BrainFusionLib.cohort import read_manifest, run_cohort
from BrainFusionLib.phantom import make_pair


def phantoms(folder: Path) -> Path:
    """Write two pairs and their manifest; return its path."""
    rows = ["case,ct,mri"]
    for case, rotation in (("a", 10), ("b", 25)):
        pair = make_pair(spacing_mm=4, rotation_deg=rotation, translation_mm=10)
        write_volume(pair.ct, folder / f"{case}_ct.nii.gz")
        write_volume(pair.mri, folder / f"{case}_mri.nii.gz")
        rows.append(f"{case},{case}_ct.nii.gz,{case}_mri.nii.gz")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def main() -> int:
    """Run the cohort; return 1 if a case failed."""
    from distributed import LocalCluster

    if len(sys.argv) not in (1, 3):
        sys.exit("Usage: python cohort_on_dask.py MANIFEST FOLDER")
    if len(sys.argv) == 3:
        manifest, results = Path(sys.argv[1]), Path(sys.argv[2])
    else:
        manifest = phantoms(Path(tempfile.mkdtemp()))
        results = manifest.parent / "results"
    entries, problems = read_manifest(manifest)
    for problem in problems:
        print(problem)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        rows = run_cohort(entries, results, Settings(), scheduler=cluster.scheduler_address)
    for row in rows:
        print(row.case, row.status)
    return 0 if all(row.status == "done" for row in rows) else 1


if __name__ == "__main__":  # the cluster's processes import this file
    sys.exit(main())
