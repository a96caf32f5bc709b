"""A CT and an MRI of the phantom, in an unknown pose: made on this machine, without a network.

The Sample Data module lists them, and its button calls `on_sample_data_button`. The panel, the self-test and the
tutorial call `load`, because the functions of Sample Data that load by name call no function of others.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _

import BrainFusionLib
from BrainFusionLib.io import read_volume
from BrainFusionLib.volume import Volume
from BrainFusionSlicer import bridge
from BrainFusionSlicer.sample_maker import CT, MRI, make
from BrainFusionSlicer.worker_process import WorkerProcess

NAME = "BrainFusion: CT and MRI in an unknown pose"
CATEGORY = "BrainFusion"
THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "BrainFusionSample.png"
NODES = {CT: "Sample CT", MRI: "Sample MRI"}
POLL_S = 0.03
Told = Callable[[float], bool]


def register_when_started() -> None:
    """Have the sample listed when all modules are loaded, Sample Data among them."""
    slicer.app.connect("startupCompleted()", register)


def register() -> None:
    """List the sample in Sample Data, once."""
    import SampleData

    # Nothing is downloaded: empty lists, because Sample Data counts what they hold.
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        uris=[],
        fileNames=[],
        nodeNames=[],
        thumbnailFileName=str(THUMBNAIL),
        customDownloader=on_sample_data_button,
    )


def on_sample_data_button(source: object) -> None:
    """Load the sample, as the button of Sample Data asks; an error is shown."""
    with slicer.util.tryWithErrorDisplay(_("The sample could not be made.")):
        load()


def load() -> tuple[Any, Any] | None:
    """Make the sample in a process of its own, with progress, and load it.

    Returns
    -------
    tuple or None
        The nodes of CT and MRI; nothing if the user cancelled, or while another one is being made.

    Raises
    ------
    BrainFusionError
        It could not be made or read; the scene is as it was.
    """
    if _Making.now:
        return None
    _Making.now = True
    try:
        with (
            # Windows keeps files that are still looked at.
            tempfile.TemporaryDirectory(prefix="brainfusion-sample-", ignore_cleanup_errors=True) as folder,
            _progress() as told,
        ):
            if not _made(Path(folder), told):
                return None
            volumes = {name: read_volume(Path(folder) / name) for name in (CT, MRI)}
        ct, mri = (_node_of(volumes[name], NODES[name]) for name in (CT, MRI))
        slicer.util.setSliceViewerLayers(background=mri, fit=True)
        return ct, mri
    finally:
        _Making.now = False


class _Making:
    """Whether one is being made: the window stays alive, and the button could be clicked again."""

    now = False


def _node_of(volume: Volume, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name))
    bridge.node_from_volume(volume, node)
    node.GetDisplayNode().SetAutoWindowLevel(True)
    return node


@contextlib.contextmanager
def _progress() -> Iterator[Told]:
    """Give a function that shows how far it is, and returns whether to go on."""
    if slicer.util.mainWindow() is None:
        yield lambda share: True
        return
    dialog = slicer.util.createProgressDialog(
        labelText=_("Making a CT and an MRI of a phantom ..."), windowTitle=_("BrainFusion"), autoClose=False
    )

    def told(share: float) -> bool:
        dialog.value = int(100 * share)
        slicer.app.processEvents()
        return not dialog.wasCanceled

    try:
        yield told
    finally:
        dialog.close()


def _made(folder: Path, told: Told) -> bool:
    """Write both volumes into a folder; return whether they are there: not if the user cancelled."""
    python = shutil.which("PythonSlicer")
    if slicer.util.mainWindow() is None or python is None:
        return all(told(share) for share in make(folder))
    library = Path(BrainFusionLib.__file__).resolve().parents[1]
    maker = WorkerProcess([python, str(Path(__file__).with_name("sample_maker.py")), str(library), str(folder)])
    try:
        done = _followed(maker, told)
        if done and maker.popen.returncode:
            raise maker.how_it_ended()
    finally:
        maker.end()
    return done


def _followed(maker: WorkerProcess, told: Told) -> bool:
    """Show how far a process is until it ends; return whether to go on."""
    share = 0.0
    while not maker.has_ended():
        for line in maker.lines():
            with contextlib.suppress(ValueError):
                if maker.python_pid is None:
                    maker.python_pid = int(line)
                else:
                    share = float(line)
        if not told(share):
            return False
        time.sleep(POLL_S)
    return True
