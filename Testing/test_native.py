"""The C library: built from these sources, the same on all processors, and used only where it is ours."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from BrainFusionLib import backend, native
from BrainFusionLib.case import register
from BrainFusionLib.cli import doctor
from BrainFusionLib.intensity import pieces
from BrainFusionLib.native import Native, load_compiled, opened
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.verdict import matching
from BrainFusionLib.version import __version__
from tools import cross_compile

HAS_COMPILER = shutil.which("cc") is not None and sys.platform == "linux"
needs_a_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler here")
needs_the_library = pytest.mark.skipif(not native.FILE.exists(), reason="not built: python3 dev.py build")
RIM = ("brainfusion_rim_alpha", "brainfusion_rim_memory")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load the library anew in each test."""
    monkeypatch.delenv("BRAINFUSION_NATIVE", raising=False)
    native.native.cache_clear()
    yield
    native.native.cache_clear()


def built(path: Path, version: str = __version__, sources: str | None = None) -> Path:
    sources = native.sources_sha256() if sources is None else sources
    defined = [f'-DBRAINFUSION_VERSION="{version}"', f'-DBRAINFUSION_SOURCES="{sources}"']
    subprocess.run(["cc", "-shared", "-fPIC", *defined, "-o", path, native.FOLDER / "native.c"], check=True)
    return path


@needs_the_library
def test_the_library_beside_this_checkout_is_built_from_its_sources() -> None:
    assert opened(native.FILE).problem == ""
    assert load_compiled(sorted(cross_compile.exported())) is not None


@needs_a_compiler
def test_a_library_of_these_sources_is_used(tmp_path: Path) -> None:
    found = opened(built(tmp_path / "made.so"))
    assert found.library is not None
    assert found.problem == ""


@needs_a_compiler
def test_a_library_of_another_version_is_not_used(tmp_path: Path) -> None:
    found = opened(built(tmp_path / "made.so", version="0.0.1"))
    assert found.library is None
    assert "of version 0.0.1" in found.problem


@needs_a_compiler
def test_a_library_of_other_sources_is_not_used(tmp_path: Path) -> None:
    found = opened(built(tmp_path / "made.so", sources="0" * 64))
    assert found.library is None
    assert "other C files" in found.problem


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_foreign_file_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / native.FILE.name
    path.write_bytes(content)
    found = opened(path)
    assert found.library is None
    assert "not a library of BrainFusion" in found.problem


@needs_a_compiler
def test_a_library_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int other(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", tmp_path / "other.c"], check=True)
    assert "not a library of BrainFusion" in opened(tmp_path / "other.so").problem


def test_a_missing_library_is_noted_once_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "FILE", tmp_path / "_native.so")
    assert [load_compiled(RIM), load_compiled(RIM)] == [None, None]
    (note,) = caplog.messages
    assert "_native.so is not there; run `python3 dev.py build`" in note


def test_switching_the_library_off_is_not_noted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BRAINFUSION_NATIVE", "0")
    assert load_compiled(RIM) is None
    assert caplog.messages == []


@needs_the_library
def test_an_unknown_function_is_not_available() -> None:
    assert load_compiled((*RIM, "brainfusion_not_there")) is None


@needs_the_library
def test_all_variants_give_the_same_weights_to_the_last_bit() -> None:
    library = native.native().library
    assert library is not None
    results = [rim_weights(library, ending) for _, ending in native.VECTORS[: native.native().vectors + 1]]
    assert 0 < float(results[0].mean()) < 1
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@needs_the_library
def test_all_variants_give_the_same_pose_and_evidence_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    found, pair = native.native(), make_pair(5, spacing_mm=4.0, rotation_deg=8, translation_mm=10)
    loaded = [backend.native.loops, backend.choice.on_cpu, matching._compiled, pieces._compiled]
    results = []
    for vectors in range(found.vectors + 1):
        for each in loaded:
            each.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(native, "native", partial(replace, found, vectors=vectors))
            results.append(register(pair.ct, pair.mri, device="cpu"))
    for each in loaded:
        each.cache_clear()
    for result in results[1:]:
        assert (result.pose, result.evidence) == (results[0].pose, results[0].evidence)


def rim_weights(library: ctypes.CDLL, ending: str) -> npt.NDArray[np.float32]:
    """Return the weights of a ring of bone by a random network."""
    pointer: Any = ctypes.c_void_p
    whole: Any = ctypes.c_int64
    run, memory_of = library[f"brainfusion_rim_alpha{ending}"], library[f"brainfusion_rim_memory{ending}"]
    run.argtypes, run.restype = [pointer] * 3 + [whole] * 4 + [pointer] * 4, None
    memory_of.argtypes, memory_of.restype = [whole] * 3, whole
    random = np.random.default_rng(1)
    rows, columns, width = 40, 48, 32
    radius = np.hypot(*(np.mgrid[:rows, :columns] - 20.0))
    bone = np.clip(2.5 - np.abs(radius - 12), 0, 1).astype(np.float32)
    ct, mri = random.random((2, rows, columns), dtype=np.float32)
    values = 2 * (2 * (1 + 16 * 7) + 2 * (1 + 9 * width) + (1 + 9 * width)) * 16
    weights = (random.standard_normal(values) * 0.05).astype(np.float32)
    constants = np.array([1e-6, 0.02, 1, -10, 0.5, 1, -10, 0.5, 0.1, 1, 0.115, 5, 2, 0.2, 0.1], dtype=np.float32)
    memory = np.zeros(memory_of(rows, columns, width) + 64, dtype=np.uint8)
    alpha: npt.NDArray[np.float32] = np.empty((rows, columns), dtype=np.float32)
    run(
        ct.ctypes.data, mri.ctypes.data, bone.ctypes.data, rows, columns, width, 2, weights.ctypes.data,
        constants.ctypes.data, memory.ctypes.data + -memory.ctypes.data % 64, alpha.ctypes.data,
    )  # fmt: skip
    return alpha


@needs_a_compiler
def test_the_c_files_are_plain_c11() -> None:
    assert cross_compile.complaints(["cc"], "-fsyntax-only") == ""


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="not installed: pip install ziglang")
@pytest.mark.parametrize("target", ["x86_64-windows-gnu", "aarch64-macos"])
def test_the_c_files_are_taken_by_compilers_of_other_systems(target: str) -> None:
    assert cross_compile.why_not(target) == ""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Native(ctypes.pythonapi, vectors=1), "used, with AVX2"),
        (Native(None), "(switched off by BRAINFUSION_NATIVE=0): registration"),
        (Native(None, "_native.so is not there"), "slower. Remedy: run `python3 dev.py build` in the repository."),
    ],
    ids=["used", "off", "missing"],
)
def test_doctor_says_what_is_slow_and_what_helps(found: Native, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "native", lambda: found)
    assert words in "\n".join(doctor._lines(doctor.examine()))
