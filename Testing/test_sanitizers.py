"""The C library under the sanitizers of the compiler: no access out of bounds, no undefined arithmetic."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from BrainFusionLib import native
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.version import __version__
from tools import cross_compile

ROOT = Path(__file__).parents[1]
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")
TESTS = ("native", "network_alpha", "pieces", "resample")
# In the checkout, but with another library than the one beside it.
WITH_LIBRARY = "import sys, pathlib; from BrainFusionLib import native; native.FILE = pathlib.Path(sys.argv[1])\n"
# Not captured: a sanitizer ends the process, and with it what pytest holds.
PYTEST = "import pytest; sys.exit(pytest.main(['-q', '-s', '-p', 'no:cacheprovider', *sys.argv[2:]]))"
FUSE = (
    "from BrainFusionLib.cli import main; code = main(sys.argv[2:])\n"
    "assert native.native().library is not None; sys.exit(code)"
)
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="no C compiler, or not Linux"),
]


def sanitizer() -> Path | None:
    """Return the library of the compiler's address sanitizer, which has to be loaded before all others."""
    said = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    return Path(said).resolve() if Path(said).is_absolute() else None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library with the sanitizers in it."""
    if sanitizer() is None:
        pytest.skip("the compiler has no address sanitizer")
    folder = tmp_path_factory.mktemp("sanitized")
    wide = cross_compile.WIDE if platform.machine() == "x86_64" else ()
    compiled = [(path, ()) for path in cross_compile.sources()]
    compiled += [(path, flags) for path in cross_compile.sources() if path.name != "native.c" for flags in wide]
    defined = (f'-DBRAINFUSION_VERSION="{__version__}"', f'-DBRAINFUSION_SOURCES="{native.sources_sha256()}"')
    common = ["cc", *SANITIZED, "-std=c11", "-fPIC", "-ffp-contract=off", f"-I{native.FOLDER}"]
    objects = []
    for number, (path, flags) in enumerate(compiled):
        objects.append(folder / f"{number}.o")
        more = defined if path.name == "native.c" else ()
        subprocess.run([*common, *more, *flags, "-c", path, "-o", objects[-1]], check=True)
    subprocess.run([*common, "-shared", *objects, "-lm", "-o", folder / "_native.so"], check=True)
    return folder / "_native.so"


def run_with(library: Path, script: str, *words: object) -> None:
    """Run Python with a library; fail with what it said if it failed."""
    environ = {
        **os.environ, "LD_PRELOAD": str(sanitizer()), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }  # fmt: skip
    environ.pop("BRAINFUSION_NATIVE", None)
    command = [sys.executable, "-c", WITH_LIBRARY + script, str(library), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def test_the_tests_of_the_c_library_pass_under_the_sanitizers(library: Path) -> None:
    run_with(library, PYTEST, *(f"Testing/test_{name}.py" for name in TESTS))


def test_a_pair_is_fused_under_the_sanitizers(library: Path, tmp_path: Path) -> None:
    pair = make_pair(5, spacing_mm=4.0, rotation_deg=8, translation_mm=10)
    for name, volume in (("ct", pair.ct), ("mri", pair.mri)):
        write_volume(volume, tmp_path / f"{name}.nii")
    words = ("fuse", tmp_path / "ct.nii", tmp_path / "mri.nii", "-o", tmp_path / "out")
    run_with(library, FUSE, *words)
