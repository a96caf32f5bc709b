import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from BrainFusionLib.errors import SettingsError, WeightsError
from BrainFusionLib.intensity import BONE_HU, bone_weight, hu_from_unit
from BrainFusionLib.network import network_from_weights
from BrainFusionLib.rules import RULES
from BrainFusionLib.slices import fuse_slices
from BrainFusionLib.weights import load_weights
from training.config import Config, DataConfig, TrainingConfig, read_config
from training.data import make_slices
from training.train import main, train

SMOKE = Path(__file__).parents[1] / "training" / "configs" / "smoke.toml"

# Mean absolute error on the unit scale. A copy of the MRI has 0.062, of the CT 0.077, the best constant 0.21.
LEARNED = 0.05

COARSE = DataConfig([1], [2], spacing_mm=12.0, slice_spacing_mm=25.0)
TINY = Config(COARSE, {"name": "fusion_net", "width": 2}, TrainingConfig(epochs=2, device="cpu"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # Two threads on a busy machine wait for each other most of the time.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def _heads_are_made_once():
    # The same few heads are wanted by many tests, and imaging one takes a second.
    made = {}

    def make_slices_once(heads, config):
        key = (tuple(heads), repr(config))
        if key not in made:
            made[key] = make_slices(heads, config)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.train.make_slices", make_slices_once)
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke run with a narrower network and one contrast, to be done in seconds; its folder and its result."""
    folder = tmp_path_factory.mktemp("training") / "run"
    config = read_config(SMOKE)
    config = Config(
        replace(config.data, train_heads=[1, 2], contrasts=["T1"]),
        {"name": "fusion_net", "width": 4, "seed": 0},
        replace(config.training, epochs=5, batch_size=2, learning_rate=5e-3),
    )
    return folder, train(config, folder), config


def test_the_network_learns_what_no_constant_no_copy_and_no_untrained_network_reaches(smoke):
    _, result, _ = smoke
    assert sorted(result.references) == ["constant", "ct", "mri", "untrained"]
    assert result.heldout_loss < LEARNED < min(result.references.values())


def test_the_exported_weights_are_the_network_that_was_measured(smoke):
    folder, result, config = smoke
    weights = load_weights(folder / "weights.npz")
    inputs, labels = (tensor.numpy() for tensor in make_slices(config.data.heldout_heads, config.data).tensors)
    fused = fuse_slices(network_from_weights(weights), inputs[:, 0], inputs[:, 1])
    assert np.abs(fused - labels[:, 0]).mean() == pytest.approx(result.heldout_loss, abs=1e-6)


def test_the_manifest_says_what_the_weights_were_made_from(smoke):
    folder, result, config = smoke
    manifest = load_weights(folder / "weights.npz").manifest
    assert manifest.architecture == {"name": "fusion_net", "width": 4}
    assert "phantom" in manifest.training_data
    assert "bone_over_mri" in manifest.training_data
    assert manifest.details["config"] == asdict(config)
    assert manifest.details["heldout_loss"] == result.heldout_loss


def test_the_log_has_a_line_for_the_run_and_one_for_each_epoch(smoke):
    folder, result, config = smoke
    first, *epochs = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first["config"] == asdict(config)
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3, 4, 5]
    assert epochs[-1]["heldout_loss"] == result.heldout_loss
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    rates = [entry["learning_rate"] for entry in epochs]
    assert rates[0] == 5e-3
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]


def test_the_same_configuration_gives_the_same_weights(tmp_path):
    torch.manual_seed(1)
    first = train(TINY, tmp_path / "one").weights
    torch.manual_seed(2)
    assert train(TINY, tmp_path / "two").weights.manifest.sha256 == first.manifest.sha256
    other = replace(TINY, training=replace(TINY.training, seed=1))
    assert train(other, tmp_path / "three").weights.manifest.sha256 != first.manifest.sha256


def test_a_loss_that_is_no_longer_a_number_stops_the_run_and_exports_nothing(tmp_path):
    wild = replace(TINY, training=replace(TINY.training, learning_rate=1e30))
    with pytest.raises(WeightsError, match=r"loss became (nan|inf).*learning_rate"):
        train(wild, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "log.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(SettingsError, match="holds a training run already"):
        train(TINY, tmp_path)
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == "precious"


def test_the_command_trains_and_says_where_the_weights_are(tmp_path, caplog):
    config = tmp_path / "tiny.toml"
    config.write_text(
        "[data]\ntrain_heads = [1]\nheldout_heads = [2]\nspacing_mm = 12\nslice_spacing_mm = 25.0\n"
        '[network]\nname = "fusion_net"\nwidth = 2\n[training]\nepochs = 1\ndevice = "cpu"\n',
        encoding="utf-8",
    )
    with caplog.at_level(logging.INFO):
        assert main(["--config", str(config), "--output", str(tmp_path / "run")]) == 0
    assert f"--weights {tmp_path / 'run' / 'weights.npz'}" in caplog.text
    assert load_weights(tmp_path / "run" / "weights.npz").manifest.architecture["width"] == 2


def test_the_command_answers_a_wrong_configuration_with_one_message_and_exit_code_2(tmp_path, caplog):
    assert main(["--config", str(tmp_path / "none.toml"), "--output", str(tmp_path / "run")]) == 2
    assert "none.toml" in caplog.text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rule", ["bone_over_mri", "laplacian"])
def test_labels_are_what_the_rule_makes_of_the_inputs(rule):
    inputs, labels = (tensor.numpy() for tensor in make_slices([1], replace(COARSE, rule=rule)).tensors)
    rows, columns = 19, 16  # before padding, at 12 mm
    ct, mri = inputs[:, 0, :rows, :columns], inputs[:, 1, :rows, :columns]
    expected = RULES[rule](ct, mri, bone_weight(hu_from_unit(ct)))
    np.testing.assert_allclose(labels[:, 0, :rows, :columns], expected, atol=1e-4)


@pytest.fixture(scope="module")
def two_heads():
    """Inputs and labels of heads 1 and 2, each as T1 and as T2."""
    return make_slices([1, 2], replace(COARSE, contrasts=["T1", "T2"])).tensors


def test_the_same_head_gives_the_same_slices(two_heads):
    again = make_slices([1], COARSE).tensors
    assert all(torch.equal(new, old[: len(new)]) for new, old in zip(again, two_heads, strict=True))


def test_slices_are_on_the_unit_scale_and_suit_the_network(two_heads):
    inputs, labels = two_heads
    assert inputs.shape[1:] == (2, 32, 16)
    assert labels.shape == (len(inputs), 1, 32, 16)
    assert len(inputs) in (2 * 2 * 8, 2 * 2 * 9)  # 200 mm of head, 25 mm apart
    assert inputs.dtype == labels.dtype == torch.float32
    ct, mri = inputs[:, 0].numpy(), inputs[:, 1].numpy()
    assert (hu_from_unit(ct) > BONE_HU).any()
    assert np.percentile(mri, 0.5) == pytest.approx(0, abs=0.02)
    assert 0.9 < np.percentile(mri, 99.5) < 1.3


def test_heads_and_contrasts_differ(two_heads):
    one_t1, one_t2, other_t1, _ = two_heads[0].chunk(4)
    assert not torch.equal(one_t1, other_t1)
    assert not torch.equal(one_t1[:, 1], one_t2[:, 1])
    assert torch.equal(one_t1[:, 0], one_t2[:, 0])  # the CT has no contrast


def test_the_smoke_configuration_says_all_that_there_is_to_say():
    config = read_config(SMOKE)
    assert config.network == {"name": "fusion_net", "width": 8, "seed": 0}
    assert config.data.rule == "bone_over_mri"
    assert config.training.learning_rate == 3e-3


HEADS = "train_heads = [1]\nheldout_heads = [2]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[data]\n{HEADS}[optimiser]\nname = 'adam'\n", r"unknown key optimiser; there are data, network, training"),
        (f"[data]\n{HEADS}colour = 1\n", r"unknown key data\.colour; there are train_heads"),
        (f"[data]\n{HEADS}[training]\nlearningrate = 1\n", r"unknown key training\.learningrate"),
        ("[training]\nepochs = 1\n", r"a table \[data\] is needed"),
        ("[data]\ntrain_heads = [1]\n", r"table \[data\] is not complete.*heldout_heads"),
        ("[data]\ntrain_heads = [1, 2]\nheldout_heads = [2]\n", r"\[2\] are in both lists"),
        ("[data]\ntrain_heads = []\nheldout_heads = [2]\n", r"at least one head"),
        ("[data]\ntrain_heads = [-1]\nheldout_heads = [2]\n", r"0 or more; got -1"),
        ("[data]\ntrain_heads = ['a']\nheldout_heads = [2]\n", r"data\.train_heads: must be list\[int\]"),
        (f"[data]\n{HEADS}rule = 'magic'\n", r"'magic' is unknown; there are bone_over_mri"),
        (f"[data]\n{HEADS}contrasts = ['T9']\n", r"\['T9'\] are unknown; there are T1"),
        (f"[data]\n{HEADS}contrasts = []\n", r"data\.contrasts: at least one"),
        (f"[data]\n{HEADS}spacing_mm = 0\n", r"spacings must be more than 0"),
        (f"[data]\n{HEADS}[training]\nepochs = 0\n", r"training\.epochs.*got 0"),
        (f"[data]\n{HEADS}[training]\nepochs = true\n", r"training\.epochs: must be int; got True"),
        (f"[data]\n{HEADS}[training]\nbatch_size = 0\n", r"training\.batch_size.*got 0"),
        (f"[data]\n{HEADS}[training]\nlearning_rate = -1.0\n", r"training\.learning_rate.*got -1"),
        (f"network = 3\n[data]\n{HEADS}", r"must be a table \[network\]"),
        ("[data\n", r"cannot be read as a TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_key(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"wrong\.toml: .*{message}"):
        read_config(path)


def test_an_architecture_that_is_not_there_is_refused_before_heads_are_made(tmp_path):
    with pytest.raises(WeightsError, match="'of_the_future'"):
        train(replace(TINY, network={"name": "of_the_future"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
