"""PreparedPair from every kind of source, their split, their labels, and the order that they are learned in."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from BrainFusionLib.errors import ImageContentError, ImageFileError, SettingsError
from BrainFusionLib.intensity import BONE_HU, bone_weight, hu_from_unit, windowed_bone_weight
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.volume import Volume
from training.cache import MADE_FROM, open_store, prepare
from training.config import Config, DataConfig, LabelConfig, TrainingConfig
from training.data import CachedStream, Prefetcher, open_data, split
from training.labels import rule_label
from training.make_original_data import main as make_original_data
from training.sources import source_of

CPU = torch.device("cpu")


def phantoms(cache, **changes):
    settings = {"spacing_mm": 12.0, "slice_spacing_mm": 25.0, "size": [32, 16], "cache": str(cache), **changes}
    return Config(DataConfig("phantom", ["1"], ["2"], **settings))


def stack_of(config, heads):
    source = source_of(config, CPU)
    prepare(config, heads, source, CPU)
    store = open_store(config, heads, source)
    return store, store.batch(range(len(store)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("kind", ["bone_over_mri", "laplacian", "wavelet"])
def test_labels_are_what_the_rule_makes_of_the_inputs(cache, kind):
    store, batch = stack_of(replace(phantoms(cache), label=LabelConfig(kind)), ["1"])
    assert len(store) > 5
    ct, mri, bone = (image[:, 0].numpy() for image in (batch.ct, batch.mri, batch.bone))
    np.testing.assert_allclose(batch.label[:, 0].numpy(), rule_label(kind, ct, mri, bone), atol=2e-3)
    np.testing.assert_allclose(bone, bone_weight(hu_from_unit(ct)), atol=0.05)


def test_prepared_slices_are_on_the_unit_scale(cache):
    _, batch = stack_of(phantoms(cache, contrasts=["T1", "T2"]), ["1", "2"])
    assert batch.inputs.shape[1:] == (3, 32, 16)
    assert batch.inputs.dtype == batch.label.dtype == torch.float32
    assert (hu_from_unit(batch.ct.numpy()) > BONE_HU).any()
    assert 0.9 < np.percentile(batch.mri.numpy(), 99.5) < 1.3


def test_prepared_slices_record_their_sources(cache):
    store, _ = stack_of(phantoms(cache), ["1"])
    told = store.made_from()["1"]
    assert told["slices"] == len(store)
    assert told["data"]["spacing_mm"] == 12.0
    assert len(told["made_sha256"]["mri.npy"]) == 64


def test_changed_settings_are_prepared_anew(cache):
    config = phantoms(cache)
    first, _ = stack_of(config, ["1"])
    other, _ = stack_of(phantoms(cache, contrasts=["T2"]), ["1"])
    labelled, _ = stack_of(replace(config, label=LabelConfig("maximum")), ["1"])
    assert other.folders != first.folders
    assert labelled.folders == first.folders
    optimum = LabelConfig("optimum", steps=2)
    for changed in (replace(optimum, steps=3), replace(optimum, bone=0.0), replace(optimum, learning_rate=0.02)):
        one, two = (stack_of(replace(config, label=label), ["1"]) for label in (optimum, changed))
        assert not torch.equal(one[1].label, two[1].label)


def test_training_and_heldout_heads_are_disjoint(cache):
    config = Config(replace(phantoms(cache).data, train_heads=["1..5"], heldout_heads=["5..6"]))
    with pytest.raises(SettingsError, match=r"\['5'\] are in both lists"):
        split(config, source_of(config, CPU))
    apart = Config(replace(config.data, heldout_heads=["6..7"]))
    assert split(apart, source_of(apart, CPU)) == (["1", "2", "3", "4", "5"], ["6", "7"])


def test_no_slice_of_a_heldout_head_is_learned_from(cache):
    config = phantoms(cache)
    data = open_data(config, CPU)
    learned = data.stream.part(0, 0, 1)
    for step in range(data.stream.steps_per_epoch):
        learned = data.stream.part(step, 0, 1)
        judged = data.heldout.batch(range(len(data.heldout)))
        assert not any(torch.equal(a, b) for a in learned.mri for b in judged.mri)


def test_every_epoch_shows_every_slice_in_another_order(cache):
    store, _ = stack_of(phantoms(cache), ["1", "2"])
    stream = CachedStream(store, 3, seed=5, flip=False)
    count = len(store)
    ids = [index for step in range(count) for index in stream.ids(step)]
    epochs = [ids[n * count : (n + 1) * count] for n in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert ids[: len(ids)] == [i for step in range(count) for i in CachedStream(store, 3, 5, flip=False).ids(step)]
    assert ids != [i for step in range(count) for i in CachedStream(store, 3, 6, flip=False).ids(step)]


def test_processes_share_a_batch_without_overlap(cache):
    store, _ = stack_of(phantoms(cache), ["1", "2"])
    stream = CachedStream(store, 4, seed=1, flip=True)
    for step in (0, 7):
        whole, shares = stream.part(step, 0, 1), [stream.part(step, rank, 2) for rank in range(2)]
        assert not set(shares[0].ids.tolist()) & set(shares[1].ids.tolist())
        for name, tensor in whole.tensors().items():
            assert torch.equal(tensor, torch.cat([share.tensors()[name] for share in shares]))


def test_half_of_the_slices_are_mirrored_all_images_alike(cache):
    store, _ = stack_of(phantoms(cache), ["1"])
    plain = store.batch([3], [False])
    mirrored = store.batch([3], [True])
    for name in ("ct", "mri", "bone", "label"):
        assert torch.equal(getattr(plain, name).flip(3), getattr(mirrored, name))


def test_an_error_while_fetching_reaches_whoever_waits():
    def fetch(step):
        if step == 2:
            raise ValueError("no more")
        return []

    prefetcher = Prefetcher(fetch, 0, 5)
    steps = iter(prefetcher)
    assert [next(steps)[0], next(steps)[0]] == [0, 1]
    with pytest.raises(ValueError, match="no more"):
        next(steps)
    prefetcher.close()


# ---------------------------------------------------------------------------- volumes in files


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A registered pair of coarse volumes of phantom 1, as NIfTI."""
    folder = tmp_path_factory.mktemp("volumes")
    grid, phantom = head_grid(8.0), make_phantom(1)
    write_volume(phantom.ct(grid), folder / "ct.nii.gz")
    write_volume(phantom.mri("T1", grid), folder / "mri.nii.gz")
    return folder


def manifest_of(folder, cache, rows, kind="bone_over_mri"):
    (folder / "pairs.csv").write_text("head,ct,mri,fused,registered\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = DataConfig("manifest", ["a"], ["b"], path=str(folder / "pairs.csv"), size=[32, 32], cache=str(cache))
    return Config(data, label=LabelConfig(kind))


def test_a_manifest_names_registered_pairs_in_any_format(volumes, cache):
    config = manifest_of(volumes, cache, ["a,ct.nii.gz,mri.nii.gz,,yes", "b,ct.nii.gz,mri.nii.gz,,yes"])
    store, batch = stack_of(config, ["a"])
    ct = read_volume(volumes / "ct.nii.gz", modality="CT")
    assert 15 < len(store) <= ct.grid.size_ijk[2]
    inside = hu_from_unit(batch.ct.numpy())
    assert np.percentile(inside[batch.bone.numpy() == 1], 50) > BONE_HU
    assert batch.label.shape == batch.ct.shape


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ("a,none.nii.gz,mri.nii.gz,,yes", ImageFileError, r"none\.nii\.gz: is missing"),
        ("a,ct.nii.gz,,,yes", SettingsError, r"pairs\.csv, line 2: head, ct and mri are needed"),
        ("a,ct.nii.gz,mri.nii.gz,,perhaps", SettingsError, r"line 2: registered must be yes or no; got 'perhaps'"),
        ("a,mri.nii.gz,ct.nii.gz,,yes", ImageContentError, r"mri\.nii\.gz and .*ct\.nii\.gz: .*not in Hounsfield"),
        ("a,broken.nii.gz,mri.nii.gz,,yes", ImageFileError, r"broken\.nii\.gz: "),
    ],
)
def test_faulty_manifest_is_rejected_by_file_or_line(volumes, tmp_path, row, error, message):
    (volumes / "broken.nii.gz").write_bytes((volumes / "ct.nii.gz").read_bytes()[:5000])
    with pytest.raises(error, match=message):
        stack_of(manifest_of(volumes, tmp_path, [row]), ["a"])
    assert not list(tmp_path.glob(f"*/{MADE_FROM}"))


def test_a_fused_volume_of_another_shape_is_refused(volumes, tmp_path):
    mri = read_volume(volumes / "mri.nii.gz")
    smaller = Volume(mri.array_kji[1:], replace(mri.grid, size_ijk=(*mri.grid.size_ijk[:2], len(mri.array_kji) - 1)))
    write_volume(smaller, volumes / "fused.nii.gz")
    row = "a,ct.nii.gz,mri.nii.gz,fused.nii.gz,yes"
    with pytest.raises(ImageContentError, match=r"fused\.nii\.gz: must have the MRI's"):
        stack_of(manifest_of(volumes, tmp_path, [row], "given"), ["a"])
    with pytest.raises(SettingsError, match=r"label\.kind is given, but this pair has no fused volume"):
        stack_of(manifest_of(volumes, tmp_path, ["a,ct.nii.gz,mri.nii.gz,,yes"], "given"), ["a"])


def test_tilde_in_a_configuration_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ImageFileError, match=rf"{tmp_path}/pairs\.csv: cannot be read"):
        stack_of(Config(DataConfig("manifest", ["a"], ["b"], path="~/pairs.csv")), ["a"])


def test_missing_manifest_is_reported(tmp_path):
    config = Config(DataConfig("manifest", ["a"], ["b"], path=str(tmp_path / "none.csv")))
    with pytest.raises(ImageFileError, match=r"none\.csv: cannot be read as a manifest"):
        source_of(config, CPU)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two phantoms in the original project's layout, a quarter as many pixels and slices."""
    folder = tmp_path_factory.mktemp("original")
    words = ["--output", str(folder), "--heads", "phantom-1", "phantom-2", "--rule", "bone_over_mri", "--shrink", "4"]
    assert make_original_data(words) == 0
    return folder


def test_original_layout_is_valid_analyze(original):
    ct, mri, fused = (read_volume(original / "phantom-1" / f"{name}.img") for name in ("ct", "mri", "fused"))
    assert ct.grid.size_ijk == (64, 64, 206 // 4)
    assert mri.grid.size_ijk == fused.grid.size_ijk == (64, 64, 220 // 4)
    header = (original / "phantom-1" / "ct.hdr").read_bytes()
    assert len(header) == 348
    assert header[344:348] == bytes(4)
    assert any("Analyze" in note or "orientation" in note for note in ct.notes)


def test_the_original_layout_is_registered_and_labelled(original, cache):
    data = DataConfig("original", ["phantom-1"], ["phantom-2"], path=str(original), size=[64, 64], cache=str(cache))
    config = Config(data, label=LabelConfig("given"))
    store, batch = stack_of(config, ["phantom-1"])
    assert len(store) > 40
    # The label was made from the CT in its true place; what the registered CT gives differs at edges alone.
    again = batch.bone * batch.ct + (1 - batch.bone) * batch.mri
    apart = batch.mri
    assert (again - batch.label).abs().mean() < 0.3 * (apart - batch.label).abs().mean()
    unturned = read_volume(original / "phantom-1" / "ct.img").array_kji
    assert unturned.shape[0] == 51


def test_folder_without_the_original_layout_is_rejected(tmp_path):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "ct.img").write_bytes(b"")
    data = DataConfig("original", ["a"], ["b"], path=str(tmp_path))
    with pytest.raises(ImageFileError, match=r"head: must hold ct\.img/\.hdr and mri\.img/\.hdr.*it has ct\.img"):
        source_of(Config(data), CPU)
    with pytest.raises(ImageFileError, match=r"elsewhere: is not a folder"):
        source_of(Config(replace(data, path=str(tmp_path / "elsewhere"))), CPU)


# ---------------------------------------------------------------------------- PNG pairs


@pytest.fixture
def pictures(tmp_path):
    """Slices 1001, 1002 of head 1 and 2001 of head 2, 32x32."""
    rng = np.random.default_rng(0)
    for kind in ("CT", "MRI"):
        (tmp_path / kind).mkdir()
        for name in ("1001", "1002", "2001"):
            Image.fromarray(rng.integers(0, 256, (32, 32)).astype(np.uint8)).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def test_pictures_are_split_by_patient_and_their_levels_kept(pictures, cache):
    data = DataConfig("png", ["1"], ["2"], path=str(pictures), size=[32, 32], cache=str(cache))
    config = Config(data)
    assert split(config, source_of(config, CPU)) == (["1"], ["2"])
    store, batch = stack_of(config, ["1"])
    assert len(store) == 2
    levels = np.asarray(Image.open(pictures / "CT" / "1002.png"), np.float32)
    np.testing.assert_allclose(batch.ct[1, 0].numpy() * 255, levels, atol=0.1)
    mri = np.asarray(Image.open(pictures / "MRI" / "1002.png"), np.float32)
    np.testing.assert_allclose(batch.bone[1, 0].numpy(), windowed_bone_weight(levels, mri), atol=1e-3)


def test_slices_that_are_excluded_are_not_there(pictures, cache):
    data = DataConfig("png", ["1"], ["2"], path=str(pictures), size=[32, 32], exclude=["1002"], cache=str(cache))
    assert len(stack_of(Config(data), ["1"])[0]) == 1


def test_pictures_with_a_fault_are_refused_by_name(pictures, cache):
    data = DataConfig("png", ["1"], ["2"], path=str(pictures), size=[32, 32], cache=str(cache))
    with pytest.raises(SettingsError, match=r"there is no head '7'; there are 1, 2"):
        source_of(Config(data), CPU).names(["7"])
    Image.new("L", (16, 16)).save(pictures / "MRI" / "2001.png")
    with pytest.raises(ImageContentError, match=r"CT/2001\.png has \(32, 32\) pixels, but MRI/2001\.png \(16, 16\)"):
        stack_of(Config(data), ["2"])
    (pictures / "MRI" / "1001.png").unlink()
    with pytest.raises(ImageFileError, match=r"1001\.png: is missing"):
        stack_of(Config(data), ["1"])


def test_the_data_of_a_configuration_survives_json(cache):
    config = phantoms(cache)
    assert Config(DataConfig(**asdict(config)["data"]), training=TrainingConfig()) == config
