import hashlib
import io
import os
import plistlib
import tarfile
from dataclasses import dataclass

import numpy as np
import pytest

from BrainFusionLib.geometry import Grid, anatomical_axes, apply_affine
from BrainFusionLib.io import write_transform
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from tools import demo, samples, simulate


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclass
class Internet:
    """Stands in for the network: what it holds, and what was asked of it."""

    pages: dict
    asked: list

    def answers(self, url, seconds):
        return url in self.pages

    def download(self, url, stream):
        self.asked.append(url)
        stream.write(self.pages[url])


@pytest.fixture
def internet(monkeypatch):
    net = Internet({}, [])
    monkeypatch.setattr(samples, "answers", net.answers)
    monkeypatch.setattr(samples, "download", net.download)
    return net


# Downloads


WANTED = samples.SlicerFile("ct.nrrd", _sha256(b"a real head"))


def test_a_file_is_downloaded_once(internet, tmp_path):
    internet.pages[WANTED.url] = b"a real head"
    for _ in range(2):
        assert samples.get_slicer_file(WANTED, tmp_path).read_bytes() == b"a real head"
    assert len(internet.asked) == 1


def test_a_file_that_is_there_needs_no_network(internet, tmp_path):
    (tmp_path / "ct.nrrd").write_bytes(b"a real head")
    assert samples.get_slicer_file(WANTED, tmp_path).exists()
    assert internet.asked == []


def test_another_file_under_the_same_address_is_refused_and_removed(internet, tmp_path):
    internet.pages[WANTED.url] = b"something else"
    with pytest.raises(
        samples.SampleError, match=rf"ct.nrrd is not .* {_sha256(b'something else')}, not {WANTED.sha256}"
    ):
        samples.get_slicer_file(WANTED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_downloaded_again(internet, tmp_path):
    (tmp_path / "ct.nrrd").write_bytes(b"a real he")
    internet.pages[WANTED.url] = b"a real head"
    assert samples.get_slicer_file(WANTED, tmp_path).read_bytes() == b"a real head"


def test_an_interrupted_download_leaves_nothing(internet, tmp_path, monkeypatch):
    def break_off(url, stream):
        stream.write(b"a real")
        raise KeyboardInterrupt

    internet.pages[WANTED.url] = b""
    monkeypatch.setattr(samples, "download", break_off)
    with pytest.raises(KeyboardInterrupt):
        samples.get_slicer_file(WANTED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_out_of_reach_is_said(internet, tmp_path):
    with pytest.raises(samples.SampleError, match=r"github\.com.* is out of reach"):
        samples.get_slicer_file(WANTED, tmp_path)


def test_a_broken_connection_names_the_address():
    with pytest.raises(samples.SampleError, match=r"file:///no/such/file cannot be downloaded"):
        samples.download("file:///no/such/file", io.BytesIO())


# Debian packages


MEMBER = "./usr/share/heads/head.nii.gz"


def _package(content, member=MEMBER, compression="xz"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{compression}": data.getvalue()}
    packed = b"!<arch>\n"
    for name, part in parts.items():
        packed += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    return packed


def _packaged(content, package):
    return samples.PackagedFile("head.nii.gz", _sha256(content), "heads", "h/heads.deb", _sha256(package), MEMBER)


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_a_file_comes_out_of_a_package_and_the_package_goes(internet, tmp_path, compression):
    package = _package(b"a head", compression=compression)
    wanted = _packaged(b"a head", package)
    internet.pages[wanted.urls[0]] = package
    assert samples.get_packaged_file(wanted, tmp_path).read_bytes() == b"a head"
    assert [path.name for path in tmp_path.iterdir()] == ["head.nii.gz"]
    samples.get_packaged_file(wanted, tmp_path)
    assert len(internet.asked) == 1


def test_debians_archive_is_asked_when_the_mirror_has_another_file(internet, tmp_path):
    package = _package(b"a head")
    wanted = _packaged(b"a head", package)
    internet.pages = {wanted.urls[0]: b"not this one", wanted.urls[1]: package}
    assert samples.get_packaged_file(wanted, tmp_path).read_bytes() == b"a head"
    assert internet.asked == wanted.urls


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (b"no archive at all", "not an ar archive"),
        (_package(b"a head", "./another"), "head.nii.gz"),
        (b"!<arch>\n", "data"),
    ],
)
def test_a_package_without_the_file_is_refused(internet, tmp_path, package, said):
    wanted = _packaged(b"a head", package)
    internet.pages[wanted.urls[0]] = package
    with pytest.raises(samples.SampleError, match=said):
        samples.get_packaged_file(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def apt_get(tmp_path, monkeypatch):
    """An apt-get of our own, that fails to update, keeps its configuration, and delivers `delivers`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "apt-get"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/calls; cp "$3" {folder}/configuration\n'
        "test $4 = download || exit 100\n"
        f'cp {folder}/delivers "$5"_1.0_all.deb\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_another_version_of_a_package_will_do_if_the_image_is_the_same(internet, tmp_path, apt_get):
    (apt_get / "delivers").write_bytes(_package(b"a head", compression="gz"))
    wanted = _packaged(b"a head", _package(b"a head"))
    assert samples.get_packaged_file(wanted, tmp_path / "samples").read_bytes() == b"a head"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_another_version_with_another_image_is_refused(internet, tmp_path, apt_get):
    (apt_get / "delivers").write_bytes(_package(b"another head"))
    wanted = _packaged(b"a head", _package(b"a head"))
    with pytest.raises(samples.SampleError, match=r"head.nii.gz is not the file that was wanted"):
        samples.get_packaged_file(wanted, tmp_path / "samples")
    assert list((tmp_path / "samples").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_apt_get_is_kept_off_the_systems_folders(tmp_path, apt_get):
    (apt_get / "delivers").write_bytes(b"")
    folder = tmp_path / "private"
    folder.mkdir()
    samples.apt_download("heads", folder)
    configuration = (apt_get / "configuration").read_text()
    assert f'Dir::State "{folder}/state";' in configuration
    assert f'Dir::Cache "{folder}/cache";' in configuration
    assert [line.split()[3:] for line in (apt_get / "calls").read_text().splitlines()] == [
        ["update"],
        ["download", "heads"],
    ]


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_an_apt_get_that_fails_is_quoted(tmp_path, apt_get):
    with pytest.raises(samples.SampleError, match=r"cannot download heads: .*delivers"):
        samples.apt_download("heads", tmp_path)


def test_no_apt_get_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(samples.SampleError, match="no apt-get on this machine"):
        samples.apt_download("heads", tmp_path)


def test_an_invesalius_project_becomes_a_ct_with_its_rows_the_right_way_round(tmp_path):
    matrix = np.zeros((3, 4, 5), dtype="<i2")
    matrix[0, 0, 4] = 1200  # lowest slice, back of the head, left
    description = {"spacing": [0.5, 0.5, 2.0], "matrix": {"filename": "matrix.dat", "shape": [3, 4, 5]}}
    path = tmp_path / "head.inv3"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("main.plist", plistlib.dumps(description)), ("matrix.dat", matrix.tobytes())):
            entry = tarfile.TarInfo(f"tmpabc/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    ct = samples.read_inv3(path)
    k, j, i = np.argwhere(ct.array_kji == 1200)[0]
    assert anatomical_axes(ct.grid.direction) == "LPS"
    assert ct.modality == "CT"
    np.testing.assert_allclose(apply_affine(ct.grid.lps_from_ijk, [i, j, k]), [1.0, 0.75, -2.0])


# The simulated MRI


HOLES_LPS_MM = np.array([[30.0, 10.0, 5.0], [-25.0, 20.0, -10.0], [0.0, -30.0, 25.0]])


def _ball_with_holes(spacing_mm=2.0):
    """A ball of brain, 70 mm in radius, with three spheres of bone in it, a plate of plastic beside it, air around."""
    size = (88, 84, 80)
    origin = tuple(-(n - 1) / 2 * spacing_mm for n in size)
    grid = Grid(size, (spacing_mm,) * 3, origin)
    k, j, i = np.indices(grid.shape_kji)
    points = apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=-1))
    array = np.full(grid.shape_kji, -1000.0)
    array[points[..., 1] > 78] = 200
    array[np.linalg.norm(points, axis=-1) < 70] = 27
    for centre in HOLES_LPS_MM:
        # Partial volume at the edge, so that the centroid is good to far less than a voxel.
        inside = np.clip((9 - np.linalg.norm(points - centre, axis=-1)) / spacing_mm + 0.5, 0, 1)
        array += inside * (1500 - array)
    return Volume(array, grid, "CT", "ball")


@pytest.fixture(scope="module")
def ball():
    return _ball_with_holes()


@pytest.fixture(scope="module")
def pair(ball):
    return simulate.simulate_mri(ball, seed=3, noise=0, bias=0)


def test_the_simulated_mri_lies_exactly_where_the_truth_says(pair):
    k, j, i = np.indices(pair.mri.grid.shape_kji)
    points = apply_affine(pair.mri.grid.lps_from_ijk, np.stack([i, j, k], axis=-1))
    for centre in HOLES_LPS_MM:
        expected = pair.transform.inverse().apply(centre)
        near = np.linalg.norm(points - expected, axis=-1) < 14
        darkness = np.clip(640 - pair.mri.array_kji[near], 0, None)
        centroid = (darkness[:, None] * points[near]).sum(axis=0) / darkness.sum()
        assert np.linalg.norm(centroid - expected) < 0.1


def test_the_pose_is_as_far_off_as_asked(ball):
    pair = simulate.simulate_mri(ball, rotation_deg=25, shift_mm=35)
    assert pair.transform.angle_deg == pytest.approx(25)
    in_ct = pair.transform.apply(pair.head_points_lps_mm)
    shift = pair.head_points_lps_mm.mean(axis=0) - in_ct.mean(axis=0)
    assert np.linalg.norm(shift) == pytest.approx(35)
    assert np.linalg.norm(in_ct, axis=1).max() < 71


def test_the_same_seed_gives_the_same_image_and_another_one_another_pose(ball):
    one, same, other = (simulate.simulate_mri(ball, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.mri.array_kji, same.mri.array_kji)
    assert not np.allclose(one.transform.rotation, other.transform.rotation)


def test_the_head_holder_is_not_in_the_simulated_mri(ball):
    signal = simulate.t1_signal(ball, simulate.head_tissue(ball))
    assert ball.array_kji[40, -1, 40] == 200
    assert signal[40, -1, 40] == 0
    assert signal[40, 42, 44] == pytest.approx(640)


def test_the_signal_is_no_mere_rescaling_of_the_ct():
    grid = Grid((8, 8, 8), (20.0, 20.0, 20.0))
    everywhere = np.ones(grid.shape_kji, dtype=bool)

    def signal(hu):
        return simulate.t1_signal(Volume(np.full(grid.shape_kji, hu), grid, "CT"), everywhere).mean()

    air, fat, water, white, grey, bone = (signal(hu) for hu in (-1000, -100, 5, 27, 36, 1200))
    assert max(air, bone) < water < grey < white < fat


def test_noise_and_gain_do_what_they_say(ball):
    quiet = simulate.simulate_mri(ball, seed=3, noise=0, bias=0).mri.array_kji
    noisy = simulate.simulate_mri(ball, seed=3, noise=12, bias=0).mri.array_kji
    uneven = simulate.simulate_mri(ball, seed=3, noise=0, bias=0.15).mri.array_kji
    # Rician: in air the mean is the standard deviation of a channel times the root of half pi.
    assert noisy[quiet == 0].mean() == pytest.approx(12 * np.sqrt(np.pi / 2), rel=0.05)
    ratio = uneven[quiet > 300] / quiet[quiet > 300]
    assert 0.84 < ratio.min() < 0.97
    assert 1.03 < ratio.max() < 1.16


def test_a_volume_of_air_is_refused():
    grid = Grid((8, 8, 8))
    with pytest.raises(ValueError, match=r"empty room: a head CT is wanted"):
        simulate.simulate_mri(Volume(np.full(grid.shape_kji, -1000.0), grid, "CT", "empty room"))


# The demo


@pytest.fixture
def demo_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "output")
    (tmp_path / "samples").mkdir()
    return tmp_path


def _unavailable(*_):
    raise samples.SampleError("out of reach")


def test_images_of_an_earlier_run_are_used_before_the_network_is_asked(demo_folders, monkeypatch):
    (demo.SAMPLES / samples.HEAD_CT.name).touch()
    monkeypatch.setattr(demo, "slicer_cases", lambda: pytest.fail("asked GitHub"))
    monkeypatch.setattr(demo, "package_cases", lambda: ["packages"])
    assert demo.find_cases() == ["packages"]


def test_where_no_image_can_be_had_the_phantom_is_taken_and_it_is_said(demo_folders, monkeypatch, capsys):
    for way in ("slicer_cases", "package_cases"):
        monkeypatch.setattr(demo, way, _unavailable)
    monkeypatch.setattr(demo, "phantom_cases", lambda: ["phantom"])
    assert demo.find_cases() == ["phantom"]
    assert capsys.readouterr().out.count("not to be had: out of reach") == 2


def test_a_missing_second_package_leaves_the_first_case(demo_folders, monkeypatch, ball):
    def get(wanted, folder):
        return folder / "ct" if wanted is samples.HEAD_CT else _unavailable()

    monkeypatch.setattr(demo, "get_packaged_file", get)
    monkeypatch.setattr(demo, "read_inv3", lambda path: ball)
    (case,) = demo.package_cases()
    assert case.name == "simulated_mri"
    assert case.ct.exists()
    assert case.mri.exists()


@pytest.mark.parametrize(("off_mm", "good"), [(0.5, True), (5.0, False)])
def test_the_true_error_is_measured_and_decides(demo_folders, monkeypatch, capsys, pair, off_mm, good):
    def fuse(arguments):
        folder = demo.OUTPUT / "known"
        folder.mkdir(parents=True)
        off = RigidTransform.from_axis_angle([0, 0, 1], 0, [off_mm, 0, 0])
        write_transform(off @ pair.transform, folder / "ct_to_mri.tfm")
        return 0

    monkeypatch.setattr(demo.cli, "main", fuse)
    truth = demo.Truth(pair.transform, pair.head_points_lps_mm)
    case = demo.Case("known", "a title", demo.OUTPUT / "ct", demo.OUTPUT / "mri", truth)
    assert demo.run_case(case) is good
    assert f"mean {off_mm:.2f}, worst {off_mm:.2f} mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "one_head", "good"), [(2, True, False), (3, True, False), (3, False, True), (2, False, False)]
)
def test_only_two_people_may_be_refused_a_pose(demo_folders, monkeypatch, code, one_head, good):
    monkeypatch.setattr(demo.cli, "main", lambda arguments: code)
    case = demo.Case("case", "a title", demo.OUTPUT / "ct", demo.OUTPUT / "mri", one_head=one_head)
    assert demo.run_case(case) is good
