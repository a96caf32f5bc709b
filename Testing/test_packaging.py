"""The extension is configured, installed and packed by CMake, with a stand-in for Slicer's build tree.

The stand-in is packaging/SlicerConfig.cmake. To use Slicer's own macros, give clones of Slicer/Slicer and commontk/CTK:
``BRAINFUSION_SLICER_SOURCE=… BRAINFUSION_CTK_SOURCE=… pytest Testing/test_packaging.py``.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {name: os.environ.get(f"BRAINFUSION_{name}_SOURCE") for name in ("SLICER", "CTK")}
MODULES = "lib/Slicer-5.12/qt-scripted-modules/"


def tool(name):
    """CMake of the environment (PyPI's wheel) before any other."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


def run(*command, cwd=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def cmake_version():
    found = re.search(r"cmake version (\d+)\.(\d+)", run(tool("cmake"), "--version")) if tool("cmake") else None
    return tuple(int(n) for n in found.groups()) if found else (0, 0)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    if cmake_version() < (3, 28):
        pytest.skip("CMake 3.28 or newer is not installed: pip install 'cmake>=3.28'")
    if not (shutil.which("make") and shutil.which("cc") and shutil.which("c++")):
        pytest.skip("make and a C++ compiler are not installed (CMake asks for them even where nothing is compiled)")
    folder = tmp_path_factory.mktemp("build")
    options = [f"-D{name}_SOURCE={path}" for name, path in SOURCES.items() if path]
    options += [f"-DPYTHON_EXECUTABLE={sys.executable}"] if options else []
    said = run(
        tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Unix Makefiles",
        f"-DSlicer_DIR={ROOT / 'Testing' / 'packaging'}", "-DBUILD_TESTING=ON", *options,
    )  # fmt: skip
    assert options or "CMake Warning" not in said, said  # Slicer's own warn of a clone without a remote
    run(tool("cmake"), "--build", folder)
    return folder


def shipped():
    """All files of the two folders but those in C, where Slicer looks for them; the C library and the licence."""
    names = {MODULES + "BrainFusionLib/LICENSE.txt", MODULES + "BrainFusionLib/_native.so"}
    for folder, below in (("BrainFusion", ""), ("BrainFusionLib", "BrainFusionLib/")):
        files = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file())
        names |= {
            MODULES + below + path.as_posix()
            for path in files
            if path.name != "CMakeLists.txt" and path.suffix not in (".c", ".h") and "__pycache__" not in path.parts
        }
    return names


def wanted(name):
    """Leave out what Slicer's macros add: compiled Python, and the description of the extension."""
    return not name.endswith((".pyc", ".s4ext"))


def test_cmake_installs_the_module_with_the_library_beside_it(build, tmp_path):
    run(tool("cmake"), "--install", build, "--prefix", tmp_path)
    there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {name for name in there if wanted(name)} == shipped()
    for name in (
        "BrainFusion.py",
        "BrainFusionLib/fusion/weights.py",
        "BrainFusionLib/fusion/trained/fusion_net_alpha.npz",
    ):
        source = ROOT / ("" if name.startswith("BrainFusionLib") else "BrainFusion") / name
        assert (tmp_path / MODULES / name).read_bytes() == source.read_bytes()


def test_the_installed_library_runs_and_finds_its_weights(build, tmp_path):
    run(tool("cmake"), "--install", build, "--prefix", tmp_path)
    assert not (tmp_path / MODULES / "BrainFusionLib" / "native.c").exists()
    code = (
        # Without the finder of an editable install, which comes before the path.
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith('_editable')]\n"
        f"sys.path.insert(0, {str(tmp_path / MODULES)!r})\n"
        "import BrainFusionLib.cli as cli; print(cli.__file__); sys.exit(cli.main(['doctor']))"
    )
    said = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    assert said.startswith(str(tmp_path))
    assert "Ready." in said
    assert "C library    used" in said
    assert "MISSING" not in said


def test_the_build_tree_has_the_c_library_beside_the_python(build):
    assert (build / MODULES / "BrainFusionLib" / "_native.so").is_file()


def test_the_self_test_and_slicers_generic_test_are_registered(build):
    listed = run(tool("ctest"), "-N", cwd=build)
    names = re.findall(r"Test +#\d+: (\S+)", listed)
    assert sorted(names) == ["py_BrainFusion", "py_nomainwindow_qSlicerBrainFusionModuleGenericTest"]


def test_cpack_makes_one_archive_of_the_same_files(build):
    run(tool("cpack"), cwd=build)
    (archive,) = build.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        names = {member.name.partition("/")[2] for member in package.getmembers() if member.isfile()}
    assert {name for name in names if wanted(name)} == shipped()
    assert archive.stat().st_size < 20e6


@pytest.mark.skipif(
    not SOURCES["SLICER"], reason="BRAINFUSION_SLICER_SOURCE is not set: no clone of Slicer to check with"
)
def test_slicer_describes_the_extension_as_the_index_shows_it(build):
    text = (build / "BrainFusion.s4ext").read_text(encoding="utf-8")
    assert "\ndepends NA\n" in text
    assert re.search(r"^description Registers a CT .*not for diagnosis\.$", text, re.MULTILINE)
