"""One pair inside Slicer, without a window.

``Slicer --no-splash --no-main-window --python-script fuse_in_slicer.py CT MRI FOLDER``, where the module's folder is
among Slicer's additional module paths. Slicer goes on running after an exception: every way out is an exit code.
"""

import sys
import traceback
from pathlib import Path


def main(ct: str, mri: str, folder: str) -> int:
    """Fuse two files, save the results, and return the exit code."""
    import slicer.util

    from BrainFusion import BrainFusionLogic
    from BrainFusionLib.errors import BrainFusionError

    out = Path(folder)
    fused, transform = out / "fused.nrrd", out / "CT to MRI.tfm"
    for path in (fused, transform):  # one of them may be an input
        if path.exists():
            print(f"{path} is there already. Name another folder.", file=sys.stderr)
            return 2
    out.mkdir(parents=True, exist_ok=True)
    logic = BrainFusionLogic()
    try:
        outcome = logic.process(slicer.util.loadVolume(ct), slicer.util.loadVolume(mri))
    except BrainFusionError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        logic.close()
    for node, path in ((outcome.fusedVolume, fused), (outcome.transformNode, transform)):
        if not slicer.util.saveNode(node, str(path)):  # raises nothing
            print(f"{path} was not written.", file=sys.stderr)
            return 1
    print(outcome.result.verdict.sentence)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Usage: Slicer --no-splash --no-main-window --python-script fuse_in_slicer.py CT MRI FOLDER")
    try:
        code = main(*sys.argv[1:4])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.exit(code)
