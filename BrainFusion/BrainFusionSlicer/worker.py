"""The worker process: fuses what it is told on stdin, and says how far it is on stdout, a line of JSON each.

Started as ``PythonSlicer worker.py FOLDER_OF_BrainFusionLib``. It is a process of its own because Slicer's window,
while it waits for events, keeps Python's lock, and a thread gets a hundredth of its speed; and because a process can be
ended at any moment, and takes no crash into Slicer. It ends by itself when its stdin is closed: when Slicer is gone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

# The same as pyproject.toml asks for.
LEAST_TORCH = (2, 4)


def main(library_folder: str) -> int:
    """Serve jobs until stdin ends; return the exit code."""
    # Whatever a library prints must not get between the messages: from here on, stdout is stderr.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # In the place of this file's own folder, whose names are too common to be found by everybody.
    sys.path[:1] = [library_folder, str(Path(__file__).resolve().parent.parent)]

    def say(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    from BrainFusionLib.device import give_memory_back, keep_freed_memory

    keep_freed_memory()
    say(ready=True)
    # Takes seconds: done while the first job's voxels are still being written.
    if importlib.util.find_spec("torch") is not None:
        import torch  # noqa: F401
    for line in sys.stdin:
        try:
            say(result=fuse(json.loads(line), say))
        except BaseException as error:  # the window has to hear of it, whatever it is
            from BrainFusionSlicer.jobs import error_to_plain

            traceback.print_exc()
            say(error=error_to_plain(error))
        give_memory_back()
    return 0


def fuse(message: dict[str, Any], say: Any) -> dict[str, Any]:
    """Do one job and return the message that describes its result."""
    check_torch()
    from BrainFusionLib.case.run import fuse
    from BrainFusionSlicer.jobs import read_job, with_device, write_result

    volumes, settings, arguments = read_job(message)
    notice = "" if settings.device != "auto" else why_not_cuda()
    if notice:
        settings = with_device(settings, "cpu")
        say(notice=notice)
    result = fuse(
        volumes["ct"],
        volumes["mri"],
        settings,
        progress=lambda stage, fraction: say(stage=stage, fraction=fraction),
        **arguments,
    )
    if notice:
        result.details["notes"].append(notice)
    return write_result(result, Path(message["folder"]))


def check_torch() -> None:
    """Refuse to work without torch, or with one that is too old.

    Raises
    ------
    MissingDependencyError
        It is so; the message says what to do.
    """
    from BrainFusionLib.errors import MissingDependencyError

    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "PyTorch is needed and is not installed. Install the PyTorch extension (Extensions Manager), restart "
            "Slicer, open the module PyTorch Utils, click Install PyTorch, and try again."
        )
    import torch

    version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        raise MissingDependencyError(
            f"PyTorch {torch.__version__} is installed, and {'.'.join(map(str, LEAST_TORCH))} or newer is needed. Open "
            "the module PyTorch Utils, click Uninstall PyTorch, restart Slicer, and click Install PyTorch."
        )


def why_not_cuda() -> str:
    """Try to compute on the graphics card, if there is one; say in words why it does not work, or nothing."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.nn.functional.conv2d(
                torch.ones(1, 1, 8, 8, device="cuda"), torch.ones(1, 1, 3, 3, device="cuda")
            ).sum().item()
    except Exception as error:  # drivers fail in many ways, and none of them shall stop the work
        first = str(error).strip().partition("\n")[0]
        return f"the graphics card cannot be used ({first}); the CPU does the work, more slowly"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
