"""The wheel is built, and runs in an empty environment of each Python: without torch, and without a compiler.

The environments are made once, in ``.cache``; the wheel is installed anew each time. Skipped, with the reason, where
there is no such Python or no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from BrainFusionLib import native
from BrainFusionLib.locking import locked
from Testing.pythons import clean_environ, problem_of, python_of

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
# Seconds on one core for each Python: quick files of many parts of the library, none of which needs torch.
TESTS = ("errors", "hashing", "io_dicom_folders", "locking", "metrics", "unit", "volume", "weights")
PYTEST = """
[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
pythonpath = .
markers = slow
filterwarnings = error
"""
CHECK = """
import sys
from pathlib import Path
import numpy as np
from BrainFusionLib import native
from BrainFusionLib.verdict import matching

assert Path(sys.prefix) in Path(native.__file__).parents, native.__file__
assert native.native().library, native.native().problem
random = np.random.default_rng(1)
image, places = random.normal(size=(9, 8, 10)).astype(np.float32), np.array([[0, 0, 0], [8, 7, 9]])
compiled = matching.means_around(image, places, np.array([2, 1, 3]))
matching._compiled = lambda: None
np.testing.assert_allclose(matching.means_around(image, places, np.array([2, 1, 3])), compiled, atol=1e-6)
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, which is built once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    # xdist gives each of its processes a folder of its own below the run's.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"
    python = python_of(f"{sys.version_info[0]}.{sys.version_info[1]}")
    if python is None:
        pytest.skip("no Python with a pip of its own")
    with locked(folder.with_suffix(".lock"), wait=True):
        if not folder.exists() and (
            problem := problem_of(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
        ):
            pytest.skip(f"the wheel cannot be built: {problem}")
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_library_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    has_compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang", "cl"))
    assert (f"BrainFusionLib/{native.FILE.name}" in names) == has_compiler
    assert [name for name in names if re.search(r"\.(c|h|new|pyc)$|CMakeLists", name)] == []
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "BrainFusionLib").rglob("*.py")}
    assert kept == {name for name in names if name.endswith(".py")}


def test_links_of_the_description_on_pypi_lead_to_files_of_the_release(wheel: Path) -> None:
    metadata = BytesParser().parsebytes(
        zipfile.Path(wheel, f"{wheel.name.rsplit('-', 3)[0]}.dist-info/METADATA").read_bytes()
    )
    assert metadata["Description-Content-Type"] == "text/markdown"
    linked = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", metadata.get_payload())
    home, tag = "BrainFusion/SlicerBrainFusion", f"v{metadata['Version']}"
    places = {"!": f"https://raw.githubusercontent.com/{home}/{tag}/", "": f"https://github.com/{home}/blob/{tag}/"}
    ours = [link.removeprefix(places[kind]) for kind, link in linked if link.startswith(places[kind])]
    assert "docs/tutorial.md" in ours
    assert [name for name in ours if not (ROOT / name.partition("#")[0]).is_file()] == []
    assert [link for _, link in linked if not link.startswith("https://")] == []


@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_runs_in_an_empty_environment(version: str, wheel: Path, tmp_path: Path) -> None:
    python = python_of(version)
    if python is None:
        pytest.skip(f"no Python {version} here (looked for one of pyenv's and for python{version})")
    environment = ROOT / ".cache" / f"wheel-python-{version}"
    environment.parent.mkdir(exist_ok=True)
    with locked(environment.with_suffix(".lock"), wait=True):
        if problem := made(python, environment, wheel):
            pytest.skip(f"no environment of Python {version} can be made: {problem}")
        (tmp_path / "bin").mkdir()
        (tmp_path / "pytest.ini").write_text(PYTEST)
        (tmp_path / "check.py").write_text(CHECK)
        shutil.copytree(ROOT / "Testing", tmp_path / "Testing", ignore=shutil.ignore_patterns("__pycache__"))
        # No compiler, nor anything else.
        environ = {**clean_environ(), "PATH": str(tmp_path / "bin")}
        tests = [f"Testing/test_{name}.py" for name in TESTS]
        for command in (["-I", "check.py"], ["-m", "pytest", "-q", *tests]):
            done = subprocess.run(
                [environment / "bin" / "python", *command], cwd=tmp_path, env=environ, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def made(python: Path, environment: Path, wheel: Path) -> str:
    """Make the environment if there is none, and install the wheel; return why that is not possible, or nothing."""
    stamp, wanted = environment / "made-from.txt", f"{python}\n{CONSTRAINTS.read_text(encoding='utf-8')}"
    pip = [python, "-m", "pip", "--python", environment / "bin" / "python", "--quiet", "--retries", "1"]
    install = [*pip, "install", "--no-compile", "--constraint", CONSTRAINTS]
    commands: list[list[str | Path]] = [[*install, "--no-deps", "--force-reinstall", wheel]]
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(environment, ignore_errors=True)
        commands = [[python, "-m", "venv", "--without-pip", environment], [*install, wheel, "pytest"]]
    for command in commands:
        if problem := problem_of(*command):
            return problem
    stamp.write_text(wanted, encoding="utf-8")
    return ""
