"""How long the window and Cancel are kept waiting: ``python -m benchmarks.responsiveness``.

Fuses a full-size head (CT 512x512x200, MRI 256x256x220) in the real panel, without a screen and with a real worker
process, and prints the longest time that the main thread was kept from its events; then the longest time between two
checks of Cancel in a registration. CPU times of the thread itself: on a shared machine wall times say little.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.tables import markdown_table
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.registration import register
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.volume import Volume

logger = logging.getLogger("benchmarks")

WINDOW = Path(__file__).resolve().parents[1] / "Testing" / "panel"
CT_KJI, MRI_KJI = (200, 512, 512), (220, 256, 256)
SKIP_REGISTRATION, RULE = "Skip", METHODS["bone_over_mri"].label  # what is measured is the window, not the work


def enlarged(volume: Volume, shape_kji: tuple[int, int, int]) -> Volume:
    """Return a volume of that many voxels that shows the same head."""
    array, grid = volume.array_kji, volume.grid
    for axis, size in enumerate(shape_kji):
        array = np.take(array, np.arange(size) * array.shape[axis] // size, axis=axis)
    i, j, k = (s * n / m for s, n, m in zip(grid.spacing_ijk_mm, grid.size_ijk, shape_kji[::-1], strict=True))
    size_ijk = (shape_kji[2], shape_kji[1], shape_kji[0])
    return Volume(array, Grid(size_ijk, (i, j, k), grid.origin_lps_mm, grid.direction))


def window_rows(rounds: int) -> list[tuple[str, str]]:
    """Fuse in the panel so many times, and return what was measured.

    Raises
    ------
    ImportError
        Slicer's classes or PySide6 are not installed.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    import slicer
    from PySide6 import QtWidgets

    sys.path.append(str(WINDOW))
    import window

    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    pair = make_pair(spacing_mm=4.0, rotation_deg=10.0, translation_mm=8.0)
    with window.loaded_module(application, []) as module, window.opened_panel(module) as panel:
        nodes = []
        for name, volume, shape in (("CT", pair.ct, CT_KJI), ("MRI", pair.mri, MRI_KJI)):
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            module.bridge.node_from_volume(enlarged(volume, shape), node)
            nodes.append(node)
        panel.ui.ctSelector.setCurrentNode(nodes[0])
        panel.ui.mriSelector.setCurrentNode(nodes[1])
        panel.ui.startComboBox.setCurrentIndex(panel.ui.startComboBox.findText(SKIP_REGISTRATION))
        panel.ui.ruleComboBox.setCurrentIndex(panel.ui.ruleComboBox.findText(RULE))
        rows = [_one_round(number, panel, window.wait) for number in range(1, rounds + 1)]
        return [*rows, *_views(panel)]


def _views(panel: Any) -> list[tuple[str, str]]:
    """Click through the views of the review, and return how long the longest step of each took."""
    ui, rows = panel.ui, []
    for button in (ui.overlayButton, ui.outlineButton, ui.checkerboardButton, ui.fusedCheckBox):
        steps = [_timed(button.click)]
        while panel._showing is not None:  # the timer does these, with events between them
            steps.append(_timed(panel.showNext))
        cpu, wall = (1000 * max(column) for column in zip(*steps, strict=True))
        rows.append((f"view: {button.text}, {len(steps)} steps", f"{cpu:.0f} CPU ms, {wall:.0f} ms"))
    return rows


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU and wall seconds that a call took on this thread."""
    began, began_cpu = time.perf_counter(), time.thread_time()
    call()
    return time.thread_time() - began_cpu, time.perf_counter() - began


def _one_round(number: int, panel: Any, wait: Any) -> tuple[str, str]:
    from PySide6 import QtCore

    gaps: list[tuple[float, float]] = []
    last = [time.thread_time(), time.perf_counter()]

    def beat() -> None:
        now = [time.thread_time(), time.perf_counter()]
        gaps.append((now[0] - last[0], now[1] - last[1]))
        last[:] = now

    heartbeat = QtCore.QTimer()
    heartbeat.timeout.connect(beat)
    heartbeat.start(0)
    beat()
    gaps.clear()
    panel.ui.fuseButton.click()
    clicked = time.thread_time() - last[0]
    wait(panel, lambda: not panel.logic.running)
    heartbeat.stop()
    longest_cpu, longest = (1000 * max(column) for column in zip(*gaps, strict=True))
    return (
        f"window, run {number}: longest time without events",
        f"{longest_cpu:.0f} CPU ms, {longest:.0f} ms; the click {1000 * clicked:.0f} CPU ms",
    )


def cancel_row() -> tuple[str, str]:
    """Register with the preset thorough, and return how long Cancel would have waited at most."""
    pair = make_pair(spacing_mm=2.0, rotation_deg=10.0, translation_mm=8.0)
    asked: list[float] = []

    def cancel() -> bool:
        asked.append(time.process_time())
        return False

    register(pair.ct, pair.mri, RegistrationSettings.preset("thorough"), cancel=cancel)
    return (
        f"registration: longest time between two of {len(asked)} checks of Cancel",
        f"{1000 * np.diff(asked).max():.0f} CPU ms",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.responsiveness", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fusions in the panel (3)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        rows = [*window_rows(arguments.rounds), cancel_row()]
    except ImportError as error:
        logger.error("%s. Run: python3 dev.py setup", error)
        return 2
    logger.info("%s", markdown_table(["measured", "value"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
