"""The worker process: fuses what it is asked to on stdin, and reports on stdout, a line of JSON each (`jobs`).

Started as ``PythonSlicer worker.py FOLDER_OF_BrainFusionLib``. It is a process of its own because Slicer's window,
while it waits for events, keeps Python's lock, and a thread gets a hundredth of its speed; and because a process can be
ended at any moment, and takes no crash into Slicer. It ends by itself when its stdin is closed: when Slicer is gone,
also amid a job.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from BrainFusionLib.case import Result
    from BrainFusionSlicer.jobs import ExportMessage, JobMessage, Said, Shapes


def main(library_folder: str) -> int:
    """Serve jobs until stdin ends."""
    faulthandler.enable()  # a crash leaves words on stderr; being killed, which means too little memory, leaves none
    # Whatever a library prints must not get between the messages: from here on, stdout is stderr.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # In the place of this file's own folder, whose names are too common to be found by everybody.
    sys.path[:1] = [library_folder, str(Path(__file__).resolve().parent.parent)]
    from BrainFusionLib.device import give_memory_back, keep_freed_memory, multiply_on_one_thread

    multiply_on_one_thread()  # before numpy is loaded, which the imports below do
    from BrainFusionLib import kept
    from BrainFusionSlicer import jobs, torch_setup

    def say(said: Said, folder: Path | None = None) -> None:
        channel.write(jobs.said_to_line(said, folder))
        channel.flush()

    keep_freed_memory()
    kept.keep()
    say(jobs.Ready(os.getpid()))
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    at_work: list[Path] = []
    threading.Thread(target=_listen, args=(lines, at_work), daemon=True).start()
    # Takes a second: done while the first job's voxels are still being written.
    warm_up()
    while True:
        line = lines.get()
        try:
            job = jobs.job_from_line(line)
            at_work[:] = [job.folder]
            if isinstance(job, jobs.ExportMessage):
                made = exported(job, say)
                say(jobs.Found(made), job.folder) if isinstance(made, jobs.Shapes) else say(jobs.Exported(made))
            else:
                torch_setup.require_torch(job.request.settings.device)
                say(jobs.Done(work(job, say)), job.folder)
        except BaseException as error:  # the window has to hear of it, whatever it is
            traceback.print_exc()
            say(jobs.failure_of(error))
        at_work.clear()
        give_memory_back()


def warm_up() -> None:
    """Load what every job needs; torch, which takes seconds, only where there may be a graphics card."""
    from BrainFusionLib.device import pick_device

    for name in ("case.run", "fusion.rim", "registration"):
        importlib.import_module(f"BrainFusionLib.{name}")
    pick_device("auto")


def _listen(lines: queue.SimpleQueue[str], at_work: list[Path]) -> None:
    """Hand on the lines of stdin. At its end Slicer is gone, however it ended: stop at once, amid a job, too."""
    for line in sys.stdin:
        lines.put(line)
    for folder in at_work:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def exported(job: ExportMessage, say: Callable[[Said], None]) -> tuple[str, ...] | Shapes:
    """Do one export, or find what is shown in 3D, and report how far it is."""
    from BrainFusionSlicer.exporting import ExportInputs, export
    from BrainFusionSlicer.jobs import Stage, read_raw

    return export(job.order, ExportInputs(**read_raw(job)), lambda stage, done: say(Stage(stage, done)))


def work(job: JobMessage, say: Callable[[Said], None]) -> Result:
    """Do one job, and report how far it is."""
    from BrainFusionLib.case import run
    from BrainFusionSlicer.jobs import Notice, Stage, read_inputs

    request = job.request
    notice = "" if request.settings.device != "auto" else why_not_cuda()
    if notice:
        request = replace(request, settings=replace(request.settings, device="cpu"))
        say(Notice(notice))
    result = run(request, read_inputs(job), progress=lambda stage, fraction: say(Stage(stage, fraction)))
    return replace(result, notes=(*result.notes, notice)) if notice else result


def why_not_cuda() -> str:
    """Try to compute on the graphics card, if there is one; return why it does not work, or nothing."""
    from BrainFusionLib.device import pick_device, require_torch

    try:
        if pick_device("auto") == "cuda":
            torch = require_torch()
            torch.nn.functional.conv2d(
                torch.ones(1, 1, 8, 8, device="cuda"), torch.ones(1, 1, 3, 3, device="cuda")
            ).sum().item()
    except Exception as error:  # drivers fail in many ways, and none of them shall stop the work
        first = str(error).strip().partition("\n")[0]
        return f"the graphics card cannot be used ({first}); the CPU was used instead, which is slower"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
