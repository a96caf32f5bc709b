"""The module, its worker and the batch use only what Slicer's Python brings.

Run in an environment of Python 3.12 with the packages of ``constraints-slicer.txt``, made once in ``.cache``, and
**without torch**, whose build for Python 3.12 is a download of hundreds of megabytes: what is tested is that everything
loads, and that whatever needs torch says so. Skipped, with the reason, where there is no Python 3.12 or no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from BrainFusionLib.case import Request, Source
from BrainFusionLib.locking import locked
from BrainFusionLib.settings import Settings
from Testing.imports import imports, roots
from Testing.pythons import clean_environ, problem_of, python_of
from Testing.test_cmake_lists import LOAD_THE_MODULE

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "BrainFusion"
CONSTRAINTS = ROOT / "constraints-slicer.txt"
ENVIRONMENT = ROOT / ".cache" / "slicer-python"

IN_SLICER = {"numpy", "scipy", "SimpleITK", "pydicom", "PIL", "highdicom", "requests", "packaging"}
APPLICATION = {"slicer", "vtk", "qt", "ctk", "DICOMLib", "SampleData", "PyTorchUtils"}
OURS = {"BrainFusion", "BrainFusionLib", "BrainFusionSlicer"}
# Extras with a fallback or a message, in how many files at most they are imported, and never when a file is loaded.
OPTIONAL = {"isal": 1, "pywt": 1, "psutil": 1, "distributed": 2}


def sources() -> list[Path]:
    return sorted(path for folder in (MODULE, ROOT / "BrainFusionLib") for path in folder.rglob("*.py"))


def test_all_files_import_only_what_slicer_has() -> None:
    # The last one is for types only, and never loaded.
    allowed = {*sys.stdlib_module_names, *IN_SLICER, *APPLICATION, *OURS, *OPTIONAL, "torch", "_typeshed"}
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in sources() for name in roots(imports(path)) - allowed}
    assert wrong == set()


def test_the_library_imports_nothing_of_the_application() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        if MODULE not in path.parents
        for name in roots(imports(path)) & APPLICATION
    }
    assert wrong == set()


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_package_is_imported_in_one_place_on_use(name: str) -> None:
    users = [path for path in sources() if name in roots(imports(path))]
    assert len(users) <= OPTIONAL[name], users
    assert [path for path in sources() if name in roots(imports(path, at_load_only=True))] == []


# ---- in Slicer's Python ---------------------------------------------------------------------------------------------


def made(python: Path) -> str:
    """Make the environment if it is not there yet; return why that is not possible, or nothing."""
    stamp, wanted = ENVIRONMENT / "made-from.txt", f"{python}\n{CONSTRAINTS.read_text(encoding='utf-8')}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return ""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "--quiet", "--retries", "1"]
    install = [*pip, "install", "--no-compile", "-r", CONSTRAINTS]
    for command in ([python, "-m", "venv", ENVIRONMENT], install):
        if problem := problem_of(*command):
            return problem
    stamp.write_text(wanted, encoding="utf-8")
    return ""


@pytest.fixture(scope="session")
def slicer_python() -> Path:
    """Return the Python of the environment, which is shared by all processes of a test run."""
    python = None if os.name == "nt" else python_of("3.12")
    if python is None:
        pytest.skip("no Python 3.12 here (looked for one of pyenv's and for python3.12)")
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with locked(ENVIRONMENT.parent / "slicer-python.lock", wait=True):
        problem = made(python)
    if problem:
        pytest.skip(f"an environment like Slicer's cannot be made: {problem}")
    return ENVIRONMENT / "bin" / "python"


def run(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, env=clean_environ()
    )


def test_the_environment_is_slicers(slicer_python: Path) -> None:
    code = "import importlib.metadata as m; print(*(f'{d.name.lower()}=={d.version}' for d in m.distributions()))"
    found = set(run(slicer_python, "-I", "-c", code).stdout.split())
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert wanted - found == set()
    assert not [name for name in found if name.startswith("torch==")]


def test_the_module_loads(slicer_python: Path) -> None:
    done = run(slicer_python, "-I", "-c", LOAD_THE_MODULE, MODULE, ROOT)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split("\n")[0]) == ROOT


IMPORT_ALL = """
import importlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
for path in sorted(Path(sys.argv[1], "BrainFusionLib").rglob("*.py")):
    name = ".".join(path.relative_to(sys.argv[1]).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
"""


def test_every_library_file_needs_at_most_torch(slicer_python: Path) -> None:
    done = run(slicer_python, "-I", "-W", "error", "-c", IMPORT_ALL, ROOT)
    assert done.returncode == 0, done.stderr


def test_worker_without_torch_explains_what_a_graphics_card_needs(slicer_python: Path) -> None:
    sys.path.append(str(MODULE))
    from BrainFusionSlicer import jobs

    job = jobs.JobMessage(Path("nowhere"), Request(Source("CT"), Source("MRI"), settings=Settings(device="cuda")), {})
    worker = subprocess.Popen(
        [slicer_python, MODULE / "BrainFusionSlicer" / "worker.py", ROOT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environ(),
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(jobs.job_to_line(job))
    worker.stdin.flush()
    ready, answer = (json.loads(worker.stdout.readline()) for _ in range(2))
    worker.stdin.close()
    assert worker.wait(60) == 0
    worker.stdout.close()
    assert ready["said"] == {"class": "Ready", "pid": worker.pid}
    error: Any = answer["said"]
    assert "MissingDependencyError" in json.dumps(error)
    assert "A graphics card was chosen, which needs PyTorch" in json.dumps(error)


def batch(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(python, MODULE / "BrainFusionSlicer" / "batch.py", "--", *arguments)


def test_the_batch_explains_itself(slicer_python: Path) -> None:
    done = batch(slicer_python, "--help")
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


@pytest.mark.parametrize("content", [None, "", "case,ct\na,b\n"], ids=["missing", "empty", "a column is missing"])
def test_the_batch_rejects_a_bad_manifest(slicer_python: Path, tmp_path: Path, content: str | None) -> None:
    manifest = tmp_path / "manifest.csv"
    if content is not None:
        manifest.write_text(content)
    done = batch(slicer_python, manifest, "-o", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert "manifest.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
