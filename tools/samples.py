"""Get real images to run on, once: nothing is taken that does not have the sha256 that is written here.

Slicer's CTMRBrain is one head in CT and MRI. Where GitHub is out of reach, two Debian packages each bring one half: a
head CT (InVesalius' example) and a T1 (Colin27, with MRIcron), of two people.
"""

from __future__ import annotations

import io
import os
import plistlib
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.hashing import sha256_of_file
from BrainFusionLib.volume import Volume
from dev import answers

PROBE_SECONDS = 4
CHUNK = 1 << 20


class SampleError(Exception):
    """An image is not available; the message says why."""


@dataclass(frozen=True)
class SlicerFile:
    """One file of Slicer's sample data; its address is its sha256."""

    name: str
    sha256: str

    @property
    def url(self) -> str:
        """Where Slicer itself gets it."""
        return f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{self.sha256}"


@dataclass(frozen=True)
class PackagedFile:
    """One file inside a Debian package: the package's own sha256, and that of the file, which is what counts."""

    name: str
    sha256: str
    package: str
    pool_path: str
    package_sha256: str
    member: str

    @property
    def urls(self) -> list[str]:
        """Debian's mirrors, and the archive that keeps what they drop."""
        return [
            f"http://deb.debian.org/debian/pool/main/{self.pool_path}",
            f"http://snapshot.debian.org/archive/debian/20250520T000000Z/pool/main/{self.pool_path}",
        ]


SLICER_CT = SlicerFile("CT-brain.nrrd", "6a5b6caccb76576a863beb095e3bfb910c50ca78f4c9bf043aa42f976cfa53d1")
SLICER_T1 = SlicerFile("MR-brain-T1.nrrd", "2da3f655ed20356ee8cdf32aa0f8f9420385de4b6e407d28e67f9974d7ce1593")

HEAD_CT = PackagedFile(
    name="Cranium.inv3",
    sha256="3b34f11f7c4f557f4c65cd6543c412a2f6ceb0cfecfd9c41184420e02d9b7e2a",
    package="invesalius-examples",
    pool_path="i/invesalius/invesalius-examples_3.1.99998-4_all.deb",
    package_sha256="f2f14bdfef6dc3812eafc5013d133c6c18370aaab5666b78d54af2e7db432f97",
    member="./usr/share/doc/invesalius-examples/examples/Cranium.inv3",
)
COLIN27_T1 = PackagedFile(
    name="ch2.nii.gz",
    sha256="a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309",
    package="mricron-data",
    pool_path="m/mricron/mricron-data_1.2.20211006%2bdfsg-4_all.deb",
    package_sha256="d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
    member="./usr/share/mricron/templates/ch2.nii.gz",
)


def get_slicer_file(wanted: SlicerFile, folder: Path) -> Path:
    """Return the path of a file of Slicer's sample data in `folder`, after downloading it if it is not there.

    Raises
    ------
    SampleError
        GitHub is out of reach, or what came is not the file that was wanted.
    """
    path = folder / wanted.name
    if not has(path, wanted.sha256):
        if not answers(wanted.url, seconds=PROBE_SECONDS):
            raise SampleError(f"{wanted.url} is out of reach")
        print(f"  downloading {wanted.name} from Slicer's sample data ...", flush=True)
        with whole_file(path, wanted.sha256) as stream:
            download(wanted.url, stream)
    return path


def get_packaged_file(wanted: PackagedFile, folder: Path) -> Path:
    """Return the path of a file out of a Debian package in `folder`, after fetching the package if it is not there.

    Neither Debian nor root is needed: the package is downloaded by its address, and opened here. Where the address is
    out of reach but apt-get works (a mirror inside a hospital's network), apt-get downloads it.

    Raises
    ------
    SampleError
        The package is not available, or the file in it is not the expected one.
    """
    path = folder / wanted.name
    if has(path, wanted.sha256):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        package = download_package(wanted, Path(temporary))
        with whole_file(path, wanted.sha256) as stream:
            copy_member(package, wanted.member, stream)
    return path


def download_package(wanted: PackagedFile, folder: Path) -> Path:
    """Download a Debian package into `folder` and return its path; raises `SampleError` when no way works."""
    print(f"  downloading Debian's package {wanted.package} ...", flush=True)
    path = folder / "package.deb"
    reasons = []
    for url in wanted.urls:
        try:
            if not answers(url, seconds=PROBE_SECONDS):
                raise SampleError(f"{url} is out of reach")
            with whole_file(path, wanted.package_sha256) as stream:
                download(url, stream)
            return path
        except SampleError as error:
            reasons.append(str(error))
    try:
        return apt_download(wanted.package, folder)
    except SampleError as error:
        reasons.append(str(error))
    raise SampleError("; ".join(reasons))


def download(url: str, stream: IO[bytes]) -> None:
    """Copy what is at `url` into `stream`; raises `SampleError` when the connection fails."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            shutil.copyfileobj(answer, stream, CHUNK)
    except OSError as error:
        raise SampleError(f"{url} cannot be downloaded ({error})") from error


APT_CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::status "/dev/null";
Dir::Cache "{folder}/cache";
Debug::NoLocking "1";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "0";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def apt_download(package: str, folder: Path) -> Path:
    """Download a package with apt-get, as any user, and leave the system's own lists and caches as they are.

    Raises
    ------
    SampleError
        There is no apt-get here, or it fails.
    """
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise SampleError("there is no apt-get on this machine")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(folder=folder.resolve()), encoding="utf-8")
    for arguments in (["update"], ["download", package]):
        command = [apt_get, "--quiet", "--config-file", str(configuration.resolve()), *arguments]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    # An update fails if any one of the user's sources does; only the download tells whether it mattered.
    found = sorted(folder.glob(f"{package}_*.deb"))
    if done.returncode != 0 or not found:
        raise SampleError(f"apt-get cannot download {package}: {' '.join(done.stdout.split()[-40:])}")
    return found[0]


def copy_member(package: Path, member: str, stream: IO[bytes]) -> None:
    """Copy one file out of a Debian package into `stream`.

    A package is an `ar` archive, whose part ``data.tar.*`` holds the files (man 5 deb).

    Raises
    ------
    SampleError
        It is no Debian package, or has no such file.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(ar_part(package.read_bytes(), "data.tar"))) as archive:
            file = archive.extractfile(member)
            if file is None:
                raise KeyError(member)
            shutil.copyfileobj(file, stream, CHUNK)
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise SampleError(f"{package.name}: no {member} can be read from this package ({error})") from error


def ar_part(archive: bytes, name: str) -> bytes:
    """Return the first part of an `ar` archive whose name begins with `name`; raises `ValueError` if there is none."""
    if not archive.startswith(b"!<arch>\n"):
        raise ValueError("not an ar archive")
    start = 8
    while start + 60 <= len(archive):
        header = archive[start : start + 60]
        size = int(header[48:58])
        if header.startswith(name.encode()):
            return archive[start + 60 : start + 60 + size]
        start += 60 + size + size % 2
    raise ValueError(f"it has no part {name}")


def has(path: Path, sha256: str) -> bool:
    """Say whether the file is there and is the right one."""
    return path.exists() and sha256_of_file(path) == sha256


@contextmanager
def whole_file(path: Path, sha256: str) -> Iterator[IO[bytes]]:
    """Give a stream to write; the file gets its name only when it is complete and has this sha256, else it is removed.

    Raises
    ------
    SampleError
        What was written has another sha256.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as stream:
            yield stream
        found = sha256_of_file(temporary)
        if found != sha256:
            raise SampleError(
                f"{path.name} is not the file that was wanted: its sha256 is {found}, not {sha256}. "
                "It was removed; nothing of it is used"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_inv3(path: Path) -> Volume:
    """Read the CT out of an InVesalius project.

    ``main.plist`` gives shape and spacing. InVesalius keeps rows as VTK does, from the bottom of the picture up: in the
    one file that this is for, the first row is at the back of the head and the first slice at the jaw (seen in its
    pictures: the face and the frontal sinus lie at high rows, the vertex at high slices). Columns grow to the
    patient's left as in the DICOM slices, which VTK's reader flips from top to bottom only. No position is kept: the
    centre of the volume is put at 0.
    """
    with tarfile.open(path) as archive:
        parts = {Path(member.name).name: member for member in archive.getmembers()}
        description = plistlib.loads(_read(archive, parts["main.plist"]))
        voxels = np.frombuffer(_read(archive, parts[description["matrix"]["filename"]]), dtype="<i2")
    i, j, k = (float(s) for s in description["spacing"])
    array = voxels.reshape(description["matrix"]["shape"])[:, ::-1, :]
    size = (array.shape[2], array.shape[1], array.shape[0])
    origin = tuple(-(n - 1) / 2 * s for n, s in zip(size, (i, j, k), strict=True))
    return Volume(array.astype(np.float32), Grid(size, (i, j, k), origin), "CT", path.name)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise SampleError(f"{member.name} in the project is not a file")
    return file.read()
