"""Makes the sample: ``PythonSlicer sample_maker.py FOLDER_OF_BrainFusionLib FOLDER``.

Says on stdout its process id, and then how far it is.

A process of its own, so that the window stays alive; it ends when its stdin is closed: when Slicer is gone.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CT, MRI = "ct.mha", "mri.mha"
SPACING_MM = 1.5


def make(folder: Path) -> Iterator[float]:
    """Write a CT and a T1 of the phantom, each in a pose of its own; yield how far it is, 0 to 1."""
    from BrainFusionLib.io import write_volume
    from BrainFusionLib.phantom import make_sample

    yield 0.1
    pair = make_sample(SPACING_MM)
    yield 0.7
    for name, volume in ((CT, pair.ct), (MRI, pair.mri)):
        write_volume(volume, folder / name)
        yield 0.8 if name == CT else 0.9


def main(library_folder: str, folder: str) -> int:
    """Make the sample."""
    sys.path[:1] = [library_folder]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for said in itertools.chain([os.getpid()], make(Path(folder))):
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
