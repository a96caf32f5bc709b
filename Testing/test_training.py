"""Whole runs: that a network learns, and that a run goes on where it was, however it ended."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from BrainFusionLib.errors import BrainFusionError, ImageFileError, SettingsError, WeightsError
from BrainFusionLib.fusion.network import network_from_weights
from BrainFusionLib.fusion.slices import fuse_slices
from BrainFusionLib.fusion.weights import load_weights
from BrainFusionLib.intensity import Stacks
from training.cache import SliceStore, open_store, prepare
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import Config, DataConfig, LogConfig, OptimiserConfig, ScheduleConfig, TrainingConfig
from training.config_file import read_config
from training.sources import source_of
from training.train import main, train

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "training" / "configs" / "smoke.toml"

# Mean absolute error on the unit scale. A copy of the MRI has 0.067, of the CT 0.076, their average 0.070.
LEARNED = 0.045


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # Two threads on a busy machine wait for each other most of the time.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared slices, shared by all runs here: imaging a phantom takes a second."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(cache):
    data = DataConfig("phantom", ["1"], ["2"], spacing_mm=12.0, slice_spacing_mm=25.0, size=[32, 16], cache=str(cache))
    return Config(
        data,
        network={"name": "fusion_net", "width": 2},
        training=TrainingConfig(epochs=4, batch_size=2, device="cpu", checkpoint_steps=3, ema=0.9, threads=1),
        log=LogConfig(steps=1, progress=False),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    """The folder of a run of `tiny` that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(tiny, folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of that run, to change."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, cache):
    """The smoke configuration's run; its folder, result and configuration."""
    folder = tmp_path_factory.mktemp("training") / "run"
    config = read_config(SMOKE, ["--data.cache", str(cache)])
    return folder, train(config, folder), config


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def curve_of(folder):
    """Everything in a log that does not depend on the clock."""
    timed = ("seconds", "slices_per_s", "waiting_share")
    return [{key: value for key, value in entry.items() if key not in timed} for entry in log_of(folder)]


def tensors_of(checkpoint):
    content = load_checkpoint(checkpoint)
    return {f"{kind}.{name}": tensor for kind in ("network", "trained") for name, tensor in content[kind].items()}


def assert_the_same_run(one, other):
    a, b = tensors_of(one / "last.pt"), tensors_of(other / "last.pt")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert load_weights(one / "weights.npz").manifest.sha256 == load_weights(other / "weights.npz").manifest.sha256
    assert curve_of(one) == curve_of(other)


def test_training_beats_copies_and_the_untrained_network(smoke):
    _, result, _ = smoke
    assert sorted(result.references) == ["average", "ct", "mri", "untrained"]
    assert result.heldout_loss < LEARNED < min(result.references.values())


def test_the_exported_network_has_the_heldout_loss(smoke):
    folder, result, config = smoke
    source = source_of(config, torch.device("cpu"))
    store = open_store(config, config.data.heldout_heads, source)
    batch = store.batch(range(len(store)))
    network = network_from_weights(load_weights(folder / "weights.npz"))
    fused = fuse_slices(network, Stacks(*batch.inputs.numpy().swapaxes(0, 1))).fused
    assert np.abs(fused - batch.label[:, 0].numpy()).mean() == pytest.approx(result.heldout_loss, abs=1e-6)


def test_exported_network_gives_the_golden_output(smoke):
    folder, _, _ = smoke
    with np.load(folder / "golden.npz") as golden:
        inputs, expected = golden["input"], golden["output"]
    assert inputs[0, 0].max() > 1  # there is bone in it
    fused = fuse_slices(
        network_from_weights(load_weights(folder / "weights.npz")), Stacks(*inputs.swapaxes(0, 1))
    ).fused
    np.testing.assert_allclose(fused, expected[:, 0], atol=1e-4)


def test_manifest_and_card_name_the_data(smoke):
    folder, result, config = smoke
    manifest = load_weights(folder / "weights.npz").manifest
    assert manifest.architecture == {"name": "fusion_net", "width": 8}
    assert "phantom heads 1..2" in manifest.training_data
    assert "labels: bone_over_mri" in manifest.training_data
    assert manifest.details["config"] == asdict(config)
    assert manifest.details["heldout_loss"] == result.heldout_loss
    assert sorted(manifest.details["data_sha256"]["train"]) == ["1", "2"]
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert manifest.sha256 in card
    assert "not for diagnosis" in card


def test_the_run_folder_records_the_run(smoke):
    folder, result, config = smoke
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == asdict(config)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["git"]
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    assert sorted(data["train"]) == ["1", "2"]
    assert len(data["heldout"]["101"]["made_sha256"]["ct.npy"]) == 64
    epochs = [entry for entry in log_of(folder) if "epoch" in entry]
    assert [entry["epoch"] for entry in epochs] == list(range(1, 9))
    assert min(entry["heldout_loss"] for entry in epochs) == result.heldout_loss
    assert all(0 <= entry["waiting_share"] <= 1 for entry in epochs)
    rates = [entry["learning_rate"] for entry in log_of(folder) if "learning_rate" in entry]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * rates[0]


# Trains as the command line would, but dies as a process does that is killed: at a step, or half way through writing
# the n-th checkpoint.
KILLED = """
import os, pathlib, signal, sys
import training.checkpoint, training.loop, training.train
how, when, *words = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
count = 0
def save_half(path, content, real=pathlib.Path.write_bytes):
    global count
    count += path.suffix == ".pt"
    if count < int(when):
        return real(path, content)
    real(path, content)
    os.truncate(path, os.path.getsize(path) // 2)
    die()
def step(self, number, parts, real=training.loop.Trainer._step):
    if number == int(when):
        die()
    return real(self, number, parts)
if how == "writing":
    pathlib.Path.write_bytes = save_half
else:
    training.loop.Trainer._step = step
sys.exit(training.train.main(words))
"""


def killed_run(how, when, words):
    command = [sys.executable, "-c", KILLED, how, str(when), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9 on Windows")
def test_killed_run_resumes_to_the_same_end(tmp_path, tiny, whole):
    config = tmp_path / "tiny.toml"
    config.write_text(toml_of(tiny), encoding="utf-8")
    words = ["--config", str(config), "--output", str(tmp_path / "killed")]
    killed_run("writing", 4, words)
    half_written = list((tmp_path / "killed").glob(".tmp-*"))
    assert half_written
    written_then = load_checkpoint(tmp_path / "killed" / "last.pt")["step"]
    killed_run("step", written_then + 4, [*words, "--resume"])
    assert load_checkpoint(tmp_path / "killed" / "last.pt")["step"] > written_then
    train(tiny, tmp_path / "killed", resume=True)
    assert_the_same_run(whole, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".tmp-*"))


def test_resuming_a_finished_run_changes_nothing(copied, tiny, whole):
    train(tiny, copied, resume=True)
    assert_the_same_run(whole, copied)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_like_one(tmp_path, tiny, whole):
    config = tmp_path / "tiny.toml"
    config.write_text(toml_of(tiny), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "training.train", "--config", str(config), "--output", str(tmp_path / "two")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    one, two = log_of(whole), log_of(tmp_path / "two")
    assert two[0]["world"] == 2
    for name in ("loss", "heldout_loss", "heldout_qabf"):
        alone, together = ([entry[name] for entry in log if name in entry] for log in (one, two))
        assert len(alone) > 3
        np.testing.assert_allclose(together, alone, rtol=2e-4)


def toml_of(config):
    tables = asdict(config)
    return "".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
        for table, entries in tables.items()
    )


def test_a_damaged_checkpoint_is_refused_with_the_remedy(copied, tiny):
    last = copied / "last.pt"
    whole = last.read_bytes()
    # One bit of a weight: torch.load itself would not notice.
    at = whole.index(tensors_of(last)["trained.down.4.2.bias"].numpy().tobytes())
    for content in (b"", whole[:-100], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        last.write_bytes(content)
        with pytest.raises(WeightsError, match=r"last\.pt: is damaged.*best\.pt instead, copy it over last\.pt"):
            train(tiny, copied, resume=True)
        assert last.read_bytes() == content


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it was run"),)

    torch.save({"format": 1, "step": 1, "network": Trap(), "config": {}}, tmp_path / "trap.pt")
    with pytest.raises(WeightsError, match=r"trap\.pt: is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "it was run").exists()


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pt: is missing"):
        load_checkpoint(tmp_path / "none.pt")


def test_the_seed_decides_the_weights(tmp_path, tiny, whole):
    torch.manual_seed(2)
    train(tiny, tmp_path / "two")
    assert_the_same_run(whole, tmp_path / "two")
    other = train(replace(tiny, training=replace(tiny.training, seed=1)), tmp_path / "three")
    assert other.weights.manifest.sha256 != load_weights(whole / "weights.npz").manifest.sha256


def heldout_loss_of(folder):
    return load_weights(folder / "weights.npz").manifest.details["heldout_loss"]


def test_accumulated_parts_equal_one_batch(tmp_path, tiny, whole):
    parts = train(replace(tiny, training=replace(tiny.training, accumulate=2)), tmp_path)
    assert parts.heldout_loss == pytest.approx(heldout_loss_of(whole), rel=2e-4)


def test_a_loss_of_nan_stops_the_run_and_keeps_the_batch(tmp_path, tiny):
    wild = replace(tiny, optimiser=OptimiserConfig("sgd", learning_rate=1e30))
    with pytest.raises(WeightsError, match=r"became (nan|inf).*optimiser\.learning_rate.*bad_batch_rank0\.pt"):
        train(wild, tmp_path)
    batch = torch.load(tmp_path / "bad_batch_rank0.pt", weights_only=True)
    assert batch["ct"].shape == batch["label"].shape == (2, 1, 32, 16)
    assert not (tmp_path / "weights.npz").exists()


def test_nan_in_data_stops_the_run_and_keeps_the_batch(tmp_path, tiny, monkeypatch):
    real = SliceStore.batch

    def with_nan(self, indices, flips=None):
        batch = real(self, indices, flips)
        if flips is not None:  # for training, not for judging
            batch.ct[0, 0, 5, 5] = torch.nan
        return batch

    monkeypatch.setattr(SliceStore, "batch", with_nan)
    with pytest.raises(WeightsError, match=r"loss became nan in step 1.*NaN in the data.*bad_batch"):
        train(tiny, tmp_path)
    assert torch.load(tmp_path / "bad_batch_rank0.pt", weights_only=True)["ct"].isnan().sum() == 1


def test_early_stopping_ends_a_stale_run(tmp_path, tiny):
    stuck = replace(
        tiny,
        optimiser=OptimiserConfig("sgd", learning_rate=1e-30),
        training=replace(tiny.training, epochs=50, early_stopping=2, ema=0.0),
    )
    train(stuck, tmp_path)
    assert [entry["epoch"] for entry in log_of(tmp_path) if "epoch" in entry] == [1, 2, 3]


def test_a_plateau_lowers_the_learning_rate(tmp_path, tiny):
    stuck = replace(
        tiny,
        optimiser=OptimiserConfig("sgd", learning_rate=1e-30),
        schedule=ScheduleConfig("plateau", patience=0, factor=0.5),
        training=replace(tiny.training, ema=0.0),
    )
    train(stuck, tmp_path)
    rates = [entry["learning_rate"] for entry in log_of(tmp_path) if "learning_rate" in entry]
    assert [rate / 1e-30 for rate in dict.fromkeys(rates)] == pytest.approx([1, 0.5, 0.25])


def test_bf16_trains_to_about_the_same(tmp_path, tiny, whole):
    rough = train(replace(tiny, training=replace(tiny.training, precision="bf16")), tmp_path)
    assert rough.heldout_loss != heldout_loss_of(whole)
    assert rough.heldout_loss == pytest.approx(heldout_loss_of(whole), rel=0.05)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, tiny):
    (tmp_path / "log.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"holds a training run already\. Add --resume"):
        train(tiny, tmp_path)
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == "precious"


def test_a_run_is_not_resumed_with_another_configuration(copied, tiny):
    other = replace(tiny, optimiser=OptimiserConfig(learning_rate=0.5))
    with pytest.raises(SettingsError, match=r"optimiser\.learning_rate = 0\.001, and 0\.5 was asked for"):
        train(other, copied, resume=True)


def test_the_command_trains_and_names_the_weights(tmp_path, tiny, caplog):
    config = tmp_path / "tiny.toml"
    config.write_text(toml_of(tiny), encoding="utf-8")
    words = ["--config", str(config), "--output", str(tmp_path / "run"), "--training.epochs", "1"]
    with caplog.at_level(logging.INFO):
        assert main([*words, "--network.width", "3"]) == 0
    assert f"--weights {tmp_path / 'run' / 'weights.npz'}" in caplog.text
    assert load_weights(tmp_path / "run" / "weights.npz").manifest.architecture["width"] == 3


def test_a_wrong_configuration_ends_with_code_2(tmp_path, caplog):
    assert main(["--config", str(tmp_path / "none.toml"), "--output", str(tmp_path / "run")]) == 2
    assert "none.toml" in caplog.text
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there_leave_no_folder_that_holds_a_run(tmp_path, tiny):
    wrong = replace(tiny, data=replace(tiny.data, source="png", path=str(tmp_path / "nowhere")))
    with pytest.raises(BrainFusionError, match="is not a folder"):
        train(wrong, tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_checkpoint_and_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    save_checkpoint(tmp_path / "last.pt", {"step": 1})
    before = (tmp_path / "last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ImageFileError, match=r"last\.pt: cannot be written .*Free some space"):
            save_checkpoint(tmp_path / "last.pt", {"step": 2, "network": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == before


def test_an_unknown_architecture_is_refused_before_preparation(tmp_path, tiny):
    with pytest.raises(WeightsError, match="'of_the_future'"):
        train(replace(tiny, network={"name": "of_the_future"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_uneven_batch_is_refused(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("training.distributed.Team.wait", lambda self: None)
    from training.data import open_data
    from training.distributed import Team
    from training.loop import Trainer
    from training.run_folder import RunFolder

    team = Team(0, 3, torch.device("cpu"))
    data = open_data(tiny, team.device)
    with pytest.raises(SettingsError, match=r"2 slices cannot be shared evenly by 3 processes.*multiple of 3"):
        Trainer(tiny, data, team, RunFolder(tmp_path / "run", tiny, resume=False))


def test_tensorboard_gets_numbers_slices_and_histograms(tmp_path, tiny):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(replace(tiny, training=replace(tiny.training, epochs=1), log=LogConfig(tensorboard=True, images=2)), tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert {"train_loss", "heldout_loss", "heldout_qabf"} <= set(tags["scalars"])
    assert tags["images"] == ["ct, mri, fused, label"]
    assert "output.weight" in tags["histograms"]


def test_the_weight_map_network_learns_without_labels(tmp_path, cache):
    words = "--label.kind none --loss.l1 0 --loss.qabf 1 --loss.bone 5 --loss.soft 5 --training.epochs 8"
    config = read_config(SMOKE, ["--data.cache", str(cache), *words.split(), "--optimiser.name", "adamw"])
    result = train(replace(config, network={"name": "fusion_net_alpha", "width": 8}), tmp_path)
    # Untrained it is the bone-over-MRI rule, which is far better than any copy.
    others = {name: loss for name, loss in result.references.items() if name != "untrained"}
    assert result.references["untrained"] < 0.5 * min(others.values())
    # The plain steps, which training leaves out, bring an untrained network near the optimum, too.
    assert result.heldout_loss < result.references["untrained"]
    epochs = [entry for entry in log_of(tmp_path) if "epoch" in entry and "train_loss" in entry]
    assert epochs[-1]["train_loss"] < 0.95 * epochs[0]["train_loss"]
    best = min(epochs, key=lambda entry: entry["heldout_loss"])
    assert best["heldout_bone"] < 2 / 255
    assert best["heldout_soft"] < 2 / 255


def test_prepared_head_is_reused(tiny, monkeypatch):
    source = source_of(tiny, torch.device("cpu"))
    prepare(tiny, ["1"], source, torch.device("cpu"))
    monkeypatch.setattr(source, "slices", lambda head: pytest.fail("made again"))
    prepare(tiny, ["1"], source, torch.device("cpu"))
