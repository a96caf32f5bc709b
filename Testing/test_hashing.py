"""The one sha256 helper."""

from __future__ import annotations

import hashlib
from pathlib import Path

from BrainFusionLib.io.hashing import PIECE_BYTES, sha256_of, sha256_of_bytes, sha256_of_file, sha256_of_folder


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 100)  # more than one piece
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_of_file(tmp_path / "file") == sha256_of_bytes(content) == sha256_of(tmp_path / "file") == expected


def test_a_folder_depends_on_contents_and_names(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate([{"a": b"1"}, {"b": b"1"}, {"a": b"2"}, {"a": b"1", "s/b": b"1"}, {"a": b"1b\0"}]):
        for name, content in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digests.add(sha256_of_folder(tmp_path / str(number)))
    assert len(digests) == 5


def test_a_folder_that_was_copied_has_the_same_digest(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        for name in ("deep/z", "a") if folder == "one" else ("a", "deep/z"):
            (tmp_path / folder / name).write_bytes(name.encode())
    assert sha256_of(tmp_path / "one") == sha256_of(tmp_path / "other")
