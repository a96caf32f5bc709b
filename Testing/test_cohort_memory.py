"""The memory of a cohort's workers: within the estimate, however many cases they do."""

import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("psutil", reason="psutil is not installed: pip install 'brainfusion[cohort]'")

from benchmarks.cohort import SIZES, held_over, peak_bytes, write_pair
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.memory import (
    BASE_BYTES,
    BYTES_PER_CT_VOXEL,
    BYTES_PER_MRI_VOXEL,
    LARGE_CT,
    LARGE_MRI,
    bytes_needed,
    workers_that_fit,
)
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import write_volume
from BrainFusionLib.volume import Volume

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured with /proc")


def test_large_case_stays_within_the_estimate(tmp_path, monkeypatch):
    """A quarter of a large case: `python -m benchmarks.cohort` measures a whole one."""
    monkeypatch.setitem(SIZES, "quarter", ((256, 512, 200), (256, 128, 110)))
    entry = write_pair(tmp_path, "quarter")
    peak = peak_bytes(entry, tmp_path / "out")
    assert 0.6 * bytes_needed(entry) < peak < bytes_needed(entry)


def test_a_large_case_is_estimated_below_two_gigabytes():
    """512×512×400 and 256×256×220 voxels."""
    assert BASE_BYTES + LARGE_CT * BYTES_PER_CT_VOXEL + LARGE_MRI * BYTES_PER_MRI_VOXEL < 1.8e9


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path):
    held = np.array(held_over(12, tmp_path, spacing_mm=8.0)) / 1e6
    # The first cases load libraries, and fill the allocator's pools.
    assert held[-4:].mean() - held[4:8].mean() < 7


def test_an_unreadable_file_counts_as_a_large_volume(tmp_path):
    write_volume(Volume(np.zeros((4, 5, 6), np.float32), Grid((6, 5, 4))), tmp_path / "good.nii")
    (tmp_path / "damaged.nii").write_text("hello")
    good, damaged, gone = (tmp_path / name for name in ("good.nii", "damaged.nii", "gone.nii"))
    small = BASE_BYTES + 120 * (BYTES_PER_CT_VOXEL + BYTES_PER_MRI_VOXEL)
    assert bytes_needed(Entry(0, "a", good, good)) == small
    assert bytes_needed(Entry(0, "a", damaged, gone)) == (
        BASE_BYTES + LARGE_CT * BYTES_PER_CT_VOXEL + LARGE_MRI * BYTES_PER_MRI_VOXEL
    )
    many, needed = workers_that_fit([Entry(0, "a", good, good), Entry(0, "b", good, damaged)])
    assert needed == BASE_BYTES + 120 * BYTES_PER_CT_VOXEL + LARGE_MRI * BYTES_PER_MRI_VOXEL
    assert many >= 1
