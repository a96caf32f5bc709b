"""Set-up that all tests share, and which of them are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

try:
    import torch
except ImportError:  # the tests in mrml/ run without torch, too
    torch = None  # type: ignore[assignment]

TESTING = Path(__file__).parent

# Left out by `dev.py test --quick`: the files that take longest, with the seconds that they took on one core (revision
# 1d2534d, `--durations=0`). A single slow test of another file has the mark itself.
SLOW = {
    "panel/test_panel.py": 19,
    "panel/test_pictures.py": 12,
    "panel/test_sign.py": 10,
    "test_benchmark_fidelity.py": 21,
    "test_benchmark_fusion.py": 20,
    "test_case.py": 57,
    "test_cli.py": 49,
    "test_cohort.py": 80,
    "test_cohort_memory.py": 169,
    "test_dicom_writing.py": 73,
    "test_local_errors.py": 14,
    "test_registration.py": 56,
    "test_registration_hard.py": 26,
    "test_review.py": 7,
    "test_slicer_python.py": 20,
    "test_training.py": 92,
    "test_training_tools.py": 11,
    "test_wheel.py": 35,
    "test_worker.py": 35,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the slow files."""
    for item in items:
        if item.path.is_relative_to(TESTING) and item.path.relative_to(TESTING).as_posix() in SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True, scope="session")
def _one_thread_a_process() -> None:
    """Let xdist's processes share the cores: on two cores, threads of torch double the CPU time of the suite."""
    if torch is not None:
        torch.set_num_threads(1)
