"""Memory and throughput of cohorts: ``python -m benchmarks.cohort -o docs/cohorts``.

Writes ``table.md``: the peak memory of a case by its size, the memory of one process over many cases, and cases an hour
with one worker, two, and through a Dask scheduler with two. Phantoms; Linux, whose ``/proc`` says what a process holds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from BrainFusionLib.cohort import Entry, read_manifest, run_cohort
from BrainFusionLib.cohort.memory import bytes_needed
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.device import keep_freed_memory
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import write_text, write_volume
from BrainFusionLib.io.formats import voxel_count
from BrainFusionLib.io.tables import markdown_table
from BrainFusionLib.phantom import make_phantom
from BrainFusionLib.settings import RegistrationSettings, Settings
from tools.make_cohort import make_cohort

logger = logging.getLogger("benchmarks")

ROOT = Path(__file__).parents[1]
# Voxels of the CT and the MRI, i j k, over a head's box each.
SIZES = {
    "small": ((96, 112, 100), (96, 112, 100)),
    "usual": ((512, 512, 160), (256, 256, 180)),
    "large": ((512, 512, 400), (256, 256, 220)),
}
BOX_MM = (230.0, 230.0, 200.0)
SETTINGS = Settings(registration=RegistrationSettings.preset("fast"), device="cpu", threads=1)
# What a child process does: one case, and says its peak. (Not getrusage's, which begins with the parent's.)
ONE_CASE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks.cohort import SETTINGS
from BrainFusionLib.cohort import Entry
from BrainFusionLib.cohort.one_case import fuse_case
from BrainFusionLib.device import keep_freed_memory
keep_freed_memory()
ct, mri, folder = map(Path, sys.argv[1:])
row = fuse_case(Entry(0, "case", ct, mri), folder, SETTINGS)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({**asdict(row), "peak": 1024 * int(peak.split()[1])}))
"""


def write_pair(folder: Path, size: str) -> Entry:
    """Write the CT and the MRI of a phantom in one of `SIZES`; return their entry."""
    phantom = make_phantom(3)
    grids = []
    for counts in SIZES[size]:
        i, j, k = (length / n for length, n in zip(BOX_MM, counts, strict=True))
        x, y, z = (-length / 2 for length in BOX_MM)
        grids.append(Grid(counts, (i, j, k), (x, y, z), np.eye(3)))
    ct, mri = phantom.ct(grids[0]), phantom.mri("T1", grids[1])
    for volume, name in ((ct, "ct"), (mri, "mri")):
        write_volume(volume.with_array(np.rint(volume.array_kji)), folder / f"{name}_{size}.nii.gz")
    return Entry(0, size, folder / f"ct_{size}.nii.gz", folder / f"mri_{size}.nii.gz")


def peak_bytes(entry: Entry, folder: Path) -> float:
    """Return the peak memory of a process that fuses one case."""
    command = [sys.executable, "-c", ONE_CASE, str(entry.ct), str(entry.mri), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    told = json.loads(done.stdout.splitlines()[-1])
    if told["status"] != "done":
        raise BrainFusionError(told["error"])
    return float(told["peak"])


def held_over(cases: int, folder: Path, spacing_mm: float = 5.0) -> list[float]:
    """Return the memory that this process holds after each of so many cases, bytes."""
    keep_freed_memory()
    manifest = make_cohort(folder / "cases", cases=4, spacing_mm=spacing_mm)
    pairs = read_manifest(manifest)[0][:2]
    entries = [Entry(0, f"case{n}", pairs[n % 2].ct, pairs[n % 2].mri) for n in range(cases)]
    held: list[float] = []
    run_cohort(entries, folder / "out", SETTINGS, report=lambda *_: held.append(held_bytes()))
    return held


def held_bytes() -> float:
    """Return the memory that this process holds, bytes."""
    return float(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def throughput(folder: Path) -> list[tuple[str, float, float | None, list[Row]]]:
    """Return the seconds by the clock and by the CPU of the trial cohort with one worker, two, and two of Dask.

    Each computes on one thread, as the workers of a cohort do. The clock depends on what else the machine does; the CPU
    seconds do not, and tell how many times as fast so many workers are on cores of their own. Those of Dask's workers,
    which stay, are not known.
    """
    entries, _ = read_manifest(make_cohort(folder / "trial", spacing_mm=2.0))
    keep_freed_memory()
    found: list[tuple[str, float, float | None, list[Row]]] = []
    for name, workers in (("1", 1), ("2", 2)):
        began, used = time.monotonic(), cpu_seconds()
        rows = run_cohort(entries, folder / name, SETTINGS, workers=workers)
        found.append((name, time.monotonic() - began, cpu_seconds() - used, rows))
    # The start of Dask's workers, which stay, is not counted; that of a pool's is.
    with dask_cluster(workers=2) as (address, _):
        began = time.monotonic()
        rows = run_cohort(entries, folder / "dask", SETTINGS, scheduler=address)
        found.append(("Dask, 2", time.monotonic() - began, None, rows))
    return found


@contextmanager
def dask_cluster(workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Run a Dask scheduler and so many workers as docs/cohorts.md says; give the scheduler's address and the workers.

    Each is the leader of a process group of its own, so that a nanny can be ended together with its worker.
    """
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        # The scheduler chooses its port itself: one that is looked for here may be another program's by then.
        told = Path(folder, "scheduler.json")
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
        processes = [
            subprocess.Popen(
                [*command, "--scheduler-file", told, "--no-dashboard"],
                cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )
            for command in (dask, *[worker] * workers)
        ]  # fmt: skip
        try:
            address = _address_in(told, processes[0])
            with Client(address, timeout=60) as client:
                client.wait_for_workers(workers, timeout=60)
            yield address, processes[1:]
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _address_in(told: Path, scheduler: subprocess.Popen[bytes]) -> str:
    """Wait until a scheduler has written the file that names its address, and return that.

    Raises
    ------
    BrainFusionError
        It ended before, or takes longer than a minute.
    """
    end = time.monotonic() + 60
    while scheduler.poll() is None and time.monotonic() < end:
        with suppress(OSError, ValueError):  # it is not there yet, or half of it
            return str(json.loads(told.read_text(encoding="utf-8"))["address"])
        time.sleep(0.02)
    raise BrainFusionError("A Dask scheduler was to be started for the trial, but it gave no address. Try again.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200, metavar="N", help="in one process (default: 200)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("distributed").setLevel(logging.WARNING)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            text = _table(Path(temporary), options.cases)
        write_text(text, options.output / "table.md")
    except (BrainFusionError, OSError, subprocess.CalledProcessError) as error:
        logger.error("%s", error)
        return 2
    logger.info("%s", text)
    return 0


def _table(folder: Path, cases: int) -> str:
    lines = [
        "# Cohorts: memory and throughput",
        "",
        "`python -m benchmarks.cohort -o docs/cohorts`; phantoms, preset fast, one thread a case, on "
        f"{os.cpu_count()} shared cores.",
        "",
    ]
    sizes = []
    for size in SIZES:
        entry = write_pair(folder, size)
        peak = peak_bytes(entry, folder / size)
        million = [f"{voxel_count(path) / 1e6:.1f}" for path in (entry.ct, entry.mri)]
        sizes.append([size, *million, f"{peak / 1e9:.2f}", f"{bytes_needed(entry) / 1e9:.2f}"])
    columns = ["case", "CT voxels, million", "MRI voxels, million", "peak memory of its process, GB", "estimated, GB"]
    lines.append(markdown_table(columns, sizes))
    lines += ["", "Cases of 2 mm (96×112×100 voxels):", ""]
    speeds = []
    found = throughput(folder)
    for name, wall, used, rows in found:
        done = sum(row.status == "done" for row in rows)
        of_cpu = ["–"] * 3
        if used is not None:
            of_cpu = [f"{used / max(1, done):.2f}", f"{used / wall:.2f}", f"{int(name) * found[0][2] / used:.2f}"]  # type: ignore[operator]
        speeds.append([name, f"{wall:.1f}", f"{3600 * done / wall:.0f}", f"{found[0][1] / wall:.2f}", *of_cpu])
    columns = [
        "workers", "wall s", "cases an hour", "times as many", "CPU s a case", "cores kept busy",
        "times as many on cores of their own, by CPU s",
    ]  # fmt: skip
    lines.append(markdown_table(columns, speeds))
    held = np.array(held_over(cases, folder / "growth")) / 1e6
    middle = len(held) // 2
    lines += [
        "",
        f"One process over {cases} cases holds {held[min(9, middle)]:.0f} MB after 10, {held[middle]:.0f} MB after "
        f"{middle + 1} and {held[-1]:.0f} MB after the last; at most {held.max():.0f} MB.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
