"""Set up this project and run it: `python3 dev.py demo` and `python3 dev.py test`.

Needs Python 3.11 or newer and nothing else. What has to be installed goes into `.venv` beside this file, once: a second
run installs and downloads nothing. Delete `.venv` and `.cache` to start afresh.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
# Written last, and blanked before anything is changed: an environment whose stamp is blank was interrupted half-way.
STAMP = VENV / "made-by-dev.json"
LOCK = ROOT / ".cache" / "dev.lock"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CONSTRAINTS = ROOT / "constraints.txt"
# The Python behind whatever virtual environment is active, so that it does not matter which one is.
BASE_PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()

EXTRAS = {
    "demo": {"build", "fast"},
    "check": {"torch", "wavelet", "dev"},
    "test": {"torch", "wavelet", "dev"},
    "docs": {"torch", "docs"},
}
SITE = ROOT / "build" / "site"
# Where the C library is built, and where it is loaded from (BrainFusionLib/native.py).
NATIVE_BUILD = ROOT / ".cache" / "native"
NATIVE_NAME = "_native.dll" if os.name == "nt" else "_native.so"
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}
# On all cores, but not more workers than memory: each of them imports torch.
# Each of them takes the files in their order, so that what a file's tests share is made once or twice.
ALL_TESTS = ["--numprocesses=auto", "--maxprocesses=8", "--dist=worksteal"]
# The self-test takes under three minutes; a Slicer that hangs is ended.
SLICER_S = 900
QUICK_TESTS = [*ALL_TESTS, "-m", "not slow"]

# PyPI's torch for Linux brings gigabytes of CUDA; this index has the same release without it.
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


def main() -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="register and fuse real images; writes demo-output/")
    test = commands.add_parser("test", help="check style and types, then run all tests; pytest's options are passed on")
    test.add_argument("--quick", action="store_true", help="only the tests that are not marked slow: under two minutes")
    commands.add_parser("check", help="check style and types only (what pre-commit runs)")
    commands.add_parser("build", help="build the C library for this checkout, with CMake and a C compiler")
    commands.add_parser("docs", help="make the documentation's site in build/site; a warning is an error")
    setup = commands.add_parser("setup", help="make the environment and stop")
    setup.add_argument("what", nargs="?", choices=["demo", "test"], default="test", help="for which command (test)")
    real = commands.add_parser("slicer", help="run the module's self-test and take its pictures in a real Slicer")
    real.add_argument("path", type=Path, help="Slicer's executable")
    real.add_argument("--pictures", type=Path, default=ROOT / "slicer-pictures", help="where they go")
    arguments, for_pytest = parser.parse_known_args()
    if for_pytest and arguments.command != "test":
        parser.error(f"unknown: {' '.join(for_pytest)}")
    try:
        if arguments.command == "slicer":
            return test_in_slicer(arguments.path, arguments.pictures.resolve())
        if arguments.command == "build":
            print(f"Built: {build_native()}")
            return 0
        make_environment(EXTRAS[arguments.what if arguments.command == "setup" else arguments.command])
        if arguments.command != "check":
            try_to_build_native()
        if arguments.command == "demo":
            return run("-m", "tools.demo")
        if arguments.command == "docs":
            return make_site()
        if arguments.command == "check":
            return 1 if failed_checks() else 0
        if arguments.command == "test":
            return test_all([*QUICK_TESTS, *for_pytest] if arguments.quick else for_pytest)
    except SetupError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dev.py: stopped", file=sys.stderr)
        return 130
    print(f"The environment is ready: {PYTHON}")
    return 0


def test_all(pytest_arguments: list[str]) -> int:
    """Run the checks and then pytest, whatever the checks say; 0 only if all of them pass."""
    # The processes of pytest share the cores: with threads of its own, numpy takes half as much time again.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Tests start some hundred Pythons, and what they import is not compiled yet (see `install`).
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".cache" / "bytecode"))
    failed = [name for name in CHECKS if name != "mypy" and not passes(name)]
    # Beside the tests, because it takes half a minute on one core; its output follows theirs.
    with ThreadPoolExecutor(1) as beside, tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        types = beside.submit(run, "-m", *CHECKS["mypy"], output=output)
        tests = run("-m", "pytest", *(pytest_arguments or ALL_TESTS))
        if types.result() != 0:
            failed.append("mypy")
        output.seek(0)
        print(f"== mypy\n{output.read()}", end="", flush=True)
    if failed:
        print(f"dev.py: failed: {', '.join(failed)} (see above)", file=sys.stderr)
    return 1 if failed else tests


def failed_checks() -> list[str]:
    """Run the checks of style and types, say how each went, and return the names of those that failed."""
    return [name for name in CHECKS if not passes(name)]


def passes(check: str) -> bool:
    """Run one check, and say whether it passes."""
    print(f"== {check}", flush=True)
    return run("-m", *CHECKS[check]) == 0


def run(*arguments: str | Path, output: IO[str] | None = None) -> int:
    """Run the environment's Python in the repository, without an input, and return its exit code."""
    command, into = [PYTHON, *arguments], None if output is None else subprocess.STDOUT
    return subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=into, env=clean_environ()
    ).returncode


def make_site() -> int:
    """Make the site anew, and return the exit code."""
    code = run("-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-c", "docs", "-b", "html", ".", SITE)
    print(f"The site: {SITE / 'docs' / 'index.html'}" if code == 0 else "dev.py: see the warnings above")
    return code


def test_in_slicer(executable: Path, pictures: Path) -> int:
    """Run the self-test and take the pictures in a real Slicer, and return its exit code.

    Raises
    ------
    SetupError
        It cannot be started, or does not end.
    """
    if shutil.which(executable) is None:
        raise SetupError(f"{executable}: cannot be started (no such program). Give the path of Slicer.")
    script, module = ROOT / "tools" / "in_slicer.py", ROOT / "BrainFusion"
    command: list[str | Path] = [executable, "--no-splash", "--ignore-slicerrc", "--additional-module-paths", module]
    command += ["--python-script", script, pictures]
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        if shutil.which("xvfb-run") is None:
            raise SetupError("Slicer needs a display, and there is none. On Debian or Ubuntu: apt-get install xvfb.")
        command = ["xvfb-run", "--auto-servernum", "--server-args=-screen 0 1366x768x24", *command]
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, env=clean_environ(), timeout=SLICER_S).returncode
    except OSError as error:
        raise SetupError(f"{executable}: cannot be started ({error.strerror}). Give the path of Slicer.") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{executable}: did not end within {SLICER_S} s, and was terminated.") from error
    print(f"The self-test {'passed' if code == 0 else f'failed (exit code {code})'}. Pictures: {pictures}")
    return code


def try_to_build_native() -> None:
    """Build the C library; without one, say so and go on: everything works, more slowly."""
    try:
        build_native()
    except SetupError as error:
        print(f"dev.py: {error} Going on without the C library, more slowly.", file=sys.stderr)


def build_native() -> Path:
    """Build the C library, as far as it is not built yet, beside the Python that loads it, and return its path.

    Raises
    ------
    SetupError
        There is no CMake or no C compiler, or it fails.
    """
    # PyPI's CMake and Ninja, in the environment or beside the Python that runs this, before the system's.
    path = os.pathsep.join([str(PYTHON.parent), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    cmake, ninja = (shutil.which(name, path=path) for name in ("cmake", "ninja"))
    if cmake is None:
        raise SetupError("CMake is not installed, so the C library cannot be built: pip install cmake ninja.")
    configure = [cmake, "-S", ROOT / "BrainFusionLib", "-B", NATIVE_BUILD, "-DCMAKE_BUILD_TYPE=Release"]
    if ninja and os.name != "nt":  # on Windows, only Visual Studio's own generator finds its compiler
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    wanted = ROOT / "BrainFusionLib" / NATIVE_NAME
    with lock(), tempfile.TemporaryDirectory() as installed:
        build = [cmake, "--build", NATIVE_BUILD, "--config", "Release"]
        install_it = [cmake, "--install", NATIVE_BUILD, "--config", "Release", "--prefix", installed]
        if NATIVE_BUILD.exists() and run_quietly(configure):
            shutil.rmtree(NATIVE_BUILD)  # of another CMake, generator or folder
        for command in (configure, build, install_it):
            problem = run_quietly(command)
            if problem:
                raise SetupError(f"The C library could not be built:\n{problem}\n")
        made = Path(installed, "BrainFusionLib", NATIVE_NAME)
        if not made.exists():
            raise SetupError(
                "There is no C compiler, so the C library cannot be built. On Debian or Ubuntu: apt-get install gcc; "
                "on macOS: xcode-select --install; on Windows: Visual Studio's Build Tools for C++."
            )
        if not wanted.exists() or wanted.read_bytes() != made.read_bytes():
            # In one step, and as a new file: the old one may be in use.
            temporary = wanted.with_suffix(".new")
            shutil.copyfile(made, temporary)
            temporary.replace(wanted)
    return wanted


def run_quietly(command: list[Any]) -> str:
    """Run a command without an input; return the end of its output if it fails, else nothing."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=clean_environ())
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:].strip() or f"exit code {done.returncode}"


def clean_environ() -> dict[str, str]:
    """Return the environment variables without those that would lead Python to other people's modules."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def make_environment(extras: set[str]) -> None:
    """See to it that `.venv` holds this project with `extras`; takes no time if it does already.

    Raises
    ------
    SetupError
        `.venv` is not ours, there is no way to install, or the installation failed.
    """
    wanted = fingerprint()
    with lock():
        stamp = read_stamp()
        if is_ready(stamp, wanted, extras):
            return
        if VENV.exists() and stamp is None:
            raise SetupError(f"{VENV} was not made by this script. Move it away, then try again.")
        if stamp is None or not can_be_kept(stamp, wanted):
            print("Making .venv (once) ...", flush=True)
            create()
            stamp = {}
        all_extras = sorted(extras.union(stamp.get("extras", [])))
        write_stamp({})
        print("Installing what is needed (once; a few minutes, some hundred MB) ...", flush=True)
        install(all_extras)
        write_stamp({**wanted, "extras": all_extras})


def fingerprint() -> dict[str, str]:
    """Return what an environment was made from; where this differs, it has to be made or brought up to date."""
    requirements = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()
    return {"python": f"{sys.version} at {BASE_PYTHON}", "folder": str(ROOT), "requirements": requirements}


def is_ready(stamp: dict[str, Any] | None, wanted: dict[str, str], extras: set[str]) -> bool:
    """Say whether an environment with this stamp can be used as it is."""
    return (
        stamp is not None
        and can_be_kept(stamp, wanted)
        and stamp.get("requirements") == wanted["requirements"]
        and extras.issubset(stamp.get("extras", []))
    )


def can_be_kept(stamp: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Say whether installing more into an environment with this stamp is enough to bring it up to date."""
    return all(stamp.get(key) == wanted[key] for key in ("python", "folder")) and PYTHON.exists()


def read_stamp() -> dict[str, Any] | None:
    """Return the stamp: ``{}`` if blank or damaged, ``None`` if there is none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, Any]) -> None:
    """Write the stamp in one step, so that a half-written one cannot be."""
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    temporary.replace(STAMP)


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Let one run at a time make the environment; another one waits (but Windows has no such lock)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def create() -> None:
    """Make an empty virtual environment, in the place of an old or half-made one."""
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    write_stamp({})
    # Without pip: Debian keeps the part of Python that would install it (ensurepip) in a package of its own.
    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(VENV)


def install(extras: list[str]) -> None:
    """Install this project, editable, with `extras` into `.venv`."""
    # Not compiled here: Python does that for the modules that it imports, which are few (measured: 120 s become 77).
    command = [*pip_command(), "install", "--no-compile", "--constraint", CONSTRAINTS]
    code = 0
    if "torch" in extras and sys.platform == "linux" and answers(f"{CPU_TORCH_INDEX}/torch/", seconds=3):
        # On its own, and nothing else from there: with two indexes at once either could offer any package.
        torch = [*command, "--no-deps", "--index-url", CPU_TORCH_INDEX, "torch"]
        code = subprocess.run(torch, cwd=ROOT, stdin=subprocess.DEVNULL, env=clean_environ()).returncode
    if code == 0:
        command += ["--editable", f"{ROOT}[{','.join(extras)}]"]
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=clean_environ()).returncode
    if code != 0:
        raise SetupError(
            f"pip could not install what is needed (exit code {code}; its message is above). "
            "Check the network connection and the free disk space, then run the same command again."
        )


def pip_command() -> list[str | Path]:
    """Return the start of a command that installs into `.venv`: a pip that is here already, or one from ensurepip."""
    for python in (sys.executable, BASE_PYTHON):  # the first may be a virtual environment without pip
        command: list[str | Path] = [python, "-m", "pip", "--python", PYTHON]
        if subprocess.run([*command, "--version"], capture_output=True, env=clean_environ()).returncode == 0:
            return command
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable} has no pip (22.3 or newer) and no ensurepip, so nothing can be installed. "
            "On Debian or Ubuntu: apt-get install python3-pip (or python3-venv)."
        )
    if subprocess.run([PYTHON, "-m", "ensurepip", "--default-pip"], env=clean_environ()).returncode != 0:
        raise SetupError("ensurepip failed (its message is above). On Debian or Ubuntu: apt-get install python3-pip.")
    return [PYTHON, "-m", "pip"]


def answers(url: str, seconds: float) -> bool:
    """Say whether `url` can be reached within some seconds.

    In a thread, because no timeout of Python's covers a name server that stays silent.
    """
    reached = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            reached.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return reached.is_set()


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  (this file is read by whatever Python is there)
        sys.exit(
            f"dev.py: Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. "
            "Run this file with a newer one (python3.11 dev.py ...)."
        )
    sys.exit(main())
