"""The report's viewer: three linked planes to look through, in the page itself.

A small canvas viewer of our own (`viewer.js`, 6 kB), not NiiVue: that is 1.5 MB minified and needs WebGL 2, which a
mail attachment opened on a hospital's machine may not have; all that is shown here are grey values in three planes.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.intensity import CT_KNOTS_UNIT, ct_to_unit
from BrainFusionLib.report.pictures import EDGE_RGB, Scene
from BrainFusionLib.volume import VoxelArray

SCRIPT = Path(__file__).with_name("viewer.js")
# Voxels of the viewer are not smaller than this: a head of 256x256x220 at 1 mm makes a page of 5 MB.
FINEST_MM = 1.5
# The greatest unit value that the 8 bits show: the end of dense bone.
WHITE_UNIT = CT_KNOTS_UNIT[-2]

_SECTION = """<section class="screen" id="viewer"><h2>Look through it
<span class="soft">drag the cross, scroll with the wheel; or with the keyboard: tab, arrows, page up and down</span>
</h2>
<div class="views">
<figure><canvas id="view-axial" tabindex="0" aria-label="axial plane"></canvas></figure>
<figure><canvas id="view-coronal" tabindex="0" aria-label="coronal plane"></canvas></figure>
<figure><canvas id="view-sagittal" tabindex="0" aria-label="sagittal plane"></canvas></figure>
</div>
<div class="knobs">
<span><input type="checkbox" name="shown" id="knob-shown" checked><label for="knob-shown">fused</label></span>
<span><label for="knob-opacity">MRI</label><input type="range" name="opacity" id="knob-opacity" value="50"> CT</span>
<span><label for="knob-brightness">level</label>
<input type="range" name="brightness" id="knob-brightness" max="255" value="127"></span>
<span><label for="knob-contrast">window</label>
<input type="range" name="contrast" id="knob-contrast" min="8" max="510" value="255"></span>
<span><input type="checkbox" name="cross" id="knob-cross" checked><label for="knob-cross">cross</label></span>
<span><input type="checkbox" name="local" id="knob-local"><label for="knob-local">local errors, mm</label></span>
<button type="button">most suspicious place</button>
</div>
<p class="soft"><output></output></p>
<noscript><p>Looking through the volumes needs JavaScript; the pictures above do not.</p></noscript>
</section>
<script type="application/json" id="viewer-data">$data</script>
<script>$script</script>"""


def viewer_section(scene: Scene, local: Mapping[str, Any]) -> str:
    """Return the viewer as HTML: its controls, its script, and the volumes.

    Parameters
    ----------
    scene
        The volumes, turned to the anatomical frame.
    local
        `LocalErrors.to_dict`, or empty.
    """
    step = max(FINEST_MM, min(scene.spacing_spl_mm))
    places = [
        _places(first, last, size, step)
        for (first, last), size in zip(scene.box_spl, scene.spacing_spl_mm, strict=True)
    ]
    low, high = scene.mri_range
    mri, fused = (
        (array[np.ix_(*places)] - np.float32(low)) / np.float32(high - low)
        for array in (scene.mri_spl, scene.fused_spl)
    )
    ct = ct_to_unit(scene.ct_spl[np.ix_(*places)])
    points = np.asarray(local.get("points_lps_mm") or np.empty((0, 3)), dtype=np.float64).reshape(-1, 3)
    lengths = np.linalg.norm(np.asarray(local.get("shifts_mm") or np.empty((0, 3))).reshape(-1, 3), axis=1)
    voxels = _voxels_of(scene, points, step)
    worst = local.get("worst")
    told = {
        "size": list(mri.shape),
        "step_mm": step,
        "centre": [
            int(np.abs(where - middle).argmin()) for where, middle in zip(places, scene.centre_spl, strict=True)
        ],
        "edge": f"rgb{EDGE_RGB}",
        "words": {"mri": "MRI", "ct": "CT", "fused": "fused"},
        "local": [
            [voxel, round(float(length), 1)] for voxel, length in zip(voxels.round(1).tolist(), lengths, strict=True)
        ],
        "local_mm": local.get("spacing_mm") or 1.0,
        "worst": _voxels_of(scene, np.asarray([worst["point_lps_mm"]]), step)[0].round(1).tolist() if worst else None,
        "mri": _packed(mri),
        "ct": _packed(ct),
        "fused": _packed(fused),
    }
    return _SECTION.replace("$script", SCRIPT.read_text(encoding="utf-8")).replace("$data", json.dumps(told))


def _places(first: int, last: int, size_mm: float, step_mm: float) -> npt.NDArray[np.intp]:
    """Return which voxels between two the viewer shows: every `step_mm`, the nearest."""
    count = max(1, int((last - first) * size_mm / step_mm))
    places = first + (np.arange(count) + 0.5) * step_mm / size_mm
    return np.minimum(places.astype(np.intp), last - 1)


def _voxels_of(scene: Scene, points_lps_mm: npt.NDArray[np.float64], step_mm: float) -> npt.NDArray[np.float64]:
    """Return where points are in the viewer's voxels (slice, row, column)."""
    spl = scene.spl_of_lps(points_lps_mm)
    firsts = np.array([first for first, _ in scene.box_spl])
    voxels: npt.NDArray[np.float64] = (spl + 0.5 - firsts) * np.asarray(scene.spacing_spl_mm) / step_mm - 0.5
    return voxels


def _packed(unit: VoxelArray) -> str:
    """Return values on the unit scale as 8 bits, compressed, as text."""
    grey = np.clip(np.rint(unit * np.float32(255 / WHITE_UNIT)), 0, 255).astype(np.uint8)
    return base64.b64encode(zlib.compress(grey.tobytes(), 6)).decode("ascii")
