import hashlib
import io
import os
import plistlib
import tarfile
from dataclasses import dataclass

import numpy as np
import pytest

from BrainFusionLib.geometry import anatomical_axes, apply_affine
from tools import samples


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


def test_file_is_downloaded_once(internet, tmp_path):
    internet.pages[WANTED.url] = b"a real head"
    for _ in range(2):
        assert samples.get_slicer_file(WANTED, tmp_path).read_bytes() == b"a real head"
    assert len(internet.asked) == 1


def test_existing_file_needs_no_network(internet, tmp_path):
    (tmp_path / "ct.nrrd").write_bytes(b"a real head")
    assert samples.get_slicer_file(WANTED, tmp_path).exists()
    assert internet.asked == []


def test_wrong_file_is_rejected_and_removed(internet, tmp_path):
    internet.pages[WANTED.url] = b"something else"
    with pytest.raises(
        samples.SampleError, match=rf"ct.nrrd is not .* {_sha256(b'something else')}, not {WANTED.sha256}"
    ):
        samples.get_slicer_file(WANTED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_downloaded_again(internet, tmp_path):
    (tmp_path / "ct.nrrd").write_bytes(b"a real he")
    internet.pages[WANTED.url] = b"a real head"
    assert samples.get_slicer_file(WANTED, tmp_path).read_bytes() == b"a real head"


def test_interrupted_download_leaves_nothing(internet, tmp_path, monkeypatch):
    def break_off(url, stream):
        stream.write(b"a real")
        raise KeyboardInterrupt

    internet.pages[WANTED.url] = b""
    monkeypatch.setattr(samples, "download", break_off)
    with pytest.raises(KeyboardInterrupt):
        samples.get_slicer_file(WANTED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_address_is_named(internet, tmp_path):
    with pytest.raises(samples.SampleError, match=r"github\.com.* is out of reach"):
        samples.get_slicer_file(WANTED, tmp_path)


def test_broken_connection_names_the_address():
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
def test_file_is_taken_out_of_its_package(internet, tmp_path, compression):
    package = _package(b"a head", compression=compression)
    wanted = _packaged(b"a head", package)
    internet.pages[wanted.urls[0]] = package
    assert samples.get_packaged_file(wanted, tmp_path).read_bytes() == b"a head"
    assert [path.name for path in tmp_path.iterdir()] == ["head.nii.gz"]
    samples.get_packaged_file(wanted, tmp_path)
    assert len(internet.asked) == 1


def test_archive_stands_in_for_the_mirror(internet, tmp_path):
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
def test_package_without_the_file_is_rejected(internet, tmp_path, package, said):
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
def test_other_package_version_with_the_same_image_is_accepted(internet, tmp_path, apt_get):
    (apt_get / "delivers").write_bytes(_package(b"a head", compression="gz"))
    wanted = _packaged(b"a head", _package(b"a head"))
    assert samples.get_packaged_file(wanted, tmp_path / "samples").read_bytes() == b"a head"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_other_image_is_rejected(internet, tmp_path, apt_get):
    (apt_get / "delivers").write_bytes(_package(b"another head"))
    wanted = _packaged(b"a head", _package(b"a head"))
    with pytest.raises(samples.SampleError, match=r"head.nii.gz is not the file that was wanted"):
        samples.get_packaged_file(wanted, tmp_path / "samples")
    assert list((tmp_path / "samples").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script stands in for apt-get")
def test_apt_get_leaves_system_folders_alone(tmp_path, apt_get):
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
def test_failing_apt_get_is_quoted(tmp_path, apt_get):
    with pytest.raises(samples.SampleError, match=r"cannot download heads: .*delivers"):
        samples.apt_download("heads", tmp_path)


def test_missing_apt_get_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(samples.SampleError, match="no apt-get on this machine"):
        samples.apt_download("heads", tmp_path)


def test_invesalius_rows_are_turned(tmp_path):
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
