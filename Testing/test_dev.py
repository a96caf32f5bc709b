import ast
import http.server
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import dev

SCRIPT = Path(dev.__file__)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own for dev.py, where installing is only noted down."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    for name in ("ROOT", "VENV", "STAMP", "LOCK", "PYTHON", "CONSTRAINTS"):
        monkeypatch.setattr(dev, name, tmp_path / getattr(dev, name).relative_to(SCRIPT.parent))
    installed = []
    monkeypatch.setattr(dev, "install", lambda extras: installed.append(extras))
    return tmp_path, installed


def test_a_second_run_makes_and_installs_nothing(checkout, monkeypatch):
    _, installed = checkout
    dev.make_environment(dev.EXTRAS["demo"])
    monkeypatch.setattr(dev, "create", lambda: pytest.fail("made again"))
    dev.make_environment(dev.EXTRAS["demo"])
    assert installed == [["build", "fast"]]


def test_the_environment_has_a_python_that_runs(checkout):
    dev.make_environment(dev.EXTRAS["demo"])
    prefix = subprocess.run([dev.PYTHON, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert Path(prefix.stdout.strip()) == dev.VENV


def test_demo_keeps_but_does_not_install_test_tools(checkout):
    _, installed = checkout
    dev.make_environment(dev.EXTRAS["demo"])
    dev.make_environment(dev.EXTRAS["test"])
    dev.make_environment(dev.EXTRAS["demo"])
    assert installed == [["build", "fast"], ["build", "dev", "fast", "torch", "wavelet"]]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_into_the_same_environment(checkout, name):
    folder, installed = checkout
    dev.make_environment(dev.EXTRAS["test"])
    (dev.VENV / "still-here").touch()
    (folder / name).write_text("[project]\n# changed\n")
    dev.make_environment(dev.EXTRAS["test"])
    assert installed == [["dev", "torch", "wavelet"]] * 2
    assert (dev.VENV / "still-here").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, dev.SetupError])
def test_environment_is_rebuilt_after_an_interruption(checkout, monkeypatch, error):
    def break_off(extras):
        (dev.VENV / "half-installed").touch()
        raise error

    _, installed = checkout
    with monkeypatch.context() as patch:
        patch.setattr(dev, "install", break_off)
        with pytest.raises(error):
            dev.make_environment(dev.EXTRAS["demo"])
    dev.make_environment(dev.EXTRAS["demo"])
    assert not (dev.VENV / "half-installed").exists()
    assert installed == [["build", "fast"]]


def test_interrupted_installation_is_not_taken_as_complete(checkout, monkeypatch):
    def break_off(extras):
        raise KeyboardInterrupt

    _, installed = checkout
    dev.make_environment(dev.EXTRAS["demo"])
    with monkeypatch.context() as patch:
        patch.setattr(dev, "install", break_off)
        with pytest.raises(KeyboardInterrupt):
            dev.make_environment(dev.EXTRAS["test"])
    dev.make_environment(dev.EXTRAS["demo"])
    assert len(installed) == 2


@pytest.mark.parametrize("what", ["python", "folder"])
def test_new_python_or_moved_repository_gets_a_new_environment(checkout, monkeypatch, what):
    dev.make_environment(dev.EXTRAS["demo"])
    (dev.VENV / "of-the-old-one").touch()
    changed = {**dev.fingerprint(), what: "another"}
    monkeypatch.setattr(dev, "fingerprint", lambda: changed)
    dev.make_environment(dev.EXTRAS["demo"])
    assert not (dev.VENV / "of-the-old-one").exists()


def test_an_environment_that_lost_its_python_is_made_anew(checkout):
    _, installed = checkout
    dev.make_environment(dev.EXTRAS["demo"])
    dev.PYTHON.unlink()
    dev.make_environment(dev.EXTRAS["demo"])
    assert dev.PYTHON.exists()
    assert len(installed) == 2


def test_a_damaged_stamp_counts_as_interrupted(checkout):
    _, installed = checkout
    dev.make_environment(dev.EXTRAS["demo"])
    dev.STAMP.write_text('{"python": ')
    dev.make_environment(dev.EXTRAS["demo"])
    assert len(installed) == 2


def test_somebody_elses_environment_is_left_alone(checkout):
    dev.VENV.mkdir()
    (dev.VENV / "precious").touch()
    with pytest.raises(dev.SetupError, match="was not made by this script"):
        dev.make_environment(dev.EXTRAS["demo"])
    assert (dev.VENV / "precious").exists()


def test_second_process_waits_for_the_installation(checkout, monkeypatch):
    installing, asked_again, order = threading.Event(), threading.Event(), []
    really_lock, really_read = dev.lock, dev.read_stamp

    def install(extras):
        installing.set()
        assert asked_again.wait(60)
        order.append("installed")

    def lock():
        if installing.is_set():
            asked_again.set()
        return really_lock()

    def read_stamp():
        order.append("stamp read")
        return really_read()

    for name, stand_in in (("install", install), ("lock", lock), ("read_stamp", read_stamp)):
        monkeypatch.setattr(dev, name, stand_in)
    first = threading.Thread(target=dev.make_environment, args=[dev.EXTRAS["demo"]])
    first.start()
    assert installing.wait(60)
    dev.make_environment(dev.EXTRAS["demo"])
    first.join(60)
    assert order == ["stamp read", "installed", "stamp read"]


def test_failed_installation_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(dev, "pip_command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(dev, "answers", lambda url, seconds: False)
    with pytest.raises(dev.SetupError, match=r"exit code 3.*network.*same command again"):
        dev.install(["torch"])


@pytest.mark.parametrize(("platform", "reachable"), [("linux", True), ("linux", False), ("darwin", True)])
def test_cpu_index_is_used_on_linux_if_it_answers(tmp_path, monkeypatch, platform, reachable):
    arguments = tmp_path / "arguments"
    note = f"import sys; print(*sys.argv, file=open({str(arguments)!r}, 'a'))"
    monkeypatch.setattr(dev, "pip_command", lambda: [sys.executable, "-c", note])
    monkeypatch.setattr(dev, "answers", lambda url, seconds: reachable)
    monkeypatch.setattr(sys, "platform", platform)
    dev.install(["torch"])
    *of_torch, rest = arguments.read_text().splitlines()
    assert bool(of_torch) == (platform == "linux" and reachable)
    assert all(f"--no-deps --index-url {dev.CPU_TORCH_INDEX} torch" in line for line in of_torch)
    assert "index-url" not in rest
    assert "--editable" in rest


def test_the_cpu_index_is_not_asked_where_torch_is_not_wanted(monkeypatch):
    monkeypatch.setattr(dev, "pip_command", lambda: [sys.executable, "-c", ""])
    monkeypatch.setattr(dev, "answers", lambda url, seconds: pytest.fail("asked"))
    dev.install(sorted(dev.EXTRAS["demo"]))


def test_without_pip_one_is_put_into_the_environment(tmp_path, monkeypatch):
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n')
    python.chmod(0o755)
    monkeypatch.setattr(dev, "PYTHON", python)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(dev, "BASE_PYTHON", shutil.which("false"))
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: name == "ensurepip")
    assert dev.pip_command() == [python, "-m", "pip"]
    assert (tmp_path / "calls").read_text() == "-m ensurepip --default-pip\n"


def test_without_any_pip_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(dev, "BASE_PYTHON", shutil.which("false"))
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(dev.SetupError, match="apt-get install python3-pip"):
        dev.pip_command()


def test_old_python_gets_a_message(monkeypatch):
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize(("checks", "tests", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 5, 1)])
def test_the_tests_pass_only_if_the_checks_do_too(monkeypatch, capfd, checks, tests, code):
    asked = []

    def run(*arguments, output=None):
        asked.append(arguments[1])
        print("findings of mypy", file=output)
        return tests if arguments[1] == "pytest" else checks

    monkeypatch.setattr(dev, "run", run)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert dev.test_all([]) == code
    assert sorted(asked) == ["mypy", "pytest", "ruff", "ruff"]
    said = capfd.readouterr()
    assert said.out.endswith("== mypy\nfindings of mypy\n")
    assert ("failed: ruff check, ruff format, mypy" in said.err) == bool(checks)


def test_only_test_passes_options_to_pytest(monkeypatch, capsys):
    passed_on = []
    monkeypatch.setattr(dev, "make_environment", lambda extras: None)
    monkeypatch.setattr(dev, "test_all", lambda arguments: passed_on.extend(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["dev.py", "test", "-k", "volume", "Testing/test_io.py"])
    assert dev.main() == 0
    assert passed_on == ["-k", "volume", "Testing/test_io.py"]
    monkeypatch.setattr(sys, "argv", ["dev.py", "demo", "--fast"])
    with pytest.raises(SystemExit):
        dev.main()
    assert "unknown: --fast" in capsys.readouterr().err


def test_quick_leaves_out_the_slow_tests(monkeypatch):
    passed_on = []
    monkeypatch.setattr(dev, "make_environment", lambda extras: None)
    monkeypatch.setattr(dev, "test_all", lambda arguments: passed_on.extend(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["dev.py", "test", "--quick", "--maxfail=1"])
    assert dev.main() == 0
    assert passed_on == [*dev.ALL_TESTS, "-m", "not slow", "--maxfail=1"]


def test_every_slow_file_exists():
    table = runpy.run_path(str(SCRIPT.parent / "Testing" / "conftest.py"))["SLOW"]
    assert [name for name in table if not (SCRIPT.parent / "Testing" / name).is_file()] == []


def test_types_of_the_slicer_modules_pure_parts_are_checked():
    folder = SCRIPT.parent / "BrainFusion" / "BrainFusionSlicer"
    configured = tomllib.loads((SCRIPT.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]
    checked = {name for name in configured if name.startswith("BrainFusion/")}
    application = re.compile(r"^\s*(import|from) (slicer|vtk|qt|ctk)\b", re.MULTILINE)
    names = [path.name for path in folder.glob("*.py") if not application.search(path.read_text(encoding="utf-8"))]
    assert checked == {f"BrainFusion/BrainFusionSlicer/{name}" for name in names if name != "__init__.py"}


def test_other_peoples_modules_do_not_reach_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    assert "PYTHONPATH" not in dev.clean_environ()
    assert dev.clean_environ()["PATH"] == os.environ["PATH"]


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script")
def test_continuous_integration_runs_what_people_run(tmp_path):
    for name, line in (("python3", 'echo "$@"'), ("apt-get", "exit 0")):  # nothing is installed by a test
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([SCRIPT.parent / ".ci" / "run"], env={"PATH": path}, cwd=tmp_path, capture_output=True)
    calls = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(Path(script).resolve(), command) for script, command in calls] == [(SCRIPT, "setup"), (SCRIPT, "test")]


@pytest.fixture
def c_files(tmp_path, monkeypatch):
    """A checkout of its own with the C files only, and little in them."""
    for path in [*(dev.ROOT / "BrainFusionLib").rglob("*.[ch]"), dev.ROOT / "BrainFusionLib" / "CMakeLists.txt"]:
        copy = tmp_path / path.relative_to(dev.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text() if path.suffix != ".c" else "typedef int nothing;\n")
    (tmp_path / "BrainFusionLib" / "version.py").write_text('__version__ = "0.0.0"\n')
    for name in ("ROOT", "LOCK", "NATIVE_BUILD"):
        monkeypatch.setattr(dev, name, tmp_path / getattr(dev, name).relative_to(SCRIPT.parent))
    return tmp_path


def test_without_cmake_the_c_library_is_not_built_and_the_remedy_is_named(c_files, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda *arguments, **options: None)
    with pytest.raises(dev.SetupError, match="pip install cmake"):
        dev.build_native()
    dev.try_to_build_native()
    assert "Going on without the C library" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("cmake"), reason="no CMake here")
def test_without_a_compiler_the_c_library_is_not_built_and_the_remedy_is_named(c_files, monkeypatch):
    monkeypatch.setenv("CC", str(c_files / "no-such-compiler"))
    with pytest.raises(dev.SetupError, match=r"no C compiler.*apt-get install gcc"):
        dev.build_native()
    assert not (c_files / "BrainFusionLib" / dev.NATIVE_NAME).exists()


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("cc")), reason="no CMake or no compiler here")
def test_a_file_that_does_not_compile_is_named(c_files):
    (c_files / "BrainFusionLib" / "resample.c").write_text("int broken\n")
    with pytest.raises(dev.SetupError, match=r"(?s)could not be built.*resample\.c"):
        dev.build_native()


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_an_address_answers_if_something_is_there():
    with http.server.HTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert dev.answers(f"{address}/there", seconds=5)
        assert not dev.answers(f"{address}/not-there", seconds=5)
        server.shutdown()


def test_a_silent_address_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # The socket stays open and says nothing: only giving up ends this.
        assert not dev.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.3)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script of the shell")
@pytest.mark.parametrize("code", [0, 3])
def test_a_slicer_is_started_with_the_self_test_and_its_code_is_returned(tmp_path, monkeypatch, code):
    monkeypatch.setenv("DISPLAY", ":1")
    stand_in = tmp_path / "Slicer"
    stand_in.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\nexit {code}\n')
    stand_in.chmod(0o755)
    assert dev.test_in_slicer(stand_in, tmp_path / "pictures") == code
    asked = (tmp_path / "asked").read_text()
    assert f"--additional-module-paths {dev.ROOT / 'BrainFusion'}" in asked
    assert f"--python-script {dev.ROOT / 'tools' / 'in_slicer.py'} {tmp_path / 'pictures'}" in asked


def test_a_slicer_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":1")
    with pytest.raises(dev.SetupError, match="cannot be started"):
        dev.test_in_slicer(tmp_path / "Slicer", tmp_path)
