"""Set-up that all tests share."""

from __future__ import annotations

import pytest

try:
    import torch
except ImportError:  # the tests in mrml/ run without torch, too
    torch = None  # type: ignore[assignment]


@pytest.fixture(autouse=True, scope="session")
def _one_thread_a_process() -> None:
    """Let xdist's processes share the cores: on two cores, threads of torch double the CPU time of the suite."""
    if torch is not None:
        torch.set_num_threads(1)
