"""Memory that a process frees stays with it where it was asked for, and goes back where that was asked for."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from BrainFusionLib import cli, device

ROOT = Path(__file__).parents[1]
# How many pages are fetched when an array of 50 MB is made and freed once more.
FAULTS = """
import resource, sys
import numpy as np
from BrainFusionLib.device import give_memory_back, keep_freed_memory
if sys.argv[1] != "as it is":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    np.ones(50_000_000, np.uint8)
if sys.argv[1] == "given back":
    give_memory_back()
before = faults()
np.ones(50_000_000, np.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_kept_memory_is_not_fetched_again():
    if not hasattr(device.ctypes.CDLL(None), "mallopt"):
        pytest.skip("not glibc")
    fetched = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], cwd=ROOT, capture_output=True, check=True).stdout)
        for how in ("as it is", "kept", "given back")
    }
    assert fetched["kept"] < 100
    assert fetched["kept"] < fetched["as it is"] / 10
    assert fetched["kept"] < fetched["given back"] / 10


@pytest.mark.parametrize(("of_user", "used"), [(None, "1"), ("2", "2")])
def test_command_multiplies_on_one_thread_unless_told_otherwise(of_user, used):
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if of_user is None else {"OPENBLAS_NUM_THREADS": of_user}
    code = "import os, sys; from BrainFusionLib.__main__ import main; sys.argv = ['', '--help']\ntry: main()\n"
    code += "except SystemExit: pass\nprint(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{used} False"


def test_nothing_changes_without_glibc(monkeypatch):
    monkeypatch.setattr(device.sys, "platform", "darwin")
    assert not device.keep_freed_memory()
    device.give_memory_back()
    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert not device.keep_freed_memory()
    device.give_memory_back()


def test_the_console_command_keeps_its_memory(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(sys.modules["BrainFusionLib.cli.main"], "keep_freed_memory", lambda: asked.append(True))
    cli.main(["doctor"])
    assert asked


def test_threads_are_used_inside_and_restored_afterwards():
    def counts():
        return torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()

    before = counts()
    with device.use_threads(3):
        assert counts() == (3, 3)
    assert counts() == before
    with pytest.raises(ValueError, match="here"), device.use_threads(2):
        raise ValueError("here")
    assert counts() == before
    with device.use_threads(None):
        assert counts() == before
        torch.set_num_threads(before[0] + 1)
    assert counts() == before


@pytest.fixture
def products():
    """What reads and sets the number of threads for matrix products, which is 3 before the test."""
    if device._openblas() is None:
        pytest.skip("numpy without OpenBLAS")
    get, set_to = device._openblas()
    before = get()
    set_to(3)
    yield get
    set_to(before)


def test_matrix_products_use_one_thread_whatever_the_process_and_the_user_chose(products):
    """The last digits of a product depend on that number, and a verdict must not."""
    assert products() == 3
    with device.use_threads(2):
        assert products() == 1
    assert products() == 3


def test_the_last_of_two_cases_at_once_restores_the_threads_of_products(products):
    first, second = device.use_threads(1), device.use_threads(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert products() == 1
    second.__exit__(None, None, None)
    assert products() == 3


SHIFT = """
import numpy as np
from BrainFusionLib import device
from BrainFusionLib.case import Inputs, Request, Source, run
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import Settings
pair = make_pair(3, spacing_mm=4.0)
get, set_to = device._openblas()
for count in (1, 2):
    set_to(count)
    request = Request(Source("CT"), Source("MRI"), settings=Settings(device="cpu"), given=pair.transform, fuse=False)
    shift = run(request, Inputs(pair.ct, pair.mri)).evidence.brain_shift
    print(shift.p95_mm.hex(), shift.noise_mm.hex(), shift.shifts_mm.tobytes().hex())
"""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names a kernel of OpenBLAS")
def test_evidence_is_the_same_to_the_last_bit_on_any_number_of_threads():
    if device._openblas() is None:
        pytest.skip("numpy without OpenBLAS")
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}  # whose products depend on it
    code = [sys.executable, "-c", SHIFT]
    done = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    one, two = done.stdout.splitlines()
    assert one == two


def test_itk_that_is_loaded_late_uses_the_threads_too_and_gets_its_own_back():
    code = """if True:
        import os
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "5"
        from BrainFusionLib import device
        with device.use_threads(3):
            itk = device.simple_itk().ProcessObject
            print(itk.GetGlobalDefaultNumberOfThreads())
        print(itk.GetGlobalDefaultNumberOfThreads())
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "5"]
