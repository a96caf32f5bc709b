"""Build the C library for systems other than this one: ``python -m tools.cross_compile``.

Nothing is kept: it shows that other compilers take the C files, and what these export. It needs PyPI's ziglang, a
clang with the headers of all systems (80 MB, so in no extra): ``pip install ziglang``. Two minutes at the first run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "BrainFusionLib"
# What the files keep to: C11 without what gcc and clang add to it, and without what MSVC lacks.
STRICT = ("-std=c11", "-Wpedantic", "-Wall", "-Wextra", "-Wvla", "-Werror", f"-I{FOLDER}")
TARGETS = ("x86_64-windows-gnu", "aarch64-windows-gnu", "x86_64-macos", "aarch64-macos", "aarch64-linux-gnu")
WIDE = (("-DBRAINFUSION_AVX2", "-mavx2"), ("-DBRAINFUSION_AVX512", "-mavx512f", "-mavx512vl", "-mavx512dq"))


def sources() -> list[Path]:
    """Return all C files."""
    return sorted(FOLDER.rglob("*.c"))


def exported() -> set[str]:
    """Return the names of all functions that the files export, the plain variants only."""
    pattern = re.compile(r"^EXPORTED [^(]*?(?:VARIANT\()?(brainfusion_\w+)\)?\(", re.MULTILINE)
    return {name for path in sources() for name in pattern.findall(path.read_text(encoding="utf-8"))}


def complaints(compiler: Sequence[str], *flags: str) -> str:
    """Compile each file strictly, without keeping the result, and return what the compiler says."""
    with tempfile.TemporaryDirectory() as folder:
        said = ""
        for source in sources():
            command = [*compiler, *STRICT, *flags, "-c", str(source), "-o", str(Path(folder, "made.o"))]
            said += subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stderr
    return said


def why_not(target: str) -> str:
    """Build the library for another system; return what is wrong with it, or nothing."""
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    said = complaints(compiler)
    if target.startswith("x86_64"):
        said += "".join(complaints(compiler, *flags) for flags in WIDE)
    if said:
        return said
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        command = [*compiler, *STRICT, "-O2", "-shared", *map(str, sources()), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder)
        if done.returncode:
            return done.stderr
        content = made.read_bytes()
    return ", ".join(name for name in sorted(exported()) if name.encode() not in content)


def main() -> int:
    """Build for all systems, and say how it went."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if importlib.util.find_spec("ziglang") is None:
        print("Skipped: ziglang is not installed (pip install ziglang).")
        return 0
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(Path(tempfile.gettempdir(), "brainfusion-zig")))
    failed = 0
    for target in TARGETS:
        wrong = why_not(target)
        print(f"{target:<22}{wrong or 'built'}", flush=True)
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
