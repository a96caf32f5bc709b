import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import __version__
from BrainFusionLib.errors import ImageFileError, WeightsError
from BrainFusionLib.fusion import weights
from BrainFusionLib.fusion.weights import Manifest, load_weights, save_weights


def _manifest(**changes):
    return Manifest(
        **{
            "architecture": {"name": "fusion_net", "width": 2},
            "licence": "Apache-2.0",
            "training_data": "the project's phantom",
            "details": {"rule": "wavelet", "heads": [1, 2]},
            **changes,
        }
    )


def _arrays():
    generator = np.random.default_rng(0)
    return {"a.weight": generator.normal(size=(2, 3)).astype(np.float32), "a.bias": np.zeros(3, np.float32)}


def _put(folder, content, **changes):
    """Write a pair of files whose sha256 fits, with any bytes as the arrays."""
    save_weights(folder / "net.npz", _arrays(), _manifest())
    (folder / "net.npz").write_bytes(content)
    entries = json.loads((folder / "net.json").read_text(encoding="utf-8"))
    entries |= {"sha256": hashlib.sha256(content).hexdigest(), **changes}
    (folder / "net.json").write_text(json.dumps(entries), encoding="utf-8")


@pytest.mark.parametrize("name", ["net.npz", "net.json"])
def test_weights_are_found_by_either_name(tmp_path, name):
    saved = save_weights(tmp_path / name, _arrays(), _manifest())
    loaded = load_weights(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.npz"]
    assert loaded.path == saved.path == tmp_path / "net.npz"
    assert loaded.manifest == saved.manifest
    assert loaded.arrays.keys() == _arrays().keys()
    for tensor, array in _arrays().items():
        assert loaded.arrays[tensor].dtype == np.float32
        np.testing.assert_array_equal(loaded.arrays[tensor], array)


def test_the_manifest_says_what_a_reader_needs_to_know(tmp_path):
    save_weights(tmp_path / "net.npz", _arrays(), _manifest())
    entries = json.loads((tmp_path / "net.json").read_text(encoding="utf-8"))
    assert entries["architecture"] == {"name": "fusion_net", "width": 2}
    assert entries["sha256"] == hashlib.sha256((tmp_path / "net.npz").read_bytes()).hexdigest()
    assert entries["library_version"] == __version__
    assert entries["input_normalisation"]["ct_knots_hu"][0] == -1000
    assert entries["created"].endswith("+00:00")
    assert entries["licence"] == "Apache-2.0"


def test_the_same_arrays_give_the_same_file(tmp_path):
    first = save_weights(tmp_path / "one.npz", _arrays(), _manifest())
    assert first.manifest.sha256 == save_weights(tmp_path / "two.npz", _arrays(), _manifest()).manifest.sha256


def test_one_changed_byte_is_noticed(tmp_path):
    save_weights(tmp_path / "net.npz", _arrays(), _manifest())
    content = bytearray((tmp_path / "net.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "net.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.npz.*sha256.*Get both again"):
        load_weights(tmp_path / "net.npz")


@pytest.mark.parametrize("name", ["net.npz", "net.json"])
def test_a_missing_file_is_named_with_the_remedy(tmp_path, name):
    save_weights(tmp_path / "net.npz", _arrays(), _manifest())
    (tmp_path / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}.*side by side"):
        load_weights(tmp_path / "net.npz")


def test_a_name_of_another_kind_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"net\.pt.*NAME\.npz"):
        load_weights(tmp_path / "net.pt")


class _RunsWhenUnpickled:
    ran = False

    def __reduce__(self):
        return setattr, (_RunsWhenUnpickled, "ran", True)


def test_a_pickled_object_is_refused_and_never_run(tmp_path):
    with (tmp_path / "evil.npz").open("wb") as stream:
        np.savez(stream, evil=np.array([_RunsWhenUnpickled()], dtype=object))
    _put(tmp_path, (tmp_path / "evil.npz").read_bytes())
    with pytest.raises(WeightsError, match=r"net\.npz.*plain arrays"):
        load_weights(tmp_path / "net.npz")
    assert not _RunsWhenUnpickled.ran


def _npy_bytes(folder):
    np.save(folder / "one.npy", np.zeros(3))
    return (folder / "one.npy").read_bytes()


def _truncated_bytes(folder):
    return save_weights(folder / "whole.npz", _arrays(), _manifest()).path.read_bytes()[:-40]


@pytest.mark.parametrize("make", [_npy_bytes, _truncated_bytes, lambda _: b"", lambda _: b"not an archive"])
def test_a_damaged_archive_is_refused(tmp_path, make):
    _put(tmp_path, make(tmp_path))
    with pytest.raises(WeightsError, match=r"net\.npz: holds something else than plain arrays"):
        load_weights(tmp_path / "net.npz")


def test_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_MOST_BYTES", 1 << 20)
    with (tmp_path / "bomb.npz").open("wb") as stream:
        np.savez_compressed(stream, a=np.zeros(1 << 20))
    _put(tmp_path, (tmp_path / "bomb.npz").read_bytes())
    with pytest.raises(WeightsError, match=r"net\.npz: .*unpacks to 8388"):
        load_weights(tmp_path / "net.npz")


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array(["a"]), np.array([1j])])
def test_arrays_that_are_not_finite_are_refused(tmp_path, bad):
    with pytest.raises(WeightsError, match=r"'a\.bias'"):
        save_weights(tmp_path / "net.npz", {"a.bias": bad}, _manifest())
    assert list(tmp_path.iterdir()) == []
    with (tmp_path / "bad.npz").open("wb") as stream:
        np.savez(stream, **{"a.bias": bad})
    _put(tmp_path, (tmp_path / "bad.npz").read_bytes())
    with pytest.raises(WeightsError, match=r"'a\.bias'"):
        load_weights(tmp_path / "net.npz")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"surprise": 1}', "{", "\x00"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    save_weights(tmp_path / "net.npz", _arrays(), _manifest())
    (tmp_path / "net.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"net\.json: is not a manifest"):
        load_weights(tmp_path / "net.npz")


def test_manifest_entry_of_the_wrong_type_is_named(tmp_path):
    content = save_weights(tmp_path / "net.npz", _arrays(), _manifest()).path.read_bytes()
    _put(tmp_path, content, architecture="fusion_net")
    with pytest.raises(WeightsError, match=r"'architecture' must be a dict"):
        load_weights(tmp_path / "net.npz")


def test_weights_for_another_input_scale_are_refused(tmp_path):
    content = save_weights(tmp_path / "net.npz", _arrays(), _manifest()).path.read_bytes()
    _put(tmp_path, content, input_normalisation={"ct": "window 40/80", "mri": "z-score"})
    with pytest.raises(WeightsError, match=r"window 40/80.*Use weights made for this version"):
        load_weights(tmp_path / "net.npz")


def test_a_failed_save_keeps_the_old_weights(tmp_path, monkeypatch):
    old = save_weights(tmp_path / "net.npz", _arrays(), _manifest())

    def full_disk(stream, **_):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(ImageFileError, match=r"net\.npz.*No space left"):
        save_weights(tmp_path / "net.npz", {"b": np.ones(5, np.float32)}, _manifest())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.npz"]
    assert load_weights(tmp_path / "net.npz").manifest == old.manifest


def test_reading_weights_does_not_import_torch():
    code = "import sys, BrainFusionLib.fusion.weights; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
