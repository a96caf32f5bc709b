"""Where the seconds of ``brainfusion fuse`` go, in a Python of its own: import, read, register, ..., report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_pair

# A step, and the function that does it, where it is called from.
STEPS = {
    "read": ("BrainFusionLib.cli.pair", "read_pair"),
    "put values right": ("BrainFusionLib.case.run", "put_right"),
    "check, load the network": ("BrainFusionLib.case.run", "_ready"),
    "register": ("BrainFusionLib.case.run", "_posed"),
    "inside of the skull, beside it": ("BrainFusionLib.case.run", "inside_skull"),
    "resample": ("BrainFusionLib.case.run", "_resampled"),
    "fuse": ("BrainFusionLib.case.run", "_fused"),
    "evidence, beside it": ("BrainFusionLib.case.run", "local_evidence"),
    "wait for the evidence": ("BrainFusionLib.case.run", "_checked"),
    "write volumes": ("BrainFusionLib.folder", "write_volume"),
    "report": ("BrainFusionLib.folder", "write_report"),
}
# Seconds by the clock, and of the thread that does the step; threads that it starts itself are in the total only.
CHILD = """
import time
began = time.perf_counter()
import functools, importlib, json, sys
from BrainFusionLib.device import multiply_on_one_thread
multiply_on_one_thread()  # as the command does before anything else
steps, arguments = json.loads(sys.argv[1])
found = {}
def timed(name, function):
    @functools.wraps(function)
    def wrapper(*given, **options):
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return function(*given, **options)
        finally:
            before = found.get(name, (0.0, 0.0))
            found[name] = (before[0] + time.perf_counter() - wall, before[1] + time.thread_time() - cpu)
    return wrapper
for name, (module, function) in steps.items():
    home = importlib.import_module(module)
    setattr(home, function, timed(name, getattr(home, function)))
from BrainFusionLib.cli import main
found["import"] = (time.perf_counter() - began, time.process_time())
code = main(arguments)
print(json.dumps(code))
found["all"] = (time.perf_counter() - began, time.process_time())
# Not getrusage: it begins with the peak of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([found, int(peak.split()[1]) / 1024]))
"""


def stage_rows(pair: tuple[Path, Path] | None = None) -> list[tuple[str, str, str]]:
    """Fuse a pair of files, or a phantom of 1 mm, and return rows of step, seconds and CPU seconds of its thread.

    Raises
    ------
    RuntimeError
        The pair was not fused.
    """
    with tempfile.TemporaryDirectory() as folder:
        ct, mri = pair or _phantom(Path(folder))
        arguments = ["fuse", str(ct), str(mri), "-o", str(Path(folder, "out"))]
        command = [sys.executable, "-c", CHILD, json.dumps([STEPS, arguments])]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0 or done.stdout.splitlines()[-2:-1] != ["0"]:
            raise RuntimeError(f"{ct} and {mri} were not fused:\n{done.stdout}{done.stderr}")
        found, memory_mb = json.loads(done.stdout.splitlines()[-1])
    order = ["import", *STEPS, "all"]
    rows = [(name, f"{found[name][0]:.2f}", f"{found[name][1]:.2f}") for name in order if name in found]
    return [*rows, ("peak of memory, MB", f"{memory_mb:.0f}", "")]


def _phantom(folder: Path) -> tuple[Path, Path]:
    pair = make_pair(spacing_mm=1.0)
    paths = folder / "ct.nii.gz", folder / "mri.nii.gz"
    for volume, path in zip((pair.ct, pair.mri), paths, strict=True):
        write_volume(volume, path)
    return paths
