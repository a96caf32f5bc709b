"""The memory of a cohort's workers: as much as is reckoned with, however many cases they do."""

import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("psutil", reason="psutil is not installed: pip install 'brainfusion[cohort]'")

from benchmarks.cohort import held_over, peak_bytes, write_pair
from BrainFusionLib.cohort.memory import bytes_needed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured with /proc")


def test_a_large_case_needs_no_more_than_is_reckoned_with(tmp_path):
    """512×512×400 and 256×256×220 voxels."""
    entry = write_pair(tmp_path, "large")
    peak = peak_bytes(entry, tmp_path / "out")
    assert 0.7 * bytes_needed(entry) < peak < bytes_needed(entry) < 1.8e9


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path):
    held = np.array(held_over(24, tmp_path, spacing_mm=8.0)) / 1e6
    # The first cases load libraries, and fill the allocator's pools.
    assert held[-6:].mean() - held[6:12].mean() < 8
