import numpy as np
import pytest

from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import write_transform
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from tools import demo, samples

TRUTH = demo.Truth(RigidTransform.from_axis_angle([1, 2, 3], 25, [10, -30, 5]), np.eye(3) * 60)


def _ball():
    grid = Grid((24, 24, 24), (8.0, 8.0, 8.0), (-92.0, -92.0, -92.0))
    squares = (np.arange(24) - 11.5) ** 2
    inside = squares[:, None, None] + squares[:, None] + squares < 81
    return Volume(np.where(inside, 30.0, -1000.0), grid, "CT", "ball")


BALL = _ball()


@pytest.fixture
def demo_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "output")
    (tmp_path / "samples").mkdir()
    return tmp_path


def _unavailable(*_):
    raise samples.SampleError("out of reach")


def test_earlier_images_need_no_network(demo_folders, monkeypatch):
    (demo.SAMPLES / samples.HEAD_CT.name).touch()
    monkeypatch.setattr(demo, "slicer_cases", lambda: pytest.fail("asked GitHub"))
    monkeypatch.setattr(demo, "package_cases", lambda: ["packages"])
    assert demo.find_cases() == ["packages"]


def test_without_images_the_phantom_is_used(demo_folders, monkeypatch, capsys):
    for way in ("slicer_cases", "package_cases"):
        monkeypatch.setattr(demo, way, _unavailable)
    monkeypatch.setattr(demo, "phantom_cases", lambda: ["phantom"])
    assert demo.find_cases() == ["phantom"]
    assert capsys.readouterr().out.count("not available: out of reach") == 2


def test_missing_second_package_leaves_the_first_case(demo_folders, monkeypatch):
    def get(wanted, folder):
        return folder / "ct" if wanted is samples.HEAD_CT else _unavailable()

    monkeypatch.setattr(demo, "get_packaged_file", get)
    monkeypatch.setattr(demo, "read_inv3", lambda path: BALL)
    (case,) = demo.package_cases()
    assert case.name == "simulated_mri"
    assert case.ct.exists()
    assert case.mri.exists()


@pytest.mark.parametrize(("off_mm", "good"), [(0.5, True), (5.0, False)])
def test_true_error_decides(demo_folders, monkeypatch, capsys, off_mm, good):
    def fuse(arguments):
        folder = demo.OUTPUT / "known"
        folder.mkdir(parents=True)
        off = RigidTransform.from_axis_angle([0, 0, 1], 0, [off_mm, 0, 0])
        write_transform(off @ TRUTH.transform, folder / "ct_to_mri.tfm")
        return 0

    monkeypatch.setattr(demo.cli, "main", fuse)
    case = demo.Case("known", "a title", demo.OUTPUT / "ct", demo.OUTPUT / "mri", TRUTH)
    assert demo.run_case(case) is good
    assert f"mean {off_mm:.2f}, worst {off_mm:.2f} mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "one_head", "good"),
    [(2, True, False), (3, True, False), (3, False, True), (2, False, False), (0, False, False)],
)
def test_only_two_people_are_refused(demo_folders, monkeypatch, capsys, code, one_head, good):
    monkeypatch.setattr(demo.cli, "main", lambda arguments: code)
    case = demo.Case("case", "a title", demo.OUTPUT / "ct", demo.OUTPUT / "mri", one_head=one_head)
    assert demo.run_case(case) is good
    assert ("Refused, which is right: these are two people." in capsys.readouterr().out) is good


def test_report_is_named_only_where_there_is_one(demo_folders, monkeypatch, capsys):
    cases = [demo.Case(name, name, demo.SAMPLES, demo.SAMPLES, one_head=name == "one") for name in ("one", "two")]
    monkeypatch.setattr(demo, "find_cases", lambda: cases)
    monkeypatch.setattr(demo, "run_case", lambda case: True)
    assert demo.main() == 0
    said = capsys.readouterr().out
    assert str(demo.OUTPUT / "one" / "report.html") in said
    assert f"{demo.OUTPUT / 'two'}   refused: no results" in said
    assert str(demo.OUTPUT / "two" / "report.html") not in said
