"""The window stays alive while a full-size head is fused."""

import time

import numpy as np
import pytest
import slicer
from PySide6 import QtCore
from test_panel import wait

from BrainFusionLib.geometry import Grid
from BrainFusionLib.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

LONGEST_MS = 100


def enlarged(volume, shape_kji):
    """Return a volume of that many voxels that shows the same head."""
    array = volume.array_kji
    for axis, size in enumerate(shape_kji):
        array = np.take(array, np.arange(size) * array.shape[axis] // size, axis=axis)
    spacing = [
        s * n / m for s, n, m in zip(volume.grid.spacing_ijk_mm, volume.grid.size_ijk, shape_kji[::-1], strict=True)
    ]
    return Volume(array, Grid(shape_kji[::-1], tuple(spacing), volume.grid.origin_lps_mm, volume.grid.direction))


def test_the_main_thread_is_never_blocked_for_long(panel, application, module, phantom, capsys):
    nodes = []
    for name, volume, shape in (("CT", phantom.ct, (200, 512, 512)), ("MRI", phantom.mri, (220, 256, 256))):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        module.bridge.node_from_volume(enlarged(volume, shape), node)
        nodes.append(node)
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    panel.ui.startComboBox.setCurrentIndex(2)  # as they lie: what is measured is the window, not the registration
    panel.ui.ruleComboBox.setCurrentIndex(2)

    # In CPU time of this thread; on a shared machine the core itself is slow at times, so the best of three counts.
    for _ in range(3):
        longest = longest_gap_ms(panel, application, capsys)
        assert panel.ui.statusLabel.text().startswith("Fused in")
        if longest < LONGEST_MS:
            break
    assert longest < LONGEST_MS


def longest_gap_ms(panel, application, capsys):
    """Fuse, and return the longest time that the main thread was kept from its events, CPU ms."""
    gaps, own, last = [], [], [time.perf_counter(), time.thread_time()]
    heartbeat = QtCore.QTimer()

    def beat():
        now, used = time.perf_counter(), time.thread_time()
        gaps.append(now - last[0])
        own.append(used - last[1])
        last[:] = now, used

    heartbeat.timeout.connect(beat)
    heartbeat.start(0)
    application.processEvents()
    beat()
    gaps.clear()
    own.clear()
    began, cpu = time.perf_counter(), time.thread_time()
    panel.ui.fuseButton.click()
    clicked = time.perf_counter() - began
    wait(panel, application, lambda: not panel.logic.running)
    application.processEvents()
    heartbeat.stop()
    with capsys.disabled():
        print(
            f"\nfull-size head: click {1000 * clicked:.0f} ms, longest gap {1000 * max(gaps):.0f} ms "
            f"({1000 * max(own):.0f} CPU ms), main thread "
            f"{time.thread_time() - cpu:.2f} CPU s of {time.perf_counter() - began:.1f} s"
        )
    return 1000 * max(own)
