"""Set-up that all tests share, and which of them are slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

try:
    import torch
except ImportError:  # the tests in mrml/ run without torch, too
    torch = None  # type: ignore[assignment]

try:  # the same examples at every run, and no clock: a gate that is red by chance or load tells nobody what broke
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    settings.register_profile("gate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("gate")

TESTING = Path(__file__).parent
HERE = TESTING.parent / "BrainFusionLib"
LIBRARY = find_spec("BrainFusionLib")
# An environment that another checkout was installed into finds that one's library first, whatever the path says: all
# tests of this one would pass without it. (The tests of the wheel are a copy without a library beside it.)
if HERE.is_dir() and (LIBRARY is None or not HERE.samefile(Path(LIBRARY.origin or "/").parent)):
    raise pytest.UsageError(
        f"these tests would import BrainFusionLib from {LIBRARY and LIBRARY.origin}, not from {TESTING.parent}. "
        "Run `python3 dev.py test` here: it makes an environment for this checkout."
    )

# Left out by `dev.py test --quick`: the files that take longest, with the seconds of CPU that they took on one core,
# processes of theirs included (November 2026). A single slow test of another file has the mark itself.
SLOW = {
    "mrml/test_module.py": 10,
    "panel/test_panel.py": 31,
    "panel/test_pictures.py": 6,
    "panel/test_reference.py": 9,
    "panel/test_sign.py": 6,
    "test_benchmark_fidelity.py": 12,
    "test_benchmark_fusion.py": 8,
    "test_benchmark_verdict.py": 9,
    "test_case.py": 17,
    "test_cli.py": 22,
    "test_cohort.py": 31,
    "test_cohort_memory.py": 15,
    "test_dicom_writing.py": 11,
    "test_distortion.py": 16,
    "test_examples.py": 14,
    "test_local_errors.py": 4,
    "test_registration.py": 20,
    "test_registration_hard.py": 25,
    "test_review.py": 4,
    "test_sanitizers.py": 30,
    "test_slicer_python.py": 19,
    "test_training.py": 28,
    "test_training_tools.py": 5,
    "test_wheel.py": 31,
    "test_without_torch.py": 7,
    "test_worker.py": 12,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the slow files."""
    for item in items:
        if item.path.is_relative_to(TESTING) and item.path.relative_to(TESTING).as_posix() in SLOW:
            item.add_marker("slow")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return pytest's empty folder under a neutral name: its own, the test's, satisfies a `match` for words in it."""
    return tmp_path_factory.mktemp("x")


@pytest.fixture(autouse=True, scope="session")
def _one_thread_a_process() -> None:
    """Let xdist's processes share the cores: on two cores, threads of torch double the CPU time of the suite."""
    if torch is not None:
        torch.set_num_threads(1)
